"""Adapting to a user's pairs: what becomes better is exported, what cannot be trained on is refused by name."""

import functools
import json
import os
import signal

import cv2
import jax
import numpy as np
import pytest
from test_reciprocal_files import STEREO

from bridgedepth_jax import commands
from bridgedepth_jax.data.pairs import Pair
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.store.checkpoint import Checkpoint, flatten, load_checkpoint, save_checkpoint
from bridgedepth_jax.system import find_system
from bridgedepth_jax.systems.reciprocal import adapt

HEIGHT, WIDTH, SHIFT = 64, 128, 4


def image(rng, height, width):
    """Blobs of several sizes: texture with an identity."""
    layers = [cv2.resize(rng.uniform(0, 255, (height // k, width // k, 3)), (width, height)) for k in (4, 8, 16)]
    return np.clip(np.mean(layers, axis=0) * 1.6 - 76, 0, 255).astype(np.uint8)


def make_pairs(folder, count, kind="good", truth=False):
    """A CSV of pairs whose right view is the left one, `SHIFT` pixels to the side."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), ["left,right" + (",disparity,format" if truth else "")]
    for i in range(count):
        wide = image(rng, HEIGHT + 6, WIDTH + SHIFT)
        left, right = wide[:HEIGHT, :WIDTH], wide[:HEIGHT, SHIFT:]
        if kind == "swapped":
            left, right = right, left
        if kind == "shifted":
            right = wide[5 : HEIGHT + 5, SHIFT:]
        if kind == "noise":
            left, right = (rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(2))
        names = [f"{i}_{side}.png" for side in ("left", "right")]
        for name, view in zip(names, (left, right), strict=True):
            cv2.imwrite(str(folder / name), view)
        if truth:
            cv2.imwrite(str(folder / f"{i}_disparity.png"), np.full((HEIGHT, WIDTH), 256 * SHIFT, np.uint16))
            names += [f"{i}_disparity.png", "kitti"]
        rows.append(",".join(names))
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    return folder / "pairs.csv"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A StereoNet that guesses."""
    folder = tmp_path_factory.mktemp("start") / "stereonet"
    init = jax.jit(functools.partial(find_system("stereonet").init, STEREO))
    weights = jax.device_get(init(jax.random.key(0)))
    weights["estimator"]["predict"]["bias"] = np.full(1, 0.15, np.float32)  # some two pixels at its output
    save_checkpoint(folder, Checkpoint("stereonet", weights, STEREO, {"source": "a test"}))
    return folder


def run(pairs, start, workdir, *more):
    commands.main(["adapt", "--pairs", str(pairs), "--init", str(start), "--workdir", str(workdir), *more])


def test_what_becomes_better_is_exported(start, tmp_path, capsys):
    pairs = make_pairs(tmp_path / "pairs", 12, truth=True)
    options = ("--steps", "60", "--every", "20", "--rate", "3e-3", "--batch", "4")
    run(pairs, start, tmp_path / "run", *options)
    result = json.loads((tmp_path / "run" / "adapt.json").read_text())
    values = result["values"]
    assert not result["refused"] and result["pairs"] == {"trained": 10, "held_out": 2} and result["size"] == [64, 128]
    assert values["photometric_after"] < 0.97 * values["photometric_before"] and values["wins"] == 1
    assert "epe_before" in values and np.isfinite(values["epe_after"])
    exported = load_checkpoint(tmp_path / "run" / "export")
    assert exported.kind == "stereonet" and "adapted" in exported.provenance
    page = (tmp_path / "run" / "adapt.md").read_text()
    assert "| photometric error where both see |" in page and "| EPE, px |" in page and "Exported to" in page
    assert cv2.imread(str(tmp_path / "run/pictures/0.png")).shape == (3 * HEIGHT, WIDTH, 3)
    listed = (tmp_path / "run" / "train.csv").read_text()
    assert listed.startswith("left,right\n") and "disparity" not in listed  # no truth where training reads
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "stage1").rglob("*") if path.is_file()}
    run(pairs, start, tmp_path / "run", *options)  # done: nothing is trained again
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "stage1").rglob("*") if path.is_file()}
    again = flatten(load_checkpoint(tmp_path / "run" / "export").params)
    assert all(np.array_equal(value, again[name]) for name, value in flatten(exported.params).items())
    assert "held-out pairs, step 20: photometric error" in capsys.readouterr().err


def test_a_stage_that_a_signal_stops_is_not_ended(start, tmp_path, capsys, monkeypatch):
    pairs = make_pairs(tmp_path / "pairs", 12)
    options = ("--steps", "60", "--every", "20", "--rate", "3e-3", "--batch", "4")
    look = adapt._Watch.__call__

    def stopped(watch, weights):
        os.kill(os.getpid(), signal.SIGTERM)
        return look(watch, weights)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.setattr(adapt._Watch, "__call__", stopped)
        run(pairs, start, tmp_path / "run", *options)
    assert caught.value.code == 1 and not (tmp_path / "run" / "export").exists()
    assert "stage1 stopped by SIGTERM after step 21, saved; the same command continues" in capsys.readouterr().err
    run(pairs, start, tmp_path / "run", *options)
    assert "held-out pairs, step 60" in capsys.readouterr().err and (tmp_path / "run" / "export").exists()


def test_what_is_no_better_is_not_exported(start, tmp_path, capsys):
    pairs = make_pairs(tmp_path / "pairs", 4)
    with pytest.raises(SystemExit) as caught:
        run(pairs, start, tmp_path / "run", "--steps", "2", "--every", "1", "--rate", "1e-9", "--batch", "1", "--patience", "1")
    assert caught.value.code == 1
    assert not (tmp_path / "run" / "export").exists()
    assert "Not exported: the photometric error is 1.000 times that before, expected at most 0.99" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("swapped", "left and right are swapped"),
        ("shifted", "matches lie -5.0 pixels lower in the right image, expected at most 2"),
        ("noise", "left and right have nothing in common in 3 of 3 pairs"),
    ],
)
def test_pairs_that_are_none_are_refused(kind, words, start, tmp_path, capsys):
    pairs = make_pairs(tmp_path / "pairs", 3, kind)
    with pytest.raises(SystemExit) as caught:
        run(pairs, start, tmp_path / "run")
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and words in lines[0]
    assert kind == "noise" or "0_left.png" in lines[0]
    assert not (tmp_path / "run").exists()


def test_options_that_do_not_fit(start, tmp_path, capsys):
    pairs = make_pairs(tmp_path / "pairs", 2)
    for words, *more in (
        ("--stages 2, expected 1, or 3", "--stages", "2"),
        ("--size 64x100, expected multiples of 64", "--size", "64x100"),
        ("--held-out 1, expected a share", "--held-out", "1"),
        ("--rate 0, expected more than 0", "--rate", "0"),
        ("expected --pairs CSV, or --left and --right", "--left", "x"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(pairs, start, tmp_path / "run", *more)
        assert caught.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and words in lines[0]


def test_held_out_pairs_are_the_last_of_each_folder(tmp_path):
    pairs = [
        Pair("custom", f"{f}/{i}", "sparse", tmp_path / f / f"{i}.png", tmp_path / f"{i}.png") for f in "ab" for i in range(10)
    ]
    training, held = adapt.split_pairs(pairs, 0.2)
    assert [pair.name for pair in held] == ["a/8", "a/9", "b/8", "b/9"] and len(training) == 16
    training, held = adapt.split_pairs(pairs[:2], 0.2)
    assert [pair.name for pair in held] == ["a/1"]
    with pytest.raises(InputError, match="1 pair, expected at least 2"):
        adapt.split_pairs(pairs[:1], 0.2)


def test_a_smaller_error_where_less_is_seen_is_no_progress():
    values = {"ratio": 0.9, "wins": 1.0, "occluded_before": 0.1, "occluded_after": 0.11}
    assert adapt.verdict(values) == ""
    assert "left and right disagree in 20.0%" in adapt.verdict({**values, "occluded_after": 0.2})
    assert "the error fell on 50%" in adapt.verdict({**values, "wins": 0.5})
    assert "0.995 times" in adapt.verdict({**values, "ratio": 0.995})
    assert "nan times" in adapt.verdict({**values, "ratio": float("nan")})
