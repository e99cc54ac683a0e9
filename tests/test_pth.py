"""Reading and writing .pth files: files of torch itself, files of attackers, damaged files."""

import argparse
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from bridgedepth_jax.convert import pth
from bridgedepth_jax.convert.pickled import Class
from bridgedepth_jax.convert.pth import Instance, write_pth
from bridgedepth_jax.convert.rules.bridgedepth import CONFIG
from bridgedepth_jax.errors import InputError

NAMESPACE = Class("argparse", "Namespace", attributes=True)


def read_pth(path: Path):
    return pth.read_pth(path, [CONFIG])


SAMPLES = Path(__file__).parent / "reference/pth"
EXPECTED = dict(np.load(SAMPLES / "sample_checkpoint_expected.npz", allow_pickle=False))


def archive(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None, **kwargs) -> Path:
    with zipfile.ZipFile(path, "w", **kwargs) as file:
        file.writestr("x/data.pkl", pickled)
        for key, data in (storages or {}).items():
            file.writestr(f"x/{key}", data)
    return path


def tensor(dtype="FloatStorage", key="0", count=6, offset=0, shape=(2, 3), strides=(3, 1)) -> bytes:
    """The pickle of one tensor, as torch writes it."""

    def number(value: int) -> bytes:
        return b"\x8a\x0c" + value.to_bytes(12, "little", signed=True)

    def numbers(values) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    text = b"".join(b"X" + struct.pack("<I", len(t)) + t.encode() for t in (key, "cpu"))
    storage = b"(X\x07\x00\x00\x00storagectorch\n" + dtype.encode() + b"\n" + text + number(count) + b"tQ"
    view = number(offset) + numbers(shape) + numbers(strides)
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"\x89ccollections\nOrderedDict\n)RtR."


def assert_same(a, b) -> None:
    if isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b, strict=True)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    else:
        assert a == b and type(a) is type(b)


@pytest.mark.parametrize("name", ["sample_checkpoint", "sample_state_dict", "sample_training_checkpoint"])
def test_files_of_torch(name):
    """Views, transposes, shared storages, half, bfloat16, integers, booleans, a scalar, an empty tensor, an optimiser."""
    content = read_pth(SAMPLES / f"{name}.pth")
    state = content.get("model", content)
    assert set(state) == (set(EXPECTED) if name != "sample_training_checkpoint" else {"plain"})
    for key, value in state.items():
        np.testing.assert_array_equal(value.astype(EXPECTED[key].dtype), EXPECTED[key], strict=True)
    if name != "sample_state_dict":
        assert content["model_config"]["BACKBONE"]["MODEL_TYPE"] == "convnext"
        assert list(content["model_config"]) == ["BACKBONE", "DPN", "NMP", "BRIDGEDEPTH"]
    if name == "sample_training_checkpoint":
        assert content["optimizer"]["state"][0]["step"] == 3 and (content["step"], content["epoch"]) == (7, 1)


def test_narrow_dtypes_are_kept():
    state = read_pth(SAMPLES / "sample_state_dict.pth")
    assert state["half"].dtype == np.float16 and state["bfloat16"].dtype == ml_dtypes.bfloat16
    assert np.shares_memory(state["shared_a"], state["shared_b"])


def test_big_endian(tmp_path):
    data = {"byteorder": b"big", "data/0": np.arange(6, dtype=">f4").tobytes()}
    np.testing.assert_array_equal(read_pth(archive(tmp_path / "f.pth", tensor(), data)), np.arange(6.0).reshape(2, 3))
    with pytest.raises(InputError, match="byte order 'middle'"):
        read_pth(archive(tmp_path / "g.pth", tensor(), data | {"byteorder": b"middle"}))


def test_zip64(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.pth", "w") as file:
        for name, data in (("x/data.pkl", tensor()), ("x/data/0", np.arange(6, dtype="f4").tobytes())):
            with file.open(name, "w", force_zip64=True) as entry:
                entry.write(data)
    np.testing.assert_array_equal(read_pth(tmp_path / "f.pth"), np.arange(6.0).reshape(2, 3))


def test_write_read_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    dtypes = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.int32, np.int8, np.uint8, np.bool_]
    arrays = {str(np.dtype(t)): rng.integers(0, 2, (3, 2, 4)).astype(t) for t in dtypes}
    arrays |= {"scalar": np.array(3, np.float32), "empty": np.zeros((0, 3), np.float32), "T": arrays["float32"].T}
    config = Instance({"a": Instance({"b": 1}, of=CONFIG, state={"flags": set()})}, of=CONFIG, state={})
    value = {
        "model": arrays,
        "list": [1, -2, 0.5, None, True, "é"],
        "tuple": (1, (2,), ()),
        "set": {"a"},
        "none": {},
        "object": config,
    }
    write_pth(tmp_path / "f.pth", value)
    assert_same(read_pth(tmp_path / "f.pth"), value | {"object": {"a": {"b": 1}}})
    with zipfile.ZipFile(tmp_path / "f.pth") as file:
        assert file.testzip() is None
    data = (tmp_path / "f.pth").read_bytes()
    assert data.find(arrays["float64"].tobytes()) % 64 == 0


class Evil:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: {"model": e}, lambda e: [1, (e,)]])
def test_code_is_refused(tmp_path, protocol, wrap):
    marker = tmp_path / "marker"
    for function in (os.system, eval, exec):
        argument = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w').close()"
        pickled = pickle.dumps(wrap(Evil(function, argument)), protocol)
        with pytest.raises(InputError, match=r"refused, .*is not allowed"):
            read_pth(archive(tmp_path / "f.pth", pickled))
    with pytest.raises(InputError, match=r"(posix|nt)\.system is not allowed" if protocol > 1 else "not allowed"):
        read_pth(archive(tmp_path / "f.pth", pickle.dumps(Evil(os.system, f"touch {marker}"), protocol)))
    assert not marker.exists()


CFG = b"cbridgedepth.config.config\nCfgNode\n"


@pytest.mark.parametrize(
    "pickled",
    [
        b"cbuiltins\ngetattr\n.",
        b"c__builtin__\neval\n.",
        b"ccollections\nOrderedDict.__init__\n.",
        b"ccollections\nabc\n.",
        b"ctorch\nload\n.",
        b"ctorch.serialization\nload\n.",
        b"ctorch.storage\n_load_from_bytes\n.",
        b"ctorch._utils\n_rebuild_device_tensor_from_numpy\n.",
        b"cnumpy.core.multiarray\n_reconstruct\n.",
        b"cbridgedepth.config.config\nCfgNode.merge_from_file\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"(S'id'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'id'\no.",  # OBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__NsbN.",  # BUILD on a function
        CFG + b"}X\x0b\x00\x00\x00__setitem__Nsb.",  # BUILD on the class itself
        CFG + b")\x81N}X\x01\x00\x00\x00aK\x01s\x86b.",  # BUILD with slot state
        CFG + b")\x81(K\x01K\x02tb.",
        b"ctorch\nFloatStorage\n)R.",
        b"ctorch\nFloatStorage\n)\x81.",
        b"ccollections\nOrderedDict\nK\x01\x85R.",
        b"c__builtin__\nset\n](]]e\x85R.",
        b"}(K\x01]u]K\x01s.",
        b"}ccollections\nOrderedDict\nK\x01s.",  # a name as key
        b"ctorch._utils\n_rebuild_parameter\n(K\x01\x89NtR.",
        b"X\x01\x00\x00\x000Q.",  # a persistent id that is no storage
        b"Pname\n.",
        b"\x80\x02" + b"]" * 200000 + b"a" * 199999 + b".",
        b"(((.",
        b"K\x01K\x02.",
        b"r\xff\xff\xff\xff.",
        b"h\x05.",
        b"\x86.",
        b"",
    ],
)
def test_hand_made_pickles_are_refused(tmp_path, pickled):
    with pytest.raises(InputError, match=r"f\.pth: (refused|damaged)") as caught:
        read_pth(archive(tmp_path / "f.pth", pickled))
    assert "\n" not in str(caught.value)


def test_state_of_the_config_class_is_dropped(tmp_path):
    state = b"}(X\x09\x00\x00\x00__class__ctorch\nFloatStorage\nX\x05\x00\x00\x00itemsK\x01u"
    value = read_pth(archive(tmp_path / "f.pth", CFG + b")\x81(X\x01\x00\x00\x00aK\x01u" + state + b"b."))
    assert value == {"a": 1} and type(value) is dict and callable(value.items)


def test_attributes_of_an_object(tmp_path):
    """Of a class whose objects are their attributes; unless it is asked for, it is refused like any other."""
    content = {"args": argparse.Namespace(model="Net(heads=2)", steps=[1, 2]), "more": (argparse.Namespace(),)}
    path = archive(tmp_path / "f.pth", pickle.dumps(content, 2))
    value = pth.read_pth(path, [NAMESPACE])
    assert value == {"args": {"model": "Net(heads=2)", "steps": [1, 2]}, "more": ({},)} and type(value["args"]) is dict
    with pytest.raises(InputError, match=r"argparse\.Namespace is not allowed"):
        read_pth(path)
    with pytest.raises(InputError, match=r"CfgNode is not allowed"):
        pth.read_pth(SAMPLES / "sample_checkpoint.pth")
    keys = pickle.dumps(argparse.Namespace(a=1), 2).replace(b"X\x01\x00\x00\x00a", b"N")  # an attribute named None
    with pytest.raises(InputError, match="a key of type NoneType is not allowed"):
        pth.read_pth(archive(tmp_path / "g.pth", keys), [NAMESPACE])


def test_a_number_in_the_memo_costs_nothing(tmp_path):
    """`pickle.Unpickler` makes room for so many entries: 64 GB."""
    tracemalloc.start()
    assert read_pth(archive(tmp_path / "f.pth", b"Nr\xff\xff\xff\xff.")) is None
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_shared_tuples_do_not_explode(tmp_path):
    pickled = b"N\x85" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(100)) + b"."
    value = read_pth(archive(tmp_path / "f.pth", pickled))
    for _ in range(100):
        assert value[0] is value[1]
        value = value[0]


SIX = {"data/0": np.arange(6, dtype="f4").tobytes()}


@pytest.mark.parametrize(
    ("pickled", "storages", "message"),
    [
        (tensor(offset=1), SIX, "reaches outside"),
        (tensor(strides=(4, 1)), SIX, "reaches outside"),
        (tensor(strides=(-3, 1)), SIX, "stride or offset"),
        (tensor(offset=-1), SIX, "stride or offset"),
        (tensor(shape=(2**62, 2**62), strides=(0, 0)), SIX, "a tensor of shape"),
        (tensor(shape=(0, 2**62, 2**62), strides=(0, 0, 0)), SIX, "a tensor of shape"),
        (tensor(shape=(2,)), SIX, "a stride too few"),
        (tensor(count=7), SIX, "24 bytes, expected 28"),
        (tensor(dtype="DoubleStorage"), SIX, "24 bytes, expected 48"),
        (tensor(dtype="ComplexFloatStorage"), SIX, r"torch\.ComplexFloatStorage is not allowed"),
        (tensor(key="1"), SIX, "entry 'data/1' is missing"),
        (tensor(key="../data/0"), SIX, "is missing"),
        (tensor(dtype="BoolStorage", count=24, shape=(24,), strides=(1,)), SIX, "booleans"),
    ],
)
def test_tensors_that_do_not_fit_their_storage(tmp_path, pickled, storages, message):
    with pytest.raises(InputError, match=message):
        read_pth(archive(tmp_path / "f.pth", pickled, storages))


def test_lazily_negated_tensors_are_refused(tmp_path):
    assert tensor().endswith(b")RtR.")
    negated = tensor().removesuffix(b"tR.") + b"}X\x03\x00\x00\x00neg\x88stR."
    with pytest.raises(InputError, match="a tensor with metadata is not allowed"):
        read_pth(archive(tmp_path / "f.pth", negated, SIX))
    assert read_pth(archive(tmp_path / "g.pth", tensor().removesuffix(b"tR.") + b"}tR.", SIX)).sum() == 15


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "f.pth"
    for content, message in (
        (b"", "no .pth"),
        (b"hello" * 99, "no .pth"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j", r"torch < 1\.6"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_pth(path)
    with pytest.raises(InputError, match="No such file"):
        read_pth(tmp_path / "nothing.pth")
    with pytest.raises(InputError, match="directory"):
        read_pth(tmp_path)
    with pytest.raises(InputError, match="compressed"):
        read_pth(archive(path, tensor(), SIX, compression=zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/other", b"")
    with pytest.raises(InputError, match=r"0 entries are named data\.pkl"):
        read_pth(path)


@pytest.mark.parametrize("name", ["sample_checkpoint", "sample_training_checkpoint"])
def test_every_damage_is_refused_or_reads_equal(tmp_path, name):
    """500 seeded byte flips and truncations each."""
    rng = np.random.default_rng(0)
    path = Path(shutil.copy(SAMPLES / f"{name}.pth", tmp_path / "f.pth"))
    original, expected = path.read_bytes(), read_pth(path)
    refused = 0
    for step in range(500):
        data = bytearray(original)
        if step % 5:
            data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        else:
            del data[int(rng.integers(len(data))) :]
        path.write_bytes(data)
        try:
            assert_same(read_pth(path), expected)
        except InputError as error:
            assert "f.pth" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 200
