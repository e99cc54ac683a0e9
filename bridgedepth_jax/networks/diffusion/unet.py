"""The conditional U-Net of Stable Diffusion (spec `diffusion.md` section 2).

B batch, H W resolution of the latent, S tokens of the context with E channels, T channels of a time embedding.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Num

from bridgedepth_jax.layers import Linear, at_least_float32, conv, torch_default
from bridgedepth_jax.networks.diffusion.blocks import DownBlock2D, MidBlock2D, UpBlock2D
from bridgedepth_jax.networks.diffusion.config import UNetConfig
from bridgedepth_jax.networks.diffusion.resnet import group_norm


def time_features(
    t: Num[Array, "B"], features: int, *, flip_sin_to_cos: bool = True, freq_shift: float = 0, dtype=jnp.float32
) -> Float[Array, "B T"]:
    """Cosines and sines (in that order where flipped) of t at `features` / 2 frequencies from 1 down to 1e-4."""
    half = features // 2
    frequency = np.exp(np.arange(half) * (-np.log(1e4) / (half - freq_shift)))
    # In two parts: whole times below 4096 times the first are exact in float32, where the angle alone would lose 3e-5.
    coarse = np.round(frequency * 2**12) / 2**12
    angle, rest = (t.astype(dtype)[:, None] * jnp.asarray(part, dtype)[None] for part in (coarse, frequency - coarse))
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    sin, cos = sin * jnp.cos(rest) + cos * jnp.sin(rest), cos * jnp.cos(rest) - sin * jnp.sin(rest)
    return jnp.concatenate((cos, sin) if flip_sin_to_cos else (sin, cos), axis=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers with a silu between; the second gives `out` channels, by default as many as the first."""

    features: int
    dtype: Any = jnp.float32
    out: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B T"]) -> Float[Array, "B T4"]:
        x = nn.silu(Linear(self.features, dtype=self.dtype, name="linear_1")(x))
        return Linear(self.out or self.features, dtype=self.dtype, name="linear_2")(x)


class UNet2DConditionModel(nn.Module):
    """The prediction for a noisy latent at a time, given a context. Sides need not be multiples of anything.

    sample (B, H, W, in_channels); timestep, a scalar or one a row, may be fractional; context (B or 1, S, E).
    Gives (B, H, W, out_channels), at least float32.
    """

    config: UNetConfig

    @nn.compact
    def __call__(
        self, sample: Float[Array, "B H W C"], timestep: Num[Array, "..."] | int, context: Float[Array, "B1 S E"]
    ) -> Float[Array, "B H W D"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        wide = at_least_float32(dtype)
        batch, levels = len(sample), len(c.block_out_channels)
        t = jnp.broadcast_to(jnp.asarray(timestep), (batch,))
        context = jnp.broadcast_to(context, (batch, *context.shape[1:])).astype(dtype)
        first = c.block_out_channels[0]
        features = time_features(t, first, flip_sin_to_cos=c.flip_sin_to_cos, freq_shift=c.freq_shift, dtype=wide)
        temb = TimestepEmbedding(4 * first, wide, name="time_embedding")(features).astype(dtype)
        shared: dict[str, Any] = dict(groups=c.norm_num_groups, eps=c.norm_eps, linear=c.use_linear_projection, dtype=dtype)
        heads = [heads if cross else None for heads, cross in zip(c.attention_heads, c.cross_attention, strict=True)]

        x = conv(first, 3, kernel_init=torch_default, dtype=dtype, name="conv_in")(sample.astype(dtype))
        skips = [x]
        for i, width in enumerate(c.block_out_channels):
            block = DownBlock2D(
                width, c.layers_per_block, heads=heads[i], downsample=i < levels - 1, name=f"down_blocks_{i}", **shared
            )
            x, more = block(x, temb, context)
            skips += more
        middle = MidBlock2D(c.block_out_channels[-1], heads=c.attention_heads[-1], name="mid_block", **shared)
        x = middle(x, temb, context)
        layers = c.layers_per_block + 1
        for i, width in enumerate(reversed(c.block_out_channels)):
            here, skips = skips[-layers:], skips[:-layers]
            size = (skips[-1].shape[1], skips[-1].shape[2]) if skips else None
            block = UpBlock2D(width, layers, heads=heads[-1 - i], upsample=i < levels - 1, name=f"up_blocks_{i}", **shared)
            x = block(x, here, temb, context, size)
        x = nn.silu(group_norm(c.norm_num_groups, c.norm_eps, dtype, "conv_norm_out")(x))
        return conv(c.out_channels, 3, kernel_init=torch_default, dtype=dtype, name="conv_out")(x).astype(wide)
