"""Leaf modules. Parameter names and initial values are PyTorch's; shapes are JAX's (spec `architecture.md` section 8).

Parameters are float32; `dtype` is what a layer computes and returns in. Letters: B batch, T tokens, H heads, K head width.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

# What training keeps of a block until the backward pass, where it does not keep all: nothing, results of products with weights,
# or these in the host's memory.
Remat = Literal["nothing", "dots", "offload"]

Initializer = Callable[..., Array]
kaiming_normal: Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
normal_002: Initializer = nn.initializers.normal(0.02)
torch_default: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # uniform in +-1/sqrt(fan_in)
zeros: Initializer = nn.initializers.zeros_init()


def torch_default_bias(fan_in: int) -> Initializer:
    """Uniform in +-1/sqrt(fan_in), PyTorch's default for the bias of a layer that has `fan_in` inputs."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def at_least_float32(dtype: Any) -> Any:
    """The dtype of whatever must not lose precision: disparities, coordinates, softmax."""
    return jnp.promote_types(dtype, jnp.float32)


@jax.jit  # these named functions are operators of their own in an exported graph (export/onnx_ops.py)
def gelu(x: Array) -> Array:
    """The exact (erf) GELU."""
    return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))


@jax.jit
def softmax(x: Array) -> Array:
    """Over the last axis."""
    return jax.nn.softmax(x)


@jax.jit
def instance_norm(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Zero mean and unit biased variance over H and W, eps 1e-5, no affine part; statistics at least float32."""
    y = x.astype(at_least_float32(x.dtype))
    mean = jnp.mean(y, (1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(y - mean), (1, 2), keepdims=True)
    return ((y - mean) * lax.rsqrt(variance + 1e-5)).astype(x.dtype)


class Linear(nn.Module):
    """y = x @ kernel + bias over the last axis."""

    features: int
    use_bias: bool = True
    kernel_init: Initializer | None = None  # None: PyTorch's default, of the bias too
    dtype: Any = jnp.float32

    def weights(self, fan_in: int) -> tuple[Array, Array | None]:
        """Kernel (fan_in, features) and bias (features,) in `dtype`, for what applies them in another order."""
        kernel = self.param("kernel", self.kernel_init or torch_default, (fan_in, self.features))
        bias_init = zeros if self.kernel_init else torch_default_bias(fan_in)
        bias = self.param("bias", bias_init, (self.features,)) if self.use_bias else None
        return kernel.astype(self.dtype), None if bias is None else bias.astype(self.dtype)

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        kernel, bias = self.weights(x.shape[-1])
        y = x.astype(self.dtype).reshape(-1, x.shape[-1]) @ kernel
        y = y if bias is None else y + bias[None]
        return y.reshape(*x.shape[:-1], -1)


class SplitHeads(Linear):
    """A Linear whose outputs are ordered (part, head, channel), delivered head first: (B, T, I) to parts x (B, H, T, K)."""

    parts: int = 1
    heads: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B T I"]) -> tuple[Float[Array, "B H T K"], ...]:
        kernel, bias = self.weights(x.shape[-1])
        y = x.astype(self.dtype) @ kernel
        y = y if bias is None else y + bias.reshape(1, 1, -1)
        y = y.reshape(*x.shape[:2], self.parts, self.heads, -1)
        return tuple(jnp.moveaxis(y, (2, 3), (0, 2)))


class MergeHeads(Linear):
    """A Linear over the concatenated heads: (B, H, T, K) to (B, T, O)."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H T K"]) -> Float[Array, "B T O"]:
        _, heads, _, width = x.shape
        kernel, bias = self.weights(heads * width)
        y = jnp.einsum("bhtk,hkd->btd", x.astype(self.dtype), kernel.reshape(heads, width, -1))
        return y if bias is None else y + bias.reshape(1, 1, -1)


@jax.jit
def normalize_channels(x: Float[Array, "*B C"], scale: Float[Array, "C"], bias: Float[Array, "C"], eps: float) -> Array:
    """Zero mean and unit biased variance over the last axis, then scale and bias; at least float32."""
    x = x.astype(at_least_float32(x.dtype))
    mean = jnp.mean(x, -1, keepdims=True)
    factor = lax.rsqrt(jnp.mean(jnp.square(x - mean), -1, keepdims=True) + eps)
    row = (1,) * (x.ndim - 1) + (-1,)
    return (x - mean) * (factor * scale.reshape(row)) + bias.reshape(row)


class LayerNorm(nn.Module):
    """LayerNorm over channels with float32 statistics, the variance not by E[x^2] - E[x]^2."""

    epsilon: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        bias = self.param("bias", zeros, (x.shape[-1],))
        return normalize_channels(x, scale, bias, self.epsilon).astype(self.dtype)


def layer_norm(eps: float, dtype: Any, name: str | None = None) -> LayerNorm:
    """A `LayerNorm`; the names of its parameters are Flax's."""
    return LayerNorm(eps, dtype, name=name)


class Mlp(nn.Module):
    """fc1, exact GELU, fc2."""

    hidden: int
    features: int
    kernel_init: Initializer | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        x = Linear(self.hidden, kernel_init=self.kernel_init, dtype=self.dtype, name="fc1")(x)
        return Linear(self.features, kernel_init=self.kernel_init, dtype=self.dtype, name="fc2")(gelu(x))


class Head(nn.Module):
    """Linear layers with relu between, `layers_0` to `layers_{n-1}`."""

    features: tuple[int, ...]
    kernel_init: Initializer | None = None
    last_init: Initializer | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        for i, features in enumerate(self.features):
            last = i == len(self.features) - 1
            init = self.last_init if last and self.last_init else self.kernel_init
            x = Linear(features, kernel_init=init, dtype=self.dtype, name=f"layers_{i}")(x)
            x = x if last else nn.relu(x)
        return x


def conv(
    features: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    use_bias: bool = True,
    kernel_init: Initializer = kaiming_normal,
    bias_init: Initializer = zeros,
    dtype: Any = jnp.float32,
    name: str | None = None,
) -> nn.Conv:
    """Square cross-correlation with zero padding, by default of kernel // 2."""
    pad = kernel // 2 if padding is None else padding
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        [(pad, pad)] * 2,
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=dtype,
        name=name,
    )


@jax.jit
def depthwise_conv(x: Float[Array, "B H W C"], kernel: Float[Array, "k k 1 C"]) -> Float[Array, "B H W C"]:
    """Depthwise cross-correlation with zero padding, as shifted products: XLA's grouped convolution is 10x slower on CPU.

    In two halves, because XLA's CPU fusion does not look through a concatenation: it would otherwise take the shifted
    products into each reduction of a LayerNorm behind them and compute them several times.
    """
    size = kernel.shape[0]
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    halves = []
    for rows in (range(height // 2), range(height // 2, height)):
        terms = (
            padded[:, rows.start + i : rows.stop + i, j : j + width] * kernel[i, j].reshape(1, 1, 1, -1)
            for i in range(size)
            for j in range(size)
        )
        halves.append(functools.reduce(jnp.add, terms))
    return jnp.concatenate(halves, 1)


class DepthwiseConv(nn.Module):
    """`depthwise_conv` with its parameters."""

    kernel_size: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[-1])
        y = depthwise_conv(x.astype(self.dtype), self.param("kernel", kaiming_normal, shape).astype(self.dtype))
        if self.use_bias:
            y = y + self.param("bias", zeros, (x.shape[-1],)).astype(self.dtype).reshape(1, 1, 1, -1)
        return y


class ConvTranspose(nn.Module):
    """Transposed convolution whose stride is its kernel size: every input pixel becomes its own block of outputs."""

    features: int
    kernel_size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B kH kW O"]:
        b, h, w, c = x.shape
        k = self.kernel_size
        kernel = self.param("kernel", kaiming_normal, (k, k, c, self.features)).astype(self.dtype)
        bias = self.param("bias", zeros, (self.features,)).astype(self.dtype)
        y = jnp.einsum("bhwi,klio->bhkwlo", x.astype(self.dtype), kernel)
        return y.reshape(b, h * k, w * k, self.features) + bias.reshape(1, 1, 1, -1)


def attention(
    q: Float[Array, "B H T K"], k: Float[Array, "B H S K"], v: Float[Array, "B H S K"], max_logits: int = 2**27
) -> Float[Array, "B H T K"]:
    """softmax(q k / sqrt(K)) v, softmax at least float32.

    Queries are taken in chunks, one after the other, when B*H*T*S would exceed `max_logits`, so that memory stays bounded
    at any image size.
    """
    scale = q.shape[-1] ** -0.5

    def attend(q):
        logits = jnp.einsum("bhtk,bhsk->bhts", q, k).astype(at_least_float32(q.dtype)) * scale
        return jnp.einsum("bhts,bhsk->bhtk", softmax(logits).astype(v.dtype), v)

    b, heads, tokens, width = q.shape
    chunks = -(-(b * heads * tokens * k.shape[2]) // max_logits)
    if chunks == 1:
        return attend(q)
    size = -(-tokens // chunks)
    padded = jnp.pad(q, ((0, 0), (0, 0), (0, size * chunks - tokens), (0, 0)))
    parts = jnp.moveaxis(padded.reshape(b, heads, chunks, size, width), 2, 0)
    out = jnp.moveaxis(lax.map(jax.checkpoint(attend), parts), 0, 2)
    return out.reshape(b, heads, size * chunks, width)[:, :, :tokens]


POLICIES: dict[str, Any] = {
    "nothing": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "offload": jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
}


def rematted(target: Any, kept: Remat | None, static: tuple[int, ...] = ()) -> Any:
    """A module class, or a function of a module and arrays, whose backward pass computes its intermediates again but `kept`.

    None: as it is. `static` counts the module itself as argument 0. What draws random numbers or reads other collections than
    the parameters has to stand outside.
    """
    return target if kept is None else nn.remat(target, policy=POLICIES[kept], static_argnums=static)


def drop_path(module: nn.Module, x: Array, rate: float, *, train: bool) -> Array:
    """Stochastic depth: in training a sample's branch `x` is dropped with probability `rate`, else divided by 1 - rate.

    A sample's draw depends on its number alone: its row, or what the collection "samples" (`numbers`, one a row) says, so
    that a part of a batch draws as the whole batch does.
    """
    if not train or rate == 0:
        return x
    numbers = module.scope.root.get_variable("samples", "numbers", jnp.arange(len(x)))  # type: ignore[union-attr]
    key = module.make_rng("drop_path")
    keep = jax.vmap(lambda number: jax.random.bernoulli(jax.random.fold_in(key, number), 1 - rate))(numbers)
    keep = keep.reshape(-1, *(1,) * (x.ndim - 1))
    return jnp.where(keep, x / (1 - rate), 0)
