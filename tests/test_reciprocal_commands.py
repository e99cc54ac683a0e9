"""`bridgedepth train` in stages 2 and 3: teachers that are missing or of the wrong kind, and runs that are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_reciprocal_adapt import make_pairs
from test_reciprocal_files import SINGLE, STEREO, checkpoints

from bridgedepth_jax import commands
from bridgedepth_jax.store.checkpoint import flatten, load_checkpoint
from bridgedepth_jax.training.export import load_run

__all__ = ["checkpoints"]  # a fixture
ROOT = Path(__file__).parents[1]
STAGES = {"mono": ("singlenet", SINGLE), "distill": ("stereonet", STEREO)}


def arguments(stage, pairs, workdir, *more):
    """Of a tiny network of the stage, on a list of pairs."""
    kind, model = STAGES[stage]
    fields = (
        ("depths", "bottleneck", "width", "decoder") if kind == "singlenet" else ("widths", "projected", "radius", "finest")
    )
    fields += ("estimator", "context", "dilations") if kind == "stereonet" else ()
    return [
        *("--config", f"reciprocal/{stage}", "--workdir", str(workdir)),
        *(f"--config.model.{name}={getattr(model, name)}" for name in fields),
        *(f"--config.data.train=(('custom:{pairs}',1),)", "--config.data.crop=(64,128)", "--config.eval.datasets=()"),
        *("--config.solver.max_iter=10", "--config.run.latest_every=2", "--config.run.milestone_every=100"),
        *more,
    ]


def teachers(stage, checkpoints):
    given = ["--teacher", str(checkpoints / "stereonet")]
    if stage == "distill":
        given += ["--mono", str(checkpoints / "singlenet"), "--init", str(checkpoints / "stereonet")]
    return given


@pytest.mark.parametrize(
    ("stage", "more", "words"),
    [
        ("mono", (), "task.stage = distil: teachers none, expected stereo (--teacher)"),
        ("mono", ("--teacher", "{singlenet}"), "teacher stereo holds singlenet, expected a stereo network"),
        ("mono", ("--teacher", "nowhere"), "nowhere: neither a checkpoint folder nor a published name"),
        ("mono", ("--teacher", "{stereonet}", "--mono", "{singlenet}"), "teachers mono, stereo, expected stereo (--teacher)"),
        ("distill", ("--teacher", "{stereonet}", "--init", "{stereonet}"), "expected stereo (--teacher), mono (--mono)"),
        (
            "distill",
            ("--teacher", "{stereonet}", "--mono", "{stereonet}", "--init", "{stereonet}"),
            "teacher mono holds stereonet, expected a monocular network",
        ),
        (
            "distill",
            ("--teacher", "{stereonet}", "--mono", "{singlenet}", "--init", "{singlenet}"),
            "holds singlenet, expected stereonet",
        ),
        (
            "mono",
            ("--teacher", "{stereonet}", "--config.data.crop=(64,120)"),
            "data.crop = (64, 120), expected multiples of 32",
        ),
        ("mono", ("--teacher", "{stereonet}", "--config.task.stage=fusion"), "stage = fusion trains a stereo network"),
    ],
)
def test_what_is_missing_or_of_the_wrong_kind(stage, more, words, checkpoints, tmp_path, capsys):
    pairs = make_pairs(tmp_path, 2)
    given = [word.format(**{kind: checkpoints / kind for kind in ("stereonet", "singlenet")}) for word in more]
    with pytest.raises(SystemExit) as caught:
        commands.main(["train", *arguments(stage, pairs, tmp_path / "run", *given)])
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and words in lines[0], lines


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_killed_and_started_again_it_ends_as_if_nothing_had_been(stage, checkpoints, tmp_path):
    """kill -9, at any moment after the first checkpoint."""
    pairs = make_pairs(tmp_path, 9)
    environment = os.environ | {"XLA_FLAGS": os.environ["XLA_FLAGS"], "PYTHONPATH": str(ROOT)}

    def start(workdir):
        words = arguments(stage, pairs, workdir, *teachers(stage, checkpoints))
        return subprocess.Popen([sys.executable, str(ROOT / "train.py"), *words], env=environment, stdout=subprocess.DEVNULL)

    assert start(tmp_path / "unbroken").wait() == 0
    process = start(tmp_path / "killed")
    while not [path for path in (tmp_path / "killed" / "checkpoints").glob("*") if path.name.isdigit()]:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "killed" / "export").exists()
    assert start(tmp_path / "killed").wait() == 0
    (_, one, _), (_, other, _) = load_run(tmp_path / "unbroken"), load_run(tmp_path / "killed")
    for a, b in zip((one.params, one.moments.mu), (other.params, other.moments.mu), strict=True):
        a, b = flatten(a), flatten(b)
        assert all(np.array_equal(a[name], b[name]) for name in a)
    exports = [flatten(load_checkpoint(tmp_path / name / "export").params) for name in ("unbroken", "killed")]
    assert all(np.array_equal(value, exports[1][name]) for name, value in exports[0].items())
