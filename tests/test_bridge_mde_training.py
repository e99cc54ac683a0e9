"""Training of monocular depth: data, objectives, stages, resume, evaluation, labels."""

import dataclasses
import json
import sys
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from synth import synth_value

from bridgedepth_jax import DepthPredictor, commands
from bridgedepth_jax.convert.conversion import convert_file, write_original
from bridgedepth_jax.convert.engine import find_rules, original_shape
from bridgedepth_jax.convert.pth import write_pth
from bridgedepth_jax.data import mono
from bridgedepth_jax.data.formats import write_pfm, write_png
from bridgedepth_jax.data.mono_formats import decode_target, hypersim_depth, write_dpt
from bridgedepth_jax.data.pipeline import DataConfig, make_train_dataset
from bridgedepth_jax.data.shards import Index, Shard
from bridgedepth_jax.data.sources import SyntheticOptions, SyntheticSource
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import mono_suite
from bridgedepth_jax.networks.config import DepthConfig
from bridgedepth_jax.networks.depth_anything import depth_of, init_depth
from bridgedepth_jax.sharding import make_mesh
from bridgedepth_jax.store.checkpoint import Checkpoint, flatten, load_checkpoint, save_checkpoint
from bridgedepth_jax.systems.bridge_mde import losses
from bridgedepth_jax.systems.bridge_mde.config import MonoTask
from bridgedepth_jax.systems.bridge_mde.system import SYSTEM
from bridgedepth_jax.training import loop
from bridgedepth_jax.training.configfile import read_config
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.start import make_start
from bridgedepth_jax.training.step import Frozen, make_step

ROOT = Path(__file__).parents[1]
TINY = DepthConfig("tiny", dim=16, depth=4, heads=2, taps=(0, 1, 2, 3), pos_grid=2, features=8, out_channels=(8, 8, 8, 8))
STAGES = sorted(path.stem for path in (ROOT / "configs" / "bridge_mde").glob("*.py") if path.stem not in ("__init__", "base"))


def experiment_of(config=TINY, task=None, **solver):
    data = DataConfig(train=(("synthetic", 1),), crop=(28, 42), views="single")
    tree = Experiment(system="bridge_mde", model=config, task=task or MonoTask(), data=data, init="random").to_dict()
    tree["solver"] |= {"batch_size": 8, "base_lr": 1e-3, "schedule": "constant", "weight_decay": 0.01} | solver
    return Experiment.from_dict(tree)


def batch_of(seed=0, rows=8):
    rng = np.random.default_rng(seed)
    inverse = rng.uniform(0.05, 2, (rows, 28, 42)).astype(np.float32)
    return {
        "image": rng.integers(0, 256, (rows, 28, 42, 3)).astype(np.uint8),
        "inverse": inverse,
        "valid": rng.random((rows, 28, 42)) < 0.8,
        "pseudo": np.arange(rows) % 2 == 0,
    }


def one_step(experiment, batch, devices, seed=0, dtype=np.float32):
    objective = experiment.objective()
    weights = jax.jit(lambda key: init_depth(experiment.model, key))(jax.random.key(seed))
    weights = jax.tree.map(lambda leaf: leaf.astype(dtype), weights)
    state, frozen = experiment.begin(objective, weights)
    mesh = make_mesh(1, jax.devices()[:devices])
    step = make_step(objective, experiment.solver, mesh, parameter_norms=True)
    after, metrics, _ = jax.jit(step)(state, Frozen(frozen, {}), batch)
    return weights, after, {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize("head", ["relative", "metric", "scale"])
def test_one_device_and_eight_agree(head):
    """In float64: which pixels are kept, and the sign of a residual, are no matter of rounding there."""
    config = TINY if head == "relative" else dataclasses.replace(TINY, head=head, max_depth=20.0)
    experiment, batch = experiment_of(config, grad_clip=1.0), batch_of()
    with jax.enable_x64(True):
        weights, one, first = one_step(experiment, batch, 1, dtype=np.float64)
        _, _, second = one_step(experiment, batch, 8, dtype=np.float64)
        found = np.asarray(depth_of(config)(weights, jnp.asarray(batch["image"], jnp.float64)))
        for name, value in first.items():
            assert abs(value - second[name]) <= 1e-9 * max(abs(value), first["grad_norm"]), name
        if head == "relative":
            percent = jnp.where(batch["pseudo"], 10, 0)
            expected = losses.total(losses.terms(found, batch["inverse"], batch["valid"], percent), 8).loss
        else:
            valid = batch["valid"] & (1 / batch["inverse"] <= 20)
            g = -np.log(batch["inverse"][valid].astype(np.float64)) - np.log(found[valid])
            expected = np.sqrt(np.mean(g**2) - 0.5 * np.mean(g) ** 2)
        np.testing.assert_allclose(first["loss"], float(expected), rtol=1e-6)
    assert {"loss", "ssi", "gm"} <= set(first) if head == "relative" else "silog" in first
    assert (set(one.params) == {"scale_head"}) == (head == "scale")


def test_rates_and_decay_of_the_groups():
    """What has no gradient stays; the encoder moves a tenth as far as the rest (Adam's first step is the rate, and decay)."""
    weights, after, _ = one_step(experiment_of(grad_clip=None, weight_decay=0.5), batch_of(), 1)
    before, moved = flatten(weights), {}
    for name, leaf in flatten(after.params).items():
        if "mask_token" in name or "refinenet4/resConfUnit1" in name:
            np.testing.assert_array_equal(leaf, before[name])
            continue
        rate = 1e-4 if name.startswith("pretrained/") else 1e-3
        moved[name] = np.abs(leaf - before[name] + rate * 0.5 * before[name]).max()
    largest = lambda prefix: max(value for name, value in moved.items() if name.startswith(prefix))
    np.testing.assert_allclose((largest("pretrained/"), largest("depth_head/")), (1e-4, 1e-3), rtol=1e-2)


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_builds(name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    experiment = Experiment.from_dict(read_config(str(ROOT / "configs" / "bridge_mde" / f"{name}.py")).to_dict())
    objective = experiment.objective()
    state, _ = experiment.abstract_state(objective)  # asserts that every parameter is in one group
    assert Experiment.from_dict(experiment.to_dict()) == experiment
    names = flatten(state.params)
    assert (set(state.params) == {"scale_head"}) == (name == "scale")
    assert any(path.startswith("pretrained/") for path in names) or name == "scale"
    row = (experiment.solver.batch_size, experiment.solver.max_iter, experiment.task.trim, experiment.model.head)
    rows = {
        "teacher": (64, 160_000, 0, "relative"),
        "student": (192, 480_000, 10, "relative"),
        "hybrid": (192, 20_000, 10, "relative"),
        "metric_indoor": (32, 120 * 1875, 10, "metric"),
        "metric_outdoor": (32, 120 * 625, 10, "metric"),
        "scale": (64, 10_000, 10, "scale"),
        "nano": (8, 3000, 10, "relative"),
    }
    assert row == rows[name]


def test_targets_of_each_kind(tmp_path):
    metres = np.array([[1.0, 2.0, 0.0, -1.0], [np.nan, np.inf, 655.35, 4.0]], np.float32)
    path = tmp_path / "a.npy"
    np.save(path, metres)
    found = decode_target(path.read_bytes(), "npy", "a.npy")
    np.testing.assert_array_equal(found.valid, [[1, 1, 0, 0], [0, 0, 1, 1]])
    np.testing.assert_allclose(found.inverse, [[1, 0.5, 0, 0], [0, 0, 1 / 655.35, 0.25]], rtol=1e-6)
    write_png(tmp_path / "a.png", np.array([[100, 65535, 0]], np.uint16))
    sky = decode_target((tmp_path / "a.png").read_bytes(), "vkitti2", "a.png")
    np.testing.assert_array_equal(sky.valid, [[1, 1, 0]])
    np.testing.assert_allclose(sky.inverse, [[1, 0, 0]])
    pseudo = decode_target((tmp_path / "a.png").read_bytes(), "relative16", "a.png")
    assert pseudo.valid.all() and pseudo.inverse[0, 1] == 1
    write_pfm(tmp_path / "a.pfm", np.array([[2.0, 0.0]], np.float32))
    np.testing.assert_allclose(decode_target((tmp_path / "a.pfm").read_bytes(), "pfm", "a.pfm").inverse, [[0.5, 0]])
    write_dpt(tmp_path / "a.dpt", metres[:, :2])
    np.testing.assert_array_equal(decode_target((tmp_path / "a.dpt").read_bytes(), "dpt", "a").valid, [[1, 1], [0, 0]])
    with pytest.raises(InputError, match="format 'x', expected one of png_mm"):
        decode_target(b"", "x", "a")
    with pytest.raises(InputError, match="no depth file of Sintel"):
        decode_target(b"nothing of the kind", "dpt", "a")


def test_hypersim_s_rays():
    """A wall at 3 m: distances grow to the corners, depth does not."""
    y, x = np.mgrid[:768, :1024]
    distance = 3 * np.sqrt((x - 511.5) ** 2 + (y - 383.5) ** 2 + 886.81**2) / 886.81
    np.testing.assert_allclose(hypersim_depth(distance), 3, rtol=1e-12)


def test_hypersim_s_files(tmp_path, monkeypatch):
    """Half floats under `dataset`, NaN where a ray met nothing."""
    import h5py

    y, x = np.mgrid[:768, :1024]
    distance = 3 * np.sqrt((x - 511.5) ** 2 + (y - 383.5) ** 2 + 886.81**2) / 886.81
    distance[0, 0] = np.nan
    path = tmp_path / "frame.0000.depth_meters.hdf5"
    with h5py.File(path, "w") as file:
        file["dataset"] = distance.astype(np.float16)
    found = decode_target(path.read_bytes(), "hypersim", "frame")
    assert not found.valid[0, 0] and found.inverse[0, 0] == 0 and found.valid.sum() == found.valid.size - 1
    np.testing.assert_allclose(found.inverse[found.valid], 1 / 3, rtol=1e-3)  # half a float's last digit
    with pytest.raises(InputError, match="frame: no whole HDF5 file with `dataset`"):
        decode_target(path.read_bytes()[:3000], "hypersim", "frame")
    with h5py.File(path, "w") as file:
        file["depth"] = distance
    with pytest.raises(InputError, match="no whole HDF5 file with `dataset`"):
        decode_target(path.read_bytes(), "hypersim", "frame")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"frame: h5py is not installed, pip install 'bridgedepth-jax\[hypersim\]'"):
        decode_target(path.read_bytes(), "hypersim", "frame")


@pytest.fixture
def listed(tmp_path):
    """Three images with metric depth and one with a pseudo-label of another size."""
    rng = np.random.default_rng(0)
    lines = ["image,depth,format"]
    for i in range(3):
        write_png(tmp_path / f"{i}.png", rng.integers(0, 256, (40, 60, 3), np.uint8))
        np.save(tmp_path / f"{i}.npy", rng.uniform(1, 9, (40, 60)).astype(np.float32))
        lines.append(f"{i}.png,{i}.npy,npy")
    write_png(tmp_path / "label.png", rng.integers(0, 65536, (28, 42)).astype(np.uint16))
    (tmp_path / "gt.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "pseudo.csv").write_text("image,depth,format\n0.png,label.png,relative16\n")
    return tmp_path


def test_shares_are_exact_and_hosts_see_one_stream(listed):
    config = DataConfig(str(listed), (("mono:gt.csv", 1), ("mono:pseudo.csv", 1)), (28, 28), 4, views="single", shares=(3, 1))
    data = make_train_dataset(config)
    flags = np.concatenate([data.batch(step)["pseudo"] for step in range(10)])
    assert [flags[i : i + 4].sum() for i in range(0, 40, 4)] == [1] * 10
    whole = data.batch(3)
    for name, value in whole.items():
        halves = [data.batch(3, host, 2)[name] for host in range(2)]
        np.testing.assert_array_equal(value, np.concatenate(halves), err_msg=name)
    assert whole["image"].shape == (4, 28, 28, 3) and whole["inverse"].dtype == np.float32
    assert not np.array_equal(data.batch(3)["image"], data.batch(4)["image"])


def test_flips_and_crops_keep_image_and_depth_together(listed):
    """Grey levels that are the depth: whatever the geometry, they still are."""
    depth = np.tile(np.linspace(1, 250, 60, dtype=np.float32), (40, 1))
    sample = mono.MonoSample(
        image=np.repeat(np.round(depth)[..., None], 3, 2).astype(np.uint8),
        inverse=depth, valid=np.ones(depth.shape, bool), pseudo=False, name="x",
    )  # fmt: skip
    for seed in range(6):
        made = mono.make_example(sample, (28, 42), mono.MonoAugment(), np.random.default_rng(seed))
        assert np.abs(made["image"][..., 0].astype(float) - made["inverse"])[1:-1, 1:-1].max() < 5
    pseudo = dict(sample, pseudo=True)
    coloured = [mono.make_example(pseudo, (28, 42), mono.MonoAugment(flip=0), np.random.default_rng(s)) for s in range(8)]
    assert any(np.abs(m["image"][..., 0].astype(float) - m["inverse"]).max() > 20 for m in coloured)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,depth\n", "columns image, depth, expected image, depth, format"),
        ("image,depth,format\n", "no rows"),
        ("image,depth,format\n0.png,0.npy,exr\n", "line 2: format 'exr', expected one of"),
        ("image,depth,format\n0.png,9.npy,npy\n", "depth .*9.npy is missing"),
        ("image,depth,format\n0.png,small.npy,npy\n", r"depth \(4, 4\), but the image .* is \(40, 60\)"),
        ("image,depth,format\n0.png,empty.npy,npy\n", "no valid pixel"),
    ],
)
def test_bad_lists(listed, text, words):
    np.save(listed / "small.npy", np.ones((4, 4)))
    np.save(listed / "empty.npy", np.zeros((40, 60)))
    (listed / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        list(mono.open_mono("mono:bad.csv", listed))


def save_tiny(path, config=TINY, kind="bridge_mde", seed=0):
    params = jax.device_get(jax.jit(lambda key: init_depth(config, key))(jax.random.key(seed)))
    save_checkpoint(path, Checkpoint(kind, params, config, {}))
    return path


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    save_tiny(folder / "relative")
    save_tiny(folder / "metric", dataclasses.replace(TINY, head="metric", max_depth=20.0))
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos" / "deep"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(5):
        write_png(folder / f"{i}.png", cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (48, 36)))
    return folder.parent


def digest(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix == ".png"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def lines_of(folder):
    return sorted(line for path in folder.glob("index-*.jsonl") for line in path.read_text().splitlines())


def label(checkpoints, photos, out, *more):
    command = ["data", "pseudo-label", "--checkpoint", str(checkpoints / "relative"), "--images", str(photos)]
    commands.main([*command, "--out", str(out), "--size", "28", *more])


def test_labels_of_one_run_of_shards_and_of_a_killed_run_are_equal(checkpoints, photos, tmp_path):
    label(checkpoints, photos, tmp_path / "one")
    for part in ("0/2", "1/2"):
        label(checkpoints, photos, tmp_path / "two", "--shard", part)
    assert len(digest(tmp_path / "one")) == 5
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert lines_of(tmp_path / "one") == lines_of(tmp_path / "two")
    index = tmp_path / "one" / "index-0-of-1.jsonl"
    whole, before = index.read_bytes(), digest(tmp_path / "one")
    index.write_bytes(whole[: len(whole) // 2])  # killed while it wrote
    (tmp_path / "one" / "deep" / "0.png.png").unlink()
    label(checkpoints, photos, tmp_path / "one")
    assert (index.read_bytes(), digest(tmp_path / "one")) == (whole, before)
    sample = mono.open_mono("mono:labels.csv", tmp_path / "one")[0]
    assert sample["pseudo"] and sample["image"].shape[:2] == sample["inverse"].shape
    row = json.loads(index.read_text().splitlines()[0])
    assert row["size"] == [36, 48] and row["max"] >= row["min"]


def test_an_index_survives_two_kills(tmp_path):
    """A line that was cut off is taken away before the next one, so that the second restart reads what is left."""
    index = lambda: Index(tmp_path, Shard(), {"checkpoint": "x"})
    index().add("a", {"n": 1})
    path = tmp_path / "index-0-of-1.jsonl"
    for name in ("b", "c"):
        path.write_bytes(path.read_bytes() + b'{"name": "torn')
        index().add(name, {"n": 2})
    last = index()
    assert list(last.lines) == ["a", "b", "c"] and len(path.read_text().splitlines()) == 3


def test_labels_refuse(checkpoints, photos, tmp_path, capsys):
    def refused(*arguments):
        with pytest.raises(SystemExit) as error:
            commands.main(["data", "pseudo-label", *map(str, arguments)])
        assert error.value.code == 2
        return capsys.readouterr().err

    images = ("--images", photos, "--size", 28)
    relative = ("--checkpoint", checkpoints / "relative")
    assert "expected i/n with i from 0 below n" in refused(*relative, *images, "--out", tmp_path / "o", "--shard", "2/2")
    assert "--size 13, expected at least 14" in refused(*relative, *images[:2], "--size", 13, "--out", tmp_path / "o")
    assert "lies inside --images" in refused(*relative, *images, "--out", photos / "labels")
    metric = refused("--checkpoint", checkpoints / "metric", *images, "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()
    assert "gives metres, expected one of relative depth" in metric
    label(checkpoints, photos, tmp_path / "made")
    other = save_tiny(tmp_path / "other", seed=1)
    assert "made with checkpoint" in refused("--checkpoint", other, *images, "--out", tmp_path / "made")
    larger = refused(*relative, *images[:2], "--size", 42, "--out", tmp_path / "made")
    assert "made with shorter_side 28, now 42; expected a new --out" in larger
    (photos / "broken.png").write_bytes(b"no image")
    with pytest.raises(SystemExit) as error:
        label(checkpoints, photos, tmp_path / "made")
    assert error.value.code == 1
    assert "left out: broken.png" in capsys.readouterr().err


def test_metric_networks_say_so_and_save_metres(checkpoints, photos, tmp_path, capsys):
    command = ["depth", "--image", str(photos / "deep" / "0.png"), "--out", str(tmp_path), "--size", "28", "--checkpoint"]
    commands.main([*command, str(checkpoints / "metric")])
    assert "metric depth" in capsys.readouterr().err
    metres = np.load(tmp_path / "0_depth.npy")
    assert metres.shape == (36, 48) and metres.min() >= 0 and 1 < metres.max() <= 20
    with pytest.raises(SystemExit):
        commands.main([*command, str(checkpoints / "relative"), "--save", "metres"])
    assert "gives relative depth, expected a metric network" in capsys.readouterr().err


def test_evaluation_of_files(checkpoints, tmp_path, capsys):
    """A set in NYUv2's layout, by the command: both AbsRel, the count that is too large, the quoted rows."""
    scene = tmp_path / "data" / "NYUv2" / "test" / "kitchen"
    scene.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(2):
        write_png(scene / f"rgb_{i:04d}.png", rng.integers(0, 256, (480, 640, 3), np.uint8))
        write_png(scene / f"depth_{i:04d}.png", rng.integers(1000, 5000, (480, 640)).astype(np.uint16))
    write_png(scene / "depth_0001.png", np.zeros((480, 640), np.uint16))
    command = ["evaluate", "--checkpoint", str(checkpoints / "metric"), "--root", str(tmp_path / "data")]
    command += ["--datasets", "nyuv2", "--out", str(tmp_path / "out")]
    commands.main(command)
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    entry = result["datasets"]["nyuv2"]
    assert entry["images"] == 1 and "0 pixels with ground truth" in next(iter(entry["problems"].values()))
    assert {"abs_rel", "abs_rel_inverse"} <= set(entry["means"]) and result["metric"]
    assert "quoted" in (tmp_path / "out" / "results.md").read_text()
    with pytest.raises(SystemExit):
        commands.main([*command, "--count", "3"])
    assert "--count 3: nyuv2 has 2 images" in capsys.readouterr().err


def test_metres_of_pairs_are_measured_beside_those_of_one_view(tmp_path, capsys):
    """KITTI's folders with the right camera: focal length times baseline over the disparity, cut as the protocol cuts."""
    drive = tmp_path / "KITTI_Eigen" / "2011_09_26" / "2011_09_26_drive_0001_sync"
    truth = tmp_path / "KITTI_Eigen" / drive.name / "proj_depth" / "groundtruth" / "image_02" / "0000000005.png"
    for folder in (truth.parent, drive / "image_02" / "data", drive / "image_03" / "data"):
        folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 256, (2, 100, 140, 3), np.uint8)
    write_png(drive / "image_02" / "data" / truth.name, left)
    write_png(truth, np.full((100, 140), 10 * 256, np.uint16))
    matrix = lambda shift: f"200 0 70 {shift} 0 200 50 0 0 0 1 0"
    (drive.parent / "calib_cam_to_cam.txt").write_text(f"P_rect_02: {matrix(10)}\nP_rect_03: {matrix(-90)}\n")  # 0.5 m
    seen = []

    def predict(*views):
        seen.append(views)
        return np.full(views[0].shape[:2], 8, np.float32)  # 200 * 0.5 / 8 = 12.5 m

    method = mono_suite.MonoMethod("x", {}, predict, metric=True, pairs=True)
    lost = mono_suite.evaluate_set(method, "kitti_eigen", tmp_path)
    assert not lost["images"] and "image_03" in next(iter(lost["problems"].values()))
    write_png(drive / "image_03" / "data" / truth.name, right)
    found = mono_suite.evaluate_set(method, "kitti_eigen", tmp_path)
    np.testing.assert_array_equal(seen[-1], [left, right])
    np.testing.assert_allclose([found["means"][name] for name in ("abs_rel", "abs_rel_inverse")], [0.25, 0.2], rtol=1e-6)
    assert found["protocol"]["words"].startswith("metric, of a pair")
    scenes = SyntheticOptions(height=40, width=60, max_disparity=8, size=2)
    exact = iter([SyntheticSource(scenes)[i]["disparity"] for i in range(2)])
    perfect = mono_suite.MonoMethod("x", {}, lambda left, right: next(exact), metric=True, pairs=True)
    assert mono_suite.evaluate_set(perfect, "synthetic", tmp_path, synthetic=scenes)["means"]["abs_rel"] < 1e-6
    with pytest.raises(SystemExit) as error:  # by the command, the default model
        commands.main(["evaluate", "--root", str(tmp_path), "--out", str(tmp_path / "out"), "--datasets", "kitti_eigen,nyuv2"])
    words = "nyuv2 has single images, expected one of kitti_eigen, synthetic for a network of pairs"
    assert error.value.code == 2 and words in capsys.readouterr().err


def test_fuse_labels_and_train_on_them(tmp_path):
    rng = np.random.default_rng(0)
    folders = {name: tmp_path / name for name in ("generated", "original", "depth")}
    for folder in folders.values():
        folder.mkdir()
    noise = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 3), np.uint8), (0, 0), 2)
    image = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    write_png(folders["original"] / "a.png", image)
    write_png(folders["generated"] / "a_0.png", image)
    write_png(folders["generated"] / "a_1.png", np.full_like(image, 128))
    np.save(folders["depth"] / "a.npy", rng.uniform(1, 9, (120, 160)).astype(np.float32))
    options = [word for name, folder in folders.items() for word in (f"--{name}", str(folder))]
    before = {path: path.read_bytes() for folder in folders.values() for path in folder.iterdir()}
    commands.main(["data", "fuse-labels", *options, "--out", str(tmp_path / "out"), "--size", "56"])
    rows = [json.loads(line) for line in (tmp_path / "out" / "index-0-of-1.jsonl").read_text().splitlines()]
    assert [(row["name"], row["accepted"]) for row in rows] == [("a_0.png", True), ("a_1.png", False)]
    assert "of the image agree" in rows[1]["reason"]
    sample = mono.open_mono("mono:labels.csv", tmp_path / "out")[0]
    assert sample["image"].shape == (56, 56, 3) and not sample["pseudo"] and sample["valid"].mean() > 0.9
    commands.main(["data", "fuse-labels", *options, "--out", str(tmp_path / "again"), "--size", "56", "--processes", "2"])
    assert digest(tmp_path / "out") == digest(tmp_path / "again")
    assert before == {path: path.read_bytes() for path in before}


def test_names_of_metric_files_carry_their_depth():
    from bridgedepth_jax.convert.published import named_config, published

    rows = published()
    found = {name: named_config(row) for name, row in rows.items() if "metric" in name}
    assert len(found) == 6
    assert {config.max_depth for config in found.values() if config} == {20.0, 80.0}
    assert rows["bridge_mde"] == ("bridge_mde", "Dingning/BRIDGE", "bridge.pth", "", ())
    with pytest.raises(ValueError, match="a metric head without max_depth"):
        dataclasses.replace(TINY, head="metric")


def test_a_config_of_the_system_is_hashable_and_plain():
    assert hash(SYSTEM.variants["nano"]()) and ConfigDict(dataclasses.asdict(TINY)).head == "relative"


def test_check_says_what_is_there_and_where_the_rest_comes_from(listed):
    from bridgedepth_jax.data.check import check_single

    found = check_single("mono:gt.csv", listed)
    assert found.usable and "3 images, 40 x 60, inverse depth" in str(found)
    for name in ("nyuv2", "da2k", "hypersim"):
        absent = check_single(f"single:{name}", listed)
        assert not absent.usable and not absent.broken and "it comes from" in str(absent)
    folder = listed / "VKITTI2" / "Scene01" / "clone" / "frames" / "rgb" / "Camera_0"
    folder.mkdir(parents=True)
    write_png(folder / "rgb_00001.jpg", np.zeros((4, 4, 3), np.uint8))
    assert check_single("single:vkitti2", listed).broken  # its depth is missing


@pytest.mark.parametrize("kind", ["bridge_mde", "depth-anything"])
@pytest.mark.parametrize("head", ["relative", "metric"])
def test_original_files_go_there_and_back_to_the_bit(kind, head, tmp_path):
    config = dataclasses.replace(TINY, head=head, max_depth=80.0 if head == "metric" else None)
    names = {
        name: leaf.shape for name, leaf in flatten(jax.eval_shape(lambda k: init_depth(config, k), jax.random.key(0))).items()
    }
    rules = find_rules(kind)
    originals = {rules.name(path): original_shape(shape, rules.layout(rules.name(path))) for path, shape in names.items()}  # type: ignore[arg-type]
    state = {name: synth_value(name, shape) for name, shape in originals.items()}
    ordered = {name: state[name] for name in sorted(state, key=rules.order_key)}
    first, second = tmp_path / "first" / "weights.pth", tmp_path / "second" / "weights.pth"  # a file holds its own name
    first.parent.mkdir()
    second.parent.mkdir()
    write_pth(first, ordered)
    found = convert_file(kind, first, config=config)
    assert (found.kind, found.config) == (kind, config)
    write_original(second, found)
    assert first.read_bytes() == second.read_bytes()
    # What a metric file is, it does not say: the name or --max-depth does.
    save_checkpoint(tmp_path / "checkpoint", found)
    assert DepthPredictor.load(tmp_path / "checkpoint").metric == (head == "metric")


class Breaking:
    """Data that fails at a step, as a machine does."""

    def __init__(self, data, at):
        self.data, self.at = data, at
        self.fingerprint = data.fingerprint

    def iterate(self, start_step=0, *, host=0, hosts=1):
        for number, batch in enumerate(self.data.iterate(start_step, host=host, hosts=hosts), start_step):
            if number == self.at:
                raise RuntimeError("the power went out")
            yield batch


@pytest.mark.slow
def test_a_run_that_broke_goes_on_to_the_bit(listed):
    experiment = experiment_of(max_iter=6, batch_size=4)
    data = DataConfig(str(listed), (("mono:gt.csv", 1),), (28, 28), 4, views="single")
    run = dataclasses.replace(experiment.run, latest_every=2, images_every=0)
    experiment = dataclasses.replace(experiment, data=data, run=run)
    source = make_train_dataset(experiment.data)
    devices = jax.devices()[:1]
    start = lambda: make_start(experiment, "random")
    loop.train(experiment, listed / "whole", source, start, devices=devices)
    with pytest.raises(RuntimeError, match="the power went out"):
        loop.train(experiment, listed / "broken", Breaking(source, 5), start, devices=devices)
    loop.train(experiment, listed / "broken", source, start, devices=devices)
    one, two = (flatten(load_checkpoint(listed / name / "export").params) for name in ("whole", "broken"))
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, two[name], err_msg=name)
