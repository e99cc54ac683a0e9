"""From a training run to an inference checkpoint: `python -m bridgedepth_jax.training.export WORKDIR OUT`."""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.store.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bridgedepth_jax.store.run import Checkpoints
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.sharding import make_mesh
from bridgedepth_jax.training.state import TrainState


def export(path: Path, trained: dict[str, Any], frozen: dict[str, Any], experiment: Experiment, step: int) -> None:
    """Writes a checkpoint that `Predictor.load` reads. All processes call it together; the first writes."""
    params = host_arrays({**frozen, **trained})
    if jax.process_index() == 0:
        config = experiment.model.replace(remat=False)
        provenance = {"source": f"training run, step {step}", "init": experiment.init, "experiment": experiment.to_dict()}
        save_checkpoint(path, Checkpoint("bridgedepth", params, config, provenance), dtype="float32")


def host_arrays(tree: Any) -> Any:
    """Whole numpy arrays on every process, however the leaves are distributed."""

    def whole(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)


def load_run(workdir: Path) -> tuple[Experiment, TrainState, dict[str, Any]]:
    """(experiment, state, frozen parameters) of a run's newest intact checkpoint, on the first device."""
    folder = workdir / "checkpoints"
    checkpoints = Checkpoints(folder) if folder.is_dir() else None
    if checkpoints is None or not checkpoints.steps():
        raise InputError(f"{workdir} holds no training checkpoints, expected a --workdir of train.py")
    mesh = make_mesh(1, jax.local_devices()[:1])
    found = checkpoints.restore(lambda d: Experiment.from_dict(d["experiment"]).abstract_state(), mesh)
    assert found is not None  # there are steps
    state, experiment = found[0], Experiment.from_dict(found[1]["experiment"])
    frozen = {} if experiment.solver.train_mono else {"mono": load_checkpoint(workdir / "mono").params}
    return experiment, state, frozen


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the newest checkpoint of a training run as an inference checkpoint.")
    parser.add_argument("workdir", type=Path, help="--workdir of train.py")
    parser.add_argument("out", type=Path, help="folder to write")
    args = parser.parse_args()
    experiment, state, frozen = load_run(args.workdir)
    export(args.out, state.params, frozen, experiment, int(state.step))
    print(f"step {int(state.step)} of {args.workdir} is in {args.out}")


if __name__ == "__main__":
    main()
