"""From a training run to an inference checkpoint: `python -m bridgedepth_jax.training.export WORKDIR OUT`."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.sharding import make_mesh
from bridgedepth_jax.store.checkpoint import Checkpoint, load_arrays, load_checkpoint, save_arrays, save_checkpoint
from bridgedepth_jax.store.run_state import Checkpoints
from bridgedepth_jax.system import Teacher, Weights
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.step import TrainState, join

FROZEN, TEACHERS = "frozen", "teachers"  # folders of a run: what it holds and never changes
OLD_FROZEN = "mono"  # of runs of version 0.1: a checkpoint of the one branch that they froze


def export(path: Path, state: TrainState, frozen: Weights, experiment: Experiment) -> None:
    """Writes a checkpoint of the whole network, averaged where the run averages. All processes call it together; the first
    writes."""
    weights = host_arrays(join(frozen, state.best))
    if jax.process_index() == 0:
        provenance = {
            "source": f"training run, step {int(state.step)}",
            "init": experiment.init,
            "experiment": experiment.to_dict(),
        }
        checkpoint = Checkpoint(experiment.how.name, weights, without_remat(experiment.model), provenance)
        save_checkpoint(path, checkpoint, dtype="float32")


def without_remat(config: Any) -> Any:
    """A network's config as inference has it."""
    fields = {"remat": False, "remat_policy": "nothing"}
    return dataclasses.replace(config, **{key: value for key, value in fields.items() if hasattr(config, key)})


def save_frozen(workdir: Path, frozen: Weights, teachers: Mapping[str, Checkpoint], dtype: str) -> None:
    """Once per run: it never changes."""
    if frozen:
        save_arrays(workdir / FROZEN, host_arrays(frozen), {"provenance": {"source": "training run"}}, dtype=dtype)
    for name, teacher in teachers.items():
        save_checkpoint(workdir / TEACHERS / name, teacher)


def load_frozen(workdir: Path) -> Weights:
    """What `save_frozen` kept of the network itself, as it is stored."""
    if (workdir / OLD_FROZEN).is_dir():
        return {OLD_FROZEN: load_checkpoint(workdir / OLD_FROZEN, dtype=None).params}
    return load_arrays(workdir / FROZEN, dtype=None)[0] if (workdir / FROZEN).is_dir() else {}


def load_teachers(workdir: Path, experiment: Experiment) -> dict[str, Checkpoint]:
    """The teachers that `save_frozen` kept."""
    return {name: load_checkpoint(workdir / TEACHERS / name) for name, _ in experiment.teachers}


def kinds(teachers: Mapping[str, Checkpoint]) -> dict[str, Teacher]:
    """What teachers are, beside their weights."""
    return {name: Teacher(teacher.kind, teacher.config) for name, teacher in teachers.items()}


def host_arrays(tree: Any) -> Any:
    """Whole numpy arrays on every process, however the leaves are distributed."""

    def whole(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)


def load_run(workdir: Path) -> tuple[Experiment, TrainState, Weights]:
    """(experiment, state, frozen parameters) of a run's newest intact checkpoint, on the first device."""
    folder = workdir / "checkpoints"
    checkpoints = Checkpoints(folder) if folder.is_dir() else None
    if checkpoints is None or not checkpoints.steps():
        raise InputError(f"{workdir} holds no training checkpoints, expected a --workdir of bridgedepth train")
    mesh = make_mesh(1, jax.local_devices()[:1])

    def shapes(description: dict[str, Any]) -> TrainState:
        experiment = Experiment.from_dict(description["experiment"])
        return experiment.abstract_state(experiment.objective(kinds(load_teachers(workdir, experiment))))[0]

    found = checkpoints.restore(shapes, mesh)
    assert found is not None  # there are steps
    return Experiment.from_dict(found[1]["experiment"]), found[0], load_frozen(workdir)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the newest checkpoint of a training run as an inference checkpoint.")
    parser.add_argument("workdir", type=Path, help="--workdir of bridgedepth train")
    parser.add_argument("out", type=Path, help="folder to write")
    args = parser.parse_args()
    experiment, state, frozen = load_run(args.workdir)
    export(args.out, state, frozen, experiment)
    print(f"step {int(state.step)} of {args.workdir} is in {args.out}")


if __name__ == "__main__":
    main()
