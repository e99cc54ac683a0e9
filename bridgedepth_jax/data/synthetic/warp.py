"""A second view of a single photograph: warped by a random disparity, what becomes visible filled from another picture."""

import cv2
import numpy as np

from bridgedepth_jax.data.synthetic.fields import Rng, smooth_noise


def random_disparity(rng: Rng, height: int, width: int, far: float, near: float) -> np.ndarray:
    """float32 (height, width) within far..near: a slanted plane, smooth hills and, at times, steps along soft outlines."""
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    field = rng.normal(0, 0.5) * x[None] + rng.normal(0.4, 0.6) * y[:, None]
    for cells, amplitude in ((rng.uniform(1.5, 3), 1.0), (rng.uniform(3, 7), rng.uniform(0, 0.5))):
        field = field + amplitude * (smooth_noise(rng, height, width, cells) - 0.5)
    if rng.random() < 0.6:
        for _ in range(int(rng.integers(1, 4))):
            edge = smooth_noise(rng, height, width, rng.uniform(2, 7)) - rng.uniform(0.4, 0.7)
            field = field + rng.uniform(0.15, 0.8) * (edge > 0)
    low, high = float(field.min()), float(field.max())
    return (far + (field - low) * ((near - far) / max(high - low, 1e-6))).astype(np.float32)


def right_disparity(left: np.ndarray) -> np.ndarray:
    """Disparity of the right view, float32 (H, W), -inf in holes; `left` may be wider than the result needs.

    Between neighbouring left pixels of one surface (step below one pixel per pixel) the surface is linear; every right pixel
    takes the nearest surface that covers it.
    """
    height, width = left.shape
    target = np.arange(width, dtype=np.float32)[None] - left
    start, end = target[:, :-1], target[:, 1:]
    joined = np.abs(left[:, 1:] - left[:, :-1]) < 1
    out = np.full((height, width), -np.inf, np.float32)
    first = np.ceil(start).astype(np.int32)
    span = np.maximum(end - start, 1e-6)
    for step in range(2):  # a segment is shorter than two pixels
        column = first + step
        inside = joined & (column <= end) & (column >= 0) & (column < width)
        rows, index = np.nonzero(inside)
        columns = column[rows, index]
        along = (columns - start[rows, index]) / span[rows, index]
        value = left[rows, index] * (1 - along) + left[rows, index + 1] * along
        np.maximum.at(out, (rows, columns), value)
    return out


def warp_photo(picture: np.ndarray, filling: np.ndarray, disparity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right view (uint8 (H, W, 3)) and its disparity (float32 (H, W), finite) of a picture with the given left disparity.

    picture, filling: uint8 (H, W + margin, 3); disparity: float32 (H, W + margin), margin at least the largest disparity.
    Holes get the disparity of their farther side and the colours of `filling`.
    """
    found = right_disparity(disparity)
    hole = np.isneginf(found)
    filled = _from_farther_side(found, hole)
    height, width = disparity.shape
    columns = np.arange(width, dtype=np.float32)[None] + filled
    rows = np.repeat(np.arange(height, dtype=np.float32)[:, None], width, 1)
    image = cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if hole.any():
        other = cv2.remap(filling, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        np.copyto(image, other, where=hole[..., None])
    return image, filled


def _from_farther_side(disparity: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Holes take the smaller of the nearest values left and right of them in their row."""
    width = disparity.shape[1]
    index = np.arange(width)[None]
    before = np.maximum.accumulate(np.where(hole, -1, index), 1)
    after = np.minimum.accumulate(np.where(hole, width, index)[:, ::-1], 1)[:, ::-1]
    left = np.where(before >= 0, np.take_along_axis(disparity, before.clip(0), 1), np.inf)
    right = np.where(after < width, np.take_along_axis(disparity, after.clip(max=width - 1), 1), np.inf)
    smaller = np.minimum(left, right)
    return np.where(hole, np.where(np.isinf(smaller), 0, smaller), disparity).astype(np.float32)
