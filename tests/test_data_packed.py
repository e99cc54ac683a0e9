"""Packed sets: the same samples as the files, whole or not there, resumed after an interruption."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import miniature
import numpy as np
import pytest

from bridgedepth_jax.data import DataConfig, find_pairs, make_eval_dataset, make_train_dataset
from bridgedepth_jax.data.table import DATASETS
from bridgedepth_jax.data.tfds import PackedSource, pack
from bridgedepth_jax.data.tfds.builder import Stereo, folder
from bridgedepth_jax.errors import InputError


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return miniature.build(tmp_path_factory.mktemp("data"))


def assert_same_samples(first, second):
    assert len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            np.testing.assert_array_equal(value, two[key])
            assert getattr(value, "dtype", None) == getattr(two[key], "dtype", None)


@pytest.mark.parametrize("name", DATASETS)
def test_packed_and_raw_are_the_same(tree, tmp_path, name):
    pack(name, tree, tmp_path, shards=2)
    raw, packed = make_eval_dataset(name, str(tree)), make_eval_dataset(name, str(tmp_path), source="tfds")
    assert_same_samples(raw, packed)
    assert raw.fingerprint == packed.fingerprint


def test_right_view_disparity_on_request(tree, tmp_path):
    pack("sceneflow", tree, tmp_path / "without")
    with pytest.raises(InputError, match="right-view"):
        PackedSource("sceneflow", tmp_path / "without", right_disparity=True)
    with pytest.raises(InputError, match="right-view"):
        pack("sceneflow", tree, tmp_path / "without", right_disparity=True)
    pack("sceneflow", tree, tmp_path / "with", right_disparity=True)
    assert PackedSource("sceneflow", tmp_path / "with", right_disparity=True)[0]["right_disparity"].mean() == 6
    assert "right_disparity" not in PackedSource("sceneflow", tmp_path / "with")[0]


def test_the_stored_bytes_are_the_files(tree, tmp_path):
    pack("falling_things", tree, tmp_path)
    pair, packed = find_pairs("falling_things", tree)[1], PackedSource("falling_things", tmp_path)
    record = packed._record(1)
    assert record["left"] == pair.left.read_bytes() and record["disparity"] == pair.disparity.read_bytes()
    assert record["beside"] == pair.left.with_name("_camera_settings.json").read_bytes()


def test_training_batches_are_the_same_in_worker_processes_too(tree, tmp_path):
    raw = DataConfig(str(tree), (("sceneflow", 1), ("kitti_mix", 2)), (32, 64), 4, threads=0)
    for name, _ in raw.train:
        pack(name, tree, tmp_path)
    first = make_train_dataset(raw)
    second = make_train_dataset(dataclasses.replace(raw, root=str(tmp_path), source="tfds"))
    assert first.fingerprint == second.fingerprint
    iterated = second.iterate(3, workers=1)
    for step in (3, 4):
        batch, want = next(iterated), first.batch(step)
        for key in want:
            np.testing.assert_array_equal(want[key], batch[key])


def test_interrupted_packing_leaves_nothing_that_looks_whole_and_resumes(tree, tmp_path):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack("vkitti2", tree, tmp_path, 5, progress=interrupt)
    with pytest.raises(InputError, match="no packed set vkitti2"):
        PackedSource("vkitti2", tmp_path)
    shards = sorted(tmp_path.rglob("*array_record-*"))
    assert len(shards) == 3
    times = [path.stat().st_mtime_ns for path in shards]
    half = shards[0].with_name(shards[0].name.replace("00000-of", "00003-of") + ".tmp")
    half.write_bytes(b"half a shard")

    final = pack("vkitti2", tree, tmp_path, 5)
    shards = sorted(final.glob("*array_record-*"))
    assert len(shards) == 5 and [path.stat().st_mtime_ns for path in shards[:3]] == times
    assert_same_samples(make_eval_dataset("vkitti2", str(tree)), PackedSource("vkitti2", tmp_path))
    assert [path.name for path in final.parent.iterdir()] == [final.name]
    again = {path: path.stat().st_mtime_ns for path in final.iterdir()}
    assert pack("vkitti2", tree, tmp_path) == final and again == {path: path.stat().st_mtime_ns for path in final.iterdir()}


def test_an_interrupted_run_with_other_files_starts_anew(tmp_path):
    raw, out = miniature.build(tmp_path / "raw", "things", "eth3d"), tmp_path / "out"

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack("eth3d", raw, out, 2, progress=interrupt)
    for path in raw.rglob("delivery_area_1l/*"):
        path.rename(path.parent.with_name("zzz") / path.name) if path.parent.with_name("zzz").mkdir(
            exist_ok=True
        ) is None else 0
    pack("eth3d", raw, out, 2)
    assert_same_samples(make_eval_dataset("eth3d", str(raw)), PackedSource("eth3d", out))


def test_a_set_packed_from_other_files_is_not_taken_for_this_one(tmp_path):
    raw, out = miniature.build(tmp_path / "raw", "kitti_2015_train"), tmp_path / "out"
    pack("kitti_2015_train", raw, out)
    for path in raw.rglob("000001_10.png"):
        path.unlink()
    with pytest.raises(InputError, match="other files"):
        pack("kitti_2015_train", raw, out)


def test_a_broken_file_stops_packing_and_is_named(tmp_path, capfd):
    pair = find_pairs("things", miniature.build(tmp_path / "raw", "things"))[1]
    pair.right.write_bytes(pair.right.read_bytes()[:90])
    with pytest.raises(InputError, match=str(pair.right)):
        pack("things", tmp_path / "raw", tmp_path / "out")
    assert not Path(folder(str(tmp_path / "out"), "things")).exists()


def test_a_damaged_shard_is_named(tree, tmp_path):
    (shard,) = pack("eth3d", tree, tmp_path).glob("*array_record*")
    content = bytearray(shard.read_bytes())
    content[1000:1064] = bytes(byte ^ 255 for byte in content[1000:1064])
    shard.write_bytes(content)
    with pytest.raises(InputError, match="stereo/eth3d"):
        list(PackedSource("eth3d", tmp_path))
    shard.unlink()
    with pytest.raises(InputError, match="stereo/eth3d"):
        list(PackedSource("eth3d", tmp_path))


def test_the_builder_works_the_usual_way(tree, tmp_path):
    Stereo("sintel_stereo", tree, data_dir=str(tmp_path)).download_and_prepare()
    packed = PackedSource("sintel_stereo", tmp_path)
    assert_same_samples(make_eval_dataset("sintel_stereo", str(tree)), packed)


def test_no_tensorflow_is_loaded():
    code = "import bridgedepth_jax.data.tfds, sys; assert not {'tensorflow', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_the_command(tree, tmp_path):
    script = Path(__file__).parent.parent / "scripts" / "prepare_dataset.py"
    arguments = [sys.executable, script, "eth3d", "--root", tree, "--out", tmp_path, "--shards", "2"]
    environment = {"PYTHONPATH": str(script.parent.parent), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert len(list(Path(run.stdout.strip()).glob("*array_record*"))) == 2
    run = subprocess.run([*arguments[:2], "eth4d", *arguments[3:]], capture_output=True, text=True, env=environment)
    assert run.returncode == 2 and "eth4d" in run.stderr and run.stderr.count("\n") == 1
