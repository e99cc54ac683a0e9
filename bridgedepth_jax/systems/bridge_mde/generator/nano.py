"""A generator small enough for two cores, on FLUX's own sampler and loop (spec `mono-training.md` section 10).

The latent is the image; a convolutional network says the velocity, depth as its fourth channel.
B images, H W pixels. Images are RGB in -1..1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Linear, conv, gelu, torch_default
from bridgedepth_jax.networks.diffusion import flow
from bridgedepth_jax.networks.diffusion.config import FlowConfig
from bridgedepth_jax.networks.diffusion.flux import FREQUENCIES, scalar_features

TOKENS = 64  # that the noise levels are shifted for: hardly


class NanoVelocity(nn.Module):
    """Residual 3x3 convolutions of growing dilation, each with the time added to its channels."""

    features: int = 48
    dilations: tuple[int, ...] = (1, 2, 4, 8, 4, 2, 1)

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W 3"], control: Float[Array, "B H W 1"], time: Float[Array, "F"]
    ) -> Float[Array, "B H W 3"]:
        temb = nn.silu(Linear(self.features, name="time_1")(time))
        h = conv(self.features, 3, kernel_init=torch_default, name="conv_in")(jnp.concatenate([x, control], axis=-1))
        for i, dilation in enumerate(self.dilations):
            y = h + Linear(self.features, name=f"time_{i + 2}")(temb)[None, None, None]
            y = nn.LayerNorm(epsilon=1e-6, name=f"norm_{i}")(y)
            y = nn.Conv(self.features, (3, 3), kernel_dilation=dilation, name=f"conv_{i}")(gelu(y))
            h = h + y
        return nn.Conv(3, (3, 3), kernel_init=nn.initializers.zeros_init(), name="conv_out")(h)


def init_nano(key: Array, height: int, width: int) -> Any:
    """Random parameters of a `NanoVelocity`."""
    size = (1, height, width)
    return NanoVelocity().init(key, jnp.zeros((*size, 3)), jnp.zeros((*size, 1)), jnp.zeros(FREQUENCIES))["params"]


def control_of(inverse: Float[Array, "B H W"]) -> Float[Array, "B H W 1"]:
    """Inverse depth by its smallest and largest value to -1..1."""
    low, high = (reduce(inverse, axis=(1, 2), keepdims=True) for reduce in (jnp.min, jnp.max))
    return ((inverse - low) / jnp.maximum(high - low, 1e-9) * 2 - 1)[..., None]


def flow_loss(params: Any, image: Float[Array, "B H W 3"], inverse: Float[Array, "B H W"], key: Array) -> Float[Array, ""]:
    """Stage 1: the velocity's mean squared error at one noise level for the batch, the sigmoid of a normal draw."""
    first, second = jax.random.split(key)
    sigma = flow.shifted(FlowConfig(), jax.nn.sigmoid(jax.random.normal(first)), TOKENS)
    noise = jax.random.normal(second, image.shape)
    frequencies = 10_000.0 ** (-jnp.arange(FREQUENCIES // 2) / (FREQUENCIES // 2))
    angle = 1000 * sigma * frequencies
    time = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)])
    found: Any = NanoVelocity().apply({"params": params}, (1 - sigma) * image + sigma * noise, control_of(inverse), time)
    return jnp.mean(jnp.square(found - (noise - image)))


def make_sampler(steps: int, *, remat: bool = True) -> Callable[..., Array]:
    """(params, inverse, noise (B, H, W, 3), last=) -> images, not clipped."""
    levels = flow.sigmas(FlowConfig(), steps, TOKENS)
    times = jnp.asarray(scalar_features(np.asarray(levels[:-1])), jnp.float32)

    def sample(params: Any, inverse: Array, noise: Array, *, last: int | Array = 0) -> Array:
        control = control_of(inverse)

        def velocity(params: Any, x: Array, time: Array) -> Array:
            found: Any = NanoVelocity().apply({"params": params}, x, control, time)
            return found

        return flow.sample(velocity, params, noise, levels, times, last=last, remat=remat)

    return sample
