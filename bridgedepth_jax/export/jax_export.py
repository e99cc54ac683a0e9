"""A JAX function as one file that JAX alone runs, on CPUs, GPUs and TPUs (spec `export.md`, jax.export).

Weights lie inside, or beside as FILE.npz: then they are the function's first argument. `LOADER` is all that a user needs.

A later JAX reads the file. An earlier one does while nothing in it is newer: JAX checks a size that may vary by a call which
0.12 writes in a form that 0.10 cannot read (`scripts/export_across.py`), so write a fixed batch for that.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing

PLATFORMS = ("cpu", "cuda", "tpu")
LOADER = '''\
import jax
import numpy as np
from jax import export


def load(file):
    """The function in `file`: f(left, right) -> disparity, confidence."""
    function = export.deserialize(bytearray(open(file, "rb").read()))
    if len(function.in_avals) == 2:
        return jax.jit(function.call)
    weights = dict(np.load(f"{file}.npz", allow_pickle=False))
    return lambda *inputs: jax.jit(function.call)(weights, *inputs)
'''


def save_function(
    path: Path,
    function: Callable[..., Any],
    weights: dict[str, np.ndarray],
    shapes: Sequence[tuple[Sequence[int | str], Any]],
    *,
    inside: bool,
) -> None:
    """Writes function(weights, *inputs), and the loader beside it, NAME_loader.py.

    Args:
      weights: flat, {name: array}.
      shapes: shape and dtype of each input; a letter is a size that may vary, such as "b" of the batch.
      inside: weights in the file, or in PATH.npz.

    Raises InputError: the output exists, or flatbuffers is not installed.
    """
    beside = path.with_name(f"{path.name}.npz")
    loader = path.with_name(f"{path.stem}_loader.py")
    for file in (path, loader, *(() if inside else (beside,))):
        if file.exists():
            raise InputError(f"{file} exists, expected a new name")
    try:
        import flatbuffers as _  # noqa: F401
    except ImportError:
        raise InputError("flatbuffers is not installed: pip install flatbuffers") from None
    scope = export.SymbolicScope()
    inputs = []
    for sizes, dtype in shapes:
        shape = export.symbolic_shape(", ".join(map(str, sizes)), scope=scope)
        inputs.append(jax.ShapeDtypeStruct(shape, dtype))
    if inside:
        exported = export.export(jax.jit(lambda *x: function(weights, *x)), platforms=PLATFORMS)(*inputs)
    else:
        kinds = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
        exported = export.export(jax.jit(function), platforms=PLATFORMS)(kinds, *inputs)
        with replacing(beside) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **weights)
    with replacing(path) as temporary:
        temporary.write_bytes(exported.serialize())
    with replacing(loader) as temporary:
        temporary.write_text(LOADER)
