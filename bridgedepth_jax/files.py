"""Writing files so that a reader never sees half of one; where files are kept."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bridgedepth_jax.errors import InputError


def make_folder(path: str | os.PathLike, option: str) -> None:
    """Makes a folder for results, and tries to write to it. Raises InputError, naming the option, where that fails."""
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"{option} {path} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary name beside `path`; what was written there (file or folder) takes the place of `path` on success.

    The temporary name keeps the suffix, for writers that choose a format by it. On an error nothing is left and an
    existing `path` is untouched. A folder replaces a folder by rename, so at worst the old one is missing, never mixed.
    Raises InputError where the folder of `path` cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    temporary = scratch / path.name
    try:
        yield temporary
        if temporary.is_dir() and path.is_dir():
            path.rename(scratch / "old")
        temporary.replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def cache_folder() -> Path:
    """Of weights fetched and converted, and of compilations: $BRIDGEDEPTH_CACHE, by default ~/.cache/bridgedepth_jax."""
    return Path(os.environ.get("BRIDGEDEPTH_CACHE") or Path.home() / ".cache" / "bridgedepth_jax")
