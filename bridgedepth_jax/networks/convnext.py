"""ConvNeXt-Tiny (arXiv 2201.03545) without its last stage, fused to 1/4; torchvision's numbering.

Spec `architecture.md` section 3, `convnext`. Letters: B batch, H W image or map, h w map at 1/4, C channels.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import DepthwiseConv, Linear, Remat, conv, drop_path, gelu, layer_norm, normal_002, rematted
from bridgedepth_jax.networks.config import BackboneConfig
from bridgedepth_jax.networks.fusion import EncoderFusion
from bridgedepth_jax.ops.image import normalize


class ConvNeXtBlock(nn.Module):
    """x + drop_path(layer_scale * f(x)), f: depthwise 7x7, LayerNorm, Linear to 4x, GELU, Linear."""

    drop_rate: float
    dtype: Any = jnp.float32
    kept: Remat | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B H W C"]:
        y = rematted(ConvNeXtBlock._branch, self.kept)(self, x)
        return x + drop_path(self, y, self.drop_rate, train=train)

    def _branch(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        width = x.shape[-1]
        y = DepthwiseConv(7, dtype=self.dtype, name="block_0")(x)
        y = layer_norm(1e-6, self.dtype, "block_2")(y)
        y = gelu(Linear(4 * width, kernel_init=normal_002, dtype=self.dtype, name="block_3")(y))
        y = Linear(width, kernel_init=normal_002, dtype=self.dtype, name="block_5")(y)
        scale = self.param("layer_scale", nn.initializers.constant(1e-6), (width,))
        return y * scale.astype(self.dtype).reshape(1, 1, 1, -1)


class ConvNeXt(nn.Module):
    """RGB in 0..255 to a map at 1/4."""

    config: BackboneConfig
    dtype: Any = jnp.float32
    kept: Remat | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"], *, train: bool) -> Float[Array, "B h w C"]:
        c = self.config
        x = conv(c.dims[0], 4, stride=4, padding=0, dtype=self.dtype, name="features_0_0")(normalize(x))
        x = layer_norm(1e-6, self.dtype, "features_0_1")(x)
        maps, done, last = [], 0, max(sum(c.depths) - 1, 1)
        for stage, (width, blocks) in enumerate(zip(c.dims, c.depths, strict=True)):
            if stage:
                x = layer_norm(1e-6, self.dtype, f"features_{2 * stage}_0")(x)
                x = conv(width, 2, stride=2, padding=0, dtype=self.dtype, name=f"features_{2 * stage}_1")(x)
            for i in range(blocks):
                rate = c.drop_path * done / last
                x = ConvNeXtBlock(rate, self.dtype, self.kept, name=f"features_{2 * stage + 1}_{i}")(x, train=train)
                done += 1
            maps.append(layer_norm(1e-6, self.dtype, f"norms_{stage}")(x))
        return EncoderFusion(c.out_channels, self.dtype, self.kept, name="scratch")(maps)
