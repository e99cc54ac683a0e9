"""From a training run to the folder inside the package, and its model card."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import tiny

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.store.checkpoint import flatten, load_checkpoint
from bridgedepth_jax.systems.bridgedepth.losses import StereoTask
from bridgedepth_jax.training import ship as module
from bridgedepth_jax.training.config import SolverConfig
from bridgedepth_jax.training.experiment import Experiment


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The logs of a run of three steps with a tiny network; its state comes without a checkpoint."""
    params = tiny.model_params()
    experiment = Experiment(
        model=tiny.MODEL,
        task=StereoTask(train_mono=True, loss_weights=(1.0, 2.0)),
        solver=SolverConfig(max_iter=3, batch_size=4),
        init="random-mono",
    )
    state, _ = experiment.begin(experiment.objective(), params)
    state = state.replace(step=np.int32(3))
    monkeypatch.setattr(module, "load_run", lambda workdir: (experiment, state, {}))
    command = ["train.py", "--config", "x/configs/nano.py", "--workdir", "w", "--init=w/first", "--config.seed=5"]
    start = {"command": command, "git": "abc", "data": "0123", "versions": {"jax": "1.2", "nothing": None}}
    (tmp_path / "run.jsonl").write_text(json.dumps(start) + "\n")
    records = [{"step": i, "loss": 9.0 - i, "epe_train": 5.0 - i, "images_per_s": 4 / 3600} for i in range(3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path, params


def test_weights_and_card(run, tmp_path):
    workdir, params = run
    folder = tmp_path / "package" / "nano"
    for _ in range(2):  # the second takes the place of the first
        module.ship(workdir, folder, hardware="2 CPU cores", about="A test.", scores="| none |")
    stored = load_checkpoint(folder, dtype=None)
    assert stored.config == tiny.MODEL and stored.provenance["source"] == "training run, step 3"
    for name, value in flatten(params).items():
        np.testing.assert_array_equal(flatten(stored.params)[name], value.astype(np.float16))
    card = (folder / "README.md").read_text()
    digest = hashlib.sha256((folder / "files.sha256").read_bytes()).hexdigest()
    for words in (digest, "A test.", "| none |", "2 CPU cores, 3.0 hours", "jax 1.2 |", "commit abc", "MIT"):
        assert words in card
    train = "python train.py --config configs/nano.py --workdir runs/nano --config.solver.max_iter=3 --config.seed=5"
    assert f"```\n{train}\npython scripts/ship_default.py runs/nano --hardware '2 CPU cores'\n```" in card
    assert "| 0 | 9.000 | 5.000 |\n| 1 | 8.000 | 4.000 |\n| 2 |" in card


def test_a_fitted_temperature_goes_with_the_weights(run, tmp_path):
    workdir, _ = run
    module.ship(workdir, tmp_path / "nano", hardware="2 CPU cores", about="", scores="", temperature=1.5)
    assert load_checkpoint(tmp_path / "nano").config == tiny.MODEL.replace(temperature=1.5)
    assert "--hardware '2 CPU cores' --temperature 1.5\n```" in (tmp_path / "nano" / "README.md").read_text()


def test_the_card_of_a_run_of_the_one_command(run, tmp_path):
    workdir, _ = run
    start = json.loads((workdir / "run.jsonl").read_text())
    start["command"] = ["bin/bridgedepth", "train", "--config", "bridgedepth/nano", "--workdir", "w", "--config.seed=5"]
    (workdir / "run.jsonl").write_text(json.dumps(start) + "\n")
    module.ship(workdir, tmp_path / "nano", hardware="2 CPU cores", about="", scores="")
    train = "python train.py --config configs/nano.py --workdir runs/nano --config.solver.max_iter=3 --config.seed=5"
    assert f"```\n{train}\npython scripts" in (tmp_path / "nano" / "README.md").read_text()


def test_a_run_from_other_weights(run, tmp_path, monkeypatch):
    workdir, _ = run
    experiment, state, frozen = module.load_run(workdir)
    elsewhere = dataclasses.replace(experiment, init="elsewhere/first")
    monkeypatch.setattr(module, "load_run", lambda _: (elsewhere, state, frozen))
    words = {"hardware": "2 CPU cores", "about": "", "scores": ""}
    with pytest.raises(InputError, match=r"started from elsewhere/first.*expected --origin"):
        module.ship(workdir, tmp_path / "nano", **words)
    assert not (tmp_path / "nano").exists()
    module.ship(workdir, tmp_path / "nano", **words, origin=module.Origin("the first stage", "first", "tar x first\n"))
    card = (tmp_path / "nano" / "README.md").read_text()
    assert "from the first stage;" in card
    assert "```\ntar x first\npython train.py --config configs/nano.py" in card and "--config.seed=5 --init first\n" in card
    assert "--hardware '2 CPU cores' --origin 'the first stage' --origin-init first\n```" in card
    assert "elsewhere" not in card + json.dumps(load_checkpoint(tmp_path / "nano").provenance)


def test_what_cannot_be_shipped(run, tmp_path, monkeypatch):
    workdir, _ = run
    monkeypatch.setattr(module, "LIMIT", 1000)
    with pytest.raises(InputError, match=r"expected at most 0\.001 MB"):
        module.ship(workdir, tmp_path / "nano", hardware="", about="", scores="")
    for text, words in (("", "no step in the first line"), ('{"step": 0, "loss": 1.0}\n', "no epe_train in the first line")):
        (workdir / "metrics.jsonl").write_text(text)
        with pytest.raises(InputError, match=rf"metrics\.jsonl: {words}, expected the log of a training run"):
            module.ship(workdir, tmp_path / "nano", hardware="", about="", scores="")
    (workdir / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match=r"metrics\.jsonl.*expected the log of a training run"):
        module.ship(workdir, tmp_path / "nano", hardware="", about="", scores="")
    assert not (tmp_path / "nano").exists()
