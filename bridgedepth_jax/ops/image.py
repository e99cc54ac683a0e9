"""Images as networks want them. Letters: B batch, H W size."""

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


def padding(height: int, width: int, multiple: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """What an image lacks to sides that are multiples, as `pad` takes it: ((top, 0), (0, right)), in pixels.

    Rows go on top and columns to the right, as the original pads; the edge is repeated, and results are cropped by the same.
    """
    return (-height % multiple, 0), (0, -width % multiple)
