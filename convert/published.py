"""Published weights by name: fetched once from the hub, converted once into the cache.

The systems name them (`System.published`); `bridgedepth_jax.store.hub` downloads and pins them.
"""

import os
from pathlib import Path
from typing import Any

import bridgedepth_jax
from bridgedepth_jax.convert.conversion import convert_file
from bridgedepth_jax.convert.diffusion import convert_folder
from bridgedepth_jax.convert.engine import find_rules
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import cache_folder
from bridgedepth_jax.store import hub
from bridgedepth_jax.store.checkpoint import save_checkpoint
from bridgedepth_jax.system import SYSTEMS, Published, find_system

SHIPPED = {"nano": Path(bridgedepth_jax.__file__).parent / "weights" / "nano"}  # names of what comes with the package


def published() -> dict[str, Published]:
    """Every published file, by name."""
    return {name: row for system in SYSTEMS for name, row in find_system(system).published.items()}


def named_config(row: Published) -> Any:
    """Of a published file that does not say which network it is; None for others."""
    return find_rules(row.kind).variants[row.variant]() if row.variant else None


def converted(name: str) -> Path:
    """Where the checkpoint of a published name is kept once it has been fetched."""
    return cache_folder() / "checkpoints" / name


def resolve(name_or_path: str | os.PathLike) -> Path:
    """The checkpoint folder of a path, of what comes with the package, or of a published name: that is fetched and converted
    into the cache unless it is there.

    A folder of that name goes before a published name. Raises InputError for what is neither, and without a network.
    """
    path, name = Path(name_or_path), os.fspath(name_or_path)
    if path.exists():
        return path
    if name in SHIPPED and SHIPPED[name].is_dir():
        return SHIPPED[name]
    rows = published()
    if name not in rows:
        known = ", ".join((*SHIPPED, *rows))
        raise InputError(f"{name}: neither a checkpoint folder nor a published name, expected one of {known}")
    folder = converted(name)
    if not folder.exists():
        file, origin = hub.fetch(name, rows[name])
        row = rows[name]
        if row.files:
            save_checkpoint(folder, convert_folder(file, origin=origin))
        else:
            save_checkpoint(folder, convert_file(row.kind, file, config=named_config(row), origin=origin))
    return folder
