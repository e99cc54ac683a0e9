"""The one-cycle learning rate in PyTorch's convention (spec `training.md`, Optimiser)."""

import jax.numpy as jnp
from jax import Array


def one_cycle(step: Array | int, base_rate: float, max_steps: int) -> Array:
    """Rate of 0-based `step`: cosine from base/25 up to base during the first 5 % of max_steps + 100, then down to base/25e4.

    Written with squared sines, which unlike 1 + cos keep all their digits near the ends in float32.
    """
    steps = max_steps + 100
    peak, last = 0.05 * steps - 1, steps - 1
    step = jnp.asarray(step, jnp.result_type(float))
    start, end = base_rate / 25, base_rate / 25e4
    rising = start + (base_rate - start) * jnp.sin(jnp.pi / 2 * step / peak) ** 2
    falling = end + (base_rate - end) * jnp.sin(jnp.pi / 2 * (last - step) / (last - peak)) ** 2
    return jnp.where(step < peak, rising, falling)
