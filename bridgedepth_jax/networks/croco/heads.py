"""The heads of a pair network, tokens to points and confidence (spec `video.md` section 1.2; DUSt3R, arXiv 2312.14132).

B batch, T tokens, D width, H W pixels, h w the token grid, C channels.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import ConvTranspose, Linear, at_least_float32, conv
from bridgedepth_jax.networks.croco.config import PairConfig
from bridgedepth_jax.networks.fusion import FeatureFusion
from bridgedepth_jax.ops.resize import resize_bilinear

SMALLEST = 1e-8  # length by which a point is divided, at least


class PairFusion(nn.Module):
    """DPT's fusion in which every resize is exactly by 2; the coarsest path is then cropped where the grid is odd."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: list[Float[Array, "B _ _ _"]]) -> Float[Array, "B _ _ C"]:
        levels = [
            conv(self.features, 3, use_bias=False, dtype=self.dtype, name=f"layer{i}_rn")(m) for i, m in enumerate(maps, 1)
        ]
        path: Array | None = None
        for i in range(len(levels), 0, -1):
            level = levels[i - 1]
            size = (2 * level.shape[1], 2 * level.shape[2])
            fusion = FeatureFusion(self.features, True, self.dtype, name=f"refinenet{i}")
            skip = None if path is None else level
            path = fusion(level if path is None else path[:, : level.shape[1], : level.shape[2]], skip, size)
        assert path is not None
        return path


class PairDPT(nn.Module):
    """Token maps at 4, 2, 1 and 1/2 times the grid, fused, to four channels at 16 times the grid."""

    config: PairConfig

    @nn.compact
    def __call__(self, tokens: list[Float[Array, "B T _"]], grid: tuple[int, int]) -> Float[Array, "B H W 4"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        resize = (
            ConvTranspose(c.layer_dims[0], 4, dtype, name="act_postprocess_0_1"),
            ConvTranspose(c.layer_dims[1], 2, dtype, name="act_postprocess_1_1"),
            lambda x: x,
            conv(c.layer_dims[3], 3, stride=2, dtype=dtype, name="act_postprocess_3_1"),
        )
        maps = []
        for i, (x, features) in enumerate(zip(tokens, c.layer_dims, strict=True)):
            x = x.reshape(x.shape[0], *grid, -1)
            maps.append(resize[i](conv(features, 1, dtype=dtype, name=f"act_postprocess_{i}_0")(x)))
        path = PairFusion(c.feature_dim, dtype, name="scratch")(maps)
        x = conv(c.feature_dim // 2, 3, dtype=dtype, name="head_0")(path)
        x = resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]), align_corners=True)
        x = nn.relu(conv(c.last_dim, 3, dtype=dtype, name="head_2")(x))
        return conv(4, 1, dtype=dtype, name="head_4")(x)


class PairHead(nn.Module):
    """Dense (`dpt`, over the encoder's and three of the decoder's outputs) or linear (`proj`, over the last output)."""

    config: PairConfig

    @nn.compact
    def __call__(self, tokens: list[Float[Array, "B T _"]], grid: tuple[int, int]) -> Float[Array, "B H W 4"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        if c.head_type == "dpt":
            return PairDPT(c, name="dpt")([tokens[i] for i in c.hooks], grid)
        x = Linear(4 * c.patch**2, dtype=dtype, name="proj")(tokens[-1])
        x = x.reshape(x.shape[0], *grid, 4, c.patch, c.patch)  # a patch's channels: channel, row, column
        x = jnp.transpose(x, (0, 1, 4, 2, 5, 3))
        return x.reshape(x.shape[0], grid[0] * c.patch, grid[1] * c.patch, 4)


def points_of(raw: Float[Array, "B H W 4"]) -> tuple[Float[Array, "B H W 3"], Float[Array, "B H W"]]:
    """Points, whose distance grows exponentially with the output's length, and confidences above 1; at least float32."""
    raw = raw.astype(at_least_float32(raw.dtype))
    vector = raw[..., :3]
    length = jnp.linalg.norm(vector, axis=-1, keepdims=True)
    return vector / jnp.maximum(length, SMALLEST) * jnp.expm1(length), 1 + jnp.exp(raw[..., 3])
