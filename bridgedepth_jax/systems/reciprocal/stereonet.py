"""StereoNet: disparity from coarse to fine with one estimator for all levels (paper section 3.2; spec section 1).

B batch, H W an image's sides, h w those of a level, C channels. Level i has stride 2^(i+1); disparities are in pixels of the
level until they become outputs, in pixels of the image's full width.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from bridgedepth_jax.layers import torch_default, torch_default_bias, zeros
from bridgedepth_jax.ops.resize import resize_bilinear
from bridgedepth_jax.ops.warp import row_correlation, warp_rows
from bridgedepth_jax.systems.reciprocal.config import StereoNetConfig

SLOPE = 0.1  # of LeakyReLU


class Conv(nn.Module):
    """A convolution with PyTorch's initial values, zero padding and LeakyReLU."""

    features: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    active: bool = True
    zero: bool = False  # weights start at 0

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 C2"]:
        k, pad = self.kernel, self.dilation * (self.kernel // 2)
        shape = (k, k, x.shape[-1], self.features)
        kernel = self.param("kernel", zeros if self.zero else torch_default, shape)
        bias = self.param("bias", zeros if self.zero else torch_default_bias(k * k * x.shape[-1]), (self.features,))
        y = lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            (self.stride,) * 2,
            [(pad, pad)] * 2,
            rhs_dilation=(self.dilation,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ) + bias.astype(x.dtype).reshape(1, 1, 1, -1)
        return nn.leaky_relu(y, SLOPE) if self.active else y


class Encoder(nn.Module):
    """Feature maps by level, all on the way down or, of the U-Net, down and up again."""

    config: StereoNetConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> dict[int, Float[Array, "B _h _w _C"]]:
        c = self.config
        down: dict[int, Array] = {}
        for i, width in enumerate(c.widths):
            x = Conv(width, stride=2, name=f"down_{i}_0")(x)
            x = down[i] = Conv(width, name=f"down_{i}_1")(x)
        if c.encoder == "pyramid":
            return down
        top = len(c.widths) - 1
        maps = {top: x}
        for i in range(top - 1, c.finest - 1, -1):
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = Conv(c.widths[i], name=f"up_{i}_0")(x)
            x = maps[i] = Conv(c.widths[i], name=f"up_{i}_1")(jnp.concatenate([x, down[i]], axis=-1))
        return maps


class Estimator(nn.Module):
    """Five convolutions, each of the last three reading the two before it: (features, step of the disparity)."""

    config: StereoNetConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> tuple[Float[Array, "B h w C2"], Float[Array, "B h w 1"]]:
        widths = self.config.estimator
        before = Conv(widths[0], name="conv1")(x)
        x = Conv(widths[1], name="conv2")(before)
        for i, width in enumerate(widths[2:], 3):
            before, x = x, Conv(width, name=f"conv{i}")(jnp.concatenate([before, x], axis=-1))
        both = jnp.concatenate([before, x], axis=-1)
        return x, Conv(1, active=False, zero=self.config.zero_predict, name="predict")(both)


class Context(nn.Module):
    """Dilated convolutions that correct the estimator's disparity by what is around."""

    config: StereoNetConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w 1"]:
        for i, (width, dilation) in enumerate(zip(self.config.context, self.config.dilations, strict=True)):
            x = Conv(width, dilation=dilation, name=f"conv_{i}")(x)
        return Conv(1, active=False, zero=self.config.zero_predict, name="predict")(x)


class StereoNet(nn.Module):
    """Disparities of the left view in pixels of its full width, full resolution first, each half of the one before.

    Not clamped: the network may say what lies behind the cameras. Sides are multiples of `config.multiple`.
    """

    config: StereoNetConfig

    @nn.compact
    def __call__(self, left: Float[Array, "B H W 3"], right: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B _h _w"], ...]:
        c, (height, width) = self.config, left.shape[1:3]
        if height % c.multiple or width % c.multiple:
            raise ValueError(f"an image of {height} x {width}, expected multiples of {c.multiple}")
        maps = Encoder(c, name="encoder")(jnp.concatenate([left, right]) / 255)
        estimator, context = Estimator(c, name="estimator"), Context(c, name="context")
        top = len(c.widths) - 1
        d: Array | None = None
        outputs = []
        for i in range(top, c.finest - 1, -1):
            one, other = jnp.split(maps[i], 2)
            self.sow("taps", f"feature_left_{i}", one)
            if d is None:
                d = jnp.zeros((*one.shape[:3], 1), one.dtype)
            else:
                d = 2 * resize_bilinear(d, (one.shape[1], one.shape[2]), align_corners=False)
                other = warp_rows(other, d[..., 0])
            views = one, other
            if c.normalize_features or c.normalize_channels:
                views = normalize(one, other, channels=c.normalize_channels)
            correlation = row_correlation(*views, c.radius)
            self.sow("matching", f"level_{i}", (correlation, d[..., 0]))
            correlation = nn.leaky_relu(correlation, SLOPE)
            self.sow("taps", f"correlation_{i}", correlation)
            projected = Conv(c.projected, kernel=1, name=f"project_{i}")(one)
            features, step = estimator(jnp.concatenate([correlation, projected, d], axis=-1))
            d = d + step
            d = d + context(jnp.concatenate([features, d], axis=-1))
            if i < top:
                k = i - c.finest
                full = resize_bilinear(d, (height >> k, width >> k), align_corners=False)
                outputs.append(2 ** (i + 1) * full[..., 0])
        return tuple(reversed(outputs))


def normalize(a: Float[Array, "B h w C"], b: Float[Array, "B h w C"], *, channels: bool = False) -> tuple[Array, Array]:
    """Both with their common mean and deviation, of a pair (and of each channel), taken out."""
    both = jnp.stack([a, b])
    axes = (0, 2, 3) if channels else (0, 2, 3, 4)
    mean = jnp.mean(both, axis=axes, keepdims=True)
    variance = jnp.mean(jnp.square(both - mean), axis=axes, keepdims=True)
    both = (both - mean) * lax.rsqrt(variance + 1e-12)
    return both[0], both[1]
