"""The metric scale of an image, predicted beside a frozen relative network (spec `mono-training.md` section 4).

B images, T patch tokens, D their width, H W the map.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Linear, at_least_float32, gelu, torch_default, zeros

LEAST_MEAN = 1e-6


class ScaleHead(nn.Module):
    """Logarithm of a scale, and a shift, of inverse depth in 1/m: (u, v) = fc2(gelu(fc1([class token, mean patch token])))."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, cls: Float[Array, "B D"], tokens: Float[Array, "B T D"]) -> Float[Array, "B 2"]:
        width = cls.shape[-1]
        x = jnp.concatenate([cls, jnp.mean(tokens, axis=1)], axis=-1)
        x = gelu(Linear(width, kernel_init=torch_default, dtype=self.dtype, name="fc1")(x))
        x = Linear(2, kernel_init=zeros, dtype=self.dtype, name="fc2")(x)
        return x.astype(at_least_float32(x.dtype))


def metric_depth(relative: Float[Array, "B H W"], scale: Float[Array, "B 2"], low: float, high: float) -> Float[Array, "B H W"]:
    """Metres of relative inverse depth, known up to its mean and a shift; between `low` and `high`."""
    mean = jnp.maximum(jnp.mean(relative, axis=(1, 2), keepdims=True), LEAST_MEAN)
    u, v = scale[:, 0, None, None], scale[:, 1, None, None]
    return 1 / jnp.clip(jnp.exp(u) * relative / mean + v, 1 / high, 1 / low)
