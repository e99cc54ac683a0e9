"""What looks along time: leaf modules of the video networks (spec `video.md` sections 4.1 and 4.2).

B clips, F frames, H W the stated resolution, P its pixels, C channels, S E the context's tokens and channels, T channels of the
time embedding. Maps of a clip are (B, F, H, W, C).
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Linear, at_least_float32, layer_norm, torch_default, torch_default_bias
from bridgedepth_jax.networks.diffusion.attention import Attention, BasicTransformerBlock, FeedForward
from bridgedepth_jax.networks.diffusion.resnet import ResnetBlock2D, group_norm
from bridgedepth_jax.networks.diffusion.unet import TimestepEmbedding, time_features

Clip = Float[Array, "B F H W C"]


def per_frame(x: Array) -> Array:
    """(B, F, ...) to (B F, ...)."""
    return x.reshape(-1, *x.shape[2:])


def per_clip(x: Array, frames: int) -> Array:
    """Inverse of `per_frame`."""
    return x.reshape(-1, frames, *x.shape[1:])


class TemporalConv(nn.Module):
    """A convolution over three frames, zero before the first and after the last: a 3-d kernel of 3 x 1 x 1."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B F H W C"]) -> Float[Array, "B F H W D"]:
        channels, frames = x.shape[-1], x.shape[1]
        kernel = self.param("kernel", torch_default, (3, 1, 1, channels, self.features)).astype(self.dtype)
        bias = self.param("bias", torch_default_bias(3 * channels), (self.features,)).astype(self.dtype)
        padded = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
        terms = [jnp.einsum("bfhwc,cd->bfhwd", padded[:, i : i + frames], kernel[i, 0, 0]) for i in range(3)]
        return terms[0] + terms[1] + terms[2] + bias.reshape(1, 1, 1, 1, -1)


class AlphaBlender(nn.Module):
    """A learned share, the same everywhere: share * spatial + (1 - share) * temporal, or the other way where `switched`."""

    switched: bool = False

    @nn.compact
    def __call__(self, spatial: Array, temporal: Array) -> Array:
        factor = self.param("mix_factor", nn.initializers.constant(0.5), (1,))
        share = nn.sigmoid(factor.astype(at_least_float32(factor.dtype)))[0].astype(spatial.dtype)
        share = 1 - share if self.switched else share
        return share * spatial + (1 - share) * temporal


class TemporalResnetBlock(nn.Module):
    """`ResnetBlock2D` over frames; the norms' statistics are those of the whole clip."""

    groups: int
    eps: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip, temb: Float[Array, "B T"] | None = None) -> Clip:
        features = x.shape[-1]
        h = nn.silu(group_norm(self.groups, self.eps, self.dtype, "norm1")(x))
        h = TemporalConv(features, self.dtype, name="conv1")(h)
        if temb is not None:
            h = h + Linear(features, dtype=self.dtype, name="time_emb_proj")(nn.silu(temb))[:, None, None, None]
        h = nn.silu(group_norm(self.groups, self.eps, self.dtype, "norm2")(h))
        return x + TemporalConv(features, self.dtype, name="conv2")(h)


class SpatioTemporalResBlock(nn.Module):
    """A residual block of each frame, one over frames of what it gives, and a blend of both."""

    features: int
    groups: int
    eps: float
    temporal_eps: float | None = None  # None: the same
    switched: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip, temb: Float[Array, "B T"] | None = None) -> Float[Array, "B F H W D"]:
        frames = x.shape[1]
        each = None if temb is None else jnp.repeat(temb, frames, axis=0)
        block = ResnetBlock2D(self.features, self.groups, self.eps, self.dtype, name="spatial_res_block")
        spatial = per_clip(block(per_frame(x), each), frames)
        eps = self.eps if self.temporal_eps is None else self.temporal_eps
        temporal = TemporalResnetBlock(self.groups, eps, self.dtype, name="temporal_res_block")(spatial, temb)
        return AlphaBlender(self.switched, name="time_mixer")(spatial, temporal)


class TemporalTransformerBlock(nn.Module):
    """A transformer block over the frames of each pixel, with a feed-forward layer before the attention too."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B F P C"], context: Float[Array, "B S E"]) -> Float[Array, "B F P C"]:
        batch, frames, pixels, channels = x.shape
        norm = lambda name: layer_norm(1e-5, self.dtype, name)
        h = jnp.swapaxes(x, 1, 2).reshape(-1, frames, channels)
        context = jnp.repeat(context, pixels, axis=0)
        h = h + FeedForward(dtype=self.dtype, name="ff_in")(norm("norm_in")(h))
        h = h + Attention(self.heads, dtype=self.dtype, name="attn1")(norm("norm1")(h))
        h = h + Attention(self.heads, dtype=self.dtype, name="attn2")(norm("norm2")(h), context)
        h = h + FeedForward(dtype=self.dtype, name="ff")(norm("norm3")(h))
        return jnp.swapaxes(h.reshape(batch, pixels, frames, channels), 1, 2)


class TransformerSpatioTemporalModel(nn.Module):
    """A transformer block over the pixels of each frame, one over the frames of each pixel, and a blend, added to the map.

    context (B, F, S, E): frame f sees its own tokens, the block over frames those of the first.
    """

    heads: int
    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Clip, context: Float[Array, "B F S E"]) -> Clip:
        _, frames, height, width, channels = x.shape
        h = group_norm(self.groups, 1e-6, self.dtype, "norm")(per_frame(x))
        h = Linear(channels, dtype=self.dtype, name="proj_in")(h.reshape(-1, height * width, channels))
        block = BasicTransformerBlock(self.heads, self.dtype, name="transformer_blocks_0")
        spatial = per_clip(block(h, per_frame(context)), frames)
        numbers = time_features(jnp.arange(frames), channels, dtype=at_least_float32(self.dtype)).astype(self.dtype)
        place = TimestepEmbedding(4 * channels, self.dtype, channels, name="time_pos_embed")(numbers)
        temporal = TemporalTransformerBlock(self.heads, self.dtype, name="temporal_transformer_blocks_0")
        u = temporal(spatial + place[None, :, None], context[:, 0])
        u = AlphaBlender(name="time_mixer")(spatial, u)
        return x + Linear(channels, dtype=self.dtype, name="proj_out")(u).reshape(x.shape)
