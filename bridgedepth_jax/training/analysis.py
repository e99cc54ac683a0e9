"""A training step compiled from shapes alone, to be counted (`programs.py`) or run."""

from typing import Any

import jax

from bridgedepth_jax import sharding
from bridgedepth_jax.data.pipeline import batch_shapes
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.step import Frozen, make_step

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
