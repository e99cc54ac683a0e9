"""Leaf modules of convolutions: GroupNorm, the residual block, down- and upsampling (spec `diffusion.md` section 1).

B batch, H W the stated resolution, C channels, T channels of the time embedding. Norms are float32 whatever `dtype` is.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Linear, conv, torch_default


def group_norm(groups: int, eps: float, dtype: Any, name: str | None = None) -> nn.GroupNorm:
    """GroupNorm over contiguous channels with float32 statistics, the variance not by E[x^2] - E[x]^2."""
    return nn.GroupNorm(num_groups=groups, epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


class ResnetBlock2D(nn.Module):
    """Two 3x3 convolutions, each after norm and silu, the time embedding added between them, and the identity."""

    features: int
    groups: int
    eps: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], temb: Float[Array, "B T"] | None = None) -> Float[Array, "B H W D"]:
        h = nn.silu(group_norm(self.groups, self.eps, self.dtype, "norm1")(x))
        h = conv(self.features, 3, kernel_init=torch_default, dtype=self.dtype, name="conv1")(h)
        if temb is not None:
            h = h + Linear(self.features, dtype=self.dtype, name="time_emb_proj")(nn.silu(temb))[:, None, None]
        h = nn.silu(group_norm(self.groups, self.eps, self.dtype, "norm2")(h))
        h = conv(self.features, 3, kernel_init=torch_default, dtype=self.dtype, name="conv2")(h)
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, kernel_init=torch_default, dtype=self.dtype, name="conv_shortcut")(x)
        return x.astype(h.dtype) + h


class Downsample2D(nn.Module):
    """3x3 convolution of stride 2; ceil(n/2) with `padding` 1 on all sides, floor(n/2) with 0: then at bottom and right."""

    features: int
    padding: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        if self.padding == 0:
            x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
        layer = conv(self.features, 3, stride=2, padding=self.padding, kernel_init=torch_default, dtype=self.dtype, name="conv")
        return layer(x)


class Upsample2D(nn.Module):
    """Each pixel repeated 2 x 2, cut to `size` = (height, width) where that is given, and a 3x3 convolution."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], size: tuple[int, int] | None = None) -> Float[Array, "B H2 W2 D"]:
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        if size is not None:
            x = x[:, : size[0], : size[1]]
        return conv(self.features, 3, kernel_init=torch_default, dtype=self.dtype, name="conv")(x)
