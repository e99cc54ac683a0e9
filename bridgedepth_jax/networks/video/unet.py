"""The U-Net of video diffusion (spec `video.md` section 4.1; Stable Video Diffusion, DepthCrafter arXiv 2409.02095).

B clips, F frames, H W resolution of the latent, E channels of the context, N numbers that come with a clip, T channels of the
time embedding.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num

from bridgedepth_jax.layers import at_least_float32, conv, torch_default
from bridgedepth_jax.networks.diffusion.resnet import Downsample2D, Upsample2D, group_norm
from bridgedepth_jax.networks.diffusion.unet import TimestepEmbedding, time_features
from bridgedepth_jax.networks.video.config import VideoUNetConfig
from bridgedepth_jax.networks.video.temporal import (
    Clip,
    SpatioTemporalResBlock,
    TransformerSpatioTemporalModel,
    per_clip,
    per_frame,
)

ATTENDING_EPS, PLAIN_EPS = (
    1e-6,
    1e-5,
)  # of the norms of down blocks with and without attention; up: the first, middle: the second
ClipSkips = list[Float[Array, "B F _ _ _"]]
FrameTokens = Float[Array, "B F S E"]


class DownBlockSpatioTemporal(nn.Module):
    """Residual blocks, each with a transformer where there are `heads`, then downsampling.

    Gives the map and what the way up will want: the map after every layer and after downsampling.
    """

    features: int
    layers: int
    groups: int
    heads: int | None
    downsample: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip, temb: Float[Array, "B T"], context: FrameTokens) -> tuple[Float[Array, "B F _ _ D"], ClipSkips]:
        eps, skips, frames = ATTENDING_EPS if self.heads else PLAIN_EPS, [], x.shape[1]
        for j in range(self.layers):
            x = SpatioTemporalResBlock(self.features, self.groups, eps, dtype=self.dtype, name=f"resnets_{j}")(x, temb)
            if self.heads:
                x = TransformerSpatioTemporalModel(self.heads, self.groups, self.dtype, name=f"attentions_{j}")(x, context)
            skips.append(x)
        if self.downsample:
            x = per_clip(Downsample2D(self.features, dtype=self.dtype, name="downsamplers_0")(per_frame(x)), frames)
            skips.append(x)
        return x, skips


class MidBlockSpatioTemporal(nn.Module):
    """A residual block, a transformer, a residual block."""

    features: int
    groups: int
    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip, temb: Float[Array, "B T"], context: FrameTokens) -> Clip:
        block = lambda name: SpatioTemporalResBlock(self.features, self.groups, PLAIN_EPS, dtype=self.dtype, name=name)
        x = block("resnets_0")(x, temb)
        x = TransformerSpatioTemporalModel(self.heads, self.groups, self.dtype, name="attentions_0")(x, context)
        return block("resnets_1")(x, temb)


class UpBlockSpatioTemporal(nn.Module):
    """Residual blocks, each of the map beside one of `skips` (the last first), with transformers, then upsampling.

    `size` is that of the next skip, to which upsampling cuts.
    """

    features: int
    layers: int
    groups: int
    heads: int | None
    upsample: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Clip, skips: ClipSkips, temb: Float[Array, "B T"], context: FrameTokens, size: tuple[int, int] | None
    ) -> Float[Array, "B F _ _ D"]:
        frames = x.shape[1]
        for j in range(self.layers):
            x = jnp.concatenate([x, skips[-1 - j]], axis=-1)
            block = SpatioTemporalResBlock(self.features, self.groups, ATTENDING_EPS, dtype=self.dtype, name=f"resnets_{j}")
            x = block(x, temb)
            if self.heads:
                x = TransformerSpatioTemporalModel(self.heads, self.groups, self.dtype, name=f"attentions_{j}")(x, context)
        if not self.upsample:
            return x
        return per_clip(Upsample2D(self.features, self.dtype, name="upsamplers_0")(per_frame(x), size), frames)


class UNetSpatioTemporalConditionModel(nn.Module):
    """The prediction for a noisy clip at a time, given an embedding of each frame. Sides need not be multiples of anything.

    sample (B, F, H, W, in_channels); timestep, a scalar or one a clip, may be fractional; context (B, F, E); time_ids (B, N).
    Gives (B, F, H, W, out_channels), at least float32. The number of frames is free.
    """

    config: VideoUNetConfig

    @nn.compact
    def __call__(
        self,
        sample: Float[Array, "B F H W C"],
        timestep: Num[Array, "..."] | float,
        context: Float[Array, "B F E"],
        time_ids: Float[Array, "B N"],
    ) -> Float[Array, "B F H W D"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        wide = at_least_float32(dtype)
        batch, frames, levels, first = len(sample), sample.shape[1], len(c.block_out_channels), c.block_out_channels[0]
        t = jnp.broadcast_to(jnp.asarray(timestep, wide), (batch,))
        temb = TimestepEmbedding(4 * first, wide, name="time_embedding")(time_features(t, first, dtype=wide))
        ids = time_features(time_ids.astype(wide).reshape(-1), c.addition_time_embed_dim, dtype=wide).reshape(batch, -1)
        temb = (temb + TimestepEmbedding(4 * first, wide, name="add_embedding")(ids)).astype(dtype)
        tokens = context[:, :, None].astype(dtype)
        heads = [heads if cross else None for heads, cross in zip(c.attention_heads, c.cross_attention, strict=True)]

        layer = conv(first, 3, kernel_init=torch_default, dtype=dtype, name="conv_in")
        x = per_clip(layer(per_frame(sample).astype(dtype)), frames)
        skips = [x]
        for i, width in enumerate(c.block_out_channels):
            block = DownBlockSpatioTemporal(
                width, c.layers_per_block, c.norm_num_groups, heads[i], i < levels - 1, dtype, name=f"down_blocks_{i}"
            )
            x, more = block(x, temb, tokens)
            skips += more
        middle = MidBlockSpatioTemporal(
            c.block_out_channels[-1], c.norm_num_groups, c.attention_heads[-1], dtype, name="mid_block"
        )
        x = middle(x, temb, tokens)
        layers = c.layers_per_block + 1
        for i, width in enumerate(reversed(c.block_out_channels)):
            here, skips = skips[-layers:], skips[:-layers]
            size = (skips[-1].shape[2], skips[-1].shape[3]) if skips else None
            block = UpBlockSpatioTemporal(
                width, layers, c.norm_num_groups, heads[-1 - i], i < levels - 1, dtype, name=f"up_blocks_{i}"
            )
            x = block(x, here, temb, tokens, size)
        x = nn.silu(group_norm(c.norm_num_groups, PLAIN_EPS, dtype, "conv_norm_out")(per_frame(x)))
        x = conv(c.out_channels, 3, kernel_init=torch_default, dtype=dtype, name="conv_out")(x)
        return per_clip(x, frames).astype(wide)
