"""Reading and writing safetensors: 8 bytes of length, a JSON header, raw data.

Tensors are views of a memory map, so that a file larger than memory can be read one tensor at a time. Unlike the package of
that name this reads bfloat16 into numpy.
"""

import json
import mmap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing

DTYPES: dict[str, Any] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LARGEST_HEADER = 100_000_000  # bytes, the format's own limit


class SafeTensors(Mapping[str, np.ndarray]):
    """Tensors of a file by name, each a read-only view of it. InputError: not a whole file of that format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                size = path.stat().st_size
                if size < 8 or length > min(size - 8, LARGEST_HEADER):
                    raise InputError(f"{path}: {size} bytes with a header of {length}, expected a whole safetensors file")
                header = json.loads(file.read(length))
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            self._entries = {name: self._entry(name, row, 8 + length, size) for name, row in header.items()}
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error}), expected a safetensors file") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: its header is damaged ({' '.join(str(error).split())[:80]})") from error

    def _entry(self, name: str, row: Any, start: int, size: int) -> tuple[np.dtype, tuple[int, ...], int, int]:
        shape, (begin, end) = tuple(row["shape"]), row["data_offsets"]
        if row["dtype"] not in DTYPES:
            raise InputError(f"{self.path}: {name} has dtype {row['dtype']}, expected one of {', '.join(DTYPES)}")
        dtype, count = DTYPES[row["dtype"]], int(np.prod(shape, dtype=np.int64))
        if any(not isinstance(n, int) or n < 0 for n in (*shape, begin, end)) or end - begin != count * dtype.itemsize:
            raise InputError(f"{self.path}: {name} of shape {shape} has data {begin} to {end}, which do not fit")
        if start + end > size:
            raise InputError(f"{self.path}: truncated, {name} ends at byte {start + end} of {size}")
        return dtype, shape, start + begin, count

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, begin, count = self._entries[name]
        return np.frombuffer(self._data, dtype, count, begin).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def write_safetensors(
    path: Path,
    shapes: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    tensors: Iterable[np.ndarray],
    metadata: Mapping[str, str],
) -> None:
    """Writes tensors, one at a time in the order of `shapes`; nothing is left where that fails."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    begin = 0
    for name, (dtype, shape) in shapes.items():
        end = begin + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (name, (dtype, shape)), tensor in zip(shapes.items(), tensors, strict=True):
            if tensor.shape != shape:
                raise ValueError(f"{name} has shape {tensor.shape}, announced as {shape}")
            file.write(np.ascontiguousarray(tensor, dtype).reshape(-1).view(np.uint8).data)
