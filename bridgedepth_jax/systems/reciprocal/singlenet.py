"""SingleNet: disparity from one image, a ResNet of torchvision with monodepth2's decoder (paper section 3.3; spec section 2).

B batch, H W an image's sides, h w those of a map, C channels.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Initializer, kaiming_normal, torch_default, torch_default_bias
from bridgedepth_jax.systems.reciprocal.config import SingleNetConfig

MEAN, DEVIATION = 0.45, 0.225  # of RGB in 0..1
EPSILON, MOMENTUM = 1e-5, 0.1  # of BatchNorm


class BatchNorm(nn.Module):
    """PyTorch's, over the global batch: `axes` are the mesh axes that the batch is split over, equally.

    Normalises by the biased variance, keeps the unbiased one (Flax keeps the biased). Statistics are centred before they are
    squared.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"], *, train: bool, axes: tuple[str, ...] = ()) -> Float[Array, "B h w C"]:
        shape = x.shape[-1:]
        scale, bias = self.param("scale", nn.initializers.ones, shape), self.param("bias", nn.initializers.zeros, shape)
        kept_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        kept_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if train:
            everywhere = lambda value: lax.pmean(value, axes) if axes else value
            mean = everywhere(jnp.mean(x, (0, 1, 2)))
            var = everywhere(jnp.mean(jnp.square(x - mean.reshape(1, 1, 1, -1)), (0, 1, 2)))
            if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
                count = x.shape[0] * x.shape[1] * x.shape[2] * (lax.axis_size(axes) if axes else 1)
                unbiased = var * (count / max(count - 1, 1))
                kept_mean.value += MOMENTUM * (lax.stop_gradient(mean) - kept_mean.value)
                kept_var.value += MOMENTUM * (lax.stop_gradient(unbiased) - kept_var.value)
        else:
            mean, var = kept_mean.value, kept_var.value
        mean, var, scale, bias = (value.astype(x.dtype).reshape(1, 1, 1, -1) for value in (mean, var, scale, bias))
        return (x - mean) * (scale * lax.rsqrt(var + EPSILON)) + bias


class Conv(nn.Module):
    """A square convolution, zero-padded, without bias: the ResNet's."""

    features: int
    kernel: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 C2"]:
        kernel = self.param("kernel", kaiming_normal, (self.kernel, self.kernel, x.shape[-1], self.features))
        return _convolve(x, kernel, self.stride, self.kernel // 2)


def _convolve(x: Array, kernel: Array, stride: int, pad: int) -> Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel.astype(x.dtype), (stride,) * 2, [(pad, pad)] * 2, dimension_numbers=numbers)


class Block(nn.Module):
    """A residual block: two 3x3 convolutions or, as a bottleneck, 1x1, 3x3 (with the stride) and 1x1 to four widths."""

    width: int
    stride: int
    bottleneck: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"], *, train: bool, axes: tuple[str, ...]) -> Float[Array, "B h2 w2 C2"]:
        norm = lambda name, y: BatchNorm(name=name)(y, train=train, axes=axes)
        out = 4 * self.width if self.bottleneck else self.width
        kernels = (1, 3, 1) if self.bottleneck else (3, 3)
        strides = (1, self.stride, 1) if self.bottleneck else (self.stride, 1)
        y = x
        for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True), 1):
            last = i == len(kernels)
            y = norm(f"bn{i}", Conv(out if last else self.width, kernel, stride, name=f"conv{i}")(y))
            y = y if last else nn.relu(y)
        if self.stride != 1 or x.shape[-1] != out:
            x = norm("downsample_1", Conv(out, 1, self.stride, name="downsample_0")(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """torchvision's ResNet without its classifier: maps at 1/2 .. 1/32."""

    config: SingleNetConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"], *, train: bool, axes: tuple[str, ...]) -> list[Float[Array, "B _h _w _C"]]:
        c = self.config
        x = Conv(c.width, 7, 2, name="conv1")(x)
        x = nn.relu(BatchNorm(name="bn1")(x, train=train, axes=axes))
        maps = [x]
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # type: ignore[arg-type]
        for stage, blocks in enumerate(c.depths):
            for i in range(blocks):
                block = Block(c.width << stage, 2 if stage and not i else 1, c.bottleneck, name=f"layer{stage + 1}_{i}")
                x = block(x, train=train, axes=axes)
            maps.append(x)
        for i, found in enumerate(maps):
            self.sow("taps", f"feature_{i}", found)
        return maps


class ResNetEncoder(nn.Module):
    """monodepth2 holds the ResNet as `encoder` in its `encoder.pth`."""

    config: SingleNetConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"], *, train: bool, axes: tuple[str, ...]) -> list[Float[Array, "B _h _w _C"]]:
        return ResNet(self.config, name="encoder")((x / 255 - MEAN) / DEVIATION, train=train, axes=axes)


class Conv3x3(nn.Module):
    """3x3 behind a reflection of one pixel."""

    features: int
    bias_init: Initializer | None = None  # None: PyTorch's default

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C2"]:
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        return _Biased(self.features, self.bias_init, name="conv")(x)


class _Biased(nn.Module):
    features: int
    bias_init: Initializer | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", torch_default, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init or torch_default_bias(9 * x.shape[-1]), (self.features,))
        return _convolve(x, kernel, 1, 0) + bias.astype(x.dtype).reshape(1, 1, 1, -1)


class ConvBlock(nn.Module):
    """Conv3x3 and ELU."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C2"]:
        return nn.elu(Conv3x3(self.features, name="conv")(x))


class DepthDecoder(nn.Module):
    """Sigmoids at 1, 1/2, 1/4 and 1/8 of the image's resolution."""

    config: SingleNetConfig

    @nn.compact
    def __call__(self, maps: list[Float[Array, "B _h _w _C"]]) -> tuple[Float[Array, "B _h _w"], ...]:
        widths = self.config.decoder
        levels, outputs = len(widths), []
        x = maps[-1]
        for i in range(levels - 1, -1, -1):
            number = 2 * (levels - 1 - i)
            x = ConvBlock(widths[i], name=f"decoder_{number}")(x)
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            if i > 0:
                x = jnp.concatenate([x, maps[i - 1]], axis=-1)
            x = ConvBlock(widths[i], name=f"decoder_{number + 1}")(x)
            if i < levels - 1:
                bias = nn.initializers.constant(self.config.bias)
                outputs.append(nn.sigmoid(Conv3x3(1, bias, name=f"decoder_{2 * levels + i}")(x)[..., 0]))
        return tuple(reversed(outputs))


class SingleNet(nn.Module):
    """Sigmoids of an image (RGB 0..255), full resolution first; `disparities` gives them a unit.

    Sides are multiples of `config.multiple`. With `train`, BatchNorm uses the statistics of the batch, over the mesh axes
    `axes`, and updates its running ones where the collection `batch_stats` is mutable.
    """

    config: SingleNetConfig

    @nn.compact
    def __call__(
        self, image: Float[Array, "B H W 3"], *, train: bool = False, axes: tuple[str, ...] = ()
    ) -> tuple[Float[Array, "B _h _w"], ...]:
        height, width = image.shape[1:3]
        if height % self.config.multiple or width % self.config.multiple:
            raise ValueError(f"an image of {height} x {width}, expected multiples of {self.config.multiple}")
        maps = ResNetEncoder(self.config, name="encoder")(image, train=train, axes=axes)
        return DepthDecoder(self.config, name="depth")(maps)


def disparities(sigmoids: tuple[Array, ...], config: SingleNetConfig, width: int) -> tuple[Array, ...]:
    """In pixels of the image's full width."""
    c = config
    return tuple(c.factor * width * (c.smallest + (c.largest - c.smallest) * s) for s in sigmoids)
