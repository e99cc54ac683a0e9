"""Frames of procedural clips as training samples (spec `video.md` section 6; the clips: `procedural/clips.py`).

A view is rendered when it is first asked for and stays in memory, in each process that reads: later epochs render little.
F frames of a sample, h w the crop's sides.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from bridgedepth_jax.data.procedural.clips import ClipConfig, Opened, SyntheticClips, draw
from bridgedepth_jax.errors import InputError

SPAN_VIEWS = 4  # of a clip, evenly apart, whose depths give its range


@dataclasses.dataclass(frozen=True)
class ClipOptions:
    """The set `clips`. What is kept grows to size * views * height * width * 7 bytes, in each process that reads."""

    size: int = 512  # clips in an epoch
    views: int = 64  # of a clip
    frames: int = 2  # of a sample
    apart: tuple[int, int] = (1, 9)  # views between neighbouring frames of a sample, the same for all of them
    mirror: float = 0.5  # probability
    reverse: float = 0.5  # probability that time runs backwards
    haze: float = 0.0  # share of clips in haze
    seed: int | None = None  # of the scenes; None: that of training

    def __post_init__(self) -> None:
        low, high = self.apart
        if self.size < 1 or self.frames < 1:
            raise InputError(f"data.clips.size = {self.size}, frames = {self.frames}, expected at least 1 of each")
        if not 1 <= low <= high or (self.frames - 1) * low >= self.views:
            raise InputError(
                f"data.clips.apart = {self.apart}: expected 1 <= low <= high, and {self.frames} frames in {self.views} views"
            )
        for name in ("mirror", "reverse", "haze"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"data.clips.{name} = {getattr(self, name)}, expected a probability")


class OpenClip:
    """One clip, whose views are rendered when they are asked for."""

    def __init__(self, opened: Opened, size: tuple[int, int]) -> None:
        self.K, self.pose, self._opened, self._size = opened.camera, opened.poses, opened, size
        self._views: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        marks = np.unique(np.linspace(0, len(self.pose) - 1, SPAN_VIEWS).round().astype(int))
        inverse = 1 / np.stack([self.view(v)[1] for v in marks.tolist()])
        self.span = np.array([inverse.min(), inverse.max()], np.float32)

    def view(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(image, depth)."""
        if number not in self._views:
            self._views[number] = draw(self._opened, np.linalg.inv(self.pose[number]), number, *self._size)[:2]
        return self._views[number]


class ClipSource(Sequence[OpenClip]):
    """Clips of (seed, index), kept once they are opened; a worker process receives only numbers."""

    def __init__(self, options: ClipOptions, crop: tuple[int, int], seed: int) -> None:
        self.options, self._crop = options, crop
        self._seed = seed if options.seed is None else options.seed
        parts = [options.size, options.views, options.haze, self._seed, list(crop)]
        self.fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        self._renderer: SyntheticClips | None = None
        self._kept: dict[int, OpenClip] = {}

    def __len__(self) -> int:
        return self.options.size

    def __getitem__(self, index: int) -> OpenClip:  # type: ignore[override]
        if index not in self._kept:
            if self._renderer is None:
                config = ClipConfig(haze=self.options.haze)
                self._renderer = SyntheticClips(*self._crop, self.options.views, seed=self._seed, photos=False, config=config)
            self._kept[index] = OpenClip(self._renderer.open(index), self._crop)
        return self._kept[index]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_renderer": None, "_kept": {}}


def clip_shapes(options: ClipOptions, crop: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each array of a sample."""
    size = (options.frames, *crop)
    matrices: dict[str, tuple[tuple[int, ...], Any]] = {"K": ((3, 3), np.float32), "pose": ((size[0], 4, 4), np.float32)}
    return {"image": ((*size, 3), np.uint8), "depth": (size, np.float32), **matrices, "span": ((2,), np.float32)}


def clip_example(clip: OpenClip, options: ClipOptions, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Some frames of a clip, evenly apart, perhaps mirrored or backwards.

    image (F, h, w, 3) uint8; depth (F, h, w) float32 metres; K (3, 3); pose (F, 4, 4) camera to world; span (2,): least and
    largest inverse depth of the clip, from some of its views. All draws are made first, in a fixed order.
    """
    low, high = options.apart
    draws = rng.random(4)
    fits = min(high, (options.views - 1) // max(options.frames - 1, 1))
    apart = low + int(draws[0] * (fits - low + 1))
    first = int(draws[1] * (options.views - apart * (options.frames - 1)))
    chosen = first + apart * np.arange(options.frames)
    if draws[2] < options.reverse:
        chosen = chosen[::-1]
    image, depth = (np.stack(part) for part in zip(*(clip.view(v) for v in chosen.tolist()), strict=True))
    pose, camera = clip.pose[chosen], clip.K
    if draws[3] < options.mirror:
        image, depth = image[:, :, ::-1], depth[:, :, ::-1]
        turn = np.diag([-1.0, 1, 1, 1])
        pose, camera = turn @ pose @ turn, camera.copy()
        camera[0, 2] = image.shape[2] - 1 - camera[0, 2]
    return {
        "image": np.ascontiguousarray(image),
        "depth": np.ascontiguousarray(depth),
        "K": camera.astype(np.float32),
        "pose": pose.astype(np.float32),
        "span": clip.span,
    }
