"""From one disparity a 1/4 cell to pixels that know what they look like.

RAFT's convex upsampling (Teed and Deng, ECCV 2020, section 3.3): every pixel is a weighted mean of the 3x3 cells around its
own, so that its value stays within theirs, and edges run where the weights say. Here the weights see the image at full
resolution (each cell's 16 pixels as channels, and its neighbours'), not only features of the cell. An addition of this project:
no published weights use it.

Letters: B batch, H W cells at 1/4, S pixels of a cell (16, rows first), C channels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Head, at_least_float32, conv

SIDE = 4  # pixels of a cell's side
NEIGHBOURS = 9


class ConvexUpsampling(nn.Module):
    """Disparities of cells, the tokens they come from and the left image to pixels, and a logit that a pixel is right."""

    dim: int
    confidence: bool
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.guide_0 = conv(self.dim, 3, dtype=self.dtype)
        self.guide_2 = conv(self.dim, 3, dtype=self.dtype)
        self.mask = Head((self.dim, NEIGHBOURS * SIDE**2), dtype=self.dtype)
        if self.confidence:
            self.certainty = Head((self.dim, SIDE**2), dtype=self.dtype)

    def __call__(
        self, disparity: Float[Array, "L B H W"], tokens: Float[Array, "L B H W C"], image: Float[Array, "B 4*H 4*W 3"]
    ) -> tuple[Float[Array, "L B H W 16"], Float[Array, "B H W 16"] | None]:
        """Any unit of disparity in, the same out; the certainty is of the last layer."""
        pixels = fold(2 * (image / 255) - 1).astype(self.dtype)
        guide = self.guide_2(nn.relu(self.guide_0(pixels)))
        guides = jnp.broadcast_to(guide[None], (*tokens.shape[:-1], self.dim))
        seen = jnp.concatenate([tokens.astype(self.dtype), nn.relu(guides)], -1)
        logits = self.mask(seen).astype(at_least_float32(self.dtype)).reshape(*disparity.shape, SIDE**2, NEIGHBOURS)
        fine = convex(disparity, jax.nn.softmax(logits))
        if not self.confidence:
            return fine, None
        certainty = self.certainty(lax.stop_gradient(seen[-1])).astype(at_least_float32(self.dtype))
        return fine, certainty


def convex(values: Float[Array, "*B H W"], weights: Float[Array, "*B H W S 9"]) -> Float[Array, "*B H W S"]:
    """Weighted sums of each cell's 3x3 neighbourhood, rows first; beyond the border the border's cells again."""
    *batch, height, width = values.shape
    padded = jnp.pad(values, [(0, 0)] * len(batch) + [(1, 1), (1, 1)], mode="edge")
    around = jnp.stack([padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3)], -1)
    return jnp.sum(weights * around[..., None, :], -1)


def fold(image: Float[Array, "B Y X C"]) -> Float[Array, "B H W C2"]:
    """Each cell's pixels as channels."""
    b, height, width, c = image.shape
    x = image.reshape(b, height // SIDE, SIDE, width // SIDE, SIDE, c).swapaxes(2, 3)
    return x.reshape(b, height // SIDE, width // SIDE, SIDE**2 * c)


def unit_channels(x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
    """Mean 0 and deviation 1 over the channels, no parameters: holds the scale of a monocular state that no loss holds."""
    mean = jnp.mean(x, -1, keepdims=True)
    return (x - mean) * lax.rsqrt(jnp.mean(jnp.square(x - mean), -1, keepdims=True) + 1e-6)
