"""How much people would like an image: CLIP and an MLP on its unit embedding (spec `mono-training.md` section 9).

B batch, H W pixels, P width of CLIP's embedding. Images are RGB in -1..1.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Linear
from bridgedepth_jax.networks.clip_vision import ClipVisionConfig, ClipVisionModelWithProjection, clip_normalize
from bridgedepth_jax.ops.resize import resize_antialiased

WIDTHS = (1024, 128, 64, 16, 1)
ITEMS = (0, 2, 4, 6, 7)  # of the original's list: dropouts stand between them


class AestheticMlp(nn.Module):
    """Linear layers without activations, as published."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B P"]) -> Float[Array, "B"]:
        for item, width in zip(ITEMS, WIDTHS, strict=True):
            x = Linear(width, dtype=self.dtype, name=f"layers_{item}")(x)
        return x[:, 0]


def clip_pixels(image: Float[Array, "B H W 3"], size: int) -> Float[Array, "B S S 3"]:
    """Clipped, resized with antialias whatever the aspect, normalised."""
    return clip_normalize(resize_antialiased(jnp.clip(image / 2 + 0.5, 0, 1), (size, size)))


def unit(embedding: Float[Array, "B P"]) -> Float[Array, "B P"]:
    return embedding / jnp.sqrt(jnp.sum(jnp.square(embedding), axis=-1, keepdims=True))


def aesthetic_score(
    clip: Any, mlp: Any, image: Float[Array, "B H W 3"], config: ClipVisionConfig, *, remat: bool = False
) -> Float[Array, "B"]:
    """The score, some 1 to 10 for photographs; `clip` and `mlp` are the parameters of both networks."""
    embedding: Any = ClipVisionModelWithProjection(config, remat).apply({"params": clip}, clip_pixels(image, config.image_size))
    score: Any = AestheticMlp(jnp.dtype(config.dtype)).apply({"params": mlp}, unit(embedding))
    return score
