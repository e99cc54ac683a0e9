"""From a PyTorch file to a checkpoint of ours and back, by the rules of the file's system."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridgedepth_jax.convert.engine import Rules, convert_state, find_rules, restore_state
from bridgedepth_jax.convert.pth import read_pth, state_dict, write_pth
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing
from bridgedepth_jax.store.checkpoint import Checkpoint, expected_shapes, flatten, unflatten
from bridgedepth_jax.store.safetensors import SafeTensors, write_safetensors
from bridgedepth_jax.system import find_system

CONVERTER = "bridgedepth_jax.convert 1"


def convert_file(
    kind: str, path: str | os.PathLike, *, config: Any = None, origin: Mapping[str, str] | None = None
) -> Checkpoint:
    """Reads a .pth file of the system `kind`, or the folder of its files where the original has several.

    Of a system with such an encoder, a file alone is torchvision's of the encoder: the rest are initial weights, to train on.
    `config` is for a file that does not say which network it is. `origin` is added to the provenance. Raises InputError for
    a file that is damaged, is of another network or asks for code.
    """
    path, rules = Path(path), find_rules(kind)
    content, state, digest = _read(path, rules)
    try:
        config = rules.config_of(content, state, config)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    del content
    expected, rest = _expected(path, kind, config), {}
    if rules.backbone and path.is_file():
        given = {name: shape for name, shape in expected.items() if rules.name(name).startswith(rules.backbone)}
        rest = {name: value for name, value in _initial(kind, config).items() if name not in given}
        expected, origin = given, {"rest": "initial weights, not trained", **(origin or {})}
    leaves = rest | convert_state(rules, state, expected, constants=rules.buffers(config, expected), source=str(path))
    provenance = {
        "source": path.name,
        "sha256": digest,
        "licence": rules.licence(config),
        "converter": CONVERTER,
        **(origin or {}),
    }
    return Checkpoint(kind, unflatten(leaves), config, provenance)


def write_original(path: str | os.PathLike, checkpoint: Checkpoint, *, backbone: bool = False) -> None:
    """Writes what the original of the checkpoint's system loads; with `backbone` torchvision's file of the encoder alone,
    without a classifier. Raises InputError where there are no words for the config, or no such encoder."""
    rules, leaves = find_rules(checkpoint.kind), flatten(checkpoint.params)
    state = restore_state(rules, leaves, rules.buffers(checkpoint.config, leaves))
    if backbone:
        if not rules.backbone:
            raise InputError(f"{path}: {checkpoint.kind} has no encoder of torchvision, expected singlenet")
        write_pth(path, {name.removeprefix(rules.backbone): v for name, v in state.items() if name.startswith(rules.backbone)})
        return
    if Path(path).suffix == ".safetensors":
        _write_safetensors(Path(path), rules, checkpoint.config, state)
        return
    try:
        content = rules.content(checkpoint.config, state)
    except ValueError as error:
        raise InputError(f"{path}: cannot be written, {error}") from error
    if not rules.files:
        write_pth(path, content)
        return
    with replacing(path) as temporary:
        temporary.mkdir(parents=True)
        for prefix, name in rules.files:
            part = {key.removeprefix(f"{prefix}."): value for key, value in content.items() if key.startswith(f"{prefix}.")}
            write_pth(temporary / name, part)


def _initial(kind: str, config: Any) -> dict[str, Any]:
    """The system's initial weights, flat."""
    import jax

    return flatten(jax.device_get(jax.jit(lambda key: find_system(kind).init(config, key))(jax.random.key(0))))


def _write_safetensors(path: Path, rules: Rules, config: Any, state: dict[str, Any]) -> None:
    """A tensor of two names once, under the first; the config in config.json beside the file."""
    if rules.config_json is None:
        raise InputError(f"{path}: the original of this system has no safetensors, expected a name like weights.pth")
    second = {name for first in state if (name := rules.alias(first))}
    tensors = {name: state[name] for name in sorted(state) if name not in second}
    with replacing(path.with_name("config.json")) as temporary:
        temporary.write_text(json.dumps(rules.config_json(config), indent=2) + "\n")
    write_safetensors(path, {name: (v.dtype, v.shape) for name, v in tensors.items()}, tensors.values(), {"format": "pt"})


def _read_safetensors(path: Path, rules: Rules) -> tuple[Any, dict[str, Any]]:
    """(what config.json beside the file says, state dict)."""
    if rules.config_json is None:
        raise InputError(f"{path}: the original of this system has no safetensors, expected a .pth file")
    beside = path.with_name("config.json")
    try:
        config = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(f"{beside}: not JSON ({' '.join(str(error).split())[:80]})") from error
    if config is not None and not isinstance(config, dict):
        raise InputError(f"{beside}: {type(config).__name__}, expected a mapping")
    return ({} if config is None else {"config": config}), dict(SafeTensors(path))


def _read(path: Path, rules: Rules) -> tuple[Any, dict[str, Any], str]:
    """(content, state dict, digest) of a file; of a folder of several files all their names, each with its first part."""
    if path.is_dir() and rules.config_json is not None:
        path = path / "model.safetensors"
    if path.suffix == ".safetensors":
        return *_read_safetensors(path, rules), sha256_of(path)
    if not rules.files:
        digest = sha256_of(path)
        content = read_pth(path, rules.classes)
        return content, state_dict(path, content), digest
    names = [name for _, name in rules.files]
    if rules.backbone and path.is_file() and path.name not in names:
        state = {f"{rules.backbone}{key}": value for key, value in state_dict(path, read_pth(path, rules.classes)).items()}
        return state, state, sha256_of(path)
    if not path.is_dir():
        raise InputError(f"{path}: expected a folder with {' and '.join(names)}")
    state: dict[str, Any] = {}
    digests = []
    for prefix, name in rules.files:
        if not (path / name).is_file():
            raise InputError(f"{path}: has no {name}, expected a folder with {' and '.join(names)}")
        digests.append(f"{name} {sha256_of(path / name)}")
        part = state_dict(path / name, read_pth(path / name, rules.classes))
        state |= {f"{prefix}.{key}": value for key, value in part.items()}
    return state, state, ", ".join(digests)


def sha256_of(path: Path) -> str:
    """Digest of a file, in hexadecimal. Raises InputError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}), expected a .pth file") from error


def _expected(path: Path, kind: str, config: Any) -> dict[str, tuple[int, ...]]:
    try:
        return expected_shapes(kind, config)
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: no network can be made of its model config: {reason}") from error
