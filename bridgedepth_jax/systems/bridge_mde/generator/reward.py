"""What the generator is rewarded for: that its images show the depth they were made from, and that they please.

Paper section 3 and spec `mono-training.md` section 8. B batch, H W pixels.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

DEPTH, AESTHETIC = 0.9, 0.1  # the paper's weights
LEAST_NORM = 1e-12


def depth_loss(
    generated: Float[Array, "B H W"],
    source: Float[Array, "B H W"],
    mask: Bool[Array, "B H W"] | None = None,
    *,
    centred: bool = True,
) -> Float[Array, "B"]:
    """1 - cosine of two inverse depth maps over an image's valid pixels, both centred by their mean there.

    Not centred is the paper's letter: positive maps of unrelated scenes then agree by 0.8.
    """
    mask = jnp.ones(source.shape, bool) if mask is None else mask
    count = jnp.maximum(jnp.sum(mask, axis=(1, 2), keepdims=True, dtype=generated.dtype), 1)

    def prepared(d: Array) -> Array:
        d = jnp.where(mask, d, 0)
        return jnp.where(mask, d - jnp.sum(d, axis=(1, 2), keepdims=True) / count, 0) if centred else d

    a, b = prepared(generated), prepared(source.astype(generated.dtype))
    dot = lambda x, y: jnp.sum(x * y, axis=(1, 2))
    return 1 - dot(a, b) / jnp.sqrt(jnp.maximum(dot(a, a) * dot(b, b), LEAST_NORM**2))


class Rewards(NamedTuple):
    """Means over images."""

    loss: Float[Array, ""]
    depth_loss: Float[Array, ""]
    aesthetic: Float[Array, ""]


def combine(depth: Float[Array, "B"], aesthetic: Float[Array, "B"] | None) -> Rewards:
    """What is minimised: 0.9 of the depth loss less 0.1 of the score."""
    mean = jnp.mean(depth)
    score = jnp.zeros_like(mean) if aesthetic is None else jnp.mean(aesthetic)
    return Rewards(DEPTH * mean - AESTHETIC * score, mean, score)
