"""Measures of monocular depth (spec `mono-training.md` section 5): fits, both AbsRel, and ordered pairs.

Everything in float64 on the host. Letters: H W the ground truth's sides, P pixels that count.
"""

import operator
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.depth import garg_crop
from bridgedepth_jax.ops.resize import resize_map

FEWEST = 10  # valid pixels of an image that counts
NAMES = ("abs_rel", "abs_rel_inverse", "delta1", "delta2", "delta3", "rmse", "log10", "sq_rel")
KITTI = (352, 1216)  # rows from below and columns in the middle
NYU = (slice(45, 471), slice(41, 601))


class Fit(NamedTuple):
    """Inverse depth is about scale * prediction + shift."""

    scale: float
    shift: float


def kitti_window(height: int, width: int, size: tuple[int, int] = KITTI) -> tuple[slice, slice]:
    """The lowest rows and middle columns: of depth and image alike."""
    top, left = max(height - size[0], 0), max((width - size[1]) // 2, 0)
    return slice(top, top + size[0]), slice(left, left + size[1])


def crop_of(name: str, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that count of a ground truth (after KITTI's window): NYUv2's and Garg's crops, else everything."""
    if name.startswith("nyu"):
        return NYU
    return garg_crop(height, width) if name.startswith("kitti") else (slice(None), slice(None))


def valid_pixels(truth: Float[np.ndarray, "H W"], low: float, cap: float, crop: tuple[slice, slice]) -> Bool[np.ndarray, "H W"]:
    """Finite, between `low` and `cap` (metres, both excluded), inside the crop."""
    inside = np.zeros(truth.shape, bool)
    inside[crop] = True
    return inside & np.isfinite(truth) & (truth > low) & (truth < cap)


def fit(prediction: Float[np.ndarray, "P"], truth: Float[np.ndarray, "P"]) -> Fit:
    """The least squares of inverse depth; a prediction without variance: scale 0 and the mean."""
    p, q = prediction.astype(np.float64), 1 / truth.astype(np.float64)
    p_mean, q_mean = p.mean(), q.mean()
    variance = np.mean(np.square(p - p_mean))
    scale = float(np.mean((p - p_mean) * (q - q_mean)) / variance) if variance > 0 else 0.0
    return Fit(scale, float(q_mean - scale * p_mean))


def fitted_depth(prediction: np.ndarray, found: Fit, low: float, cap: float) -> np.ndarray:
    """Metres of relative inverse depth, clipped; what is fitted below 1 / `cap` is as far as can be."""
    inverse = found.scale * prediction.astype(np.float64) + found.shift
    return np.clip(1 / np.maximum(inverse, 1 / cap), low, cap)


def measure(depth: Float[np.ndarray, "P"], truth: Float[np.ndarray, "P"]) -> dict[str, float]:
    """The eight measures of an image; AbsRel both of depth and of inverse depth. Metres."""
    z, t = depth.astype(np.float64), truth.astype(np.float64)
    ratio = np.maximum(z / t, t / z)
    found = {
        "abs_rel": np.mean(np.abs(z - t) / t),
        "abs_rel_inverse": np.mean(np.abs(1 / z - 1 / t) * t),
        **{f"delta{k}": np.mean(ratio < 1.25**k) for k in (1, 2, 3)},
        "rmse": np.sqrt(np.mean(np.square(z - t))),
        "log10": np.mean(np.abs(np.log10(z) - np.log10(t))),
        "sq_rel": np.mean(np.square(z - t) / t),
    }
    return {name: float(value) for name, value in found.items()}


class Measured(NamedTuple):
    """An image's measures, the fit they rest on (none of metric depth), and how many pixels counted."""

    measures: dict[str, float]
    pixels: int
    fit: Fit | None


def evaluate_image(
    prediction: np.ndarray, truth: Float[np.ndarray, "H W"], low: float, cap: float, crop: tuple[slice, slice], *, metric: bool
) -> Measured:
    """One image, its raw prediction of any size: relative inverse depth, fitted to the truth, or metres as they are.

    InputError: fewer than 10 valid pixels.
    """
    valid = valid_pixels(truth, low, cap, crop)
    pixels = int(valid.sum())
    if pixels < FEWEST:
        raise InputError(f"{pixels} pixels with ground truth between {low:g} and {cap:g} m, expected at least {FEWEST}")
    at = resize_map(prediction, *truth.shape)[valid]
    if metric:
        return Measured(measure(np.clip(at.astype(np.float64), low, cap), truth[valid]), pixels, None)
    found = fit(at, truth[valid])
    return Measured(measure(fitted_depth(at, found, low, cap), truth[valid]), pixels, found)


# DA-2K: {path of an image: pairs}.
Annotations = Mapping[str, Sequence[Mapping[str, Any]]]


def ordered(prediction: Float[np.ndarray, "H W"], pairs: Sequence[Mapping[str, Any]], where: str) -> list[bool]:
    """Which pairs a prediction (larger is nearer, at the image's size) has right: the closer point strictly larger.

    InputError: a point that is missing or outside the image, or a pair that does not say which is closer.
    """
    height, width = prediction.shape
    right = []
    for number, pair in enumerate(pairs):
        values = {}
        for name in ("point1", "point2"):
            try:
                row, column = (operator.index(side) for side in pair[name])
            except (KeyError, TypeError, ValueError):
                raise InputError(f"{where}, pair {number}: {pair!s:.80}, expected {name} as [row, column]") from None
            if not (0 <= row < height and 0 <= column < width):
                raise InputError(f"{where}, pair {number}: {name} {[row, column]} is outside the image of {height} x {width}")
            values[name] = prediction[row, column]
        closer = pair.get("closer_point")
        if closer not in values:
            raise InputError(f"{where}, pair {number}: closer_point {closer!r}, expected point1 or point2")
        other = "point2" if closer == "point1" else "point1"
        right.append(bool(values[closer] > values[other]))
    return right


def accuracies(answers: Mapping[str, Sequence[bool]]) -> dict[str, tuple[float, int]]:
    """Per cent right and number of pairs, by scene (an image's folder) and over all pairs."""
    scenes: dict[str, list[bool]] = {}
    for path, right in answers.items():
        for name in (PurePosixPath(path).parent.name, "all"):
            scenes.setdefault(name, []).extend(right)
    return {name: (100 * sum(right) / len(right), len(right)) for name, right in scenes.items()}
