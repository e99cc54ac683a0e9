"""Flow matching as FLUX walks it: noise levels, packing, and an Euler sampler whose last steps carry gradients.

Spec `mono-training.md` sections 7 and 8. B batch, h w latents, C their channels, N = h/2 * w/2 tokens, S steps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from bridgedepth_jax.networks.diffusion.config import FlowConfig

CELL = 2  # latents of a token's side


def sigmas(config: FlowConfig, steps: int, tokens: int) -> Float[np.ndarray, "S1"]:
    """Noise levels from 1 down to 0, float64: as many as steps, and the end."""
    even = np.linspace(1, 1 / steps, steps)
    return np.append(shifted(config, even, tokens), 0.0)


def shifted(config: FlowConfig, sigma: Any, tokens: int) -> Any:
    """Noise levels moved up the more tokens an image has."""
    slope = (config.max_shift - config.base_shift) / (config.max_tokens - config.base_tokens)
    factor = float(np.exp(config.base_shift + (tokens - config.base_tokens) * slope))
    return factor / (factor + 1 / sigma - 1)


def pack(latent: Float[Array, "B h w C"]) -> Float[Array, "B N D"]:
    """2x2 latents to a token, channels (c, dy, dx) with c slowest."""
    b, h, w, c = latent.shape
    x = latent.reshape(b, h // CELL, CELL, w // CELL, CELL, c)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(b, (h // CELL) * (w // CELL), c * CELL**2)


def unpack(tokens: Float[Array, "B N D"], rows: int, columns: int) -> Float[Array, "B h w C"]:
    """Inverse of `pack`; of tokens in `rows` x `columns`."""
    b, _, d = tokens.shape
    x = tokens.reshape(b, rows, columns, d // CELL**2, CELL, CELL)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(b, rows * CELL, columns * CELL, d // CELL**2)


# (parameters, sample, what the step is told) -> velocity
Velocity = Callable[[Any, Array, Any], Array]


def sample(
    velocity: Velocity,
    params: Any,
    noise: Array,
    levels: Float[np.ndarray, "S1"],
    told: Any = None,
    *,
    last: int | Array = 0,
    remat: bool = True,
) -> Array:
    """From noise along the velocity; only the `last` steps carry gradients into `params`.

    told: pytree of arrays with one row a step. A whole number of last steps costs the memory of those alone: the early ones
    are one scan without gradient. An array of one (a random cutoff) costs that of all steps. remat: each differentiated step is
    computed again in the backward pass; they are a scan too, since on CPUs XLA finds what unrolled ones compute twice.
    """
    steps = len(levels) - 1
    dtype = noise.dtype
    moves = jnp.asarray(np.diff(levels), jnp.promote_types(dtype, jnp.float32))
    rows = (jnp.arange(steps), moves, told)

    def step(params: Any, x: Array, row: Any) -> Array:
        _, move, told = row
        found = velocity(params, x.astype(dtype), told)
        return x + move * found.astype(x.dtype)

    again: Any = jax.checkpoint(step) if remat else step
    x = noise.astype(moves.dtype)
    if not isinstance(last, int):

        def cut(x: Array, row: Any) -> tuple[Array, None]:
            first = row[0] <= steps - last  # up to and with the first differentiated step
            return again(params, jnp.where(first, lax.stop_gradient(x), x), row), None

        return lax.scan(cut, x, rows)[0]
    if not 0 <= last <= steps:
        raise ValueError(f"last {last} of {steps} steps, expected 0 to {steps}")
    early = steps - last
    frozen = lax.stop_gradient(params)
    if early:
        first = jax.tree.map(lambda value: value[:early], rows)
        x, _ = lax.scan(lambda x, row: (step(frozen, x, row), None), x, first)
        x = lax.stop_gradient(x)
    final = jax.tree.map(lambda value: value[early:], rows)
    return lax.scan(lambda x, row: (again(params, x, row), None), x, final)[0]
