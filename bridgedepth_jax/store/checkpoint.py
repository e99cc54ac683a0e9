"""Checkpoint folders, every byte of which is verified on load: of Orbax, or of safetensors for those who want no Orbax.

    FOLDER/params        the parameters, a nested dict of arrays
    FOLDER/description   JSON: kind, model config, provenance, and shape, dtype and SHA-256 of each parameter
    FOLDER/files.sha256  SHA-256 of each file above; `sha256sum --check files.sha256` reads it too

    FOLDER/model.safetensors  the parameters by their paths, `unet/conv_in/kernel`
    FOLDER/config.json        the description

Orbax restores some damaged data silently and leaves tracebacks of background tasks with other damage, so the files are
checked before it opens them and the parameters after. These are numpy arrays: no device is touched.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp

from bridgedepth_jax.build import build, plain
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing
from bridgedepth_jax.store.safetensors import SafeTensors, write_safetensors
from bridgedepth_jax.system import find_system

EXPECTED = "expected a folder written by `bridgedepth convert`"
ITEMS = ("params", "description")
TENSORS, CONFIG = "model.safetensors", "config.json"
GROUP = 2**28  # bytes of parameters that are written at once: a view of a larger file need not fit in memory
DIGESTS = "files.sha256"
FORMAT = "bridgedepth_jax checkpoint, version 1"
DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights and what they are: `params` is a nested dict of numpy arrays, the weights of the system `kind` for `config`."""

    kind: str  # name of the system
    params: dict[str, Any]
    config: Any  # the system's frozen dataclass
    provenance: dict[str, Any]  # JSON values: source, sha256 and licence of the weights, ...


@functools.cache
def expected_shapes(kind: str, config: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of each weight of the network that `config` describes. Traces it (seconds), computes nothing."""
    system = find_system(kind)
    # A config of a base class, as of a branch of another network, describes it by the defaults of what it lacks.
    if not isinstance(config, system.config) and not issubclass(system.config, type(config)):
        raise ValueError(f"a {type(config).__name__} does not describe a network of kind {kind!r}")
    weights = jax.eval_shape(functools.partial(system.init, config), jax.random.key(0))
    return {name: leaf.shape for name, leaf in flatten(weights).items()}


def save_checkpoint(path: str | os.PathLike, checkpoint: Checkpoint, *, dtype: str | None = None) -> None:
    """Writes a checkpoint folder, replacing one that is there.

    `dtype` (float16, bfloat16, float32) is how parameters are stored; by default as they are. Raises ValueError for
    parameters that do not fit the config, InputError for a path that holds anything else than a checkpoint.
    """
    leaves = {name: np.asarray(value) for name, value in flatten(checkpoint.params).items()}
    expected = expected_shapes(checkpoint.kind, checkpoint.config)
    different = sorted({(n, s) for n, s in expected.items()} ^ {(n, v.shape) for n, v in leaves.items()})
    if different:
        raise ValueError(f"{len(different)} parameters do not fit the config, the first is {different[0]}")
    description = {"kind": checkpoint.kind, "config": plain(checkpoint.config), "provenance": checkpoint.provenance}
    save_arrays(path, checkpoint.params, description, dtype=dtype)


def save_safetensors(path: str | os.PathLike, checkpoint: Checkpoint, *, dtype: str | None = None) -> None:
    """Writes a new folder of model.safetensors and config.json; `load_checkpoint` reads it. Options as `save_checkpoint`."""
    path = Path(path).absolute()
    stored = lambda value: value.astype(DTYPES[dtype], copy=False) if dtype else value
    leaves = {name: np.asarray(value) for name, value in flatten(checkpoint.params).items()}
    shapes = {name: (DTYPES[dtype] if dtype else value.dtype, value.shape) for name, value in leaves.items()}
    described = _describe(leaves, stored)
    description = {"kind": checkpoint.kind, "config": plain(checkpoint.config), "provenance": checkpoint.provenance}
    with replacing(path) as temporary:
        temporary.mkdir()
        write_safetensors(temporary / TENSORS, shapes, map(stored, leaves.values()), {"format": FORMAT})
        text = json.dumps({"format": FORMAT, **description, "leaves": described}, indent=1)
        (temporary / CONFIG).write_text(text + "\n")


def save_arrays(path: str | os.PathLike, tree: Mapping[str, Any], description: dict[str, Any], *, dtype: str | None) -> None:
    """Writes a folder in the layout of a checkpoint: a nested dict of arrays, stored as `dtype`, and JSON values.

    Raises as `save_checkpoint`.
    """
    path = Path(path).absolute()
    if (
        path.exists()
        and not any((path / mark).is_file() for mark in (DIGESTS, TENSORS))
        and not (path.is_dir() and not any(path.iterdir()))
    ):
        raise InputError(f"{path} is no checkpoint and would be replaced by one, expected a new name")
    leaves = {name: np.asarray(value) for name, value in flatten(tree).items()}
    if dtype is not None:
        leaves = {name: value.astype(DTYPES[dtype], copy=False) for name, value in leaves.items()}
    for name, value in leaves.items():
        if value.dtype not in DTYPES.values():
            raise ValueError(f"parameter {name} has dtype {value.dtype}, expected one of {list(DTYPES)}")
    description = {"format": FORMAT, **description, "leaves": _describe(leaves)}
    items = ocp.args.Composite(params=ocp.args.PyTreeSave(unflatten(leaves)), description=ocp.args.JsonSave(description))
    with replacing(path) as temporary:
        with _checkpointer(_Groups()) as checkpointer:
            checkpointer.save(temporary, items)
        for mark in temporary.rglob("commit_success.txt"):  # that it is there counts; Orbax writes the folder's absolute path
            mark.write_text("Checkpoint commit was successful")
        files = sorted(file.relative_to(temporary).as_posix() for file in temporary.rglob("*") if file.is_file())
        digests = _map(lambda name: _file_digest(temporary / name), files)
        (temporary / DIGESTS).write_text("".join(f"{d}  {n}\n" for d, n in zip(digests, files, strict=True)))


def load_checkpoint(path: str | os.PathLike, *, dtype: str | None = "float32") -> Checkpoint:
    """Reads and verifies a checkpoint folder. Parameters come as `dtype`, or as they are stored for None.

    Raises InputError, naming the folder and the item or parameter, for a folder that is none of ours or is damaged.
    """
    params, description = load_arrays(path, dtype=dtype)
    config = _config(Path(path).absolute(), description.get("kind"), description.get("config"))
    return Checkpoint(description["kind"], params, config, description["provenance"])


def load_arrays(path: str | os.PathLike, *, dtype: str | None = "float32") -> tuple[dict[str, Any], dict[str, Any]]:
    """(nested dict of arrays, JSON values) of a folder that `save_arrays` wrote, verified. Raises as `load_checkpoint`."""
    path = Path(path).absolute()
    if not path.exists():
        raise InputError(f"checkpoint {path} does not exist, {EXPECTED}")
    if not path.is_dir():
        raise InputError(f"checkpoint {path} is a file, {EXPECTED}")
    if (path / TENSORS).is_file():
        tensors = SafeTensors(path / TENSORS)
        description = _read_config(path)
    else:
        _check_files(path)
        tensors = None
        description = _restore(path, "description", ocp.args.JsonRestore())
    if description.get("format") != FORMAT:
        raise InputError(f"checkpoint {path}: format {description.get('format')!r}, expected {FORMAT!r}")
    if not isinstance(description.get("leaves"), dict) or not isinstance(description.get("provenance"), dict):
        raise InputError(f"checkpoint {path}: item 'description' lacks provenance or leaves, {EXPECTED}")
    leaves = dict(tensors) if tensors is not None else flatten(_restore(path, "params", ocp.args.PyTreeRestore()))
    _check_leaves(path, leaves, description["leaves"])
    if dtype is not None:
        leaves = {name: value.astype(DTYPES[dtype], copy=False) for name, value in leaves.items()}
    return unflatten(leaves), description


def read_kind(path: str | os.PathLike) -> str:
    """The system of a checkpoint folder, without its weights. Raises as `load_checkpoint`."""
    path = Path(path).absolute()
    if not path.is_dir():
        raise InputError(f"checkpoint {path} is no folder, {EXPECTED}")
    _check_files(path)
    return str(_restore(path, "description", ocp.args.JsonRestore()).get("kind"))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}, sorted by name."""
    flat: dict[str, Any] = {}
    for key in sorted(tree):
        value = tree[key]
        flat |= flatten(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


class _Groups(ocp.type_handlers.NumpyHandler):
    """Writes arrays in groups and waits for each, so that copies of one group alone are in memory."""

    async def serialize(self, values: Sequence[np.ndarray], infos: Sequence[Any], args: Sequence[Any] | None = None) -> list:
        rows = list(zip(values, infos, args or [ocp.SaveArgs()] * len(values), strict=True))
        while rows:
            sizes = np.cumsum([value.nbytes for value, _, _ in rows])
            count = max(1, int(np.searchsorted(sizes, GROUP, side="right")))
            group, rows = rows[:count], rows[count:]
            for future in await super().serialize(*map(list, zip(*group, strict=True))):
                future.result()
        return []


def _checkpointer(handler: ocp.type_handlers.NumpyHandler | None = None) -> ocp.Checkpointer:
    """For this process alone: of several, any may read or write a folder without the others. `handler` is of arrays."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(me, {me}, f"process_{me}") if jax.process_count() > 1 else None
    options: dict[str, Any] = {"multiprocessing_options": alone} if alone else {}
    own: dict[str, Any] = {}
    if handler is not None:
        arrays = (jax.Array, ocp.type_handlers.ArrayHandler())  # there are none, but Orbax warns where nobody handles them
        own["type_handler_registry"] = ocp.type_handlers.create_type_handler_registry((np.ndarray, handler), arrays)
    # Weights do not compress: zstd saves 8 % of the bytes and doubles the time.
    params = ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=True, use_compression=False, **own, **options)
    items = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(**options),
        params=params,
        description=ocp.JsonCheckpointHandler(**options),
    )
    return ocp.Checkpointer(items, **options)


def _restore(path: Path, item: str, args: Any) -> Any:
    try:
        with _checkpointer() as checkpointer:
            value = checkpointer.restore(path, ocp.args.Composite(**{item: args}))[item]
        if not isinstance(value, dict):
            raise TypeError(f"{type(value).__name__}, expected dict")
        return value
    except Exception as error:  # damage shows as nearly any exception, bare `Exception` included
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"checkpoint {path}: item {item!r} is missing or damaged ({type(error).__name__}: {reason}), {EXPECTED}"
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise TypeError(f"{type(found).__name__}, expected a mapping")
        return found
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"checkpoint {path}: {CONFIG} is missing or damaged ({error}), {EXPECTED}") from error


def _check_files(path: Path) -> None:
    if not (path / DIGESTS).exists() and (path / "export" / DIGESTS).exists():
        raise InputError(f"checkpoint {path} is a training run, expected its {path / 'export'}")
    try:
        lines = (path / DIGESTS).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"checkpoint {path}: {DIGESTS} is missing or damaged, {EXPECTED}") from error
    listed = [line.partition("  ")[::2] for line in lines]
    present = {file.relative_to(path).as_posix() for item in ITEMS for file in (path / item).rglob("*") if file.is_file()}
    unlisted = sorted(present - {name for _, name in listed})
    if unlisted:
        raise InputError(f"checkpoint {path}: file {unlisted[0]!r} is not listed in {DIGESTS}, {EXPECTED}")
    for (digest, name), found in zip(listed, _map(lambda row: _file_digest(path / row[1]), listed), strict=True):
        if found is None:
            raise InputError(f"checkpoint {path}: file {name!r} of {DIGESTS} is missing, {EXPECTED}")
        if found != digest:
            raise InputError(f"checkpoint {path}: file {name!r} is damaged, its SHA-256 is {found}, expected {digest!r}")


def _file_digest(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):  # ValueError: a damaged name with a zero byte
        return None


def _config(path: Path, kind: Any, config: Any) -> Any:
    try:
        system = find_system(str(kind))
    except InputError as error:
        raise InputError(f"checkpoint {path}: {error}") from error
    try:
        return build(system.config, config, "config")
    except (ValueError, TypeError) as error:
        raise InputError(f"checkpoint {path}: its config does not describe a network of this version: {error}") from error


def _check_leaves(path: Path, leaves: Mapping[str, Any], expected: Mapping[str, Mapping[str, Any]]) -> None:
    different = sorted(set(leaves) ^ set(expected))
    if different:
        raise InputError(
            f"checkpoint {path}: item 'params' lacks or adds {len(different)} parameters, the first is {different[0]}"
        )
    for name, found in _describe(leaves).items():
        for key, value in found.items():
            if value != expected[name].get(key):
                raise InputError(f"checkpoint {path}: parameter {name} has {key} {value}, expected {expected[name].get(key)}")


def _describe(
    leaves: Mapping[str, np.ndarray], stored: Callable[[np.ndarray], np.ndarray] = lambda value: value
) -> dict[str, dict[str, Any]]:
    def about(value: np.ndarray) -> dict[str, Any]:
        value = stored(value)
        return {"shape": list(value.shape), "dtype": str(value.dtype), "sha256": _digest(value)}

    return dict(zip(leaves, _map(about, leaves.values()), strict=True))


def _digest(value: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data).hexdigest()


def _map(function: Callable, values: Iterable) -> list:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # hashlib releases the interpreter lock
        return list(pool.map(function, values))
