"""AdamW with a table of parameter groups, clipped as PyTorch does (spec `training.md`, Optimiser).

Only trained parameters come here: frozen ones have no state. Moments are float32 (float64 for float64 parameters), whatever
the parameters are.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax import Array

from bridgedepth_jax.system import Group


def assign(params: Any, table: tuple[Group, ...]) -> Any:
    """A tree like `params` with the Group of each leaf. Raises ValueError unless each leaf matches exactly one row."""
    flat, wrong = {}, []
    for path in traverse_util.flatten_dict(params):
        name = "/".join(path)
        rows = [group for group in table if re.match(group.pattern, name)]
        flat[path] = rows[0] if rows else None
        if len(rows) != 1:
            wrong.append(f"{name}: {[group.name for group in rows]}")
    if wrong:
        raise ValueError(f"parameters not covered by exactly one optimiser group: {'; '.join(wrong)}")
    return traverse_util.unflatten_dict(flat)


def make_optimizer(table: tuple[Group, ...]) -> optax.GradientTransformationExtraArgs:
    """`update(gradients, state, params, rate=...)`: Adam (0.9, 0.999, 1e-8) and decoupled decay, times the rate of the step."""
    adam = optax.scale_by_adam(0.9, 0.999, 1e-8)

    def widen(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)

    def init(params: Any) -> Any:
        assign(params, table)
        return adam.init(widen(params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        rate = extra["rate"]
        steps, state = adam.update(widen(updates), state)
        # Group is a tuple, hence the map over the other trees first.
        updates = jax.tree.map(
            lambda step, p, group: (-rate * group.rate * (step + group.decay * p)).astype(p.dtype),
            steps, params, assign(params, table),
        )  # fmt: skip
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)


def clip(gradients: Any, limit: float | None) -> tuple[Any, Array]:
    """Gradients scaled by limit / (norm + 1e-6) where that is below 1 (None: never), and their global norm before."""
    norm = optax.tree.norm(gradients)
    if limit is None:
        return gradients, norm
    factor = jnp.minimum(1, limit / (norm + 1e-6))
    return jax.tree.map(lambda g: g * factor.astype(g.dtype), gradients), norm
