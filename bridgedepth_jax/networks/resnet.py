"""The residual encoder with instance norm, RAFT's (arXiv 2003.12039; spec `architecture.md` section 3, `resnet`)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Remat, conv, instance_norm, rematted
from bridgedepth_jax.networks.config import BackboneConfig


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and the identity, projected where stride or width changes."""

    features: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C2"]:
        y = conv(self.features, 3, stride=self.stride, use_bias=False, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(instance_norm(y))
        y = conv(self.features, 3, use_bias=False, dtype=self.dtype, name="conv2")(y)
        y = nn.relu(instance_norm(y))
        if self.stride != 1 or x.shape[-1] != self.features:
            x = instance_norm(conv(self.features, 1, stride=self.stride, dtype=self.dtype, name="downsample_0")(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """RGB in 0..255 to a map at 1/4."""

    config: BackboneConfig
    dtype: Any = jnp.float32
    kept: Remat | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"], *, train: bool) -> Float[Array, "B h w C"]:
        c = self.config
        x = (2 * (x / 255) - 1).astype(self.dtype)
        x = conv(c.dims[0], 7, stride=2, use_bias=False, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(instance_norm(x))
        block = rematted(ResidualBlock, self.kept)
        for stage, (features, blocks, stride) in enumerate(zip(c.dims, c.depths, (1, 2, 1), strict=True), 1):
            for i in range(blocks):
                x = block(features, stride if i == 0 else 1, self.dtype, name=f"layer{stage}_{i}")(x)
        return conv(c.out_channels, 1, dtype=self.dtype, name="conv2")(x)
