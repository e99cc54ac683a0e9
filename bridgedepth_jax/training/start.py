"""What a fresh run starts from: weights by path or name, ImageNet weights for the stereo encoder, or nothing."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.store.checkpoint import flatten, load_checkpoint, unflatten
from bridgedepth_jax.systems.bridgedepth.network import init_params
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.export import load_run
from bridgedepth_jax.training.state import TrainState

log = logging.getLogger(__name__)
RANDOM = "random-mono"
EXPECTED = f"a checkpoint folder, a published name, a --workdir of train.py, or {RANDOM}"


class Start(NamedTuple):
    params: dict[str, Any]  # of the whole network
    state: TrainState | None = None  # with the optimiser and step to go on from


def make_start(experiment: Experiment, init: str, imagenet: str = "") -> Start:
    """Weights for a fresh run of `experiment`.

    init: a checkpoint folder or published name (of BridgeDepth: all parameters; of Depth Anything V2: the monocular branch, the
    rest as in spec section 8), a workdir of train.py, or random-mono. imagenet: a torchvision .pth for the stereo encoder.
    Raises InputError for what is none of these or does not fit the model.
    """
    if not init:
        raise InputError(f"no --init and none in the config, expected {EXPECTED}")
    if (Path(init) / "checkpoints").is_dir():
        if imagenet:
            raise InputError(f"--imagenet {imagenet}: the run {init} has weights of the whole network, expected one of them")
        return _from_run(experiment, Path(init))
    checkpoint = None if init == RANDOM else _load(init)  # what is wrong with it shows before anything is compiled
    if imagenet and checkpoint is not None and checkpoint.kind == "bridgedepth":
        raise InputError(f"--imagenet {imagenet}: {init} has weights of the whole network, expected one of them")
    backbone = _imagenet(imagenet, experiment) if imagenet else {}
    ours = _random(experiment) | backbone
    if checkpoint is not None:
        prefix = "mono/" if checkpoint.kind == "depth-anything" else ""
        given = {prefix + name: value for name, value in flatten(checkpoint.params).items()}
        expected = {name: value for name, value in ours.items() if name.startswith(prefix)}
        ours |= merge(expected, given, strict=experiment.solver.strict_resume, source=f"--init {init}")
    return Start(unflatten(ours))


def _random(experiment: Experiment) -> dict[str, Any]:
    """Initial values as in spec section 8, flat. It runs once, so compiling it fast counts, not running it fast."""
    key = jax.random.key(experiment.seed, impl="rbg")
    initialise = jax.jit(lambda key: init_params(experiment.model, key)).lower(key)
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


def _from_run(experiment: Experiment, workdir: Path) -> Start:
    other, state, frozen = load_run(workdir)
    whole = {**frozen, **state.params}
    if experiment.solver.no_resume_optimizer:
        ours = _random(experiment)
        given = {name: np.asarray(value) for name, value in flatten(whole).items()}
        return Start(unflatten(merge(ours, given, strict=experiment.solver.strict_resume, source=f"--init {workdir}")))
    if other.model.replace(remat=False) != experiment.model.replace(remat=False):
        raise InputError(f"--init {workdir}: its model differs, so its optimiser cannot go on; set solver.no_resume_optimizer")
    if other.solver.train_mono != experiment.solver.train_mono:
        raise InputError(
            f"--init {workdir}: its solver.train_mono is {other.solver.train_mono}, so its optimiser has other parameters than"
            " this run; set solver.no_resume_optimizer"
        )
    return Start(whole, state)


def _imagenet(path: str, experiment: Experiment) -> dict[str, Any]:
    from bridgedepth_jax.convert.conversion import read_imagenet_backbone

    backbone = read_imagenet_backbone(path, experiment.model)
    return {f"stereo_encoder/backbone/{name}": value for name, value in flatten(backbone).items()}


def _load(init: str) -> Any:
    from bridgedepth_jax.store.hub import resolve

    return load_checkpoint(resolve(init))
