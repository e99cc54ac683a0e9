"""PyTorch's .pth files (the zip container of torch >= 1.6), read and written with numpy alone.

An entry ARCHIVE/data.pkl holds the object, ARCHIVE/data/KEY the elements of each storage, uncompressed. Checksums of all
entries used are verified. Nothing of a file is executed: see `convert.pickled`.
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from bridgedepth_jax.convert import pickled
from bridgedepth_jax.convert.pickled import Class, Storage, Tensor
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing


def read_pth(path: str | os.PathLike, classes: Iterable[Class] = ()) -> Any:
    """The object in a .pth file: dict, list, tuple, set, str, numbers; tensors become numpy arrays that may share memory.

    bfloat16 tensors have ml_dtypes' dtype; objects of `classes` become dicts. Raises InputError for a file that is no .pth,
    is damaged or asks for code.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return _read(path, stream, classes)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}), expected a .pth file") from error
    except pickled.Refused as error:
        raise InputError(f"{path}: refused, {error}; expected tensors and plain containers") from error
    except (MemoryError, RecursionError) as error:
        raise InputError(f"{path}: damaged, too large or too deeply nested ({type(error).__name__})") from error


def state_dict(path: Path, content: Any) -> dict[str, Any]:
    """The state dict of a file's content: under "model", which is taken out, or all of it. Raises InputError for neither."""
    state = content.pop("model") if isinstance(content, dict) and isinstance(content.get("model"), dict) else content
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise InputError(f'{path}: holds no state dict, expected one, or {{"model": state dict, ...}}')
    return state


def _read(path: Path, stream: BinaryIO, classes: Iterable[Class]) -> Any:
    archive = _Archive(path, stream)
    order = archive.read("byteorder").decode("ascii", "replace") if "byteorder" in archive else "little"
    if order not in ("little", "big"):
        raise InputError(f"{path}: damaged, byte order {order!r:.20}, expected 'little' or 'big'")
    storages: dict[str, tuple[Storage, np.ndarray]] = {}

    def array(tensor: Tensor) -> np.ndarray:
        storage = tensor.storage
        if storage.key not in storages:
            storages[storage.key] = storage, _elements(archive, storage, order)
        known, values = storages[storage.key]
        if known != storage:
            raise InputError(f"{path}: damaged, storage {storage.key!r:.50} is described twice, differently")
        last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
        if last >= len(values) and 0 not in tensor.shape:
            raise InputError(
                f"{path}: damaged, a tensor of shape {tensor.shape} reaches outside of storage {storage.key!r:.50}"
            )
        try:
            if 0 in tensor.shape:
                return np.zeros(tensor.shape, values.dtype)
            strides = tuple(stride * values.itemsize for stride in tensor.strides)
            return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False)
        except ValueError as error:
            raise InputError(f"{path}: damaged, a tensor of shape {tensor.shape} ({error})") from error

    return _replace(pickled.loads(archive.read("data.pkl"), classes), array, {})


def _replace(value: Any, array: Callable[[Tensor], np.ndarray], seen: dict[int, tuple[Any, Any]]) -> Any:
    """`value` with each description of a tensor replaced by its array; `seen` keeps shared and circular containers."""
    if id(value) in seen:
        return seen[id(value)][1]
    if type(value) is Tensor:
        return array(value)
    if type(value) is tuple:
        seen[id(value)] = value, (result := tuple(_replace(item, array, seen) for item in value))
        return result
    seen[id(value)] = value, value
    if type(value) is dict:
        for key in value:
            value[key] = _replace(value[key], array, seen)
    elif type(value) is list:
        value[:] = [_replace(item, array, seen) for item in value]
    return value


def _elements(archive: "_Archive", storage: Storage, order: str) -> np.ndarray:
    dtype = _dtype(storage.dtype)
    data = archive.read(f"data/{storage.key}")
    if len(data) != storage.count * dtype.itemsize:
        expected = storage.count * dtype.itemsize
        raise InputError(f"{archive.path}: damaged, storage {storage.key!r:.50} has {len(data)} bytes, expected {expected}")
    words = np.frombuffer(data, f"{'<' if order == 'little' else '>'}u{dtype.itemsize}")
    values = words.astype(words.dtype.newbyteorder("="), copy=False).view(dtype)
    if dtype == np.bool_ and (words > 1).any():
        raise InputError(f"{archive.path}: damaged, storage {storage.key!r:.50} holds booleans other than 0 and 1")
    return values


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


class _Archive:
    """Entries of the zip file by their name below its one top folder; only stored ones, with checksum."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path, self.stream = path, stream
        if stream.read(1) == b"\x80":
            raise InputError(f"{path}: the old format of torch < 1.6, expected a file saved by torch >= 1.6")
        try:
            infos = zipfile.ZipFile(stream).infolist()
        except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OverflowError) as error:
            raise InputError(f"{path}: no .pth file or damaged ({error})") from error
        roots = [info.filename.removesuffix("/data.pkl") for info in infos if info.filename.endswith("/data.pkl")]
        if len(roots) != 1:
            raise InputError(f"{path}: no .pth file or damaged, {len(roots)} entries are named data.pkl, expected one")
        names = [info.filename.removeprefix(f"{roots[0]}/") for info in infos]
        self.entries = dict(zip(names, infos, strict=True))
        if len(self.entries) != len(infos):
            raise InputError(f"{path}: damaged, it has several entries of one name")

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def read(self, name: str) -> bytes:
        info = self.entries.get(name)
        if info is None:
            raise InputError(f"{self.path}: damaged, entry {name!r:.50} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
            raise InputError(f"{self.path}: entry {name!r:.50} is compressed or encrypted, expected as torch.save writes it")
        try:
            self.stream.seek(info.header_offset)
            header = self.stream.read(30)
            magic, name_length, extra_length = struct.unpack("<4s22xHH", header)
            self.stream.seek(name_length + extra_length, os.SEEK_CUR)
            data = self.stream.read(min(info.file_size, self._size()))
        except (struct.error, ValueError, OverflowError) as error:
            raise InputError(f"{self.path}: damaged, entry {name!r:.50} cannot be found") from error
        if magic != b"PK\x03\x04" or len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise InputError(f"{self.path}: damaged, entry {name!r:.50} does not have its length or checksum")
        return data

    def _size(self) -> int:
        return os.fstat(self.stream.fileno()).st_size


class Instance(dict):
    """A dict that is written as an object of the class `of`, with the attributes `state` that its methods expect."""

    def __init__(self, items: Mapping[str, Any], *, of: Class, state: Mapping[str, Any]) -> None:
        super().__init__(items)
        self.of, self.state = of, state


ALIGNMENT = 64  # of storages in the file, as torch does, so that they can be mapped into memory


def write_pth(path: str | os.PathLike, value: Any) -> None:
    """Writes dicts, lists, sets, str, numbers, bool, None, `Instance` and numpy arrays as torch.save would."""
    path = Path(path)
    arrays: list[np.ndarray] = []
    pickle = b"\x80\x02" + _encode(value, arrays) + b"."
    entries = [("data.pkl", pickle), ("byteorder", b"little")]
    entries += [
        (f"data/{key}", np.ascontiguousarray(array).reshape(-1).view(np.uint8).data) for key, array in enumerate(arrays)
    ]
    entries += [("version", b"3\n")]
    with replacing(path) as temporary, temporary.open("wb") as stream, zipfile.ZipFile(stream, "w") as file:
        for name, data in entries:
            info = zipfile.ZipInfo(f"{path.stem}/{name}")
            header = 30 + len(info.filename.encode()) + 4
            padding = -(stream.tell() + header) % ALIGNMENT
            info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
            file.writestr(info, data)


def _encode(value: Any, arrays: list[np.ndarray]) -> bytes:
    """Pickle protocol 2, without memo. Adds the storages of tensors to `arrays`."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return _encode_tensor(value, len(arrays) - 1)
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        return b"X" + struct.pack("<I", len(data)) + data
    if isinstance(value, (list, tuple)):
        items = b"".join(_encode(item, arrays) for item in value)
        return (b"](" + items + b"e" if items else b"]") if isinstance(value, list) else b"(" + items + b"t"
    if isinstance(value, Mapping):
        items = b"".join(_encode(key, arrays) + _encode(item, arrays) for key, item in value.items())
        if not isinstance(value, Instance):
            return b"}(" + items + b"u" if items else b"}"
        return _global(value.of.module, value.of.name) + b")\x81(" + items + b"u" + _encode(value.state, arrays) + b"b"
    if isinstance(value, set):
        return _global("__builtin__", "set") + _encode(sorted(value), arrays) + b"\x85R"
    raise TypeError(f"{type(value).__name__} cannot be written to a .pth file")


def _encode_tensor(value: np.ndarray, key: int) -> bytes:
    (storage,) = (name for name, dtype in pickled.STORAGES.items() if _dtype(dtype) == value.dtype)
    strides = np.cumprod((1, *value.shape[:0:-1]), dtype=int)[::-1].tolist() if value.ndim else []
    reference = b"(" + _encode("storage", []) + _global("torch", storage)
    reference += b"".join(_encode(item, []) for item in (str(key), "cpu", value.size)) + b"tQ"
    hooks = _global("collections", "OrderedDict") + b")R"
    fields = b"".join(_encode(item, []) for item in (0, tuple(value.shape), tuple(strides), False))
    return _global(*pickled.REBUILD_TENSOR) + b"(" + reference + fields + hooks + b"tR"


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()
