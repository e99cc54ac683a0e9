"""The demo with a tiny network, and the numbers that it prints."""

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from bridgedepth_jax import commands
from bridgedepth_jax.data.formats import read_image, read_pfm, write_pfm, write_png
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.inference import demo
from bridgedepth_jax.inference.run import LoadedPair
from bridgedepth_jax.store.checkpoint import Checkpoint, save_checkpoint

FILES = ["color.png", "confidence.png", "disparity.pfm", "overview.png"]


def script(name):
    spec = importlib.util.spec_from_file_location(f"{name}_script", Path(__file__).parents[1] / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(arguments):
    commands.main(["demo", *arguments])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "tiny"
    save_checkpoint(path, Checkpoint("bridgedepth", tiny.model_params(), tiny.MODEL, {}))
    return str(path)


@pytest.fixture
def files(tmp_path):
    for name, image in zip(("left", "right"), tiny.images(60, 90), strict=True):
        write_png(tmp_path / f"{name}.png", image)
    return ["--left", str(tmp_path / "left.png"), "--right", str(tmp_path / "right.png")]


def test_the_sample_has_its_cloud_and_both_errors(checkpoint, tmp_path, capsys, monkeypatch):
    left, right = tiny.images(60, 90)
    truth = np.full((60, 90), 6, np.float32)
    truth[:5] = np.nan
    sample = LoadedPair("sample", left, right, ("left", "right"), demo.Calibration.from_focal(100, 0.1, (90, 60)))
    monkeypatch.setattr(demo, "motorcycle", lambda: (sample, truth))
    main(["--checkpoint", checkpoint, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    expected = sorted(f"sample_{name}" for name in [*FILES, "cloud.ply"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == expected
    assert all(str(tmp_path / "out" / name) in printed for name in expected)
    disparity = read_pfm(tmp_path / "out" / "sample_disparity.pfm")
    rows = {line[:14].strip(): line[14:].split() for line in printed.splitlines() if line.startswith(("this model", "SGBM"))}
    error = np.abs(disparity - 6)[5:]
    assert rows["this model"] == [f"{100 * np.mean(error > 2):.2f}", f"{np.mean(error):.2f}"]
    assert float(rows["SGBM, filled"][1]) < 0.5  # a plain shift by 6 pixels
    overview = read_image(tmp_path / "out" / "sample_overview.png")
    assert overview.shape == (60, 270, 3)
    np.testing.assert_array_equal(overview[:, :90], left)
    assert not overview[:5, 180:].any()  # no error where there is no truth


def test_own_images_and_calibration(checkpoint, files, tmp_path, capsys):
    main([*files, "--checkpoint", checkpoint, "--out", str(tmp_path / "plain")])
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == [f"left_{name}" for name in FILES]
    assert "bad-2" not in capsys.readouterr().out
    main([*files, "--checkpoint", checkpoint, "--out", str(tmp_path / "metric"), "--focal", "100", "--baseline", "0.1"])
    assert (tmp_path / "metric" / "left_cloud.ply").stat().st_size > 0


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--left", "a.png"], "one of --left and --right is missing"),
        (["--focal", "100"], "--focal belongs to --left and --right"),
        (["--left", "none.png", "--right", "none.png"], "none.png"),
        (["--z-far", "-1"], "--z-far -1.0, expected a positive number"),
        (["--out", __file__], "is a file, expected a folder"),
    ],
)
def test_bad_arguments(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_the_sample_is_real_and_the_errors_are_those_of_the_definition(monkeypatch):
    pair, truth = demo.motorcycle()
    assert pair.left.shape == (*truth.shape, 3) == (500, 741, 3)
    known = truth[np.isfinite(truth)]
    assert 7 < known.min() < known.max() < 60
    found = demo.errors(np.where(np.isfinite(truth), truth + 1, 0), truth)
    assert found == pytest.approx((0, 1), abs=1e-5)
    half = np.arange(741) < 370
    found = demo.errors(truth + 3 * half, truth)
    assert found.bad2 == pytest.approx(100 * np.isfinite(truth[:, half]).sum() / known.size)
    # Semi-global matching as others measured it with the same parameters on this pair.
    assert demo.errors(demo.filled_sgbm(pair, truth), truth).bad2 == pytest.approx(11.0, abs=0.1)
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(InputError, match=r"bridgedepth-jax\[demo\]"):
        demo.motorcycle()


def test_the_table_beside_sgbm(checkpoint, files, tmp_path, capsys, monkeypatch):
    module = script("against_sgbm")
    monkeypatch.setattr(module, "SIZE", (64, 96))
    monkeypatch.setattr(module, "MAX_DISPARITY", 16.0)
    arguments = ["against_sgbm.py", "--checkpoint", checkpoint, "--scales", "1,0.75"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--synthetic", "2", "--pictures", str(tmp_path / "pictures")])
    module.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 5 and rows[0][1:] == ["scale 1", "scale 0.75", "SGBM, filled |"] and rows[4][0] == "| mean"
    each = [float(row[1].split(" %")[0]) for row in rows[2:]]
    assert each[2] == pytest.approx((each[0] + each[1]) / 2, abs=0.11)
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["00000000.png", "00000001.png"]

    left, right = tiny.images(60, 90)
    monkeypatch.setattr(demo, "motorcycle", lambda: (LoadedPair("sample", left, right, ("", ""), None), np.full((60, 90), 6.0)))
    write_pfm(tmp_path / "truth.pfm", np.full((60, 90), 6, np.float32))
    shutil.copy(tmp_path / "left.png", tmp_path / "again.png")
    lines = ["left,right,disparity,format", "left.png,right.png,truth.pfm,pfm", "again.png,right.png,truth.pfm,pfm"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(sys, "argv", [*arguments, "--pairs", str(tmp_path / "pairs.csv")])
    module.main()
    rows = [line.split(" | ", 1) for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[2:]] == [f"| {tmp_path.name}_left", f"| {tmp_path.name}_again", "| mean"]
    assert rows[2][1] == rows[3][1]  # the same pair twice
    monkeypatch.setattr(sys, "argv", arguments)
    module.main()
    alone = [line.split(" | ", 1) for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in alone[2:]] == ["| sample", "| mean"] and alone[2][1] == rows[2][1]


def test_near_edges_are_those_of_a_loop():
    module = script("against_sgbm")
    truth = np.full((20, 30), 5.0)
    truth[8:, 12:] = 9.0
    truth[:, 25:] = np.nan
    near = demo.near_edges(truth)
    sides = [(y, x, y + i, x + j) for y, x in np.ndindex(20, 30) for i, j in ((0, 1), (1, 0)) if y + i < 20 and x + j < 30]
    edges = [(y, x) for a, b, c, d in sides if abs(truth[a, b] - truth[c, d]) > 2 for y, x in ((a, b), (c, d))]
    for y, x in np.ndindex(truth.shape):
        close = any(abs(y - i) <= 5 and abs(x - j) <= 5 for i, j in edges)
        assert near[y, x] == (close and np.isfinite(truth[y, x]))
    found = module.cell(np.where(near, truth + 3, truth), truth, near)
    assert found.edges == 100 and 0 < found.bad2 < 100
