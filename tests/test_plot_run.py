"""The curve of a training run, and the constant that it is measured against."""

import json
import sys

import cv2
import numpy as np
import pytest

from bridgedepth_jax.commands import main
from bridgedepth_jax.data.procedural import SyntheticStereo
from bridgedepth_jax.training import export, validation
from bridgedepth_jax.training.configfile import read_config
from bridgedepth_jax.training.experiment import Experiment


@pytest.fixture(scope="module")
def experiment():
    config = read_config("configs/debug.py")
    config.eval.limit = 3
    return Experiment.from_dict(config.to_dict())


def run(monkeypatch, *options):
    monkeypatch.setenv("MPLBACKEND", "agg")
    main(["report", "plot", *map(str, options)])


def test_the_constant_is_the_median_of_the_scenes_that_training_does_not_see(experiment):
    scenes = SyntheticStereo(64, 96, max_disparity=32.0, seed=experiment.seed + validation.UNSEEN)
    truths = [scenes[i]["disparity"][scenes[i]["valid"]] for i in range(3)]
    guess = np.median(np.concatenate(truths))
    expected = np.mean([np.abs(truth - guess).mean() for truth in truths])
    assert validation.constant_epe(experiment, "synthetic") == pytest.approx(expected)


def test_picture_and_numbers(tmp_path, monkeypatch, capsys, experiment):
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": i, "epe_train": 9 / (i + 1)}) + "\n" for i in range(60))
    )
    (tmp_path / "evaluation.jsonl").write_text('{"step": 30, "synthetic/epe": 4.0}\n{"step": 60, "synthetic/epe": 3.0}\n')
    monkeypatch.setattr(export, "load_run", lambda workdir: (experiment, None, None))
    run(monkeypatch, tmp_path, "--out", tmp_path / "curve.png")
    picture = cv2.imread(str(tmp_path / "curve.png"))
    assert picture.shape == (320, 700, 3) and picture.std() > 5
    words = capsys.readouterr().out
    assert "after 60 steps: synthetic EPE 3.00 px" in words and "best constant: EPE" in words


@pytest.mark.parametrize("name", ["curve", "curve.xyz"])
def test_a_picture_of_no_known_type_is_refused(tmp_path, monkeypatch, capsys, name):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, tmp_path, "--out", tmp_path / name)
    assert end.value.code == 2 and "no writer for this file type" in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, tmp_path, "--out", tmp_path / "curve.png")
    assert end.value.code == 2 and "pip install 'bridgedepth-jax[plot]'" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, tmp_path, "--out", tmp_path / "curve.png")
    assert end.value.code == 2 and "expected a --workdir of bridgedepth train" in capsys.readouterr().err
