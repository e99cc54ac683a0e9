"""Published weights by name: fetched once from the hub, converted once into the cache.

The systems name them (`System.published`); `bridgedepth_jax.store.hub` downloads and pins them.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import bridgedepth_jax
from bridgedepth_jax.convert.conversion import convert_file
from bridgedepth_jax.convert.diffusion import convert_folder
from bridgedepth_jax.convert.engine import find_rules
from bridgedepth_jax.errors import InputError, nearest
from bridgedepth_jax.files import cache_folder
from bridgedepth_jax.store import hub
from bridgedepth_jax.store.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bridgedepth_jax.system import DEFAULT, SYSTEMS, Published, System, find_system

SHIPPED = {"nano": Path(bridgedepth_jax.__file__).parent / "weights" / "nano"}  # names of what comes with the package


class Wanted(NamedTuple):
    """Which checkpoints are of use."""

    words: str
    fits: Callable[[System], bool]

    def check(self, checkpoint: str | os.PathLike, kind: str) -> None:
        """InputError: that one, of that system, is not."""
        if not self.fits(find_system(kind)):
            raise InputError(f"checkpoint {checkpoint} holds {kind}, expected {self.words}")


ANY = Wanted("any", lambda _: True)
OF_PAIRS = Wanted("bridgedepth or another system for pairs", lambda system: system.estimate is not None)
ONE_VIEW = Wanted("depth-anything or another network of one view", lambda system: system.depth is not None)


def of(*kinds: str) -> Wanted:
    """Those of the systems that are named."""
    return Wanted(" or ".join(kinds), lambda system: system.name in kinds)


def published() -> dict[str, Published]:
    """Every published file, by name."""
    return {name: row for system in SYSTEMS for name, row in find_system(system).published.items()}


def named_config(row: Published) -> Any:
    """Of a published file that does not say which network it is; None for others."""
    return find_rules(row.kind).variants[row.variant]() if row.variant else None


def converted(name: str) -> Path:
    """Where the checkpoint of a published name is kept once it has been fetched."""
    return cache_folder() / "checkpoints" / name


def resolve(name_or_path: str | os.PathLike, wanted: Wanted = ANY) -> Path:
    """The checkpoint folder of a path, of what comes with the package, or of a published name: that is fetched and converted
    into the cache unless it is there.

    A folder of that name goes before a published name. Raises InputError for what is neither, for a published name that is not
    `wanted`, before it is fetched, and without a network. What a folder holds is not looked at: `load` does.
    """
    path, name = Path(name_or_path), os.fspath(name_or_path)
    if path.exists():
        return path
    if name in SHIPPED and SHIPPED[name].is_dir():
        wanted.check(name, DEFAULT)
        return SHIPPED[name]
    rows = published()
    if name not in rows:
        kinds = dict.fromkeys(SHIPPED, DEFAULT) | {name: row.kind for name, row in rows.items()}
        known = [name for name, kind in kinds.items() if wanted.fits(find_system(kind))]
        raise InputError(f"{name}: neither a checkpoint folder nor a published name, {nearest(name, known)}")
    wanted.check(name, rows[name].kind)
    folder = converted(name)
    if not folder.exists():
        file, origin = hub.fetch(name, rows[name])
        row = rows[name]
        if row.files:
            save_checkpoint(folder, convert_folder(file, origin=origin))
        else:
            save_checkpoint(folder, convert_file(row.kind, file, config=named_config(row), origin=origin))
    return folder


def load(name_or_path: str | os.PathLike, wanted: Wanted = ANY) -> Checkpoint:
    """The checkpoint of what `resolve` takes. InputError: as `resolve` and `load_checkpoint`, or one not `wanted`."""
    loaded = load_checkpoint(resolve(name_or_path, wanted))
    wanted.check(name_or_path, loaded.kind)
    return loaded
