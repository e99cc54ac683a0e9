"""Runs and checkpoints that version 0.1 wrote load and go on as they would have there."""

import itertools
import json
import shutil
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.store.checkpoint import flatten, load_checkpoint
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.export import load_run
from bridgedepth_jax.training.loop import train

ARCHIVE = Path(__file__).parent / "reference" / "old.tar.xz"


class Noise:
    """What the old run was given."""

    fingerprint = "noise"

    def iterate(self, start_step=0, *, host=0, hosts=1):
        for step in itertools.count(start_step):
            rng, size = np.random.default_rng(step), (2, 32, 48)
            yield {
                "left": rng.integers(0, 256, (*size, 3), np.uint8),
                "right": rng.integers(0, 256, (*size, 3), np.uint8),
                "disparity": rng.uniform(0, 16, size).astype(np.float32),
                "valid": rng.random(size) < 0.9,
            }


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version_0_1")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "old"


def unused():
    pytest.fail("a run that has begun does not ask what it starts from")


def test_an_old_checkpoint_is_read(old):
    checkpoint = load_checkpoint(old / "checkpoint")
    assert checkpoint.kind == "bridgedepth" and checkpoint.config.nmp.dim == 8
    assert checkpoint.provenance["experiment"]["solver"]["train_mono"] is False  # as it was written


def test_an_old_run_goes_on_as_it_would_have(old, tmp_path):
    shutil.copytree(old / "run", tmp_path / "run")
    experiment, state, frozen = load_run(tmp_path / "run")
    assert int(state.step) == 4 and list(frozen) == ["mono"]
    assert experiment.system == "bridgedepth" and experiment.task.loss_weights == (1.4, 2.0) and experiment.task.max_disp == 64
    assert train(experiment, tmp_path / "run", Noise(), unused, devices=jax.devices()[:1]) == "finished after 6 steps"
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (old / "unbroken.jsonl").read_text().splitlines()]
    for name in ("loss", "grad_norm", "epe_train", "loss_prop", "rate"):
        # To the bit on the machine that made it; another processor may round otherwise.
        np.testing.assert_allclose([row[name] for row in rows], [row[name] for row in expected], rtol=1e-3, err_msg=name)
    ours, theirs = (flatten(load_checkpoint(path).params) for path in (tmp_path / "run" / "export", old / "checkpoint"))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-3, atol=1e-3, err_msg=name)
        if name.startswith("mono/"):
            np.testing.assert_array_equal(ours[name], value)


def test_an_old_run_of_another_experiment_is_refused(old, tmp_path):
    shutil.copytree(old / "run", tmp_path / "run")
    experiment = load_run(tmp_path / "run")[0]
    tree = experiment.to_dict()
    tree["task"]["max_disp"] = 48
    with pytest.raises(InputError, match=r"differs in task\.max_disp \(64 there, 48 now\)"):
        train(Experiment.from_dict(tree), tmp_path / "run", Noise(), unused, devices=jax.devices()[:1])
