"""Transformer blocks with two-dimensional rotary positions (spec `video.md` section 1.2; CroCo v2, arXiv 2211.10408).

B batch, T tokens, S tokens of the other image, D width, H heads, K head width. Positions (T, 2) are (row, column) of patches.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import MergeHeads, Mlp, SplitHeads, attention, layer_norm

EPSILON = 1e-6  # of every LayerNorm of this family


def grid_positions(rows: int, columns: int) -> np.ndarray:
    """(row, column) of each token of an image, row by row: (rows * columns, 2)."""
    return np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2)


def rotate(x: Float[Array, "B H T K"], positions: np.ndarray, base: float) -> Float[Array, "B H T K"]:
    """Rotary embedding: the first half of the channels turns with the row, the second with the column.

    Within a half of h channels, channel k pairs with k + h/2 and turns by position / base^(2k / h).
    """
    quarter = x.shape[-1] // 4
    speeds = base ** (-np.arange(quarter) / quarter)
    angles = positions[:, :, None] * speeds  # (T, axis, K/4)
    cos, sin = (jnp.asarray(f(angles)[None, None], x.dtype) for f in (np.cos, np.sin))
    halves = x.reshape(*x.shape[:-1], 2, 2, quarter)
    a, b = halves[..., 0, :], halves[..., 1, :]
    return jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-2).reshape(x.shape)


class RotarySelfAttention(nn.Module):
    """Attention of an image with itself, `qkv` in one layer."""

    heads: int
    base: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], positions: np.ndarray) -> Float[Array, "B T D"]:
        dim = x.shape[-1]
        q, k, v = SplitHeads(3 * dim, dtype=self.dtype, parts=3, heads=self.heads, name="qkv")(x)
        q, k = (rotate(part, positions, self.base) for part in (q, k))
        return MergeHeads(dim, dtype=self.dtype, name="proj")(attention(q, k, v))


class RotaryCrossAttention(nn.Module):
    """Attention of an image with the other one, each side with its own positions."""

    heads: int
    base: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], y: Float[Array, "B S D"], positions: np.ndarray, others: np.ndarray
    ) -> Float[Array, "B T D"]:
        split = lambda name: SplitHeads(x.shape[-1], heads=self.heads, dtype=self.dtype, name=name)
        (q,), (k,), (v,) = split("projq")(x), split("projk")(y), split("projv")(y)
        q, k = rotate(q, positions, self.base), rotate(k, others, self.base)
        return MergeHeads(x.shape[-1], dtype=self.dtype, name="proj")(attention(q, k, v))


class RotaryBlock(nn.Module):
    """The encoder's: x += attn(norm1 x); x += mlp(norm2 x)."""

    heads: int
    mlp_ratio: int
    base: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], positions: np.ndarray) -> Float[Array, "B T D"]:
        dim, norm = x.shape[-1], lambda name: layer_norm(EPSILON, self.dtype, name)
        attn = RotarySelfAttention(self.heads, self.base, self.dtype, name="attn")
        x = x + attn(norm("norm1")(x), positions)
        return x + Mlp(self.mlp_ratio * dim, dim, dtype=self.dtype, name="mlp")(norm("norm2")(x))


class RotaryDecoderBlock(nn.Module):
    """The decoder's: x += attn(norm1 x); x += cross_attn(norm2 x, norm_y y); x += mlp(norm3 x)."""

    heads: int
    mlp_ratio: int
    base: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], y: Float[Array, "B S D"], positions: np.ndarray, others: np.ndarray
    ) -> Float[Array, "B T D"]:
        dim, norm = x.shape[-1], lambda name: layer_norm(EPSILON, self.dtype, name)
        attn = RotarySelfAttention(self.heads, self.base, self.dtype, name="attn")
        cross = RotaryCrossAttention(self.heads, self.base, self.dtype, name="cross_attn")
        x = x + attn(norm("norm1")(x), positions)
        x = x + cross(norm("norm2")(x), norm("norm_y")(y), positions, others)
        return x + Mlp(self.mlp_ratio * dim, dim, dtype=self.dtype, name="mlp")(norm("norm3")(x))
