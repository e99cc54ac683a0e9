"""Measures of the depth of a video: fits, errors of each frame, and their spectrum (spec `video.md` section 5).

T frames, H W the ground truth's sides, h w the prediction's, N frames with ground truth. Depths in metres (or whatever unit the
ground truth has). Everything in float64 on the host.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

NEAR = 1e-3  # metres: ground truth must be above it, predictions and fitted depths are at least it
FAR = {"bonn": 10.0, "scannet": 10.0, "kitti": 80.0, "sintel": 70.0}  # metres
SMALL = 1e-8  # 1/metres, kept from the inverse of a true depth
BANDS = 10  # of the spectrum without its mean
NAMES = ("absrel", "rmse", "delta1", "delta2")
Space = Literal["disparity", "depth"]


class VideoFit(NamedTuple):
    """scale * prediction + shift is nearest to the truth, one row of each for all frames that share it."""

    scale: Float[np.ndarray, "R"]
    shift: Float[np.ndarray, "R"]


class FrameErrors(NamedTuple):
    """Errors of the frames that have ground truth."""

    frames: Int[np.ndarray, "N"]  # their numbers
    absrel: Float[np.ndarray, "N"]
    rmse: Float[np.ndarray, "N"]
    delta1: Float[np.ndarray, "N"]
    delta2: Float[np.ndarray, "N"]

    def means(self) -> dict[str, float]:
        """Of the video. ValueError: no frame has ground truth, so there are none."""
        if not len(self.frames):
            raise ValueError("no frame has a pixel with ground truth that counts")
        return {name: float(np.mean(getattr(self, name))) for name in NAMES}


def valid_truth(truth: Float[np.ndarray, "T H W"], far: float) -> Bool[np.ndarray, "T H W"]:
    """Where there is ground truth that counts."""
    return (truth > NEAR) & (truth < far)


def nearest(maps: Float[np.ndarray, "T h w"], height: int, width: int) -> Float[np.ndarray, "T H W"]:
    """To another size, source floor(i in / out); at least `NEAR`."""
    rows, columns = (np.arange(out) * side // out for out, side in zip((height, width), maps.shape[1:], strict=True))
    return np.maximum(maps[:, rows[:, None], columns].astype(np.float64), NEAR)


def fit(
    prediction: Float[np.ndarray, "T H W"],
    truth: Float[np.ndarray, "T H W"],
    valid: Bool[np.ndarray, "T H W"],
    space: Space,
    *,
    per_frame: bool = False,
) -> VideoFit:
    """Scale and shift by least squares over valid pixels: of the whole video, or of each frame.

    In the space of the prediction: disparities against 1 / truth, depths against the truth. A frame without ground truth
    has none (NaN); predictions of one value only have scale 1 and the shift that takes them to the mean.
    """
    scales, shifts = [], []
    groups = range(len(truth)) if per_frame else [slice(None)]
    for group in groups:
        seen = valid[group]
        x, y = prediction[group][seen].astype(np.float64), truth[group][seen].astype(np.float64)
        if space == "disparity":
            y = 1 / (y + SMALL)
        scale = shift = np.nan
        if len(x):
            apart = x - x.mean()
            square = float(apart @ apart)
            scale = float(apart @ (y - y.mean())) / square if square else 1.0
            shift = float(y.mean() - scale * x.mean())
        scales.append(scale)
        shifts.append(shift)
    return VideoFit(np.array(scales), np.array(shifts))


def to_depth(prediction: Float[np.ndarray, "T H W"], found: VideoFit, space: Space, far: float) -> Float[np.ndarray, "T H W"]:
    """Fitted depth, from `NEAR` to `far`."""
    fitted = prediction * found.scale[:, None, None] + found.shift[:, None, None]
    if space == "disparity":
        fitted = 1 / np.maximum(fitted, NEAR)
    return np.clip(fitted, NEAR, far)


def frame_errors(
    depth: Float[np.ndarray, "T H W"], truth: Float[np.ndarray, "T H W"], seen: Bool[np.ndarray, "T H W"]
) -> FrameErrors:
    """Of each frame over the pixels that are `seen`; frames without any are left out."""
    frames, rows = [], []
    for t in range(len(truth)):
        g, d = truth[t][seen[t]].astype(np.float64), depth[t][seen[t]]
        if not len(g):
            continue
        ratio = np.maximum(d / g, g / d)
        frames.append(t)
        rows.append(
            (
                np.mean(np.abs(d - g) / g),
                np.sqrt(np.mean((d - g) ** 2)),
                np.mean(ratio < 1.25),
                np.mean(ratio < 1.25**2),
            )
        )
    columns = np.array(rows, np.float64).reshape(-1, len(NAMES)).T
    return FrameErrors(np.array(frames, np.int64), *columns)


class Spectrum(NamedTuple):
    """Of a sequence of errors."""

    magnitude: Float[np.ndarray, "K"]
    band: Int[np.ndarray, "K"]
    amplitude: Float[np.ndarray, "11"]  # F0 to F10: mean absolute value of what each band alone says; 0 for an empty band
    energy: Float[np.ndarray, "11"]  # sum of its squares


def bands_of(frames: int) -> Int[np.ndarray, "K"]:
    """The band of each frequency of a sequence: 0 the mean alone, then 1 to 10, equally wide in the logarithm."""
    highest = frames // 2
    bands = np.zeros(highest + 1, np.int64)
    if highest:
        share = np.log(np.arange(1, highest + 1)) / np.log(highest) if highest > 1 else np.zeros(1)
        bands[1:] = np.minimum(1 + np.floor(BANDS * share), BANDS)
    return bands


def spectrum_of(errors: Float[np.ndarray, "N"]) -> Spectrum:
    """ValueError: an empty sequence."""
    if not len(errors):
        raise ValueError("no frame has ground truth, so its errors have no spectrum")
    spectrum, bands = np.fft.rfft(errors), bands_of(len(errors))
    alone = [np.fft.irfft(np.where(bands == band, spectrum, 0), len(errors)) for band in range(1 + BANDS)]
    return Spectrum(
        np.abs(spectrum),
        bands,
        np.array([np.mean(np.abs(part)) for part in alone]),
        np.array([np.sum(part**2) for part in alone]),
    )


class Flicker:
    """How much a video flickers, frame by frame in constant memory, without any ground truth.

    The mean over pixels and frames of |log d_t - (log d_{t-1} + log d_{t+1}) / 2|: how far a pixel is, relatively, from what
    its neighbours in time say. Motion adds to it, so it compares methods on one video, not videos.
    """

    def __init__(self) -> None:
        self._last: list[np.ndarray] = []
        self._total, self._count = 0.0, 0

    def add(self, depth: Float[np.ndarray, "H W"]) -> None:
        """The next frame; pixels that are not positive and finite in all three frames do not count."""
        good = np.isfinite(depth) & (depth > 0)
        self._last.append(np.where(good, np.log(np.where(good, depth, 1).astype(np.float64)), np.nan))
        if len(self._last) == 3:
            before, here, after = self._last
            apart = np.abs(here - (before + after) / 2)
            known = np.isfinite(apart)
            self._total, self._count = self._total + float(apart[known].sum()), self._count + int(known.sum())
            del self._last[0]

    def value(self) -> float | None:
        """None before the third frame."""
        return self._total / self._count if self._count else None
