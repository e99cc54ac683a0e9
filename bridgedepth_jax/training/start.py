"""What a fresh run starts from: weights by path or name, ImageNet weights for a part of them, or nothing."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.store.checkpoint import Checkpoint, flatten, load_checkpoint, unflatten
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.export import kinds, load_run, load_teachers, without_remat
from bridgedepth_jax.training.step import TrainState, join

log = logging.getLogger(__name__)
RANDOM = ("random", "random-mono")  # the second: what BridgeDepth's configs call it
EXPECTED = f"a checkpoint folder, a published name, a --workdir of bridgedepth train, or {RANDOM[0]}"


class Start(NamedTuple):
    weights: dict[str, Any]  # of the whole network
    state: TrainState | None = None  # with the optimiser and step to go on from
    teachers: Mapping[str, Checkpoint] = MappingProxyType({})


def make_start(experiment: Experiment, init: str, imagenet: str = "") -> Start:
    """Weights for a fresh run of `experiment`, and its teachers.

    init: a checkpoint folder or published name (of the system: all weights; of one of its `parts`: those, the rest at random),
    a workdir of bridgedepth train, or random. imagenet: a .pth file of ImageNet weights for the part that has any.
    Raises InputError for what is none of these or does not fit the model.
    """
    if not init:
        raise InputError(f"no --init and none in the config, expected {EXPECTED}")
    system = experiment.how
    teachers = {name: _load(path) for name, path in experiment.teachers}  # what is wrong shows before anything is compiled
    if (Path(init) / "checkpoints").is_dir():
        if imagenet:
            raise InputError(f"--imagenet {imagenet}: the run {init} has weights of the whole network, expected one of them")
        return _from_run(experiment, Path(init), teachers)
    checkpoint = None if init in RANDOM else _load(init, system.name, *system.parts)
    if checkpoint is not None and checkpoint.kind not in (system.name, *system.parts):
        raise InputError(f"--init {init} holds {checkpoint.kind}, expected {' or '.join([system.name, *system.parts])}")
    if imagenet and checkpoint is not None and checkpoint.kind == system.name:
        raise InputError(f"--imagenet {imagenet}: {init} has weights of the whole network, expected one of them")
    if imagenet and not system.imagenet:
        raise InputError(f"--imagenet {imagenet}: nothing in {system.name} starts from ImageNet weights")
    backbone = dict(system.imagenet(imagenet, experiment.model)) if imagenet and system.imagenet else {}
    ours = _random(experiment) | backbone
    if checkpoint is not None:
        prefix = "" if checkpoint.kind == system.name else system.parts[checkpoint.kind]
        begins = prefix + experiment.solver.start_with
        given = {prefix + name: value for name, value in flatten(checkpoint.params).items()}
        given = {name: value for name, value in given.items() if name.startswith(begins)}
        expected = {name: value for name, value in ours.items() if name.startswith(begins)}
        if not given:
            raise InputError(f"--init {init} has nothing that begins with solver.start_with = {begins}")
        ours |= merge(expected, given, strict=experiment.solver.strict_resume, source=f"--init {init}")
    return Start(unflatten(ours), teachers=teachers)


def _random(experiment: Experiment) -> dict[str, Any]:
    """The system's initial values, flat. It runs once, so compiling it fast counts, not running it fast."""
    key = jax.random.key(experiment.seed, impl="rbg")
    initialise = jax.jit(lambda key: experiment.how.init(experiment.model, key)).lower(key)
    options: dict[str, Any] = {"xla_backend_optimization_level": 0}
    return flatten(jax.device_get(initialise.compile(options)(key)))


def merge(expected: dict[str, Any], given: dict[str, Any], *, strict: bool, source: str) -> dict[str, Any]:
    """`given` where it fits `expected` (both flat).

    What is missing, unused or of another shape: strict, an InputError lists it; else a line says so.
    """
    missing = sorted(expected.keys() - given.keys())
    unused = sorted(given.keys() - expected.keys())
    common = expected.keys() & given.keys()
    wrong = sorted(name for name in common if given[name].shape != expected[name].shape)
    fits = common - set(wrong)
    if missing or unused or wrong:
        lists = {"missing": missing, "unused": unused, "of another shape": wrong}
        words = "; ".join(f"{len(names)} {what} ({', '.join(names[:3])}, ...)" for what, names in lists.items() if names)
        if strict:
            raise InputError(f"{source} does not fit the model: {words}; solver.strict_resume=False takes what fits")
        if jax.process_index() == 0:
            log.info("%s: %d of %d arrays fit; %s", source, len(fits), len(expected), words)
    return {name: given[name].astype(value.dtype, copy=False) if name in fits else value for name, value in expected.items()}


def _from_run(experiment: Experiment, workdir: Path, teachers: dict[str, Checkpoint]) -> Start:
    other, state, frozen = load_run(workdir)
    if other.how.name != experiment.how.name:
        raise InputError(f"--init {workdir}: a run of {other.system}, expected one of {experiment.system}")
    if experiment.solver.no_resume_optimizer:
        ours = _random(experiment)
        given = {name: np.asarray(value) for name, value in flatten(join(frozen, state.best)).items()}
        weights = merge(ours, given, strict=experiment.solver.strict_resume, source=f"--init {workdir}")
        return Start(unflatten(weights), teachers=teachers)
    if without_remat(other.model) != without_remat(experiment.model):
        raise InputError(f"--init {workdir}: its model differs, so its optimiser cannot go on; set solver.no_resume_optimizer")
    trained = experiment.objective(kinds(teachers)).trained
    before = other.objective(kinds(load_teachers(workdir, other))).trained
    names = flatten(join(frozen, state.params))
    if different := [name for name in names if trained(name) != before(name)]:
        raise InputError(
            f"--init {workdir}: {different[0]} is {'trained' if before(different[0]) else 'frozen'} there, so its optimiser"
            " has other parameters than this run; set solver.no_resume_optimizer"
        )
    if bool(other.solver.average) != bool(experiment.solver.average):
        raise InputError(f"--init {workdir}: solver.average is {other.solver.average} there; set solver.no_resume_optimizer")
    return Start(join(frozen, state.params, state.collections), state, teachers)


def _load(name: str, *kinds: str) -> Checkpoint:
    """`kinds`: what a published name may be of, before it is fetched; none for any."""
    from bridgedepth_jax.convert.published import ANY, of, resolve

    return load_checkpoint(resolve(name, of(*kinds) if kinds else ANY))
