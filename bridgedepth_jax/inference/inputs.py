"""The images of a command line: files, folders and globs, paired by name, read ahead of their use."""

import collections
import concurrent.futures
import dataclasses
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from bridgedepth_jax.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_WILDCARD = re.compile(r"(\*\*/?|\*|\?|\[[^\]]+\])")
_GROUPS = {"**/": "(.*?/|)", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class PairFiles:
    """The two files of a pair, and its name for the outputs."""

    name: str
    left: Path
    right: Path


def pair_files(left: str, right: str) -> list[PairFiles]:
    """Two files, folders or globs -> pairs in the order of their names.

    Two files are a pair whatever they are called. Otherwise names must agree: in a folder that is the file name without its
    suffix, in a glob what stands in the place of the wildcards (`*/im0.png` and `*/im1.png` pair by folder; nothing: the left
    file's name).

    Raises InputError: nothing found, or a file without a partner.
    """
    if Path(left).is_file() and Path(right).is_file():
        return [PairFiles(Path(left).stem, Path(left), Path(right))]
    lefts, rights = find_files(left), find_files(right)
    for found, others, given, where in ((lefts, rights, left, right), (rights, lefts, right, left)):
        alone = sorted(set(found) - set(others))
        if alone:
            count = len(alone) - 1
            more = f", nor have {count} others" if count > 1 else ", nor has 1 other" if count else ""
            free = sorted(set(others) - set(found))
            there = (f"{name!r} ({others[name].name})" for name in free[:3])
            names = f"; there: {', '.join(there)}{', ...' if len(free) > 3 else ''}" if free else ""
            how = "the file's name" if os.path.isdir(given) else "what stands for the wildcards"
            raise InputError(f"{found[alone[0]]} has no partner named {alone[0]!r} in {where}{more}: a name is {how}{names}")
    return [PairFiles(name or lefts[name].stem, lefts[name], rights[name]) for name in sorted(lefts)]


def find_files(pattern: str, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, Path]:
    """A file, a folder or a glob -> {name: file}, names as in `pair_files`, only files with one of the suffixes.

    Raises InputError: nothing found, or two files with one name.
    """
    if not is_many(pattern):
        if not os.path.exists(pattern):
            raise InputError(f"{pattern}: no such file or folder")
        return {Path(pattern).stem: Path(pattern)}
    if os.path.isdir(pattern):
        rows = [(file.stem, file) for file in sorted(Path(pattern).iterdir())]
    else:
        expression = _expression(pattern)
        rows = [(_name(expression, file, suffixes), Path(file)) for file in sorted(glob.glob(pattern, recursive=True))]
    files: dict[str, Path] = {}
    for name, file in rows:
        if file.suffix.lower() in suffixes and file.is_file():
            if name in files:
                raise InputError(f"{files[name]} and {file} have one name, {name!r}, in {pattern}")
            files[name] = file
    if not files:
        raise InputError(f"{pattern}: no files with a suffix of {' '.join(suffixes)}")
    return files


def is_many(pattern: str) -> bool:
    """A folder or a glob, not a single file."""
    return os.path.isdir(pattern) or (_WILDCARD.search(pattern) is not None and not os.path.exists(pattern))


def _expression(pattern: str) -> re.Pattern:
    """A glob as a regular expression, each wildcard a group."""
    parts = []
    for i, part in enumerate(_WILDCARD.split(pattern)):
        wildcard = _GROUPS.get(part) or f"({part.replace('[!', '[^', 1)})"
        parts.append(wildcard if i % 2 else re.escape(part))
    return re.compile("".join(parts))


def _name(expression: re.Pattern, file: str, suffixes: tuple[str, ...]) -> str:
    match = expression.fullmatch(file)
    parts = match.groups() if match else (file,)
    name = "_".join(part.strip("/") for part in parts if part.strip("/")).replace("/", "_")
    return Path(name).stem if Path(name).suffix.lower() in suffixes else name


def read_ahead(items: Iterable[T], ahead: int = 4) -> Iterator[T]:
    """The items, made in a thread, up to `ahead` of them before they are asked for. An error comes in its place."""
    items, end = iter(items), object()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = collections.deque(pool.submit(next, items, end) for _ in range(ahead))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, items, end))
                yield item  # type: ignore[misc]  # `end` is the only item that is no T
        finally:
            pool.shutdown(cancel_futures=True)


def in_batches(items: Iterable[T], key: Callable[[T], object], size: int) -> Iterator[list[T]]:
    """Groups of up to `size` items with the same key, each as soon as it is full; what remains at the end."""
    groups: dict[object, list[T]] = {}
    for item in items:
        group = groups.setdefault(key(item), [])
        group.append(item)
        if len(group) == size:
            yield groups.pop(key(item))
    yield from groups.values()
