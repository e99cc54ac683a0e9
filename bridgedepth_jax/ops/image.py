"""Images as networks want them."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# ImageNet, of RGB in 0..255; rounded to float32 as in the original's buffers, also when computing in float64.
MEAN = np.asarray((123.675, 116.28, 103.53), np.float32)
STD = np.asarray((58.395, 57.12, 57.375), np.float32)


def normalize(image: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """RGB in 0..255 to ImageNet's zero mean and unit deviation."""
    mean, std = (jnp.asarray(v, image.dtype).reshape(1, 1, 1, 3) for v in (MEAN, STD))
    return (image - mean) / std
