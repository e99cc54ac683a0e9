"""The training state and one step of it, as a pure function of state, frozen parameters and batch."""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from bridgedepth_jax.store.checkpoint import flatten
from bridgedepth_jax.systems.bridgedepth import losses
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.training import optimizer
from bridgedepth_jax.training.config import SolverConfig
from bridgedepth_jax.training.schedule import one_cycle


@flax.struct.dataclass
class TrainState:
    """All that changes in a run; with the config and the data it decides every later step."""

    step: Array  # int32, steps done, skipped ones included
    params: Any  # trained parameters only
    moments: Any  # of the optimiser
    key: Array  # key data (uint32) of the seed; each step folds its number in
    bad_in_row: Array  # int32, steps skipped since the last good one
    skipped: Array  # int32, in all


@flax.struct.dataclass
class Batch:
    left: Array  # (B, H, W, 3) RGB 0..255, uint8 or float
    right: Array
    disparity: Array  # (B, H, W) float32 pixels
    valid: Array  # (B, H, W) bool


def split(params: dict[str, Any], solver: SolverConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trained, frozen) parts of the network's parameters."""
    frozen = {} if solver.train_mono else {"mono": params["mono"]}
    return {name: tree for name, tree in params.items() if name not in frozen}, frozen


def make_state(trained: dict[str, Any], solver: SolverConfig, seed: int) -> TrainState:
    return TrainState(
        step=jnp.int32(0),
        params=trained,
        moments=optimizer.make_optimizer(solver).init(trained),
        key=jax.random.key_data(jax.random.key(seed)),
        bad_in_row=jnp.int32(0),
        skipped=jnp.int32(0),
    )


Step = Callable[[TrainState, Any, Batch], tuple[TrainState, dict[str, Array], Array]]


def make_step(network: Any, model: ModelConfig, solver: SolverConfig, mesh: Mesh, *, parameter_norms: bool = False) -> Step:
    """`step(state, frozen, batch) -> (state, metrics, disparity)`: `network` is a BridgeDepth, metrics are scalars,
    disparity (B, H, W) is the prediction of the last layer.

    A loss or gradient that is not finite leaves parameters and moments as they were. With `parameter_norms`, metrics also
    hold the norm of each parameter's gradient before clipping, as `gradient/PATH`.

    Each device takes its rows through the network alone, with whole parameters, and the sums are added up at the end: all
    that devices send each other is gradients and scalars, and parameters where they are split over `fsdp`.
    """
    update = optimizer.make_optimizer(solver)
    axes = mesh.axis_names

    def loss(
        trained: Any, frozen: Any, part: Batch, numbers: Array, counts: losses.Counts, key: Array
    ) -> tuple[Array, tuple[dict[str, Array], Array]]:
        dtype = jax.tree.leaves(trained)[0].dtype
        output = network.apply(
            {
                "params": {**frozen, **trained},
                "samples": {"numbers": jnp.concatenate([numbers, solver.batch_size + numbers])},  # left, right
            },
            part.left.astype(dtype),
            part.right.astype(dtype),
            train=True,
            train_mono=solver.train_mono,
            rngs={"drop_path": key},
        )
        values = losses.losses(output, part.disparity, part.valid, model, solver, counts)
        return losses.total(values, model, solver), (values, output.disparities[-1])

    def local_gradients(
        trained: Any, frozen: Any, batch: Batch, counts: losses.Counts, key: Array
    ) -> tuple[Any, dict[str, Array], Array]:
        """Of this device's rows; gradients and losses are summed over the devices."""
        rows = len(batch.valid)
        numbers = lax.axis_index(axes) * rows + jnp.arange(rows)

        def part_gradients(part: Batch, numbers: Array) -> tuple[Any, Array]:
            value, gradient = jax.value_and_grad(loss, has_aux=True)(trained, frozen, part, numbers, counts, key)
            total, (values, disparity) = value
            return (gradient, {"loss": total, **values}), disparity

        if solver.accumulate == 1:
            sums, disparity = part_gradients(batch, numbers)
        else:

            def add(sums: Any, part: tuple[Batch, Array]) -> tuple[Any, Array]:
                new, disparity = part_gradients(*part)
                return jax.tree.map(jnp.add, sums, new), disparity

            parts = jax.tree.map(lambda x: x.reshape(solver.accumulate, -1, *x.shape[1:]), (batch, numbers))
            shapes, _ = jax.eval_shape(part_gradients, *jax.tree.map(lambda x: x[0], parts))
            sums, disparity = lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), parts)
            disparity = disparity.reshape(batch.disparity.shape)
        gradient, values = lax.psum(sums, axes)
        return gradient, values, disparity

    split_rows, whole = P(axes), P()
    gradients = jax.shard_map(
        local_gradients,
        mesh=mesh,
        in_specs=(whole, whole, split_rows, whole, whole),
        out_specs=(whole, whole, split_rows),
        check_vma=False,  # the sums over devices are written out
    )

    def step(state: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, dict[str, Array], Array]:
        counts = losses.count(batch.disparity, batch.valid, model, solver)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        gradient, values, disparity = gradients(state.params, frozen, batch, counts, key)
        norms = flatten(jax.tree.map(jnp.linalg.norm, jax.tree.map(jnp.ravel, gradient))) if parameter_norms else {}
        gradient, norm = optimizer.clip(gradient, solver.grad_clip)
        rate = one_cycle(state.step, solver.base_lr, solver.max_iter)
        updates, moments = update.update(gradient, state.moments, state.params, rate=rate)
        good = jnp.isfinite(values["loss"]) & jnp.isfinite(norm)
        choose = functools.partial(jnp.where, good)
        state = TrainState(
            step=state.step + 1,
            params=jax.tree.map(lambda p, u: choose(p + u, p), state.params, updates),
            moments=jax.tree.map(choose, moments, state.moments),
            key=state.key,
            bad_in_row=choose(0, state.bad_in_row + 1),
            skipped=state.skipped + choose(0, 1),
        )
        metrics = values | {"grad_norm": norm, "rate": rate, "bad_in_row": state.bad_in_row, "skipped": state.skipped}
        return state, metrics | {f"gradient/{name}": value for name, value in norms.items()}, disparity

    return step
