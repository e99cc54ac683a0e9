"""DINOv2 vision transformer, patch 14, no register tokens (arXiv 2304.07193; spec `architecture.md` section 2.1).

Letters: B batch, T tokens (class token first), D width, H heads, K head width.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import (
    Linear,
    MergeHeads,
    Mlp,
    Remat,
    SplitHeads,
    at_least_float32,
    attention,
    conv,
    layer_norm,
    normal_002,
    rematted,
    zeros,
)
from bridgedepth_jax.networks.config import MonoConfig
from bridgedepth_jax.ops.resize import apply_taps, bicubic_taps


class SelfAttention(nn.Module):
    """Multi-head self attention with a fused `qkv`."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        dim = x.shape[-1]
        qkv = SplitHeads(3 * dim, kernel_init=normal_002, dtype=self.dtype, parts=3, heads=self.heads, name="qkv")
        q, k, v = qkv(x)
        out = attention(q, k, v)
        return MergeHeads(dim, kernel_init=normal_002, dtype=self.dtype, name="proj")(out)


class SwiGLU(nn.Module):
    """w3(silu(first half of w12) * second half)."""

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        gate, value = jnp.split(Linear(2 * self.hidden, kernel_init=normal_002, dtype=self.dtype, name="w12")(x), 2, -1)
        return Linear(x.shape[-1], kernel_init=normal_002, dtype=self.dtype, name="w3")(nn.silu(gate) * value)


class LayerScale(nn.Module):
    """A learned factor per channel."""

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        gamma = self.param("gamma", nn.initializers.ones_init(), (x.shape[-1],))
        return x * gamma.astype(x.dtype).reshape(1, 1, -1)


class Block(nn.Module):
    """x += ls1(attn(norm1(x))), x += ls2(mlp(norm2(x)))."""

    config: MonoConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        c = self.config
        if c.mlp == "swiglu":
            mlp = SwiGLU((int(c.dim * c.mlp_ratio * 2 / 3) + 7) // 8 * 8, self.dtype, name="mlp")
        else:
            mlp = Mlp(int(c.dim * c.mlp_ratio), c.dim, normal_002, self.dtype, name="mlp")
        attn = SelfAttention(c.heads, self.dtype, name="attn")
        x = x + LayerScale(name="ls1")(attn(layer_norm(1e-6, self.dtype, "norm1")(x)))
        return x + LayerScale(name="ls2")(mlp(layer_norm(1e-6, self.dtype, "norm2")(x)))


def resize_position_embedding(embedding: Float[Array, "1 T D"], side: int, height: int, width: int) -> Float[Array, "1 S D"]:
    """Bicubic resize of the patch part from side x side to height x width, with the scale (size + 0.1) / side."""
    if (height, width) == (side, side):
        return embedding
    grid = embedding[:, 1:].reshape(1, side, side, -1)
    for axis, size in ((1, height), (2, width)):
        grid = apply_taps(grid, bicubic_taps(side, size, side / (size + 0.1)), axis)
    return jnp.concatenate([embedding[:, :1], grid.reshape(1, height * width, -1)], 1)


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens, row by row."""

    patch: int
    dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B T D"]:
        x = conv(self.dim, self.patch, stride=self.patch, padding=0, kernel_init=normal_002, dtype=self.dtype, name="proj")(
            image
        )
        return x.reshape(x.shape[0], -1, self.dim)


class DinoVisionTransformer(nn.Module):
    """Image to the normed tokens of the tapped blocks, the class token first. The residual stream is at least float32."""

    config: MonoConfig
    dtype: Any = jnp.float32
    kept: Remat | None = None

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"]) -> list[Float[Array, "B T D"]]:
        c = self.config
        b, height, width, _ = image.shape
        x = PatchEmbed(c.patch, c.dim, self.dtype, name="patch_embed")(image).astype(at_least_float32(self.dtype))
        cls_token = self.param("cls_token", normal_002, (1, 1, c.dim))
        positions = self.param("pos_embed", normal_002, (1, 1 + c.pos_grid**2, c.dim))
        self.param("mask_token", zeros, (1, c.dim))  # in the checkpoints, never used
        positions = resize_position_embedding(positions, c.pos_grid, height // c.patch, width // c.patch)
        x = jnp.concatenate([jnp.broadcast_to(cls_token.astype(x.dtype), (b, 1, c.dim)), x], 1)
        x = x + positions.astype(x.dtype)
        block = rematted(Block, self.kept)
        norm = layer_norm(1e-6, self.dtype, "norm")
        taps = []
        for i in range(c.depth):
            x = block(c, self.dtype, name=f"blocks_{i}")(x)
            if i in c.taps:
                taps.append(norm(x))
        return taps
