"""Depth in metres on whole benchmarks, into a folder: `bridgedepth evaluate --protocol`.

Images go through the network at its own size, one image a program and device, and are measured on the host in float64, so the
numbers do not depend on batches or devices. H W the ground truth's sides, h w the network's.
"""

import csv
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from bridgedepth_jax.data import kitti_raw
from bridgedepth_jax.data.augment import whole_views
from bridgedepth_jax.data.formats import read_image, write_png
from bridgedepth_jax.data.pairs import Pair, Sample, find_pairs, read_sample
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import depth
from bridgedepth_jax.evaluation.metrics import SQUARED
from bridgedepth_jax.evaluation.protocol import Protocol
from bridgedepth_jax.evaluation.quoted import MEANING, quoted_depth
from bridgedepth_jax.evaluation.records import Record, ResultsFile, fingerprint, summarize
from bridgedepth_jax.evaluation.runner import Evaluator, Item, ReadItem
from bridgedepth_jax.evaluation.suite import Method
from bridgedepth_jax.files import make_folder, replacing
from bridgedepth_jax.system import Estimate
from bridgedepth_jax.visualize import colorize

VERSION = 1  # of the numbers: raise it when a metric changes
FORMAT = "bridgedepth_jax depth evaluation, version 1"
DECIMALS = 3
Measure = Callable[[np.ndarray, np.ndarray], dict[str, float]]  # truth (H, W), disparity (h, w) -> metrics


class Image(NamedTuple):
    """One image of a protocol: its files, how its truth is read, and how a disparity is measured."""

    name: str
    left: Path
    right: Path
    truth: Callable[[], np.ndarray]  # (H, W): metres, or pixels in KITTI 2015
    measure: Measure
    files: tuple[Path, ...]  # that the numbers depend on
    check: Callable[[np.ndarray], None] = lambda truth: None  # InputError: a truth that cannot be measured by


class DepthProtocol(NamedTuple):
    words: str
    find: Callable[[str | Path, tuple[str, ...], bool], list[Image]]  # (data directory, drives or all, calibrated)
    metrics: tuple[str, ...] = depth.NAMES


def _eigen(split: str, root: str | Path, drives: tuple[str, ...], calibrated: bool) -> list[Image]:
    root, improved = Path(root), split == "eigen_test_improved"
    name = f"{kitti_raw.PREFIX}{split}" + (f":{','.join(drives)}" if drives else "")
    measure = depth.eigen_improved if improved else depth.eigen
    frames = kitti_raw.find_frames(name)
    (kitti_raw.check_improved if improved else kitti_raw.check_scans)(frames, root)
    images = []
    for frame, left, right in kitti_raw.find_images(name, root):
        files = (root / left, root / right)
        truths = kitti_raw.improved_places(frame, root) if improved else [kitti_raw.scan_path(frame, root)]
        if calibrated:
            calibration = kitti_raw.read_calibration(root / "KITTI/raw" / frame.date)
            scale = calibration.focal * calibration.baseline
            one: Measure = functools.partial(measure, focal_baseline=scale)
        else:
            one = measure
        read = kitti_raw.read_improved if improved else kitti_raw.read_depth
        images.append(Image(left, *files, functools.partial(read, frame, root), one, (*files, *truths)))
    return images


def _kitti_2015(root: str | Path, drives: tuple[str, ...], calibrated: bool) -> list[Image]:
    if drives or calibrated:
        raise InputError("--drives and --calibrated are for the Eigen protocols, kitti_2015_depth has neither")
    images = []
    for pair in find_pairs("kitti_2015_trainval", root):
        truth, files = functools.partial(_disparity, pair), tuple(pair.files().values())
        check = functools.partial(_known_width, pair)
        images.append(Image(pair.name, pair.left, pair.right, truth, depth.kitti_2015, files, check))
    return images


def _known_width(pair: Pair, truth: np.ndarray) -> None:
    try:
        depth.focal_of_width(truth.shape[1])
    except InputError as error:
        raise InputError(f"{pair.disparity}: {error}") from None


def _disparity(pair: Pair) -> np.ndarray:
    sample = read_sample(pair)
    return np.where(sample["valid"], sample["disparity"], 0)


PROTOCOLS: dict[str, DepthProtocol] = {
    "eigen": DepthProtocol("697 images, scans, Garg's crop, 1e-3 to 80 m", functools.partial(_eigen, "eigen_test")),
    "eigen_improved": DepthProtocol(
        "652 images, improved depth, no crop, up to 80 m", functools.partial(_eigen, "eigen_test_improved")
    ),
    "kitti_2015_depth": DepthProtocol(
        "200 training pairs, disp_occ_0 as depth, no crop, both clipped to 1e-3 to 80 m", _kitti_2015, (*depth.NAMES, "d1")
    ),
}
DepthName = Literal["eigen", "eigen_improved", "kitti_2015_depth"]


class DepthEvaluator(Evaluator):
    """The evaluator with metrics of the host in the place of its own; `raw` of an estimate is that of the mirrored image."""

    def __init__(self, images: Mapping[str, Image], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._images = images

    def _load(self, item: Item, protocol: Protocol) -> ReadItem:
        image = self._images[item.name]
        try:
            sample, truth = item.read(), image.truth()
        except InputError as error:
            return ReadItem(item, {}, {}, str(error))  # type: ignore[arg-type]
        image.check(truth)
        return ReadItem(item, sample, {"left": sample["left"], "right": sample["right"], "truth": truth}, "")

    def _dispatch(self, params: Any, images: list[Any], protocol: Protocol) -> tuple[list[Any], Estimate, Any]:
        rows = -(-len(images) // self._devices) * self._devices
        numbers = np.minimum(np.arange(rows), len(images) - 1)
        sides = (np.stack([images[i].arrays[side] for i in numbers]) for side in ("left", "right"))
        left, right = (jax.device_put(views, self._rows) for views in sides)
        assert self._estimate is not None
        return images, self._estimate(params, left, right), None

    def _finish(self, images: list[Any], prediction: Estimate, sums: Any, protocol: Protocol) -> Iterator[Any]:
        disparity = np.asarray(prediction.disparity)
        flipped = None if prediction.raw is None else np.asarray(prediction.raw)
        for i, image in enumerate(images):
            found = disparity[i] if flipped is None else depth.post_process(disparity[i], flipped[i])
            yield self._measured(image, found, protocol.name), image, found

    def _measured(self, image: Any, found: np.ndarray, protocol: str) -> Record:
        if not np.isfinite(found).all():
            return Record(protocol, image.item.name, problem="prediction not finite")
        try:
            metrics = self._images[image.item.name].measure(image.arrays["truth"], found)
        except InputError as error:
            return Record(protocol, image.item.name, problem=str(error))
        return Record(protocol, image.item.name, {"paper": {k: (v * v if k in SQUARED else v, 1) for k, v in metrics.items()}})


def evaluate_depth(
    estimate: Callable[[Any, Any, Any], Estimate],
    method: Method,
    name: str,
    root: str | Path,
    out: str | Path,
    *,
    size: tuple[int, int],
    batch: int = 8,
    drives: tuple[str, ...] = (),
    calibrated: bool = False,
    limit: int = 0,
    pictures: int = 0,
    workers: int = 4,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluates one protocol and writes results.json, results.md, images.csv and pictures/ into `out`; returns the first.

    Interrupted it continues with what it has. `size`: height and width of what the network sees. InputError: missing files.
    """
    out, protocol = Path(out), PROTOCOLS[name]
    images = {image.name: image for image in protocol.find(root, drives, calibrated)[: limit or None]}
    make_folder(out, "--out")
    settings = {"size": list(size), "calibrated": calibrated, "drives": list(drives) or "all", "limit": limit or "none"}
    key = fingerprint(version=VERSION, method=method.name, **method.identity, protocol=name, **settings)
    states = {image.name: fingerprint(files=[_state(path) for path in image.files]) for image in images.values()}
    file = ResultsFile(out, jax.process_index(), key, states)
    evaluator = DepthEvaluator(images, estimate, batch=batch, workers=workers)
    items = [Item(image.name, functools.partial(_read, image, size)) for image in images.values()]
    done = file.of(name)
    if done and progress and jax.process_index() == 0:
        print(f"{name}: {len(done)} of {len(items)} images are taken over from {out}", file=sys.stderr, flush=True)
    shown = progress and jax.process_index() == 0
    records = evaluator(method.params, items, Protocol(name), done=done, on_record=file.append, progress=shown)
    result = {
        "format": FORMAT,
        "method": {"name": method.name, **method.identity},
        "protocol": {"name": name, "words": protocol.words},
        "settings": settings,
        **summarize(records),
        "per_image": {record.name: record.values()["paper"] for record in records if not record.problem},
    }
    if pictures:
        _draw(evaluator, method, items, name, records, out / "pictures" / name, pictures)
    if jax.process_index() == 0:
        _write(out, result, protocol)
    return result


def _state(path: Path) -> Any:
    return (stat.st_size, stat.st_mtime_ns) if path.is_file() and (stat := path.stat()) else None


def _read(image: Image, size: tuple[int, int]) -> Sample:
    views = {side: read_image(path) for side, path in (("left", image.left), ("right", image.right))}
    small = whole_views(views, size)  # type: ignore[arg-type]
    nothing = np.zeros(size, np.float32)
    return Sample(left=small["left"], right=small["right"], disparity=nothing, valid=nothing > 0, name=image.name)


def _draw(
    evaluator: DepthEvaluator,
    method: Method,
    items: list[Item],
    name: str,
    records: list[Record],
    folder: Path,
    count: int,
) -> None:
    """The `count` worst images by AbsRel: left view and disparity, one above the other."""
    errors = {record.name: record.values()["paper"]["abs_rel"] for record in records if not record.problem}
    worst = sorted(errors, key=lambda key: (-errors[key], key))[:count]

    def save(sample: Sample, disparity: np.ndarray, record: Record) -> None:
        top = max(float(np.quantile(disparity, 0.99)), 1e-3)
        label = f"worst-{worst.index(record.name) + 1}-abs_rel{errors[record.name]:.3f}.png"
        write_png(folder / label, np.concatenate([sample["left"], colorize(disparity, top)]))

    evaluator(method.params, [item for item in items if item.name in worst], Protocol(name), consume=save)


def markdown(result: Mapping[str, Any], metrics: tuple[str, ...]) -> str:
    """Our row, and the published ones below, marked as quoted."""
    name, rows = result["protocol"]["name"], []
    table = result["protocols"].get("paper", {})
    rows.append([result["method"]["name"], "measured", *(_number(table[m]["images"] if m in table else None) for m in metrics)])
    for row in quoted_depth(name):
        rows.append([row.model, f"quoted [{row.source}]: {row.protocol}", *(_number(row.metrics.get(m)) for m in metrics)])
    lines = [
        f"# {result['method']['name']}: {name}",
        "",
        f"{result['protocol']['words']}; {result['images']} images measured.",
        "",
    ]
    lines += [f"{key}: {value}" for key, value in result["settings"].items()] + [""]
    lines += [f"| {' | '.join(row)} |" for row in (["", "", *metrics], ["---"] * (len(metrics) + 2), *rows)]
    if quoted_depth(name):
        lines += ["", f"Not measured here: [t] {MEANING['t']}.", ""]
    if result["problems"]:
        lines += ["Left out of every mean:", "", *(f"* {key}: {value}" for key, value in result["problems"].items()), ""]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.{DECIMALS}f}"


def _write(out: Path, result: dict[str, Any], protocol: DepthProtocol) -> None:
    with replacing(out / "results.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    with replacing(out / "images.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "problem", *protocol.metrics])
        for name in sorted([*result["per_image"], *result["problems"]]):
            row = result["per_image"].get(name, {})
            writer.writerow([name, result["problems"].get(name, ""), *(row.get(metric, "") for metric in protocol.metrics)])
    with replacing(out / "results.md") as temporary:
        temporary.write_text(markdown(result, protocol.metrics))
