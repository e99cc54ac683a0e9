"""The levels of the U-Net and of the autoencoder (spec `diffusion.md` sections 2 and 3).

B batch, H W the level's resolution, C channels, S tokens of the context with E channels, T channels of the time embedding.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.networks.diffusion.attention import AttentionBlock, Transformer2DModel
from bridgedepth_jax.networks.diffusion.resnet import Downsample2D, ResnetBlock2D, Upsample2D

Context = Float[Array, "B S E"]
Map = Float[Array, "B H W C"]
Next = Float[Array, "B H2 W2 D"]  # a map of another width or size
Skips = list[Float[Array, "B _ _ _"]]


class DownBlock2D(nn.Module):
    """Residual blocks, each with a transformer where `heads` says of how many heads, then downsampling.

    Gives the map and what the way up will want: the map after every layer and after downsampling.
    """

    features: int
    layers: int
    groups: int
    eps: float
    heads: int | None
    linear: bool
    downsample: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Map, temb: Float[Array, "B T"], context: Context) -> tuple[Next, Skips]:
        skips = []
        for j in range(self.layers):
            x = ResnetBlock2D(self.features, self.groups, self.eps, self.dtype, name=f"resnets_{j}")(x, temb)
            if self.heads:
                x = Transformer2DModel(self.heads, self.groups, self.linear, self.dtype, name=f"attentions_{j}")(x, context)
            skips.append(x)
        if self.downsample:
            x = Downsample2D(self.features, dtype=self.dtype, name="downsamplers_0")(x)
            skips.append(x)
        return x, skips


class MidBlock2D(nn.Module):
    """A residual block, attention, a residual block; a transformer with context where there is a time embedding."""

    features: int
    groups: int
    eps: float
    heads: int = 1
    linear: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Map, temb: Float[Array, "B T"] | None = None, context: Context | None = None) -> Next:
        block = lambda name: ResnetBlock2D(self.features, self.groups, self.eps, self.dtype, name=name)
        x = block("resnets_0")(x, temb)
        if context is None:
            x = AttentionBlock(self.groups, self.eps, self.heads, self.dtype, name="attentions_0")(x)
        else:
            x = Transformer2DModel(self.heads, self.groups, self.linear, self.dtype, name="attentions_0")(x, context)
        return block("resnets_1")(x, temb)


class UpBlock2D(nn.Module):
    """Residual blocks, each of the map beside one of `skips` (the last first), with transformers, then upsampling.

    `size` is that of the next skip, to which upsampling cuts.
    """

    features: int
    layers: int
    groups: int
    eps: float
    heads: int | None
    linear: bool
    upsample: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Map, skips: Skips, temb: Float[Array, "B T"], context: Context, size: tuple[int, int] | None) -> Next:
        for j in range(self.layers):
            x = jnp.concatenate([x, skips[-1 - j]], axis=-1)
            x = ResnetBlock2D(self.features, self.groups, self.eps, self.dtype, name=f"resnets_{j}")(x, temb)
            if self.heads:
                x = Transformer2DModel(self.heads, self.groups, self.linear, self.dtype, name=f"attentions_{j}")(x, context)
        return Upsample2D(self.features, self.dtype, name="upsamplers_0")(x, size) if self.upsample else x


class DownEncoderBlock2D(nn.Module):
    """Residual blocks of the autoencoder's encoder, then downsampling that pads at bottom and right only."""

    features: int
    layers: int
    groups: int
    eps: float
    downsample: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Map) -> Next:
        for j in range(self.layers):
            x = ResnetBlock2D(self.features, self.groups, self.eps, self.dtype, name=f"resnets_{j}")(x)
        return Downsample2D(self.features, 0, self.dtype, name="downsamplers_0")(x) if self.downsample else x


class UpDecoderBlock2D(nn.Module):
    """Residual blocks of the autoencoder's decoder, then upsampling."""

    features: int
    layers: int
    groups: int
    eps: float
    upsample: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Map) -> Next:
        for j in range(self.layers):
            x = ResnetBlock2D(self.features, self.groups, self.eps, self.dtype, name=f"resnets_{j}")(x)
        return Upsample2D(self.features, self.dtype, name="upsamplers_0")(x) if self.upsample else x
