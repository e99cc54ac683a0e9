"""The stereo command from its arguments to its files, with a tiny network."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny

from bridgedepth_jax import InputError, commands
from bridgedepth_jax.data.formats import read_disparity, read_pfm, write_png
from bridgedepth_jax.geometry import Calibration
from bridgedepth_jax.inference import cost, outputs, run, video
from bridgedepth_jax.inference.stereo import Prediction, Predictor
from bridgedepth_jax.store.checkpoint import Checkpoint, save_checkpoint
from bridgedepth_jax.visualize import colorize

CALIB = "cam0=[100 0 45; 0 100 30; 0 0 1]\ndoffs=2.5\nbaseline=200\nwidth={width}\nheight={height}\n"


def main(arguments):
    commands.main(["infer", *arguments])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("infer") / "tiny"
    save_checkpoint(path, Checkpoint("bridgedepth", tiny.model_params(), tiny.MODEL, {}))
    return path


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return Predictor.load(checkpoint, check_order=False)


@pytest.fixture
def scene(tmp_path):
    """Two pairs of 90x60 and one of 80x50 in folders left and right; calib.txt beside."""
    for i, (height, width) in enumerate([(60, 90), (50, 80), (60, 90)]):
        left, right = tiny.images(height, width, seed=i)
        write_png(tmp_path / "left" / f"{i}.png", left)
        write_png(tmp_path / "right" / f"{i}.png", right)
    (tmp_path / "calib.txt").write_text(CALIB.format(width=90, height=60))
    return tmp_path


def infer(checkpoint, scene, *arguments, left="left/0.png", right="right/0.png", out="out"):
    values = ["--checkpoint", checkpoint, "--left", scene / left, "--right", scene / right, "--out", scene / out, *arguments]
    main([str(value) for value in values])
    return sorted(path.name for path in (scene / out).iterdir())


def test_every_output_of_a_pair(checkpoint, predictor, scene):
    calib = scene / "calib.txt"
    kinds = ",".join(outputs.OUTPUTS)
    files = infer(checkpoint, scene, "--save", kinds, "--calib", calib, "--z-far", "1", "--max-disparity", "64")
    assert files == sorted(f"0_{output.ending}" for output in outputs.OUTPUTS.values())

    left, right = tiny.images(60, 90, seed=0)
    expected = predictor(left, right, check_consistency=True)
    out = scene / "out"
    np.testing.assert_array_equal(read_pfm(out / "0_disparity.pfm"), expected.disparity)
    disparity, valid = read_disparity(out / "0_disparity.png", "kitti")
    assert valid.all() and np.abs(disparity - expected.disparity).max() <= 1 / 256
    color = cv2.imread(str(out / "0_color.png"))[..., ::-1]
    np.testing.assert_array_equal(color, colorize(expected.disparity, 64))
    confidence = cv2.imread(str(out / "0_confidence.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(confidence / 65535, expected.confidence, atol=1e-5)
    occlusion = cv2.imread(str(out / "0_occlusion.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(occlusion, expected.occluded * 255)
    depth = np.load(out / "0_depth.npy", allow_pickle=False)
    np.testing.assert_allclose(depth, 100 * 0.2 / (expected.disparity + 2.5), rtol=1e-6)
    header = (out / "0_cloud.ply").read_bytes().split(b"end_header")[0].decode()
    count = ((depth <= 1) & ~expected.occluded).sum()
    assert 0 < count < depth.size and f"element vertex {count}\n" in header


def test_kitti_png_says_what_it_clips(tmp_path, capsys):
    disparity = np.full((4, 5), 300, np.float32)
    disparity[0] = 0
    result = outputs.PredictedPair("name", np.zeros((4, 5, 3), np.uint8), Prediction(disparity, np.ones_like(disparity)))
    (path,) = outputs.save(tmp_path, result, ["disparity-png"])
    back, valid = read_disparity(path, "kitti")
    np.testing.assert_array_equal(back, np.where(disparity, np.float32(65535 / 256), np.float32(1 / 256)))
    assert valid.all()
    assert "name: 15 pixels above 256.00 px" in capsys.readouterr().err


def test_folders_in_batches_of_equal_size(checkpoint, predictor, scene, capsys):
    files = infer(checkpoint, scene, "--batch", "2", left="left", right="right")
    assert files == sorted(f"{i}_{ending}" for i in range(3) for ending in ("disparity.pfm", "color.png"))
    for i, (height, width) in enumerate([(60, 90), (50, 80), (60, 90)]):
        expected = predictor(*tiny.images(height, width, seed=i)).disparity
        np.testing.assert_allclose(read_pfm(scene / "out" / f"{i}_disparity.pfm"), expected, atol=1e-4)
    printed, error = capsys.readouterr()
    assert sorted(Path(line).name for line in printed.splitlines()) == files
    assert "3/3" not in error and "swapped" not in error  # the bar is for terminals


def test_swapped_files_are_named(checkpoint, scene, capsys):
    infer(checkpoint, scene, left="right/2.png", right="left/2.png")
    error = capsys.readouterr().err
    assert f"warning: {scene / 'right/2.png'}, {scene / 'left/2.png'}: left and right look swapped" in error


def test_scale_does_not_change_the_calibration(checkpoint, predictor, scene):
    left, right = tiny.images(120, 180)
    write_png(scene / "left" / "large.png", left)
    write_png(scene / "right" / "large.png", right)
    large = dict(left="left/large.png", right="right/large.png")
    # The calibration is for 90x60, these images are that scene at twice the size.
    arguments = ["--scale", "0.5", "--save", "depth,disparity", "--calib", scene / "calib.txt"]
    infer(checkpoint, scene, *arguments, **large)
    disparity = read_pfm(scene / "out" / "large_disparity.pfm")
    np.testing.assert_array_equal(disparity, predictor(left, right, scale=0.5).disparity)
    depth = np.load(scene / "out" / "large_depth.npy")
    np.testing.assert_allclose(depth, 200 * 0.2 / (disparity + 5), rtol=1e-6)


def test_a_scale_is_chosen_and_the_search_range_is_said(checkpoint, predictor, tmp_path, capsys):
    """The tiny network looks for 64 px."""
    left, right = tiny.images(64, 400, disparity=90)
    write_png(tmp_path / "left.png", left)
    write_png(tmp_path / "right.png", right)
    infer(checkpoint, tmp_path, left="left.png", right="right.png")
    assert "matches have disparities up to 90 px, the model looks for 64 px at scale 1: expected --scale 0.6 or auto" in (
        capsys.readouterr().err
    )
    infer(checkpoint, tmp_path, "--scale", "auto", left="left.png", right="right.png")
    error = capsys.readouterr().err
    assert "400x64, scale 0.6: the network sees 240x38" in error and "looks for" not in error
    disparity = read_pfm(tmp_path / "out" / "left_disparity.pfm")
    np.testing.assert_array_equal(disparity, predictor(left, right, scale=0.6).disparity)


def test_a_pass_that_does_not_fit_is_refused_before_it(checkpoint, scene, capsys, monkeypatch):
    monkeypatch.setattr(cost, "LARGE", 1000)
    infer(checkpoint, scene)
    assert "0.png: the network sees 90x60, which takes 0.0 GiB of " in capsys.readouterr().err
    monkeypatch.setattr(cost, "available", lambda device: 1000)
    with pytest.raises(SystemExit) as end:
        infer(checkpoint, scene, out="other")
    error = capsys.readouterr().err
    assert end.value.code == 2 and "but 0.0 GiB are free: expected --scale auto" in error and "Traceback" not in error


def test_a_camera_that_changes_nothing_is_told(checkpoint, scene, capsys):
    infer(checkpoint, scene, "--save", "disparity", "--focal", "100", "--baseline", "0.2", "--z-far", "9")
    assert "note: --focal, --baseline, --z-far changes nothing of --save disparity: " in capsys.readouterr().err
    infer(checkpoint, scene, "--save", "depth", "--focal", "100", "--baseline", "0.2", "--z-far", "9")
    assert "note: --z-far changes nothing of --save depth: " in capsys.readouterr().err
    infer(checkpoint, scene, "--save", "cloud", "--focal", "100", "--baseline", "0.2", "--z-far", "9")
    assert "note: " not in capsys.readouterr().err


def test_sources_of_calibration(tmp_path):
    with pytest.raises(InputError, match=r"k\.txt: a baseline of 200 m, expected"):
        (tmp_path / "k.txt").write_text("100 0 45 0 101 30 0 0 1\n200\n")
        run.calibrations(["a"], intrinsics=str(tmp_path / "k.txt"))
    k = tmp_path / "k.txt"
    k.write_text("100 0 45 0 101 30 0 0 1\n0.2\n")
    assert run.calibrations(["a"]) is None
    assert run.calibrations(["a"], intrinsics=str(k))("a", 90, 60) == Calibration(100, 101, 45, 30, 0.2)
    focal = run.calibrations(["a"], focal=100.0, baseline=0.2, doffs=1.0)
    assert focal("a", 91, 61) == Calibration(100, 100, 45, 30, 0.2, 1, (91, 61))
    for name, width in (("a", 90), ("b", 180)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "calib.txt").write_text(CALIB.format(width=width, height=60))
    each = run.calibrations(["a", "b"], calib=str(tmp_path / "*" / "calib.txt"))
    assert each("a", 90, 60).size == (90, 60) and each("b", 180, 60).size == (180, 60)


@pytest.fixture
def videos(tmp_path):
    frames = [tiny.images(64, 96, seed=i) for i in range(5)]
    for side, name in enumerate(["left", "right"]):
        with video.video_writer(tmp_path / f"{name}.mp4", 12.5) as append:
            for frame in frames[: 5 - side]:
                append(frame[side])
    return tmp_path


def test_video(checkpoint, predictor, videos, capsys):
    files = infer(checkpoint, videos, "--save", "color,disparity", "--batch", "3", left="left.mp4", right="right.mp4")
    assert files == ["left_000000_disparity.pfm", "left_000001_disparity.pfm", "left_000002_disparity.pfm",
                     "left_000003_disparity.pfm", "left_color.mp4"]  # fmt: skip
    printed, error = capsys.readouterr()
    assert "left.mp4 states 5 frames and" in error
    assert sorted(Path(line).name for line in printed.splitlines()) == files
    assert video.video_info(videos / "out" / "left_color.mp4") == (12.5, 4)
    disparity = [read_pfm(videos / "out" / f"left_{i:06d}_disparity.pfm") for i in range(4)]
    pairs = list(zip(*(video.read_frames(videos / f"{side}.mp4") for side in ("left", "right")), strict=False))
    np.testing.assert_allclose(disparity[2], predictor(*pairs[2]).disparity, atol=1e-4)
    # One range for all frames; the codec is lossy.
    limit = max(d.max() for d in disparity)
    for frame, d in zip(video.read_frames(videos / "out" / "left_color.mp4"), disparity, strict=True):
        blurred = [cv2.blur(image.astype(np.float32), (16, 16)) for image in (frame, colorize(d, limit))]
        assert np.abs(blurred[0] - blurred[1]).mean() < 12


def test_video_with_a_range_and_without_arrays(checkpoint, videos, capsys):
    assert infer(checkpoint, videos, "--max-disparity", "50", left="left.mp4", right="right.mp4") == ["left_color.mp4"]
    assert "colours from" not in capsys.readouterr().err


BAD = {
    "no such left": (dict(left="left/9.png"), [], "left/9.png"),
    "no partner": (dict(left="left", right="right"), [], "left/3.png has no partner named '3'"),
    "sizes": (dict(right="right/1.png"), [], "0.png has 90x60 pixels and"),
    "text as image": (dict(left="calib.txt"), [], "calib.txt"),
    "empty file": (dict(left="empty.png"), [], "empty.png"),
    "cut off": (dict(left="cut.png"), [], "cut.png"),
    "too small": (dict(left="small.png", right="small.png"), [], "small.png: images of 90x20 pixels, expected at least 32x32"),
    "scale": ({}, ["--scale", "0"], "--scale 0"),
    "small by scale": ({}, ["--scale", "0.4"], "36x24 at scale 0.4"),
    "kind": ({}, ["--save", "disparity,mesh"], "--save disparity,mesh: expected any of disparity,"),
    "depth without camera": ({}, ["--save", "depth"], "--save depth: needs --calib"),
    "scale word": ({}, ["--scale", "half"], "argument --scale: half, expected a number or auto"),
    "tiles": ({}, ["--tiles", "100x100"], "--tiles 100x100, expected sides of at least 256"),
    "check": ({}, ["--check", "maybe"], "--check maybe, expected one of warn, error, off"),
    "bucket": ({}, ["--bucket", "40"], "bucket 40, expected a multiple of 16"),
    "bucket 0": ({}, ["--bucket", "0"], "bucket 0, expected a multiple of 16, at least 16"),
    "millimetres": (
        {},
        ["--save", "depth", "--focal", "100", "--baseline", "120"],
        "--baseline: a baseline of 120 m, expected 0.001..10 m; if millimetres were read as metres, it is 0.12 m",
    ),
    "metres": (
        {},
        ["--save", "depth", "--calib", "METRES"],
        "metres.txt: a baseline of 0.0002 m, expected 0.001..10 m; if metres were read as millimetres, it is 0.2 m",
    ),
    "no calibration": ({}, ["--save", "depth", "--calib", "NOTES"], "notes.txt: no calibration of a known form, expected"),
    "intrinsics": ({}, ["--save", "depth", "--calib", "K"], "a file of K and the baseline is one of --intrinsics"),
    "two cameras": ({}, ["--calib", "c", "--focal", "1"], "expected one of them"),
    "focal alone": ({}, ["--save", "cloud", "--focal", "100"], "needs --baseline"),
    "baseline alone": ({}, ["--baseline", "1"], "--focal, which is missing"),
    "calib missing": ({}, ["--calib", "none.txt"], "none.txt: No such file"),
    "calib keys": ({}, ["--calib", "BROKEN"], "no doffs, baseline"),
    "calib size": (dict(left="left/0.png", right="right/0.png"), ["--calib", "OTHER"], "calibration of 91x30 images"),
    "range": ({}, ["--max-disparity", "-5"], "--max-disparity -5"),
    "batch": ({}, ["--batch", "0"], "--batch 0"),
    "dtype": ({}, ["--dtype", "float8"], "argument --dtype: invalid choice: 'float8'"),
    "devices": ({}, ["--devices", "99"], "devices 99"),
    "one video": (dict(right="right.mp4"), [], "one is a video"),
    "no video": (dict(left="no.mp4", right="right.mp4"), [], "no.mp4: not a readable video"),
    "text as video": (dict(left="right.mp4", right="right.mp4"), [], "right.mp4: not a readable video"),
    "out is a file": (dict(out="calib.txt"), [], "is a file, expected a folder"),
    "out is no place": (dict(out="/proc/x"), [], "/proc/x cannot be written"),
    "focal": ({}, ["--focal", "-5", "--baseline", "0.1"], "--focal -5.0, expected a positive number"),
    "checkpoint": ({}, ["--checkpoint", "nowhere/checkpoint"], "nowhere/checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(checkpoint, scene, capsys, case):
    paths, arguments, message = BAD[case]
    write_png(scene / "left" / "3.png", tiny.images(60, 90)[0])
    write_png(scene / "small.png", tiny.images(20, 90)[0])
    (scene / "empty.png").touch()
    (scene / "cut.png").write_bytes((scene / "left" / "0.png").read_bytes()[:300])
    (scene / "broken.txt").write_text("cam0=[100 0 45; 0 100 30; 0 0 1]\n")
    (scene / "metres.txt").write_text(CALIB.format(width=90, height=60).replace("baseline=200", "baseline=0.2"))
    (scene / "notes.txt").write_text("focal length 100 pixels, cameras 20 cm apart\n")
    (scene / "k.txt").write_text("100 0 45 0 101 30 0 0 1\n0.2\n")
    (scene / "other.txt").write_text(CALIB.format(width=91, height=30))
    (scene / "right.mp4").write_text("no video")
    before = sorted(scene.rglob("*"))
    arguments = [scene / f"{a.lower()}.txt" if a in ("BROKEN", "OTHER", "METRES", "NOTES", "K") else a for a in arguments]
    with pytest.raises(SystemExit) as caught:
        infer(checkpoint, scene, *arguments, **paths)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert sorted(scene.rglob("*")) == before
