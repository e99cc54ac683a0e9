"""Work on many files that can be killed, split over machines and gone on with: shards by name, and an index of what is done.

A result is renamed into place, and then its line is appended to `index-I-of-N.jsonl`; what lacks either is done again. A whole
index is written anew in the order of its names, so that however a run came about its files are the same.
"""

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import make_folder, replacing


class Shard(NamedTuple):
    """Part `number` of `total`: the names whose CRC-32 leaves that rest."""

    number: int = 0
    total: int = 1

    @classmethod
    def of(cls, text: str) -> "Shard":
        """From "i/n". InputError: something else, or i not below n."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or int(found[1]) >= int(found[2]):
            raise InputError(f"--shard {text}, expected i/n with i from 0 below n, such as 0/4")
        return cls(int(found[1]), int(found[2]))

    def mine(self, names: Iterable[str]) -> list[str]:
        """Those of the names that belong to this shard, sorted."""
        return sorted(name for name in names if zlib.crc32(name.encode()) % self.total == self.number)

    @property
    def words(self) -> str:
        return f"{self.number}-of-{self.total}"


def check_apart(out: Path, inputs: Mapping[str, Path]) -> None:
    """InputError unless each input is a folder and `out` lies in none of them."""
    for option, folder in inputs.items():
        if not folder.is_dir():
            raise InputError(f"{option} {folder}: no such folder")
        if out.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"--out {out} lies inside {option} {folder}, expected a folder beside it")


class Index:
    """Lines of what is done, by name. `identity`: what every line says of how it was made."""

    def __init__(self, out: Path, shard: Shard, identity: Mapping[str, Any]) -> None:
        make_folder(out, "--out")
        self.path, self.identity = out / f"index-{shard.words}.jsonl", dict(identity)
        self.lines: dict[str, dict[str, Any]] = {}
        for other in sorted(out.glob("index-*.jsonl")):
            self._read(other)
        if self.path.is_file() and (text := self.path.read_bytes()) and not text.endswith(b"\n"):
            os.truncate(self.path, text.rfind(b"\n") + 1)  # what a killed process wrote of a line

    def _read(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(keepends=True), 1):
            if not line.endswith("\n"):
                continue  # the process was killed while it wrote this
            try:
                row = json.loads(line)
                name = row["name"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}, line {number}: damaged, expected an index that this command wrote") from error
            for key, value in self.identity.items():
                if row.get(key) != value:
                    raise InputError(f"{path}: made with {key} {row.get(key)!r:.60}, now {value!r:.60}; expected a new --out")
            if path == self.path:
                self.lines[name] = row

    def done(self, name: str, files: Iterable[Path]) -> bool:
        """Whether a name has its line and its files."""
        return name in self.lines and all(file.is_file() for file in files)

    def add(self, name: str, row: Mapping[str, Any]) -> None:
        """Appends a line; its files are in place."""
        line = {"name": name, **row, **self.identity}
        self.lines[name] = line
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def finish(self, names: Iterable[str]) -> None:
        """The lines of `names` in their order, and no others."""
        with replacing(self.path) as temporary:
            rows = (self.lines[name] for name in names if name in self.lines)
            temporary.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows), encoding="utf-8")
