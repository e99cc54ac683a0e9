"""A network as its own teacher: what it says of enlarged images, as labels for the images as they are.

A camera with a short baseline and a sharp lens has disparities and details smaller than what the network was trained on;
enlarged they are not. Noise and blur are no better for it, so pairs that training does not see choose the scales, or none.
H, W an image's sides.
"""

import csv
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Float, UInt8

from bridgedepth_jax.data.augment import whole_views
from bridgedepth_jax.data.formats import write_png
from bridgedepth_jax.data.pairs import Pair, read_sample
from bridgedepth_jax.files import make_folder, replacing
from bridgedepth_jax.system import Weights

SCALES = ((1, 4 / 3, 2), (4 / 3, 2, 3))  # the labels are the median of three: one that fails has no say
WAYS = "given", "mirrored"
LARGEST = 4 * 320 * 1024  # pixels of an enlarged image

Image = UInt8[np.ndarray, "H W 3"]
Disparity = Float[np.ndarray, "H W"]


class Enlarged:
    """A frozen stereo network on images of other sizes, whose sides are made multiples of `multiple`."""

    def __init__(self, stereo: Callable[..., Any], weights: Weights, multiple: int) -> None:
        # Of one view: half as much to compile for each size.
        self._run = functools.partial(jax.jit(stereo), jax.device_put(weights))
        self._multiple = multiple

    def __call__(self, left: Image, right: Image, scales: Sequence[float]) -> tuple[Disparity, Disparity]:
        """Disparity of the left and of the right view, in pixels of these images: the median over `scales`."""
        found = [self._at(left, right, scale) for scale in scales]
        first, second = (np.median(np.stack(rows), axis=0).astype(np.float32) for rows in zip(*found, strict=True))
        return first, second

    def _at(self, left: Image, right: Image, scale: float) -> tuple[Disparity, Disparity]:
        height, width = left.shape[:2]
        size = scaled((height, width), scale, self._multiple)
        large = (cv2.resize(view.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC) for view in (left, right))
        first, second = (np.clip(view, 0, 255)[None] for view in large)
        back = lambda d: cv2.resize(np.asarray(d)[0], (width, height), interpolation=cv2.INTER_LINEAR) * (width / size[1])
        mirror = lambda view: view[:, :, ::-1]
        return back(self._run(first, second)), back(mirror(self._run(mirror(second), mirror(first))))


def scaled(size: tuple[int, int], scale: float, multiple: int) -> tuple[int, int]:
    """Sides times `scale`, to the nearest multiples."""
    height, width = (max(multiple, round(side * scale / multiple) * multiple) for side in size)
    return height, width


def candidates(size: tuple[int, int]) -> list[tuple[float, ...]]:
    """Those of `SCALES` whose largest images have no more than `LARGEST` pixels."""
    return [scales for scales in SCALES if size[0] * size[1] * max(scales) ** 2 <= LARGEST]


def write_labels(
    folder: Path, pairs: Sequence[Pair], size: tuple[int, int], scales: Sequence[float], teacher: Enlarged
) -> Path:
    """Labels of both views, as a list to train on: each pair as it is, and mirrored, its views exchanged.

    Returns the list, which is written last; what is there is not made again. Images are those of the pairs at `size`.
    """
    make_folder(folder, "--workdir")
    rows = []
    for i, pair in enumerate(pairs):
        name = f"{i:05d}"
        if not (folder / name).is_dir():
            views = whole_views(read_sample(pair), size)
            with replacing(folder / name) as temporary:
                _write_pair(temporary, views["left"], views["right"], *teacher(views["left"], views["right"], scales))
        for way in WAYS:
            files = {key: f"{name}/{way}/{key}.png" for key in ("left", "right")}
            rows.append({**files, "disparity": f"{name}/{way}/disparity.npy", "format": "npy"})
    with replacing(folder / "pairs.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "pairs.csv"


def _write_pair(folder: Path, left: Image, right: Image, disparity: Disparity, other: Disparity) -> None:
    flip = lambda array: np.ascontiguousarray(array[:, ::-1])
    ways = (left, right, disparity), tuple(map(flip, (right, left, other)))
    for way, (image, second, label) in zip(WAYS, ways, strict=True):
        write_png(folder / way / "left.png", image)
        write_png(folder / way / "right.png", second)
        np.save(folder / way / "disparity.npy", label)
