"""A training step compiled from shapes alone, to be counted (`programs.py`) or run."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from bridgedepth_jax import sharding
from bridgedepth_jax.data.pipeline import batch_shapes
from bridgedepth_jax.system import Batch, Rows, Weights
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.step import Frozen, join, make_step

ONLY_COUNTED: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


def compile_step(experiment: Experiment, devices: list[Any], *, to_run: bool = True) -> Any:
    """The compiled step of an experiment on these devices.

    Without `to_run` its machine code is not optimised, which on CPUs saves most of the time, and its operations are in the
    order that needs the least memory, as on GPUs and TPUs; else CPUs prefer what can run at once, and `model.remat` saves
    nothing.
    """
    return lower_step(experiment, devices).compile({} if to_run else ONLY_COUNTED)


def lower_step(experiment: Experiment, devices: list[Any]) -> Any:
    """The step of an experiment on these devices, lowered from shapes alone: no parameter is ever made."""
    mesh = sharding.make_mesh(experiment.run.fsdp, devices)
    rows = sharding.batch_sharding(mesh, experiment.solver.batch_size)
    objective = experiment.objective()
    state, frozen = experiment.abstract_state(objective)
    frozen = Frozen(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, experiment.run.frozen_dtype), frozen), {})
    batch = {name: jax.ShapeDtypeStruct(*shape) for name, shape in batch_shapes(experiment.data).items()}
    shardings = (sharding.tree_shardings(state, mesh), sharding.tree_shardings(frozen, mesh), rows)
    step = make_step(objective, experiment.solver, mesh)
    out = (shardings[0], sharding.replicated(mesh), rows)
    return jax.jit(step, in_shardings=shardings, out_shardings=out, donate_argnums=0).lower(state, frozen, batch)


def kept_bytes(experiment: Experiment) -> int:
    """What the forward pass of a step keeps until its backward pass, for the whole batch, in bytes; from shapes alone.

    Of the program as it is written: what a compiler frees or computes again is not in it, and one for CPUs undoes it.
    What `model.remat_policy` moves to the host counts.
    """
    objective = experiment.objective()
    state, frozen = experiment.abstract_state(objective)
    keys = {name: jax.random.key(0) for name in objective.keys}
    count = experiment.solver.batch_size

    def pullback(trained: Weights, frozen: Weights, collections: Weights, batch: Batch) -> Any:
        rows = Rows(jnp.arange(count), count, jnp.int32(0), keys, lambda _, value: value, ())
        counts = objective.count(batch)
        loss = lambda trained: objective.loss({**join(frozen, trained), **collections}, {}, batch, counts, rows)[0]
        return jax.vjp(loss, trained)[1]

    batch = {name: jax.ShapeDtypeStruct(*shape) for name, shape in batch_shapes(experiment.data).items()}
    kept = jax.eval_shape(pullback, state.params, frozen, state.collections, batch)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
