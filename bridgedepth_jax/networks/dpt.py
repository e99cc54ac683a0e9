"""The head of DPT (arXiv 2103.13413) in Depth Anything V2: four token maps to one dense feature map, or to depth.

Spec `architecture.md` section 2.2. Letters: B batch, T tokens of an image, D their width, H W C a map.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import ConvTranspose, Remat, conv, zeros
from bridgedepth_jax.networks.config import DepthConfig, MonoConfig
from bridgedepth_jax.networks.fusion import fuse
from bridgedepth_jax.ops.resize import resize_bilinear

LAST_BIAS = 0.1  # initial, of the last convolution of a depth network


class DPTFusion(nn.Module):
    """Fusion with aligned corners, and the output convolutions: the `scratch` of MiDaS, DPT and what came from them."""

    config: MonoConfig
    dtype: Any = jnp.float32
    kept: Remat | None = None

    @nn.compact
    def __call__(self, maps: list[Float[Array, "B _ _ _"]], grid: tuple[int, int], *, depth: bool) -> Float[Array, "..."]:
        c = self.config
        finest = maps[0].shape[1:3]
        size = finest[0] * 2, finest[1] * 2
        path = fuse(maps, c.features, align_corners=True, last_size=size, dtype=self.dtype, kept=self.kept)
        features = conv(c.features // 2, 3, dtype=self.dtype, name="output_conv1")(path)
        if depth or self.is_initializing():
            size = grid[0] * c.patch, grid[1] * c.patch
            x = resize_bilinear(features, size, align_corners=True)
            x = nn.relu(conv(32, 3, dtype=self.dtype, name="output_conv2_0")(x))
            own = isinstance(c, DepthConfig)  # trained by itself: at bias 0 its relu can be dead from the start
            bias = nn.initializers.constant(LAST_BIAS) if own else zeros
            x = conv(1, 1, bias_init=bias, dtype=self.dtype, name="output_conv2_2")(x)
            x = nn.sigmoid(x) if own and c.head == "metric" else nn.relu(x)
            if depth:
                return x[..., 0]
        return features


class DPTHead(nn.Module):
    """Reassembles the token maps at 4, 2, 1 and 1/2 times the token grid and fuses them."""

    config: MonoConfig
    dtype: Any = jnp.float32
    kept: Remat | None = None

    @nn.compact
    def __call__(self, tokens: list[Float[Array, "B T D"]], grid: tuple[int, int], *, depth: bool) -> Float[Array, "..."]:
        c = self.config
        resize = (
            ConvTranspose(c.out_channels[0], 4, self.dtype, name="resize_layers_0"),
            ConvTranspose(c.out_channels[1], 2, self.dtype, name="resize_layers_1"),
            lambda x: x,
            conv(c.out_channels[3], 3, stride=2, dtype=self.dtype, name="resize_layers_3"),
        )
        maps = []
        for i, (x, features) in enumerate(zip(tokens, c.out_channels, strict=True)):
            x = x.reshape(x.shape[0], *grid, -1)
            maps.append(resize[i](conv(features, 1, dtype=self.dtype, name=f"projects_{i}")(x)))
        return DPTFusion(c, self.dtype, self.kept, name="scratch")(maps, grid, depth=depth)
