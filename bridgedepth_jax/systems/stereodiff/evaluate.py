"""Depth of videos on whole sets: fits, static and dynamic, F0 to F10, intervals over videos (spec `video.md` section 5).

T frames, H W the ground truth's sides. Metrics are means over frames, then over videos; a video without ground truth is named
and is in no mean.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import video as measures
from bridgedepth_jax.files import make_folder, replacing
from bridgedepth_jax.systems.stereodiff.config import RefineOptions
from bridgedepth_jax.systems.stereodiff.refine import VideoDiffusion, frame_size, nearest, refine, resize_frame
from bridgedepth_jax.systems.stereodiff.run import to_disparity
from bridgedepth_jax.systems.stereodiff.sets import VideoTruth

RESAMPLES = 1000  # of the interval over videos
# AbsRel, delta1: Table 1 of arXiv 2506.20756, quoted, not measured here.
QUOTED: dict[str, dict[str, tuple[float, float]]] = {
    "DUSt3R": {"bonn": (0.1757, 0.7798), "kitti": (0.3343, 0.5065), "scannet": (0.0544, 0.9782), "sintel": (1.9245, 0.3964)},
    "MonST3R": {"bonn": (0.0818, 0.9542), "kitti": (0.1661, 0.7387), "scannet": (0.0907, 0.9162), "sintel": (0.5291, 0.5053)},
    "DepthCrafter": {
        "bonn": (0.1104, 0.8955),
        "kitti": (0.1617, 0.7695),
        "scannet": (0.1879, 0.665),
        "sintel": (0.2861, 0.6972),
    },
    "StereoDiff": {"bonn": (0.0799, 0.9549), "kitti": (0.1469, 0.7764), "scannet": (0.0944, 0.906), "sintel": (0.3275, 0.5782)},
}


class Arm(NamedTuple):
    """A method: what it says of a video, and whether that is disparity or depth."""

    name: str
    space: measures.Space
    predict: Callable[[VideoTruth], np.ndarray]  # (T, h, w)


def first_stage(name: str, make: Callable[[VideoTruth], Any]) -> Arm:
    """A source of depth as an arm."""
    space: measures.Space = "disparity" if name == "mono" else "depth"

    def predict(sample: VideoTruth) -> np.ndarray:
        source = make(sample)
        out = np.full((sample.video.count, sample.video.height, sample.video.width), np.nan, np.float32)
        source.write(out, 0, lambda *_: None)
        return out

    return Arm(name, space, predict)


def second_stage(name: str, model: VideoDiffusion, options: RefineOptions, first: Arm | None) -> Arm:
    """The second stage after an arm, or from noise."""

    def predict(sample: VideoTruth) -> np.ndarray:
        size = frame_size(sample.video.width, sample.video.height, model.config.multiple, options.longest)
        frames = [resize_frame(frame, size).astype(np.float32) / 255 for frame in sample.video.read()]
        start = None
        if first is not None:
            maps = first.predict(sample)
            good = maps[np.isfinite(maps) & (maps > 0)]
            if not good.size:
                raise InputError("the first stage has no pixel that is positive and finite")
            least = float(good.min()) if first.space == "disparity" else 1 / float(good.max())
            start = [to_disparity(nearest(here, size), first.space, least) for here in maps]
        return refine(model, frames, start, options).disparity

    return Arm(name, "disparity", predict)


def measure(sample: VideoTruth, prediction: np.ndarray, space: measures.Space) -> dict[str, dict[str, float]]:
    """Means of a video by protocol. InputError: another number of frames; ValueError: no ground truth that counts."""
    truth = sample.truth.astype(np.float64)
    if len(prediction) != len(truth):
        raise InputError(f"{len(prediction)} predicted frames, expected {len(truth)}")
    prediction = np.where(np.isfinite(prediction), prediction, 0)
    maps = measures.nearest(prediction, *truth.shape[1:])
    valid = measures.valid_truth(truth, sample.far)
    found: dict[str, dict[str, float]] = {}
    whole = measures.fit(maps, truth, valid, space)
    depth = measures.to_depth(maps, whole, space, sample.far)
    masks = {"video": valid}
    if sample.moving is not None:
        masks |= {"static": valid & ~sample.moving, "dynamic": valid & sample.moving}
    for name, seen in masks.items():
        errors = measures.frame_errors(depth, truth, seen)
        if not len(errors.frames) and name == "dynamic":
            continue  # nothing moves in this video
        found[name] = errors.means() | {f"F{band}": a for band, a in enumerate(measures.spectrum_of(errors.absrel).amplitude)}
    each = measures.fit(maps, truth, valid, space, per_frame=True)
    fitted = measures.to_depth(maps, each, space, sample.far)
    found["frame"] = measures.frame_errors(fitted, truth, valid).means()
    meter = measures.Flicker()
    for here in depth:
        meter.add(here)
    flicker = meter.value()
    return found | ({} if flicker is None else {"flicker": {"flicker": flicker}})


def interval(values: Iterable[float]) -> tuple[float, float, float]:
    """Mean, and the bounds of 95 % of the means of videos drawn again with a fixed seed."""
    array = np.array(list(values))
    drawn = np.random.default_rng(0).integers(0, len(array), (RESAMPLES, len(array)))
    low, high = np.quantile(array[drawn].mean(1), (0.025, 0.975))
    return float(array.mean()), float(low), float(high)


def evaluate(
    samples: Iterator[VideoTruth], arms: list[Arm], *, total: int | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """(means and intervals by arm, protocol and metric; one row a video; problems by name)."""
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for sample in tqdm(samples, total=total, unit=" videos", disable=None):
        for arm in arms:
            try:
                found = measure(sample, arm.predict(sample), arm.space)
            except ValueError as error:
                problems.append(f"{sample.name}, {arm.name}: {' '.join(str(error).split())}")
                continue
            for protocol, values in found.items():
                rows += [
                    {"video": sample.name, "arm": arm.name, "protocol": protocol, "metric": metric, "value": value}
                    for metric, value in values.items()
                ]
    keys = dict.fromkeys((row["arm"], row["protocol"], row["metric"]) for row in rows)
    means: dict[str, Any] = {}
    for arm, protocol, metric in keys:
        values = [r["value"] for r in rows if (r["arm"], r["protocol"], r["metric"]) == (arm, protocol, metric)]
        mean, low, high = interval(values)
        entry = {"mean": mean, "low": low, "high": high, "videos": len(values)}
        means.setdefault(arm, {}).setdefault(protocol, {})[metric] = entry
    return means, rows, problems


def write(
    out: Path, name: str, result: tuple[dict[str, Any], list[dict[str, Any]], list[str]], about: Mapping[str, Any]
) -> None:
    """results.json, results.md, videos.csv."""
    means, rows, problems = result
    make_folder(out, "--out")
    with replacing(out / "results.json") as temporary:
        content = {"set": name, "about": dict(about), "means": means, "problems": problems, "quoted": QUOTED}
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    with replacing(out / "videos.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["video", "arm", "protocol", "metric", "value"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with replacing(out / "results.md") as temporary:
        temporary.write_text("\n".join(table(name, means, problems)) + "\n")


def table(name: str, means: Mapping[str, Any], problems: list[str]) -> list[str]:
    """Markdown: errors, bands, and quoted numbers marked as such."""
    lines = [f"# {name}", "", "Means over videos, in brackets 95 % of means of videos drawn again.", ""]
    errors = [*measures.NAMES]
    lines += ["| method | fit or mask | " + " | ".join(errors) + " |", "|---|---|" + "---|" * len(errors)]
    cell = lambda entry: f"{entry['mean']:.4f} ({entry['low']:.4f}..{entry['high']:.4f})"
    for arm, protocols in means.items():
        for protocol, values in protocols.items():
            if "absrel" in values:
                lines.append(f"| {arm} | {protocol} | " + " | ".join(cell(values[metric]) for metric in errors) + " |")
    quoted = name.split("-")[0]
    for method, sets in QUOTED.items():
        if quoted in sets:
            absrel, delta = sets[quoted]
            lines.append(f"| {method} (quoted, arXiv 2506.20756) | video | {absrel:.4f} | | {delta:.4f} | |")
    bands = [f"F{band}" for band in range(1 + measures.BANDS)]
    lines += [
        "",
        "Amplitudes of AbsRel over time.",
        "",
        "| method | mask | " + " | ".join(bands) + " |",
        "|---|---|" + "---|" * 11,
    ]
    for arm, protocols in means.items():
        for protocol, values in protocols.items():
            if "F0" in values:
                lines.append(f"| {arm} | {protocol} | " + " | ".join(f"{values[b]['mean']:.5f}" for b in bands) + " |")
    if problems:
        lines += ["", "In no mean:", "", *(f"* {text}" for text in problems)]
    return lines
