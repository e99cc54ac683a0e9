"""`bridgedepth evaluate` end to end on miniature data sets: the baseline, a tiny network, continuing, pictures, tables."""

import csv
import functools
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from miniature import build, views

from bridgedepth_jax import commands
from bridgedepth_jax.commands.evaluate import load_method
from bridgedepth_jax.data.pairs import Pair
from bridgedepth_jax.evaluation.protocol import Protocol, default_protocol
from bridgedepth_jax.evaluation.quoted import QUOTED
from bridgedepth_jax.evaluation.records import Record
from bridgedepth_jax.evaluation.runner import Evaluator, Item
from bridgedepth_jax.evaluation.sgbm import fill_rows, sgbm
from bridgedepth_jax.evaluation.suite import Method, draw, from_config, match_sgbm
from bridgedepth_jax.networks.config import BackboneConfig, MonoConfig
from bridgedepth_jax.store.checkpoint import Checkpoint, save_checkpoint
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig, NMPConfig, ProposalConfig
from bridgedepth_jax.systems.bridgedepth.system import estimate
from bridgedepth_jax.training.configfile import read_config

ROOT = Path(__file__).parent.parent
CONFIG = """
import ml_collections

def get_config():
    rows = ("kitti_2015_trainval", dict(name="middlebury_Q", thresholds=(2.0,), max_disp=1000, only_valid=False))
    return ml_collections.ConfigDict(dict(eval=dict(datasets=rows), data=dict(root={root!r})))
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    build(folder / "data", "kitti_2015_val", "middlebury_Q", "eth3d")
    (folder / "config.py").write_text(CONFIG.format(root=str(folder / "data")))
    return folder


def run(workspace, *arguments):
    commands.main(["evaluate", "--config", str(workspace / "config.py"), *arguments])


def test_sgbm_writes_everything(workspace, capsys):
    out = workspace / "sgbm"
    run(workspace, "--method", "sgbm", "--out", str(out), "--pictures", "1", "--batch", "2")
    result = json.loads((out / "results.json").read_text())
    assert list(result["datasets"]) == ["kitti_2015_trainval", "middlebury_Q"]
    entry = result["datasets"]["kitti_2015_trainval"]
    assert entry["images"] == 2 and not entry["problems"]
    assert entry["protocols"]["paper"]["bad-3"]["images"] < 10  # the miniature is one textured plane
    assert entry["protocols"]["raw/paper"]["density"]["images"] < entry["protocols"]["paper"]["density"]["images"] == 100
    middlebury = result["datasets"]["middlebury_Q"]["protocols"]
    assert middlebury["paper"] == middlebury["all/below"] != middlebury["noc/below"]
    assert middlebury["noc/below"]["depth_absrel"]["count"] == 2
    page = (out / "results.md").read_text()
    assert "quoted [n]: training Q, bad-2, zero-shot" in page and "| BridgeDepth sf |" in page
    assert "Not measured here" in page and "| SGBM (OpenCV), raw |" in page
    rows = list(csv.DictReader((out / "images.csv").read_text().splitlines()))
    assert len(rows) == 4 and float(rows[0]["paper:epe"]) < 3
    pictures = sorted((out / "pictures" / "middlebury_Q").glob("*.png"))
    assert [p.name.split("-")[0] for p in pictures] == ["median", "worst"] or len(pictures) == 1
    assert cv2.imread(str(pictures[0])).shape == (4 * 48, 80, 3)
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("kitti_2015_trainval: epe") and all(Path(line).is_file() for line in lines[-3:])
    assert all(" images, " in line for line in lines[:-3]) and "padding: " in said.err and "batches: " in said.err


def test_continued_results_are_equal(workspace):
    whole, part = workspace / "whole", workspace / "part"
    arguments = "--method", "sgbm", "--datasets", "eth3d,middlebury_Q"
    run(workspace, *arguments, "--out", str(whole))
    lines = (whole / "images-0.jsonl").read_text().splitlines(keepends=True)
    part.mkdir()
    (part / "images-0.jsonl").write_text("".join(lines[:3]) + lines[3][:100])
    run(workspace, *arguments, "--out", str(part), "--batch", "3")
    assert (part / "results.json").read_text() == (whole / "results.json").read_text()
    assert len((part / "images-0.jsonl").read_text().splitlines()) == 4
    again = (whole / "images-0.jsonl").stat().st_mtime_ns
    run(workspace, *arguments, "--out", str(whole))
    assert (whole / "images-0.jsonl").stat().st_mtime_ns == again  # nothing was evaluated twice


def test_results_of_other_data_or_batches_are_not_continued(workspace, capsys):
    folder, out = workspace / "changing", workspace / "changing-out"
    folder.mkdir()
    source = workspace / "data/KITTI/KITTI_2015/training"
    names = ("image_2", "image_3", "disp_occ_0")
    for role in names:
        shutil.copy(sorted((source / role).glob("*_10.png"))[0], folder / f"{role}.png")
    (folder / "own.csv").write_text(f"left,right,disparity,format\n{','.join(f'{role}.png' for role in names)},kitti\n")

    def epe(*options):
        arguments = "--method", "sgbm", "--datasets", f"custom:{folder}/own.csv", "--out", str(out)
        run(workspace, *arguments, *options)
        result = json.loads((out / "results.json").read_text())
        (entry,) = result["datasets"].values()
        return entry["protocols"]["paper"]["epe"]["images"], result["settings"]["batches"], capsys.readouterr().err

    before, words, _ = epe()
    assert "the same numbers for any batch" in words
    again, _, printed = epe()
    assert again == before and "1 of 1 images are taken over" in printed
    fused, words, printed = epe("--fused")
    assert fused == pytest.approx(before) and words.startswith("fused (--fused)") and "taken over" not in printed
    disparity = cv2.imread(str(folder / "disp_occ_0.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(folder / "disp_occ_0.png"), np.where(disparity > 0, disparity + 10 * 256, 0).astype(np.uint16))
    after, _, printed = epe()
    assert after > before + 5 and "taken over" not in printed


def test_custom_csv_and_broken_images(monkeypatch, workspace, capsys):
    folder = workspace / "own"
    folder.mkdir()
    source = workspace / "data/KITTI/KITTI_2015/training"
    rows = ["left,right,disparity,format"]
    for name in ("good", "broken", "blank", "odd"):
        for role in ("image_2", "image_3", "disp_occ_0"):
            shutil.copy(sorted((source / role).glob("*_10.png"))[0], folder / f"{name}_{role}.png")
        rows.append(",".join(f"{name}_{role}.png" for role in ("image_2", "image_3", "disp_occ_0")) + ",kitti")
    (folder / "broken_image_2.png").write_bytes(b"no image")
    cv2.imwrite(str(folder / "blank_disp_occ_0.png"), np.zeros((48, 80), np.uint16))
    cv2.imwrite(str(folder / "odd_image_3.png"), np.zeros((48, 79, 3), np.uint8))
    (folder / "own.csv").write_text("\n".join(rows) + "\n")
    out = workspace / "custom"
    monkeypatch.chdir(workspace)
    run(workspace, "--method", "sgbm", "--datasets", "custom:own/own.csv", "--out", str(out))
    printed = capsys.readouterr().err
    (entry,) = json.loads((out / "results.json").read_text())["datasets"].values()
    assert entry["images"] == 1
    assert set(entry["problems"]) == {"broken_image_2.png", "blank_image_2.png", "odd_image_2.png"}
    assert all(f"left out: {name}_image_2.png" in printed for name in ("broken", "blank", "odd"))
    assert "no pixel with ground truth" in (out / "results.md").read_text()
    (folder / "odd.csv").write_text("\n".join((rows[0], rows[-1])) + "\n")
    with pytest.raises(SystemExit) as caught:  # nothing to compare is no success
        run(workspace, "--method", "sgbm", "--datasets", "custom:own/odd.csv", "--out", str(out))
    assert caught.value.code == 1 and "no image could be evaluated" in capsys.readouterr().out


PROCESSES = ("--num-processes", "2", "--process-id")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--checkpoint", "nowhere", "--out", "x"], "nowhere"),
        (["--method", "sgbm", "--datasets", "kitty", "--out", "x"], "kitty"),
        (["--method", "sgbm", "--datasets", "things", "--out", "x"], "no file matches"),
        (["--method", "sgbm", "--bucket", "24", "--out", "x"], "bucket 24"),
        (["--method", "sgbm", "--out", "x", "--num-processes", "2", "--process-id", "0"], "--coordinator, --num-processes"),
        (
            ["--method", "sgbm", "--out", "x", *PROCESSES, "0", "--coordinator", "here"],
            "--coordinator here, expected HOST:PORT",
        ),
        (["--method", "sgbm", "--out", "x", *PROCESSES, "2", "--coordinator", "here:1"], "--process-id 2, expected 0 to 1"),
        (["--method", "sgbm", "--out", "/proc/x"], "--out /proc/x cannot be written"),
        (["--method", "sgbm", "--datasets", "synthetic", "--out", "x"], "'synthetic' is rendered"),
        (["--method", "sgbm", "--config", "nowhere.py", "--out", "x"], "nowhere.py"),
    ],
)
def test_bad_input_is_one_line(workspace, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        run(workspace, *arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_fill_rows():
    nan = np.nan
    filled = fill_rows(np.float32([[nan, 2, nan, nan, 5, nan], [nan] * 6, [1, 2, 3, 4, 5, 6]]))
    np.testing.assert_allclose(filled, [[2, 2, 3, 4, 5, 5], [0] * 6, [1, 2, 3, 4, 5, 6]])


def test_sgbm_floor_on_a_real_pair():
    """Bad-2 of StereoSGBM on scikit-image's pair is known: 11.0 % with these parameters and holes filled."""
    from skimage.data import stereo_motorcycle

    left, right, gt = stereo_motorcycle()
    known = np.isfinite(gt)
    sample = dict(left=left, right=right, disparity=np.where(known, gt, 0).astype(np.float32), valid=known, name="motorcycle")
    filled, raw = match_sgbm(sample)
    assert (np.abs(filled - gt)[known] > 2).mean() * 100 == pytest.approx(11.0, abs=0.3)
    assert 80 < np.isfinite(raw)[known].mean() * 100 < 95
    assert sgbm(left[:40, :60], right[:40, :60], 3).shape == (40, 60)


def test_the_configs_of_the_repository_can_be_evaluated():
    protocols, root = from_config(read_config(str(ROOT / "configs" / "zero_shot_evaluation.py")))
    assert [p.name for p in protocols] == ["kitti_2012_trainval", "kitti_2015_trainval", "eth3d", "middlebury_Q"]
    assert [p.thresholds for p in protocols] == [(3,), (3,), (1,), (2,)] and root == "data"
    assert protocols[3].max_disp == 1000 and not protocols[3].only_valid


def test_quoted_rows_are_data_sets_of_ours():
    for row in QUOTED:
        assert default_protocol(row.dataset).max_disp is not None or row.dataset.startswith(("kitti", "eth3d"))
        assert row.source in "tn"


def tiny_config(**changes):
    mono = MonoConfig("tiny", dim=16, depth=4, heads=2, taps=(0, 1, 2, 3), features=8, out_channels=(8, 8, 8, 8))
    nmp = NMPConfig(prop_dim=16, dim=16, prop_heads=2, heads=2, prop_layers=1, infer_layers=1, refine_layers=1,
                    concat_dim=8, concat_hidden=8, correlation_dim=16, correlation_groups=4)  # fmt: skip
    backbone = BackboneConfig("convnext", out_channels=16, dims=(8, 8, 16), depths=(1, 1, 1))
    dpn = ProposalConfig(max_disp=64, context_dim=8, mlp_dims=(4, 4), seed_dim=8, lookup_dim=16)
    return ModelConfig(mono=mono, backbone=backbone, dpn=dpn, nmp=nmp, **changes)


@pytest.fixture(scope="module")
def checkpoint(workspace):
    from bridgedepth_jax.systems.bridgedepth.network import init_params

    config = tiny_config()
    shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))  # compiling init takes a minute
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)
    save_checkpoint(workspace / "tiny", Checkpoint("bridgedepth", params, config, {"source": "test"}))
    return workspace / "tiny"


def test_a_network_runs_end_to_end(workspace, checkpoint):
    out = workspace / "network"
    run(workspace, "--checkpoint", str(checkpoint), "--datasets", "middlebury_Q", "--out", str(out))
    entry = json.loads((out / "results.json").read_text())["datasets"]["middlebury_Q"]
    paper = entry["protocols"]["paper"]
    assert entry["images"] == 2 and np.isfinite(paper["epe"]["images"])
    assert {"prop_epe", "prop_recall_3", "prop_recall_8", "depth_delta1", "a99"} <= set(paper)


@pytest.mark.slow
def test_network_batch_and_devices(workspace, checkpoint):
    """Batch 1 and 8, one device and eight: the same numbers, though single pixels of a float32 network may choose otherwise."""
    method, _, config = load_method(str(checkpoint), None)

    def read(seed):
        left, right = views(seed, 9.0)
        return dict(left=left, right=right, disparity=np.full((48, 80), 9, np.float32), valid=left[..., 0] < 200, name="")

    items = [Item(str(i), functools.partial(read, i)) for i in range(10)]
    one, batch, eight = (
        Evaluator(estimate(config), multiple=16, minimum=32, batch=size, devices=jax.devices()[:devices])(
            method.params, items, Protocol("planes")
        )
        for size, devices in ((1, 1), (8, 1), (8, 8))
    )
    for a, b, c in zip(one, batch, eight, strict=True):
        assert a == b and a.name == c.name and not a.problem
        for mask, row in a.values().items():
            assert row == pytest.approx(c.values()[mask], rel=1e-6)


@pytest.mark.slow
def test_two_processes_write_the_same_results(workspace):
    arguments = [
        "--config",
        str(workspace / "config.py"),
        "--method",
        "sgbm",
        "--datasets",
        "eth3d,middlebury_Q",
        "--pictures",
        "1",
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = ["--coordinator", address, "--num-processes", "2", "--out", str(workspace / "two")]
    command = [sys.executable, "evaluate.py", *arguments]
    processes = [subprocess.Popen([*command, *together, "--process-id", str(i)], cwd=ROOT) for i in range(2)]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    subprocess.run([*command, "--out", str(workspace / "one")], cwd=ROOT, check=True)
    for name in ("results.json", "results.md", "images.csv"):
        assert (workspace / "two" / name).read_text() == (workspace / "one" / name).read_text()
    shares = [len(path.read_text().splitlines()) for path in sorted((workspace / "two").glob("images-*.jsonl"))]
    assert shares == [2, 2]


@pytest.mark.slow
def test_submit_command(workspace, checkpoint, capsys):
    build(workspace / "data", "kitti_2015_test")
    options = ["--checkpoint", str(checkpoint), "--root", str(workspace / "data"), "--out", str(workspace / "submission")]
    commands.main(["submit", "kitti_2015", *options])
    said = capsys.readouterr()
    assert "2 pairs" in said.err and len(said.out.splitlines()) == 1 and Path(said.out.strip()).is_file()
    assert (workspace / "submission" / "kitti_2015.zip").is_file()
    assert (
        cv2.imread(str(workspace / "submission/kitti_2015_submission/000001_10.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    )


@pytest.mark.slow
def test_as_a_command(workspace):
    arguments = ["--config", str(workspace / "config.py"), "--method", "sgbm", "--out", str(workspace / "command")]
    subprocess.run([sys.executable, "evaluate.py", *arguments, "--datasets", "eth3d"], cwd=ROOT, check=True)
    assert (workspace / "command" / "results.md").is_file()


def test_images_without_an_answer_are_not_drawn(tmp_path):
    pairs = [Pair("set", name, "sparse", Path("left.png"), Path("right.png")) for name in ("bad", "good")]
    records = [
        Record("set", "bad", {"paper": {"epe": (0.0, 0)}}, "not finite"),
        Record("set", "good", {"paper": {"epe": (6.0, 3)}}),
    ]
    drawn = []

    def evaluator(params, pairs, protocol, consume):
        drawn.extend(pair.name for pair in pairs)

    draw(evaluator, Method("fake", {}), pairs, default_protocol("kitti_2015_train"), records, tmp_path, 2)
    assert drawn == ["good"]
