"""Swin-T (v1, arXiv 2103.14030) without its last stage, fused to 1/4; torchvision's numbering.

Spec `architecture.md` section 3, `swin`.

Letters: B batch, M windows of the whole batch, P pixels of a window, H heads, K head width.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import (
    Linear,
    MergeHeads,
    Remat,
    SplitHeads,
    at_least_float32,
    conv,
    drop_path,
    gelu,
    layer_norm,
    normal_002,
    rematted,
    softmax,
)
from bridgedepth_jax.networks.config import BackboneConfig
from bridgedepth_jax.networks.fusion import EncoderFusion
from bridgedepth_jax.ops.image import normalize
from bridgedepth_jax.ops.windows import (
    pad_to_windows,
    partition,
    relative_index,
    shift_regions,
    table_size,
    unpartition,
)

MASKED = -100  # added to logits of pairs across the wrap, as torchvision does; not quite -inf


class ShiftedWindowAttention(nn.Module):
    """Self attention in windows, shifted along the sides that hold more than one; wrapped regions are masked."""

    heads: int
    window: int
    shift: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        w = self.window
        _, height, width, dim = x.shape
        x = pad_to_windows(x, w)
        _, rows, columns, _ = x.shape
        shift = (0 if w >= rows else self.shift, 0 if w >= columns else self.shift)
        tokens = partition(jnp.roll(x, (-shift[0], -shift[1]), (1, 2)), w)
        qkv = SplitHeads(3 * dim, kernel_init=normal_002, dtype=self.dtype, parts=3, heads=self.heads, name="qkv")
        q, k, v = qkv(tokens)
        delicate = at_least_float32(self.dtype)
        table = self.param("relative_position_bias_table", normal_002, (table_size(w, w), self.heads)).astype(delicate)
        bias = jnp.moveaxis(table[relative_index(w, w)], 2, 0)[None]
        logits = jnp.einsum("mhpk,mhqk->mhpq", q, k).astype(delicate) * q.shape[-1] ** -0.5 + bias
        if any(shift):
            wrapped = shift_regions(rows, columns, w, shift)  # (windows of one image, P, P)
            mask = jnp.where(jnp.asarray(wrapped), jnp.asarray(MASKED, delicate), 0)[None, :, None]
            per_image = logits.reshape(-1, len(wrapped), *logits.shape[1:])
            logits = (per_image + mask).reshape(logits.shape)
        out = jnp.einsum("mhpq,mhqk->mhpk", softmax(logits).astype(v.dtype), v)
        out = MergeHeads(dim, kernel_init=normal_002, dtype=self.dtype, name="proj")(out)
        return jnp.roll(unpartition(out, w, rows, columns), shift, (1, 2))[:, :height, :width]


class SwinBlock(nn.Module):
    """x += sd(attn(norm1(x))), x += sd(mlp(norm2(x)))."""

    heads: int
    window: int
    shift: int
    drop_rate: float
    dtype: Any = jnp.float32
    kept: Remat | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B H W C"]:
        for branch in (SwinBlock._attention, SwinBlock._mlp):
            x = x + drop_path(self, rematted(branch, self.kept)(self, x), self.drop_rate, train=train)
        return x

    def _attention(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        y = layer_norm(1e-5, self.dtype, "norm1")(x)
        return ShiftedWindowAttention(self.heads, self.window, self.shift, self.dtype, name="attn")(y)

    def _mlp(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        dim = x.shape[-1]
        y = layer_norm(1e-5, self.dtype, "norm2")(x)
        y = gelu(Linear(4 * dim, kernel_init=normal_002, dtype=self.dtype, name="mlp_0")(y))
        return Linear(dim, kernel_init=normal_002, dtype=self.dtype, name="mlp_3")(y)


class PatchMerging(nn.Module):
    """2x2 pixels to one of twice the width; odd sides are zero-padded."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C2"]:
        x = pad_to_windows(x, 2)
        x = jnp.concatenate([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        x = layer_norm(1e-5, self.dtype, "norm")(x)
        return Linear(self.features, use_bias=False, kernel_init=normal_002, dtype=self.dtype, name="reduction")(x)


class Swin(nn.Module):
    """RGB in 0..255 to a map at 1/4."""

    config: BackboneConfig
    dtype: Any = jnp.float32
    kept: Remat | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"], *, train: bool) -> Float[Array, "B h w C"]:
        c = self.config
        x = conv(c.dims[0], 4, stride=4, padding=0, dtype=self.dtype, name="features_0_0")(normalize(x))
        x = layer_norm(1e-5, self.dtype, "features_0_2")(x)
        maps, done, last = [], 0, max(sum(c.depths) - 1, 1)
        for stage, (width, blocks, heads) in enumerate(zip(c.dims, c.depths, c.heads, strict=True)):
            if stage:
                x = PatchMerging(width, self.dtype, name=f"features_{2 * stage}")(x)
            for i in range(blocks):
                shift = c.window // 2 if i % 2 else 0
                rate = c.drop_path * done / last
                name = f"features_{2 * stage + 1}_{i}"
                x = SwinBlock(heads, c.window, shift, rate, self.dtype, self.kept, name=name)(x, train=train)
                done += 1
            maps.append(layer_norm(1e-6, self.dtype, f"norms_{stage}")(x))
        return EncoderFusion(c.out_channels, self.dtype, self.kept, name="scratch")(maps)
