"""AdamW with a table of parameter groups, clipped as PyTorch does (spec `training.md`, Optimiser).

Only trained parameters come here: the frozen monocular branch has no state. Moments are float32 (float64 for float64
parameters), whatever the parameters are.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax import Array

from bridgedepth_jax.training.config import SolverConfig


class Group(NamedTuple):
    """Parameters whose path (names joined by /) matches `pattern` from its beginning share a decay and a rate."""

    name: str
    pattern: str
    decay: float
    rate: float = 1.0  # factor on the learning rate


def groups(solver: SolverConfig) -> tuple[Group, ...]:
    """The table. Every parameter must match exactly one row; extend it by a row."""
    return (
        Group("mono", r"mono/", solver.weight_decay, solver.mono_rate),
        Group("backbone", r"stereo_encoder/backbone/", solver.backbone_weight_decay),
        Group("norm", r"(?!mono/|stereo_encoder/backbone/).*\bnorm[^/]*/(scale|bias)$", solver.weight_decay_norm),
        Group("other", r"(?!mono/|stereo_encoder/backbone/|.*\bnorm[^/]*/(scale|bias)$)", solver.weight_decay),
    )


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


def make_optimizer(solver: SolverConfig) -> optax.GradientTransformationExtraArgs:
    """`update(gradients, state, params, rate=...)`: Adam (0.9, 0.999, 1e-8) and decoupled decay, times the rate of the step."""
    adam = optax.scale_by_adam(0.9, 0.999, 1e-8)
    table = groups(solver)

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


def clip(gradients: Any, limit: float) -> tuple[Any, Array]:
    """Gradients scaled by limit / (norm + 1e-6) where that is below 1, and their global norm before."""
    norm = optax.tree.norm(gradients)
    factor = jnp.minimum(1, limit / (norm + 1e-6))
    return jax.tree.map(lambda g: g * factor.astype(g.dtype), gradients), norm
