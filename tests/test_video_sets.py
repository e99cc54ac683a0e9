"""Sets of videos and what is measured on them (spec `video.md` section 5)."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from bridgedepth_jax.commands import main
from bridgedepth_jax.data.formats import write_png
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import video as measures
from bridgedepth_jax.systems.stereodiff import evaluate, sets

HEIGHT, WIDTH, T = 12, 16, 5


def depths() -> np.ndarray:
    depth = np.random.default_rng(0).uniform(1, 6, (T, HEIGHT, WIDTH)).astype(np.float32)
    depth[:, 0, 0] = 0
    return depth


def image(path: Path, number: int) -> None:
    write_png(path, np.full((HEIGHT, WIDTH, 3), 20 * number, np.uint8))


def deep(path: Path, value: np.ndarray, unit: float) -> None:
    write_png(path, np.rint(value * unit).astype(np.uint16))


def make_bonn(root: Path) -> None:
    for k, value in enumerate(depths()):
        image(root / "rgbd_bonn_x" / "rgb" / f"{9 + k}.25.png", k)  # 9.25 comes before 10.25
        deep(root / "rgbd_bonn_x" / "depth" / f"{9 + k}.5.png", value, 5000)


def make_kitti(root: Path) -> None:
    drive = "2011_09_26_drive_0001_sync"
    for k, value in enumerate(depths()):
        name = f"{k + 5:010d}.png"
        deep(root / "data_depth_annotated" / "val" / drive / "proj_depth" / "groundtruth" / "image_02" / name, value, 256)
        image(root / "raw" / "2011_09_26" / drive / "image_02" / "data" / name, k)
    image(root / "raw" / "2011_09_26" / drive / "image_02" / "data" / "0000000000.png", 9)  # has no ground truth


def make_scannet(root: Path) -> None:
    for scene in sets.SCANNET:
        for k, value in enumerate(depths()):
            (root / scene / "color").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / scene / "color" / f"{8 + k}.jpg"), np.full((HEIGHT, WIDTH, 3), 20 * k, np.uint8))
            deep(root / scene / "depth" / f"{8 + k}.png", value, 1000)


def make_sintel(root: Path) -> None:
    for k, value in enumerate(depths()):
        image(root / "training" / "final" / "alley" / f"frame_{k + 1:04d}.png", k)
        path = root / "training" / "depth" / "alley" / f"frame_{k + 1:04d}.dpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        head = np.float32(sets.SINTEL_TAG).tobytes() + np.array([WIDTH, HEIGHT], np.int32).tobytes()
        path.write_bytes(head + value.tobytes())


MAKERS = {"bonn": make_bonn, "kitti": make_kitti, "scannet": make_scannet, "sintel": make_sintel}


@pytest.mark.parametrize("name", MAKERS)
def test_a_set_is_read_in_order_and_in_metres(name, tmp_path):
    MAKERS[name](tmp_path)
    samples = list(sets.READERS[name](tmp_path))
    assert len(samples) == (4 if name == "scannet" else 1)
    for sample in samples:
        assert sample.far == measures.FAR[name]
        np.testing.assert_allclose(sample.truth, depths(), atol=2e-3)
        grey = [round(float(frame.mean()) / 20) for frame in sample.video.read()]
        assert grey == list(range(T))


def test_damaged_depth_is_named(tmp_path):
    make_sintel(tmp_path)
    path = tmp_path / "training" / "depth" / "alley" / "frame_0002.dpt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"frame_0002\.dpt: 779 bytes for 16 x 12 pixels, expected 780"):
        list(sets.sintel(tmp_path))


def sample(name: str = "v", moving: bool = True) -> sets.VideoTruth:
    frames = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * T
    mask = np.zeros((T, HEIGHT, WIDTH), bool)
    mask[:, :, :4] = moving
    return sets.VideoTruth(name, sets.Frames(name, frames), depths(), 10.0, mask)


def test_masks_apply_after_the_fit():
    """Twice the depth where things move: what does not move is measured with the fit of all pixels."""
    truth = sample()
    prediction = truth.truth.copy()
    prediction[:, :, :4] *= 2
    found = evaluate.measure(truth, prediction, "depth")
    assert found["static"]["absrel"] < found["video"]["absrel"] < found["dynamic"]["absrel"]
    assert found["static"]["absrel"] > 0.01
    perfect = evaluate.measure(truth, truth.truth * 3 + 1, "depth")
    assert perfect["video"]["absrel"] < 1e-6
    assert perfect["frame"]["delta1"] == 1
    assert set(perfect["video"]) == {*measures.NAMES, *(f"F{k}" for k in range(11))}


def test_a_video_without_ground_truth_is_named_and_in_no_mean():
    nothing = sample("nothing")._replace(truth=np.zeros((T, HEIGHT, WIDTH), np.float32))
    arm = evaluate.Arm("half", "depth", lambda s: depths() / 2)
    means, rows, problems = evaluate.evaluate(iter([sample("a"), nothing, sample("b")]), [arm])
    assert means["half"]["video"]["absrel"]["videos"] == 2
    assert {row["video"] for row in rows} == {"a", "b"}
    assert len(problems) == 1 and problems[0].startswith("nothing, half: no frame has")


def test_the_interval_holds_the_mean_and_shrinks_with_more_videos():
    rng = np.random.default_rng(0)
    few, many = (evaluate.interval(rng.uniform(0, 1, count)) for count in (5, 500))
    for mean, low, high in (few, many):
        assert low <= mean <= high
    assert many[2] - many[1] < few[2] - few[1]


def test_predictions_in_files_through_the_command(tmp_path, capsys):
    make_sintel(tmp_path / "data")
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "alley.npy", (0.5 / np.maximum(depths(), 0.1)).astype(np.float32))
    words = ["evaluate", "--video", "sintel", "--root", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    main([*words, "--predictions", str(tmp_path / "mine"), "--disparity"])
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    assert result["means"]["file"]["video"]["absrel"]["mean"] < 1e-4
    text = (tmp_path / "out" / "results.md").read_text()
    assert "| StereoDiff (quoted, arXiv 2506.20756) | video | 0.3275 | | 0.5782 | |" in text
    for more, said in (
        ([], "no method, expected"),
        (["--video", "bon"], "unknown set of videos 'bon', did you mean bonn"),
        (["--root", str(tmp_path / "none"), "--predictions", "x"], "no such folder"),
    ):
        with pytest.raises(SystemExit) as end:
            main([*words, *more])
        assert end.value.code == 2
        assert said in capsys.readouterr().err


def test_hazy_clips_are_the_clear_ones_through_haze(monkeypatch, capsys, tmp_path):
    made = {share: next(sets.clips(1, views=2, size=(32, 48), haze=share)) for share in sets.CLIPS.values()}
    np.testing.assert_array_equal(made[0.0].truth, made[1.0].truth)
    assert not np.array_equal(next(made[0.0].video.read()), next(made[1.0].video.read()))
    asked = []
    monkeypatch.setattr(sets, "clips", lambda count, haze: asked.append((count, haze)) or iter(()))
    for name in sets.CLIPS:
        with pytest.raises(SystemExit):
            main(["evaluate", "--video", name, "--limit", "3", "--out", str(tmp_path / name)])
    assert asked == [(3, 0.0), (3, 1.0)]


def test_the_step_of_the_second_stage_is_the_one_asked_for(monkeypatch, tmp_path):
    """Whoever asks for a lower noise level gets it, in both commands; from noise all of DepthCrafter's steps are left."""
    import argparse

    from bridgedepth_jax.commands import evaluate_video, options, video
    from bridgedepth_jax.systems.stereodiff import refine

    parser = argparse.ArgumentParser()
    options.add_second_stage(parser)
    chosen = parser.parse_args(["--steps", "5", "--first", "3", "--window", "8", "--overlap", "2"])
    other = {"video": "sintel", "pairs": None, "predictions": "x", "disparity": True, "ablation": False, "baselines": False}
    args = argparse.Namespace(**vars(chosen), **other, diffusion="y", seed=1, from_noise=False)
    refined = video._refine_options(args)
    assert (refined.steps, refined.first, refined.window, refined.overlap, refined.seed) == (5, 3, 8, 2, 1)
    checkpoint = argparse.Namespace(kind="depthcrafter", config=None, params=None)
    monkeypatch.setattr("bridgedepth_jax.store.checkpoint.load_checkpoint", lambda _: checkpoint)
    monkeypatch.setattr(refine, "VideoDiffusion", lambda *_: None)
    seen = {}
    monkeypatch.setattr(evaluate, "second_stage", lambda name, model, how, first: seen.setdefault(name, how))
    evaluate_video.arms(args)
    assert (seen["file + diffusion"].steps, seen["file + diffusion"].first) == (5, 3)
    assert (seen["from noise"].steps, seen["from noise"].first) == (4, None)
