"""Evaluating a method on several data sets, into a folder: what `bridgedepth evaluate` does."""

import dataclasses
import functools
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bridgedepth_jax.data.formats import write_png
from bridgedepth_jax.data.pairs import Pair, Sample, find_pairs, read_calibration, read_sample
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.protocol import Protocol, default_protocol
from bridgedepth_jax.evaluation.records import Record, ResultsFile, fingerprint, summarize
from bridgedepth_jax.evaluation.runner import Evaluator, Item
from bridgedepth_jax.evaluation.sgbm import fill_rows, sgbm
from bridgedepth_jax.evaluation.tables import write_results
from bridgedepth_jax.files import make_folder
from bridgedepth_jax.visualize import colorize, error_colors

VERSION = 2  # of the numbers: raise it when a metric changes, then nothing old is continued


@dataclasses.dataclass(frozen=True)
class Method:
    """What is evaluated: a name, JSON values that identify it (they decide what may be continued), and its parameters."""

    name: str
    identity: Mapping[str, Any]
    params: Any = None


def match_sgbm(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """StereoSGBM, holes filled and raw; it searches up to the largest true disparity of the pair."""
    gt, valid = sample["disparity"], sample["valid"]
    raw = sgbm(sample["left"], sample["right"], float((gt[valid] if valid.any() else gt).max()))
    return fill_rows(raw), raw


def protocols_of(rows: Sequence[str | Mapping[str, Any] | Protocol]) -> list[Protocol]:
    """From a config's `eval.datasets`: a name means the paper's own protocol for it."""
    if not rows:
        raise InputError("no data sets to evaluate, expected names in --datasets or rows in the config's eval.datasets")
    return [
        row if isinstance(row, Protocol) else default_protocol(row) if isinstance(row, str) else Protocol.from_row(row)
        for row in rows
    ]


def from_config(config: Any) -> tuple[list[Protocol], str]:
    """Protocols and data directory of an experiment: its `eval.datasets` and `data.root`."""
    try:
        return protocols_of(config.eval.datasets), str(config.data.root)
    except AttributeError as error:
        raise InputError(f"config: {error}, expected eval.datasets and data.root") from None


def choose(protocols: Sequence[Protocol], names: Sequence[str]) -> list[Protocol]:
    """The rows of these names; a name without a row gets its default protocol."""
    rows = {protocol.name: protocol for protocol in protocols}
    return [rows.get(name) or default_protocol(name) for name in names]


def evaluate(
    evaluator: Evaluator,
    method: Method,
    protocols: Sequence[Protocol],
    root: str | Path,
    out: str | Path,
    *,
    pictures: int = 0,
    limit: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluates and writes results.json, images.csv, results.md, images-P.jsonl (what process P did; a run that was
    interrupted continues from all of them) and pictures/. Returns the content of results.json.

    limit: only the first pairs of each data set; 0 is all.
    """
    out = Path(out)
    bucket, fused = evaluator.bucket, evaluator.fused
    found = {protocol.name: find_pairs(_resolved(protocol.name), root)[: limit or None] for protocol in protocols}
    make_folder(out, "--out")
    result: dict[str, Any] = {
        "method": {"name": method.name, **method.identity},
        "settings": {
            "padding": _padding_words(bucket, evaluator.exact),
            "batches": _batch_words(fused),
            "limit": limit or "none",
        },
        "datasets": {},
    }
    for protocol in protocols:
        key = fingerprint(
            version=VERSION, method=method.name, **method.identity, bucket=bucket, fused=fused, **dataclasses.asdict(protocol)
        )
        file = ResultsFile(out, jax.process_index(), key, {pair.name: _state(pair) for pair in found[protocol.name]})
        done = file.of(protocol.name)
        if done and progress and jax.process_index() == 0:
            words = f"{protocol.name}: {len(done)} of {len(found[protocol.name])} images are taken over from {out}"
            print(words, file=sys.stderr, flush=True)
        records = evaluator(
            method.params,
            items(found[protocol.name]),
            protocol,
            done=done,
            on_record=file.append,
            progress=progress and jax.process_index() == 0,
        )
        result["datasets"][protocol.name] = {
            "protocol": dataclasses.asdict(protocol) | {"words": protocol.describe()},
            **summarize(records),
            "per_image": {record.name: record.values() for record in records if not record.problem},
        }
        if pictures:
            draw(evaluator, method, found[protocol.name], protocol, records, out / "pictures", pictures)
    if jax.process_index() == 0:
        write_results(out, result)
    return result


def items(pairs: Sequence[Pair]) -> list[Item]:
    """Pairs of files as the evaluator takes them."""
    return [Item(pair.name, functools.partial(read_sample, pair), functools.partial(read_calibration, pair)) for pair in pairs]


def draw(
    evaluator: Evaluator,
    method: Method,
    pairs: Sequence[Pair],
    protocol: Protocol,
    records: Sequence[Record],
    folder: Path,
    count: int,
) -> None:
    """Pictures of the `count` worst and the `count` median images by EPE: left, prediction, ground truth, error colours."""
    good = [record for record in records if "paper" in record.sums and not record.problem]
    errors = {record.name: record.values()["paper"]["epe"] for record in good}
    order = sorted(errors, key=lambda name: (-errors[name], name))
    start = max(0, (len(order) - count) // 2)
    labels: dict[str, str] = {}
    for kind, names in (("median", order[start : start + count]), ("worst", order[:count])):
        labels |= {name: f"{kind}-{rank}" for rank, name in enumerate(names, 1)}
    for old in (folder / _file_name(protocol.name)).glob("*.png"):
        if jax.process_index() == 0:
            old.unlink()

    def save(sample: Sample, disparity: np.ndarray, record: Record) -> None:
        plain = _file_name(str(Path(record.name).with_suffix("")))
        name = f"{labels[record.name]}-epe{errors[record.name]:.2f}-{plain}.png"
        write_png(folder / _file_name(protocol.name) / name, panel(sample, disparity))

    evaluator(method.params, items([pair for pair in pairs if pair.name in labels]), protocol, consume=save)


def panel(sample: Sample, disparity: np.ndarray) -> np.ndarray:
    """(4H, W, 3) uint8: left image, prediction and ground truth in one range of colours, KITTI's error colours."""
    gt = sample["disparity"]
    known = sample["valid"] | (gt > 0)
    top = float(gt[known].max())
    parts = [sample["left"], colorize(disparity, top), colorize(gt, top, known), error_colors(disparity, gt, known)]
    return np.concatenate(parts)


def _state(pair: Pair) -> str:
    """How a pair's files are read, their sizes and times of change: with other ones its numbers are not taken over."""
    paths = {**pair.files(), "calib": pair.calib}
    files = {role: (s.st_size, s.st_mtime_ns) for role, path in paths.items() if path and path.is_file() and (s := path.stat())}
    return fingerprint(format=pair.format, kind=pair.kind, files=files)


def _resolved(name: str) -> str:
    """custom:FILE.csv of a file that is here, else (as the registry has it) in the data directory."""
    kind, _, path = name.partition(":")
    return f"{kind}:{Path(path).absolute()}" if kind == "custom" and path and Path(path).is_file() else name


def _padding_words(bucket: int, exact: bool) -> str:
    if exact:
        return f"to multiples of {bucket}, as the network does itself: exact"
    return f"to multiples of {bucket} (--bucket): fewer compilations, NOT exactly the numbers of the plain sizes"


def _batch_words(fused: bool) -> str:
    if not fused:
        return "one image a program and device: the same numbers for any batch and devices"
    return "fused (--fused): faster, numbers depend on the batch in the last digits"


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name).strip("_")
