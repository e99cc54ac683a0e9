"""Learning rates: a table of schedules, each a function of the 0-based step, the largest rate and the number of steps."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from bridgedepth_jax.training.config import SolverConfig

SPARE = 100  # steps by which BridgeDepth's cycle is longer than its run


def learning_rate(step: Array | int, solver: SolverConfig) -> Array:
    """The rate of a step, before the factors of parameter groups."""
    return SCHEDULES[solver.schedule](step, solver.base_lr, solver.max_iter)


def one_cycle(step: Array | int, base_rate: float, max_steps: int) -> Array:
    """BridgeDepth's, in PyTorch's convention (spec `training.md`, Optimiser): cosine from base/25 up to base during the first
    5 % of max_steps + 100, then down to base/25e4.

    Written with squared sines, which unlike 1 + cos keep all their digits near the ends in float32.
    """
    steps = max_steps + SPARE
    peak, last = 0.05 * steps - 1, steps - 1
    step = jnp.asarray(step, jnp.result_type(float))
    start, end = base_rate / 25, base_rate / 25e4
    rising = start + (base_rate - start) * jnp.sin(jnp.pi / 2 * step / peak) ** 2
    falling = end + (base_rate - end) * jnp.sin(jnp.pi / 2 * (last - step) / (last - peak)) ** 2
    return jnp.where(step < peak, rising, falling)


def constant(step: Array | int, base_rate: float, max_steps: int) -> Array:
    """The same rate throughout."""
    return jnp.full_like(jnp.asarray(step, jnp.result_type(float)), base_rate)


def drop(step: Array | int, base_rate: float, max_steps: int) -> Array:
    """A tenth of the rate in the last quarter of the steps, as after 15 of 20 epochs (spec `self-supervised.md` section 4)."""
    step = jnp.asarray(step, jnp.result_type(float))
    return jnp.where(4 * step < 3 * max_steps, base_rate, base_rate / 10)


def linear(step: Array | int, base_rate: float, max_steps: int) -> Array:
    """From the largest rate straight to 0 (Depth Anything's relative stages, spec `mono-training.md` section 3)."""
    return base_rate * (1 - jnp.asarray(step, jnp.result_type(float)) / max_steps)


def polynomial(step: Array | int, base_rate: float, max_steps: int) -> Array:
    """The same to the power of 0.9 (Depth Anything's metric stages)."""
    return base_rate * jnp.maximum(1 - jnp.asarray(step, jnp.result_type(float)) / max_steps, 0) ** 0.9


SCHEDULES: dict[str, Callable[[Array | int, float, int], Array]] = {
    "one_cycle": one_cycle,
    "constant": constant,
    "drop": drop,
    "linear": linear,
    "polynomial": polynomial,
}
