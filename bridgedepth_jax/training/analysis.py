"""What a compiled training step costs, read from the program: memory, FLOPs, and what the devices send each other."""

import re
from collections import Counter
from typing import Any

import jax
import numpy as np

from bridgedepth_jax import sharding
from bridgedepth_jax.data.pipeline import batch_shapes
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.step import Frozen, make_step

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
ONLY_COUNTED: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}
_LINE = re.compile(rf"= (?P<types>.*?) (?P<kind>{'|'.join(COLLECTIVES)})(?:-start)?\(")
_ARRAY = re.compile(r"\b(?P<type>pred|[a-z]+[0-9]+)\[(?P<shape>[0-9,]*)\]")


def compile_step(experiment: Experiment, devices: list[Any], *, to_run: bool = True) -> Any:
    """The compiled step of an experiment on these devices, from shapes alone: no parameter is ever made.

    Without `to_run` its machine code is not optimised, which on CPUs saves most of the time, and its operations are in the
    order that needs the least memory, as on GPUs and TPUs; else CPUs prefer what can run at once, and `model.remat` saves
    nothing.
    """
    mesh = sharding.make_mesh(experiment.run.fsdp, devices)
    rows = sharding.batch_sharding(mesh, experiment.solver.batch_size)
    objective = experiment.objective()
    state, frozen = experiment.abstract_state(objective)
    frozen = Frozen(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, experiment.run.frozen_dtype), frozen), {})
    batch = {name: jax.ShapeDtypeStruct(*shape) for name, shape in batch_shapes(experiment.data).items()}
    shardings = (sharding.tree_shardings(state, mesh), sharding.tree_shardings(frozen, mesh), rows)
    step = make_step(objective, experiment.solver, mesh)
    out = (shardings[0], sharding.replicated(mesh), rows)
    lowered = jax.jit(step, in_shardings=shardings, out_shardings=out, donate_argnums=0).lower(state, frozen, batch)
    return lowered.compile({} if to_run else ONLY_COUNTED)


def collective_bytes(text: str) -> dict[str, Counter[str]]:
    """Of an optimised HLO text, by kind: `bytes` of the results on a device, `count`, and `largest` single result."""
    found: dict[str, Counter[str]] = {}
    for line in text.splitlines():
        match = _LINE.search(line)
        if match:
            size = sum(map(_bytes, _ARRAY.finditer(match["types"])))
            row = found.setdefault(match["kind"], Counter())
            row.update(bytes=size, count=1)
            row["largest"] = max(row["largest"], size)
    return found


def memory(compiled: Any) -> dict[str, float]:
    """GiB on a device: `arguments` (state, frozen parameters, batch), `temporary` (activations, gradients), `peak` of both."""
    parts = compiled.memory_analysis()
    gib = {name: getattr(parts, f"{name}_size_in_bytes") / 2**30 for name in ("argument", "temp", "output", "alias")}
    peak = gib["argument"] + gib["temp"] + gib["output"] - gib["alias"]
    return {"arguments": gib["argument"], "temporary": gib["temp"], "peak": peak}


def flops(compiled: Any) -> float:
    """Of one step on one device, as XLA counts them."""
    cost = compiled.cost_analysis()
    return float((cost[0] if isinstance(cost, list) else cost).get("flops", np.nan))


def _bytes(array: re.Match[str]) -> int:
    bits = 8 if array["type"] == "pred" else int(re.sub(r"[a-z]+", "", array["type"].split("e")[0]) or 8)
    return bits * int(np.prod([int(n) for n in array["shape"].split(",") if n], dtype=np.int64)) // 8
