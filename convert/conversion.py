"""From a PyTorch file to a checkpoint of ours and back, by the rules of the file's system."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridgedepth_jax.convert.engine import convert_state, find_rules, restore_state
from bridgedepth_jax.convert.pth import read_pth, state_dict, write_pth
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.store.checkpoint import Checkpoint, expected_shapes, flatten, unflatten

CONVERTER = "bridgedepth_jax.convert 1"


def convert_file(
    kind: str, path: str | os.PathLike, *, config: Any = None, origin: Mapping[str, str] | None = None
) -> Checkpoint:
    """Reads a .pth file of the system `kind`.

    `config` is for a file that does not say which network it is. `origin` is added to the provenance. Raises InputError for
    a file that is damaged, is of another network or asks for code.
    """
    path, rules = Path(path), find_rules(kind)
    digest = sha256_of(path)
    content = read_pth(path, rules.classes)
    state = state_dict(path, content)
    try:
        config = rules.config_of(content, state, config)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    del content
    expected = _expected(path, kind, config)
    leaves = convert_state(rules, state, expected, constants=rules.buffers(config, expected), source=str(path))
    provenance = {
        "source": path.name,
        "sha256": digest,
        "licence": rules.licence(config),
        "converter": CONVERTER,
        **(origin or {}),
    }
    return Checkpoint(kind, unflatten(leaves), config, provenance)


def write_original(path: str | os.PathLike, checkpoint: Checkpoint) -> None:
    """Writes what the original of the checkpoint's system loads. Raises InputError where it has no words for the config."""
    rules, leaves = find_rules(checkpoint.kind), flatten(checkpoint.params)
    state = restore_state(rules, leaves, rules.buffers(checkpoint.config, leaves))
    try:
        content = rules.content(checkpoint.config, state)
    except ValueError as error:
        raise InputError(f"{path}: cannot be written, {error}") from error
    write_pth(path, content)


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
