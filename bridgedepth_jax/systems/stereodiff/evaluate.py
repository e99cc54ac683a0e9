"""Depth of videos on whole sets: fits, static and dynamic, F0 to F10, intervals over videos (spec `video.md` section 5).

T frames, H W the ground truth's sides. Metrics are means over frames, then over videos; a video without ground truth is named
and is in no mean.
"""

import csv
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import video as measures
from bridgedepth_jax.files import make_folder, replacing
from bridgedepth_jax.systems.stereodiff.config import RefineOptions
from bridgedepth_jax.systems.stereodiff.refine import (
    VideoDiffusion,
    frame_size,
    nearest,
    refine,
    resize_frame,
    value_range,
)
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


def remembered(arm: Arm) -> Arm:
    """An arm that computes the same video once, however many others ask for it in a row."""
    last: list[Any] = [None, None]

    def predict(sample: VideoTruth) -> np.ndarray:
        if last[0] is not sample:
            last[:] = sample, arm.predict(sample)
        return last[1]

    return arm._replace(predict=predict)


def disparity_of(arm: Arm, sample: VideoTruth) -> list[np.ndarray]:
    """What an arm says, as disparity; pixels without one are as far as anything in the video. InputError: there are none."""
    maps = arm.predict(sample)
    good = maps[np.isfinite(maps) & (maps > 0)]
    if not good.size:
        raise InputError("the first stage has no pixel that is positive and finite")
    least = float(good.min()) if arm.space == "disparity" else 1 / float(good.max())
    return [to_disparity(here, arm.space, least) for here in maps]


def in_disparity(first: Arm) -> Arm:
    """A first stage whose disparity is fitted, as the second stage's is."""
    return Arm(f"{first.name}, disparity", "disparity", lambda sample: np.stack(disparity_of(first, sample)))


def smoothed(first: Arm) -> Arm:
    """The mean of a frame's disparity and those of its neighbours in time."""

    def predict(sample: VideoTruth) -> np.ndarray:
        maps = np.stack(disparity_of(first, sample))
        padded = np.concatenate([maps[:1], maps, maps[-1:]])
        return (padded[:-2] + padded[1:-1] + padded[2:]) / 3

    return Arm(f"{first.name}, mean of 3 frames", "disparity", predict)


def constant() -> Arm:
    """The same depth everywhere: that of the fit."""
    return Arm("constant", "depth", lambda sample: np.ones(sample.truth.shape, np.float32))


def prepared(sample: VideoTruth, model: VideoDiffusion, longest: int) -> tuple[tuple[int, int], list[np.ndarray]]:
    """(width, height) that the second stage sees, and frames in 0..1 of it."""
    size = frame_size(sample.video.width, sample.video.height, model.config.multiple, longest)
    return size, [resize_frame(frame, size).astype(np.float32) / 255 for frame in sample.video.read()]


def second_stage(name: str, model: VideoDiffusion, options: RefineOptions, first: Arm | None) -> Arm:
    """The second stage after an arm, or from noise."""

    def predict(sample: VideoTruth) -> np.ndarray:
        size, frames = prepared(sample, model, options.longest)
        start = None if first is None else [nearest(here, size) for here in disparity_of(first, sample)]
        return refine(model, frames, start, options).disparity

    return Arm(name, "disparity", predict)


def autoencoded(name: str, model: VideoDiffusion, options: RefineOptions, first: Arm) -> Arm:
    """The second stage without its U-Net: what its autoencoder alone makes of a first stage."""

    def predict(sample: VideoTruth) -> np.ndarray:
        size, _ = prepared(sample, model, options.longest)
        start = np.stack([nearest(here, size) for here in disparity_of(first, sample)])
        low, high = value_range(start, options)
        shown = np.repeat((2 * np.clip((start - low) / (high - low), 0, 1) - 1)[..., None], 3, -1)
        spans = [slice(k, k + options.chunk) for k in range(0, len(shown), options.chunk)]
        images = [model.decode(model.encode(shown[span])) for span in spans]
        return np.concatenate([np.clip(image / 2 + 0.5, 0, 1).mean(-1) for image in images])

    return Arm(name, "disparity", predict)


ALONE = 30.0  # of a blender's factor: its sigmoid is 1, so the block over frames has no share
PARTS = {  # of what the U-Net sees that can be switched off: (part of the model, name in the path of weights, their value)
    "image encoder": [("image_encoder", "visual_projection", 0.0)],
    "images": [("image_encoder", "visual_projection", 0.0), ("unet", "conv_in", 0.0)],
    "frames": [("unet", "time_mixer", ALONE)],
}


def without(model: VideoDiffusion, part: str) -> VideoDiffusion:
    """The model as it is, but its U-Net sees no embedding of a frame, no frame at all, or no other frame."""
    if part not in PARTS:
        raise ValueError(f"part {part!r}, expected one of {', '.join(PARTS)}")
    params = dict(model.params)
    for where, name, value in PARTS[part]:

        def changed(path: Any, leaf: Any, name: str = name, value: float = value) -> Any:
            names = [entry.key for entry in path]
            if name not in names:
                return leaf
            if name == "conv_in":  # noisy latents come first, then those of the frames
                shown = np.arange(model.config.unet.in_channels) < model.config.vae.latent_channels
                return np.where(shown.reshape(1, 1, -1, 1), leaf, 0) if names[-1] == "kernel" else leaf
            return np.full_like(leaf, value)

        params[where] = jax.tree_util.tree_map_with_path(changed, params[where])
    return VideoDiffusion(model.config, params)


def ablation(model: VideoDiffusion, options: RefineOptions, first: Arm) -> list[Arm]:
    """The second stage with sharing and with other schedules (Table 4), with its parts switched off, and with more passes."""
    trailing = dataclasses.replace(model.config.schedule, karras=False, spacing="trailing")
    models = {
        "no Karras, trailing": trailing,
        "no Karras, trailing, zero SNR": dataclasses.replace(trailing, zero_snr=True),
    }
    arms = [second_stage(f"{first.name} + diffusion, shared", model, dataclasses.replace(options, share=True), first)]
    for name, schedule in models.items():
        other = VideoDiffusion(dataclasses.replace(model.config, schedule=schedule), model.params)
        arms.append(second_stage(f"{first.name} + diffusion, {name}", other, options, first))
    arms.append(second_stage(f"{first.name} + diffusion, all passes", model, dataclasses.replace(options, passes=None), first))
    arms += [second_stage(f"{first.name} + diffusion, no {part}", without(model, part), options, first) for part in PARTS]
    return [*arms, autoencoded(f"{first.name} + autoencoder", model, options, first)]


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
