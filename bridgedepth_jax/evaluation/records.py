"""Results per image: a line of JSON each, appended as they come, so that an interrupted evaluation continues.

A record is keyed by data set, name and a fingerprint of all that decides its numbers. Its values are (sum, count) pairs, so
every mean, over images or over pixels, is made from records alone, in float64 and in the order of names.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.metrics import PER_IMAGE, SQUARED

Sums = dict[str, dict[str, tuple[float, int]]]  # mask -> metric -> (sum, count)


@dataclasses.dataclass(frozen=True)
class Record:
    """One image: its sums, or (`problem`) the reason why it has none."""

    dataset: str
    name: str
    sums: Sums = dataclasses.field(default_factory=dict)
    problem: str = ""

    def values(self) -> dict[str, dict[str, float]]:
        """The metrics of this image, in their units."""
        return {
            mask: {metric: _value(metric, total, count) for metric, (total, count) in row.items() if count}
            for mask, row in self.sums.items()
        }


class ResultsFile:
    """Records of one run and process in a file of JSON lines; those of other processes, in files beside it, are read too.

    states: what the data of each image is, by its name. Records of another state, or of another fingerprint, do not count.
    A last line cut short by an interruption is dropped.
    """

    def __init__(self, folder: str | os.PathLike, process: int, fingerprint: str, states: Mapping[str, str]):
        self.path, self.fingerprint, self.states = Path(folder) / f"images-{process}.jsonl", fingerprint, states
        self._records: list[Record] = []
        with open(self.path, "ab+") as file:
            file.seek(0)
            data = file.read()
            if not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)
        for path in sorted(self.path.parent.glob("images-*.jsonl")):
            for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
                self._read(line, f"{path} line {number}")

    def of(self, dataset: str) -> list[Record]:
        """The records of a data set under this fingerprint; where an image occurs twice, its last."""
        return list({record.name: record for record in self._records if record.dataset == dataset}.values())

    def append(self, record: Record) -> None:
        """Keeps a record, on disk too, at once: nothing is lost when the run ends here."""
        key = dict(dataset=record.dataset, name=record.name, fingerprint=self.fingerprint, state=self.states[record.name])
        entry = key | {"sums": record.sums}
        with open(self.path, "a") as file:
            file.write(json.dumps(entry) + "\n")
        self._records.append(record)

    def _read(self, line: bytes, where: str) -> None:
        try:
            entry = json.loads(line)
            if entry["fingerprint"] == self.fingerprint and entry["state"] == self.states.get(entry["name"]):
                sums = {m: {k: (float(s), int(n)) for k, (s, n) in row.items()} for m, row in entry["sums"].items()}
                self._records.append(Record(entry["dataset"], entry["name"], sums))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InputError(f"{where}: not a result of an image; remove the file to start again") from None


def fingerprint(**parts: Any) -> str:
    """Short hash of JSON values: what an image's numbers depend on besides the image."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def gather(records: Iterable[Record]) -> list[Record]:
    """The records of all processes, on each of them, sorted by name. A name that came twice is kept once."""
    records = list(records)
    if jax.process_count() > 1:
        data = np.frombuffer(json.dumps([dataclasses.asdict(record) for record in records]).encode(), np.uint8)
        sizes = multihost_utils.process_allgather(np.array([data.size], np.int32)).reshape(-1)
        rows = multihost_utils.process_allgather(np.pad(data, (0, int(sizes.max()) - data.size)))
        records = [
            Record(**{**entry, "sums": {m: {k: tuple(v) for k, v in r.items()} for m, r in entry["sums"].items()}})
            for row, size in zip(rows, sizes, strict=True)
            for entry in json.loads(np.asarray(row)[:size].tobytes())
        ]
    return sorted({record.name: record for record in records}.values(), key=lambda record: record.name)


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Means of a data set, JSON values.

    `protocols` is {mask: {metric: {images, pixels, count}}}: the mean over images (the paper's way), the value over all pixels
    of all images (null for quantiles, which have none), the number of images. Images with a problem are in `problems` and in
    no mean. An image without a pixel of a mask is not in that mask's means; those that miss the paper's own are named.
    """
    good = sorted((record for record in records if not record.problem), key=lambda record: record.name)
    table: dict[str, dict[str, list[tuple[float, int]]]] = {}
    for record in good:
        for mask, row in record.sums.items():
            for metric, pair in row.items():
                if pair[1]:
                    table.setdefault(mask, {}).setdefault(metric, []).append(pair)
    return {
        "images": len(good),
        "without_protocol_pixels": [record.name for record in good if "paper" not in record.sums],
        "problems": {record.name: record.problem for record in records if record.problem},
        "protocols": {mask: {metric: _means(metric, row[metric]) for metric in row} for mask, row in table.items()},
    }


def _means(metric: str, pairs: list[tuple[float, int]]) -> dict[str, float | int | None]:
    total, count = math.fsum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
    return {
        "images": math.fsum(_value(metric, *pair) for pair in pairs) / len(pairs),
        "pixels": None if metric in PER_IMAGE else _value(metric, total, count),
        "count": len(pairs),
    }


def _value(metric: str, total: float, count: int) -> float:
    return math.sqrt(total / count) if metric in SQUARED else total / count
