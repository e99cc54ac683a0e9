"""A made KITTI raw tree of three drives: training on it, the three protocols of depth, and what is missing or damaged."""

import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from test_reciprocal_files import SINGLE, STEREO, checkpoints

from bridgedepth_jax import commands
from bridgedepth_jax.data import kitti_raw
from bridgedepth_jax.evaluation import depth
from bridgedepth_jax.store.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["checkpoints"]  # a fixture
CALIBRATION = Path(__file__).parent / "reference" / "self_supervised" / "velodyne"
DRIVES = ("2011_09_26_drive_0048", "2011_09_26_drive_0002", "2011_09_26_drive_0060")
TESTED = ",".join(DRIVES[:2])
SIZE = (38, 124)  # of its images, what the calibration says
SHIFT = 3  # pixels between the views


def views(rng):
    wide = rng.integers(0, 256, (SIZE[0] // 2, SIZE[1] // 4 + 2, 3), np.uint8).repeat(2, 0).repeat(4, 1)
    return wide[:, : SIZE[1]], wide[:, SHIFT : SIZE[1] + SHIFT]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("kitti"), np.random.default_rng(0)
    date = root / "KITTI/raw/2011_09_26"
    date.mkdir(parents=True)
    for name in ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt"):
        shutil.copy(CALIBRATION / name, date / name)
    scan = (CALIBRATION / "scan.bin").read_bytes()
    length = {drive.name: drive.frames for drive in kitti_raw.drives()}
    improved = set(kitti_raw.frames("eigen_test_improved"))
    for drive in DRIVES:
        for number in range(length[drive]):
            frame = kitti_raw.Frame(drive, number)
            for camera, image in zip(("image_02", "image_03"), views(rng), strict=True):
                path = root / frame.folder / camera / "data" / f"{number:010d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image)
            if frame in set(kitti_raw.find_frames("kitti_raw_eigen_test")):
                path = kitti_raw.scan_path(frame, root)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(scan)
            if frame in improved:
                path = kitti_raw.improved_places(frame, root)[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), np.full(SIZE, round(256 * (5 + number)), np.uint16))
    for i, width in enumerate((1242, 1224)):
        for folder, image in (("image_2", views(rng)[0]), ("image_3", views(rng)[1])):
            path = root / "KITTI/KITTI_2015/training" / folder / f"{i:06d}_10.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), cv2.resize(image, (width, 40)))
        path = root / "KITTI/KITTI_2015/training/disp_occ_0" / f"{i:06d}_10.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), (256 * rng.integers(5, 60, (40, width)) * (rng.random((40, width)) < 0.3)).astype(np.uint16))
    return root


def evaluate(root, out, protocol, checkpoint, *more):
    arguments = ["--protocol", protocol, "--checkpoint", str(checkpoint), "--root", str(root), "--out", str(out)]
    commands.main(["evaluate", *arguments, *more])
    return json.loads((out / "results.json").read_text())


def test_two_steps_of_training_on_it(root, tmp_path):
    """The frames of validation lists stay out."""
    assert len(kitti_raw.find_frames(f"kitti_raw_stereo_train:{TESTED}")) == 22 + 77 - 3
    model = [f"--config.model.{name}={getattr(STEREO, name)}" for name in ("widths", "projected", "radius", "estimator")]
    model += [f"--config.model.{name}={getattr(STEREO, name)}" for name in ("context", "dilations", "finest")]
    data = [f"--config.data.root={root}", f"--config.data.train=(('kitti_raw_stereo_train:{','.join(DRIVES)}',1),)"]
    short = ["--config.data.crop=(64,128)", "--config.solver.max_iter=2", "--config.eval.datasets=()"]
    commands.main(["train", "--config", "reciprocal/stereo", "--workdir", str(tmp_path / "run"), *model, *data, *short])
    assert load_checkpoint(tmp_path / "run" / "export").kind == "stereonet"


def test_protocols_on_it(root, checkpoints, tmp_path, capsys):
    single, stereo = checkpoints / "singlenet", checkpoints / "stereonet"
    small = ("--size", "64x128")
    found = evaluate(root, tmp_path / "eigen", "eigen", single, "--drives", TESTED, "--pictures", "2")
    assert found["images"] == 22 + 25 and not found["problems"]
    page = (tmp_path / "eigen" / "results.md").read_text()
    assert "| singlenet | measured |" in page and "| SingleNet, post-processed | quoted [t]: table 2 | 0.094 |" in page
    assert len(list((tmp_path / "eigen/pictures/eigen").glob("worst-*.png"))) == 2
    processed = evaluate(root, tmp_path / "pp", "eigen", single, "--drives", TESTED, "--post-process", "--limit", "3")
    assert processed["per_image"] and processed["images"] == 3
    name = next(iter(processed["per_image"]))
    assert processed["per_image"][name]["abs_rel"] != found["per_image"][name]["abs_rel"]
    calibrated = evaluate(root, tmp_path / "cal", "eigen", single, "--drives", TESTED, "--calibrated", "--limit", "3")
    assert calibrated["per_image"][name]["abs_rel"] != found["per_image"][name]["abs_rel"]
    improved = evaluate(root, tmp_path / "imp", "eigen_improved", single, "--drives", TESTED)
    assert improved["images"] == 12 + 21
    loaded = load_checkpoint(stereo)  # at its start it sees next to no disparity, so no view differs from the other
    loud = jax.tree.map(lambda leaf: 3 * leaf, loaded.params)
    stereo = tmp_path / "loud"
    save_checkpoint(stereo, dataclasses.replace(loaded, params=loud))
    fused = evaluate(root, tmp_path / "fused", "kitti_2015_depth", stereo, "--fuse", str(single), *small)
    alone = evaluate(root, tmp_path / "alone", "kitti_2015_depth", stereo, *small)
    mono = evaluate(root, tmp_path / "mono", "kitti_2015_depth", single)
    assert fused["images"] == alone["images"] == mono["images"] == 2 and "d1" in alone["protocols"]["paper"]
    assert fused["per_image"] != alone["per_image"]
    page = (tmp_path / "alone" / "results.md").read_text()
    assert "| StereoNet-D | quoted [t]: table 1 | 0.048 |" in page
    assert "697 images, scans" in capsys.readouterr().out


def test_numbers_are_the_protocols_own(root, checkpoints, tmp_path):
    """Of one image, from the network's answer on: resized, in metres, measured."""
    from bridgedepth_jax import DepthPredictor
    from bridgedepth_jax.data.formats import read_image

    found = evaluate(root, tmp_path / "out", "eigen", checkpoints / "singlenet", "--drives", TESTED, "--limit", "2")
    frame = kitti_raw.find_frames(f"kitti_raw_eigen_test:{TESTED}")[1]
    path = f"{frame.folder}/image_02/data/{frame.number:010d}.png"
    image = cv2.resize(read_image(root / path), SINGLE.size[::-1], interpolation=cv2.INTER_AREA)
    disparity = DepthPredictor.load(checkpoints / "singlenet")(image)
    expected = depth.eigen(kitti_raw.read_depth(frame, root), disparity)
    for name, value in expected.items():
        np.testing.assert_allclose(found["per_image"][path][name], value, rtol=1e-5, err_msg=name)


def test_batches_change_nothing_and_it_goes_on(root, checkpoints, tmp_path, capsys):
    more = ("--drives", TESTED, "--limit", "20")
    one = evaluate(root, tmp_path / "one", "eigen", checkpoints / "singlenet", *more, "--batch", "1")
    lines = (tmp_path / "one" / "images-0.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 20
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "images-0.jsonl").write_text("".join(lines[:7]) + lines[7][:30])
    part = evaluate(root, tmp_path / "part", "eigen", checkpoints / "singlenet", *more, "--batch", "24")
    assert part == one and "7 of 20 images are taken over" in capsys.readouterr().err


def test_what_is_missing_or_damaged_is_named(root, checkpoints, tmp_path, capsys):
    """Each one line and status 2, before anything is computed."""
    frame = kitti_raw.find_frames(f"kitti_raw_eigen_test:{TESTED}")[1]
    scan, date = kitti_raw.scan_path(frame, root), root / "KITTI/raw/2011_09_26"
    right = root / frame.folder / "image_03/data" / f"{frame.number:010d}.png"
    cameras = date / "calib_cam_to_cam.txt"
    truth = root / "KITTI/KITTI_2015/training/disp_occ_0/000001_10.png"

    def refused(words, *arguments):
        with pytest.raises(SystemExit) as caught:
            evaluate(root, tmp_path / "out", *arguments)
        assert caught.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert len(lines) == 1 and words in lines[0], lines

    single, more = checkpoints / "singlenet", ("--drives", TESTED)
    for path, content, words, protocol in (
        (scan, None, f"{scan}: missing, expected a scan", "eigen"),
        (scan, b"12345678901234567", "17 bytes, expected a multiple of 16", "eigen"),
        (right, None, f"{right.name} or .jpg is missing, a right image", "eigen"),
        (cameras, None, "calib_cam_to_cam.txt: cannot be read", "eigen"),
        (cameras, cameras.read_bytes().replace(b"P_rect_02", b"P_rect_99"), "no P_rect_02, expected 3 x 4 numbers", "eigen"),
        (kitti_raw.improved_places(frame, root)[1], None, "missing, expected an improved depth map", "eigen_improved"),
    ):
        before = path.read_bytes()
        try:
            path.unlink() if content is None else path.write_bytes(content)
            refused(words, protocol, single, *more)
        finally:
            path.write_bytes(before)
    before = truth.read_bytes()
    for folder in ("image_2", "image_3", "disp_occ_0"):  # all of another width
        path = root / "KITTI/KITTI_2015/training" / folder / "000002_10.png"
        cv2.imwrite(
            str(path), np.full((40, 1300), 256, np.uint16) if folder == "disp_occ_0" else np.zeros((40, 1300, 3), np.uint8)
        )
    refused("an image 1300 pixels wide, expected a width of KITTI 2015", "kitti_2015_depth", single)
    for folder in ("image_2", "image_3", "disp_occ_0"):
        (root / "KITTI/KITTI_2015/training" / folder / "000002_10.png").unlink()
    refused("no drive 'x' in kitti_raw_eigen_test", "eigen", single, "--drives", "x")
    refused("--drives and --calibrated are for the Eigen protocols", "kitti_2015_depth", single, "--calibrated")
    refused("post-processing of stereonet, expected a monocular network", "eigen", checkpoints / "stereonet", "--post-process")
    stereo = checkpoints / "stereonet"
    refused("teacher mono holds stereonet, expected a monocular network", "eigen", stereo, "--fuse", str(stereo))
    refused("teacher stereo holds singlenet, expected a stereo network", "eigen", single, "--fuse", str(single))
    refused("expected multiples of 32", "eigen", single, "--size", "64x100")
    with pytest.raises(SystemExit):
        commands.main(["evaluate", "--fuse", "x", "--out", str(tmp_path / "out")])
    assert "--fuse without --protocol, expected one of eigen" in capsys.readouterr().err
