"""The checkpoint layout: round trips, and that every kind of damage is one InputError."""

import dataclasses
import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bridgedepth_jax import commands
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.config import DepthConfig
from bridgedepth_jax.store import checkpoint
from bridgedepth_jax.store.checkpoint import Checkpoint, expected_shapes, flatten, load_checkpoint, save_checkpoint, unflatten
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig

TINY = DepthConfig(
    "tiny", dim=8, depth=4, heads=2, taps=(0, 1, 2, 3), pos_grid=2, features=8, out_channels=(4, 4, 4, 4)
)  # fmt: skip


def make(seed: int = 0) -> Checkpoint:
    rng = np.random.default_rng(seed)
    leaves = {name: rng.standard_normal(shape, np.float32) for name, shape in expected_shapes("depth-anything", TINY).items()}
    return Checkpoint("depth-anything", unflatten(leaves), TINY, {"source": "test", "licence": "MIT"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "ckpt"
    save_checkpoint(path, make())
    return path


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def assert_equal(a: Checkpoint, b: Checkpoint) -> None:
    assert (a.kind, a.config, a.provenance) == (b.kind, b.config, b.provenance)
    left, right = flatten(a.params), flatten(b.params)
    assert list(left) == list(right)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], strict=True)


def test_round_trip(folder):
    assert_equal(load_checkpoint(folder), make())


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_safetensors_round_trip(folder, tmp_path, dtype):
    """By the command, from one layout to the other; equal to the bit, and loaded wherever a checkpoint is."""
    commands.main(["convert", "to-safetensors", str(folder), str(tmp_path / "out"), *(["--dtype", dtype] if dtype else [])])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.safetensors", "config.json"}
    found, expected = load_checkpoint(tmp_path / "out"), make()
    if dtype:
        half = {name: value.astype(checkpoint.DTYPES[dtype]) for name, value in flatten(expected.params).items()}
        expected = dataclasses.replace(expected, params=unflatten({n: v.astype(np.float32) for n, v in half.items()}))
    assert_equal(found, expected)
    save_checkpoint(tmp_path / "back", load_checkpoint(tmp_path / "out", dtype=None))
    assert_equal(load_checkpoint(tmp_path / "back"), expected)


def test_damaged_safetensors_are_named(folder, tmp_path):
    checkpoint.save_safetensors(tmp_path / "out", make())
    file, text = (tmp_path / "out" / name for name in ("model.safetensors", "config.json"))
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"parameter .* has sha256 .*, expected"):
        load_checkpoint(tmp_path / "out")
    file.write_bytes(data[:-8])
    with pytest.raises(InputError, match="truncated"):
        load_checkpoint(tmp_path / "out")
    text.write_text("{")
    with pytest.raises(InputError, match="truncated"):
        load_checkpoint(tmp_path / "out")
    checkpoint.save_safetensors(tmp_path / "out", make())
    text.unlink()
    with pytest.raises(InputError, match=r"config\.json is missing or damaged"):
        load_checkpoint(tmp_path / "out")


def test_parameters_are_written_in_groups(folder, tmp_path, monkeypatch):
    """However few fit in a group, the folder holds the same; no more than a group is copied at a time."""
    monkeypatch.setattr(checkpoint, "GROUP", 256)
    sizes, plain = [], checkpoint.ocp.type_handlers.NumpyHandler.serialize

    async def serialize(self, values, infos, args=None):
        sizes.append([value.nbytes for value in values])
        return await plain(self, values, infos, args)

    monkeypatch.setattr(checkpoint.ocp.type_handlers.NumpyHandler, "serialize", serialize)
    save_checkpoint(tmp_path / "out", make())
    assert_equal(load_checkpoint(tmp_path / "out"), make())
    assert sum(map(len, sizes)) == len(flatten(make().params))
    assert len(sizes) > 5 and all(len(group) == 1 or sum(group) <= 256 for group in sizes)


def test_no_file_knows_where_it_was_written(folder):
    place = str(folder.parent).encode()
    assert not [file for file in folder.rglob("*") if file.is_file() and place in file.read_bytes()]


def test_flatten_round_trip():
    tree = {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
    assert flatten(tree) == {"a/b/c": 1, "a/d": 2, "e": 3}
    assert unflatten(flatten(tree)) == tree


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_stored_narrow_loaded_float32(tmp_path, dtype):
    save_checkpoint(tmp_path / "c", make(), dtype=dtype)
    stored = load_checkpoint(tmp_path / "c", dtype=None).params["pretrained"]["pos_embed"]
    loaded = load_checkpoint(tmp_path / "c").params["pretrained"]["pos_embed"]
    assert str(stored.dtype) == dtype and loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, make().params["pretrained"]["pos_embed"].astype(stored.dtype).astype(np.float32))


def test_saving_again_replaces(tmp_path):
    save_checkpoint(tmp_path / "c", make(0))
    save_checkpoint(tmp_path / "c", make(1))
    assert_equal(load_checkpoint(tmp_path / "c"), make(1))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_saving_replaces_nothing_but_a_checkpoint(tmp_path):
    (tmp_path / "photos").mkdir()
    save_checkpoint(tmp_path / "photos", make())  # an empty folder holds nothing to lose
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    for name in ("run", "file"):
        with pytest.raises(InputError, match=f"{name} is no checkpoint and would be replaced by one"):
            save_checkpoint(tmp_path / name, make())
    assert (tmp_path / "run" / "checkpoints").is_dir() and (tmp_path / "file").read_text() == "x"


def test_missing_folder_file_and_foreign_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_checkpoint(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: files\.sha256 is missing"):
        load_checkpoint(tmp_path / "empty")
    (tmp_path / "file.pth").write_bytes(b"x")
    with pytest.raises(InputError, match="is a file, expected a folder"):
        load_checkpoint(tmp_path / "file.pth")


def test_the_folder_of_a_training_run_is_told_from_its_export(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run" / "export")
    with pytest.raises(InputError, match=r"run is a training run, expected its .*run/export"):
        load_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("item", ["params", "description"])
def test_missing_item(copy, item):
    shutil.rmtree(copy / item)
    with pytest.raises(InputError, match=item):
        load_checkpoint(copy)


def test_parameters_of_another_checkpoint(copy, tmp_path):
    save_checkpoint(tmp_path / "other", make(1))
    shutil.rmtree(copy / "params")
    shutil.copytree(tmp_path / "other/params", copy / "params")
    with pytest.raises(InputError, match=r"file 'params/.* is (damaged|missing|not listed)"):
        load_checkpoint(copy)
    sign(copy)
    with pytest.raises(InputError, match="parameter depth_head/projects_0/bias has sha256"):
        load_checkpoint(copy)


def sign(folder: Path) -> None:
    """Rewrites the list of digests, as one who tampers with care would."""
    names = [line.split("  ")[1] for line in (folder / "files.sha256").read_text().splitlines()]
    names = sorted({*names, *(p.relative_to(folder).as_posix() for p in folder.glob("params/**/*"))})
    files = [name for name in names if (folder / name).is_file()]
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in files]
    (folder / "files.sha256").write_text("".join(lines))


def test_edited_description(copy):
    (file,) = (p for p in (copy / "description").iterdir() if p.read_bytes().startswith(b"{"))
    file.write_text(file.read_text().replace("MIT", "CC0"))
    with pytest.raises(InputError, match="file 'description/metadata' is damaged"):
        load_checkpoint(copy)
    sign(copy)
    assert load_checkpoint(copy).provenance["licence"] == "CC0"
    file.write_text(file.read_text().replace("depth-anything", "something"))
    sign(copy)
    with pytest.raises(InputError, match="unknown system 'something', expected one of"):
        load_checkpoint(copy)


def test_shortened_list_of_digests(copy):
    lines = (copy / "files.sha256").read_text().splitlines(keepends=True)
    (copy / "files.sha256").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"file 'params/.*' is not listed in files\.sha256"):
        load_checkpoint(copy)


def test_digests_are_those_of_sha256sum(folder):
    run = subprocess.run(["sha256sum", "--check", "--quiet", "files.sha256"], cwd=folder, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_config_of_another_version(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "plain", lambda config: {"name": "vits", "colour": "red"})
    save_checkpoint(tmp_path / "c", make())
    with pytest.raises(InputError, match="colour"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["pretrained"].pop("cls_token"), "1 parameters do not fit the config.*pretrained/cls_token"),
        (lambda p: p.update(more=np.zeros(3, np.float32)), "1 parameters do not fit the config.*more"),
        (lambda p: p["pretrained"].update(cls_token=np.zeros((1, 8), np.float32)), "2 parameters do not fit"),
        (lambda p: p["pretrained"].update(cls_token=np.zeros((1, 1, 8), np.int32)), "cls_token has dtype int32"),
    ],
)
def test_saving_refuses_parameters_that_do_not_fit(tmp_path, change, message):
    checkpoint = make()
    change(checkpoint.params)
    with pytest.raises(ValueError, match=message):
        save_checkpoint(tmp_path / "c", checkpoint)
    with pytest.raises(ValueError, match="does not describe"):
        save_checkpoint(tmp_path / "c", dataclasses.replace(checkpoint, config=ModelConfig()))
    assert not list(tmp_path.iterdir())


def test_every_damage_is_one_error_or_loads_equal(folder, tmp_path):
    """500 seeded byte flips and truncations: refused with our error or loaded equal."""
    rng = np.random.default_rng(0)
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    refused = 0
    for _ in range(500):
        name = files[rng.integers(len(files))]
        data = bytearray((folder / name).read_bytes())
        if data and rng.random() < 0.8:
            data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        else:
            del data[int(rng.integers(len(data) + 1)) :]
        (copy / name).write_bytes(data)
        try:
            assert_equal(load_checkpoint(copy), make())
        except InputError as error:
            assert str(copy) in str(error) and "\n" not in str(error)
            refused += 1
        (copy / name).write_bytes((folder / name).read_bytes())
    assert refused > 200
