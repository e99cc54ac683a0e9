"""The training state and one step of it, as a pure function of state, frozen weights and batch.

Each device takes its rows through the network alone, with whole parameters, and the sums are added up at the end: all that
devices send each other is gradients and scalars (of a synchronised BatchNorm also its sums), and parameters where they are
split over `fsdp`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.store.checkpoint import flatten, unflatten
from bridgedepth_jax.system import Batch, Counts, Objective, Rows, Weights
from bridgedepth_jax.training import optimizer
from bridgedepth_jax.training.config import SolverConfig
from bridgedepth_jax.training.schedule import learning_rate


class TrainState(flax.struct.PyTreeNode):
    """All that changes in a run; with the config and the data it decides every later step.

    Leaves are arrays, or in trees like it their shapes or shardings.
    """

    step: Any  # int32, steps done, skipped ones included
    params: Any  # trained parameters only
    moments: Any  # of the optimiser
    key: Any  # key data (uint32) of the seed; each step folds its number in
    bad_in_row: Any  # int32, steps skipped since the last good one
    skipped: Any  # int32, in all
    collections: Any = flax.struct.field(default_factory=dict)  # mutable ones, as of BatchNorm; by name
    average: Any = flax.struct.field(default_factory=dict)  # running average of `params`, where there is one

    @property
    def best(self) -> Weights:
        """The trained weights to evaluate and export: averaged where there is an average, with the collections."""
        return {**(self.average or self.params), **self.collections}


class Frozen(flax.struct.PyTreeNode):
    """What a run holds and never changes."""

    params: Any  # of the network itself: what is not trained
    teachers: Any  # weights of other networks, by the names that the task gives them


def split(weights: Weights, trained: Callable[[str], bool], collections: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """(trained, frozen, collections) parts of a network's weights."""
    params = flatten({name: tree for name, tree in weights.items() if name not in collections})
    parts = ({name: leaf for name, leaf in params.items() if trained(name) is wanted} for wanted in (True, False))
    learnt, fixed = map(unflatten, parts)
    return learnt, fixed, {name: weights[name] for name in collections}


def join(*trees: Weights) -> dict[str, Any]:
    """Inverse of `split`: one tree of all leaves."""
    return unflatten({name: leaf for tree in trees for name, leaf in flatten(tree).items()})


def make_state(
    trained: Weights, solver: SolverConfig, seed: int, update: Any, collections: Weights | None = None
) -> TrainState:
    """The state before the first step; `update` is the optimiser of `optimizer.make_optimizer`."""
    return TrainState(
        step=jnp.int32(0),
        params=trained,
        moments=update.init(trained),
        key=jax.random.key_data(jax.random.key(seed)),
        bad_in_row=jnp.int32(0),
        skipped=jnp.int32(0),
        collections=dict(collections or {}),
        average=jax.tree.map(jnp.array, trained) if solver.average else {},
    )


Step = Callable[[TrainState, Frozen, Batch], tuple[TrainState, dict[str, Array], Any]]
Across = Callable[[str, Array], Array]


def make_step(
    objective: Objective, solver: SolverConfig, mesh: Mesh, *, parameter_norms: bool = False, shares: bool = False
) -> Step:
    """`step(state, frozen, batch) -> (state, metrics, shown)`: metrics are scalars, `shown` what the objective shows of the
    rows.

    A loss or gradient that is not finite leaves parameters, moments and collections as they were. With `parameter_norms`,
    metrics also hold the norm of each parameter's gradient before clipping, as `gradient/PATH`; with `shares`, the share of the
    squared norm that each `objective.part` has, as `share/PART`.
    """
    update = optimizer.make_optimizer(objective.groups(solver))
    axes = tuple(mesh.axis_names)
    whole, rows = P(), P(axes)
    gradients = jax.shard_map(
        functools.partial(_gradients, objective, solver, axes),
        mesh=mesh,
        in_specs=(whole, whole, whole, rows, whole, whole, whole),
        out_specs=(whole, whole, whole, rows),
        check_vma=False,  # the sums over devices are written out
    )

    def step(state: TrainState, frozen: Frozen, batch: Batch) -> tuple[TrainState, dict[str, Array], Any]:
        counts = objective.count(batch)
        keys = _keys(objective.keys, jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step))
        gradient, values, collections, shown = gradients(
            state.params, state.collections, frozen, batch, counts, state.step, keys
        )
        norms = flatten(jax.tree.map(jnp.linalg.norm, jax.tree.map(jnp.ravel, gradient))) if parameter_norms else {}
        parts = _shares(objective.part, gradient) if shares and objective.part else {}
        gradient, norm = optimizer.clip(gradient, solver.grad_clip)
        rate = learning_rate(state.step, solver)
        updates, moments = update.update(gradient, state.moments, state.params, rate=rate)
        good = jnp.isfinite(values["loss"]) & jnp.isfinite(norm)
        state = _advance(state, good, updates, moments, collections, solver.average)
        metrics = values | {"grad_norm": norm, "rate": rate, "bad_in_row": state.bad_in_row, "skipped": state.skipped}
        metrics |= {f"gradient/{name}": value for name, value in norms.items()}
        return state, metrics | {f"share/{name}": value for name, value in parts.items()}, shown

    return step


def _shares(part: Callable[[str], str], gradient: Weights) -> dict[str, Array]:
    sums: dict[str, Any] = {}
    for path, leaf in flatten(gradient).items():
        sums[part(path)] = sums.get(part(path), 0.0) + jnp.sum(jnp.square(leaf.astype(jnp.float32)))
    whole = jnp.maximum(sum(sums.values()), jnp.finfo(jnp.float32).tiny)
    return {name: value / whole for name, value in sums.items()}


def _keys(names: tuple[str, ...], key: Array) -> dict[str, Array]:
    """The first name has the step's own key, as runs of version 0.1 had it."""
    return {name: jax.random.fold_in(key, i) if i else key for i, name in enumerate(names)}


def _advance(state: TrainState, good: Array, updates: Any, moments: Any, collections: Any, decay: float) -> TrainState:
    """The state after a step, unchanged but for its counters unless the step was good."""
    choose = functools.partial(jnp.where, good)
    params = jax.tree.map(lambda p, u: choose(p + u, p), state.params, updates)
    average = state.average
    if decay:
        done = (state.step - state.skipped).astype(jnp.float32)
        keep = jnp.minimum(decay, (1 + done) / (10 + done))  # the first weights are soon forgotten
        average = jax.tree.map(lambda a, p: choose(a + (1 - keep).astype(a.dtype) * (p - a), a), average, params)
    return state.replace(
        step=state.step + 1,
        params=params,
        moments=jax.tree.map(choose, moments, state.moments),
        bad_in_row=choose(0, state.bad_in_row + 1),
        skipped=state.skipped + choose(0, 1),
        collections=jax.tree.map(choose, collections, state.collections),
        average=average,
    )


def _gradients(
    objective: Objective,
    solver: SolverConfig,
    axes: tuple[str, ...],
    trained: Weights,
    collections: Weights,
    frozen: Frozen,
    batch: Batch,
    counts: Counts,
    step: Array,
    keys: Mapping[str, Array],
) -> tuple[Weights, dict[str, Array], Weights, Any]:
    """Of this device's rows: gradients, metrics and new collections are those of the global batch, `shown` of the rows."""
    here = len(next(iter(batch.values())))
    numbers = lax.axis_index(axes) * here + jnp.arange(here)

    def loss(trained: Weights, part: Batch, numbers: Array, across: Across) -> tuple[Array, Any]:
        rows = Rows(numbers, solver.batch_size, step, keys, across, axes)
        weights = {**join(frozen.params, trained), **collections}
        value, result = objective.loss(weights, frozen.teachers, part, counts, rows)
        return value, ({"loss": value, **result.metrics}, dict(result.collections) or collections, result.shown)

    def part_gradients(part: Batch, numbers: Array, across: Across) -> tuple[Any, Any, Any]:
        gradient, (metrics, new, shown) = jax.grad(loss, has_aux=True)(trained, part, numbers, across)
        return (gradient, metrics), new, shown

    if solver.accumulate == 1:
        across = lambda _, value: lax.psum(lax.stop_gradient(value), axes)
        sums, new, shown = part_gradients(batch, numbers, across)
        gradient, values = lax.psum(sums, axes)
        return gradient, values, new, shown
    if collections:
        raise InputError(
            f"solver.accumulate = {solver.accumulate}: {', '.join(collections)} are statistics of the whole batch, which its"
            " parts do not know; expected 1"
        )
    parts = jax.tree.map(lambda x: x.reshape(solver.accumulate, -1, *x.shape[1:]), (dict(batch), numbers))
    totals = _across_parts(loss, trained, parts, axes)

    def add(sums: Any, part: tuple[Batch, Array]) -> tuple[Any, Any]:
        new, _, shown = part_gradients(part[0], part[1], lambda name, _: totals[name])
        return jax.tree.map(jnp.add, sums, new), shown

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(lambda part: part_gradients(part[0], part[1], lambda name, _: totals[name])[0], first)
    sums, shown = lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), parts)
    shown = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), shown)
    gradient, values = lax.psum(sums, axes)
    return gradient, values, {}, shown


def _across_parts(loss: Callable, trained: Weights, parts: Any, axes: tuple[str, ...]) -> dict[str, Array]:
    """What the loss sums across the global batch (`Rows.across`), from a forward pass over the parts; free if nothing."""

    def local(part: Batch, numbers: Array) -> dict[str, Array]:
        found: dict[str, Array] = {}

        def across(name: str, value: Array) -> Array:
            found[name] = lax.stop_gradient(value)
            return found[name]

        loss(trained, part, numbers, across)
        return found

    if not jax.eval_shape(local, *jax.tree.map(lambda x: x[0], parts)):
        return {}
    _, found = lax.scan(lambda carry, part: (carry, local(*part)), None, parts)
    return {name: lax.psum(jnp.sum(value, axis=0), axes) for name, value in found.items()}
