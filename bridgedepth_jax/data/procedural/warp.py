"""A second view of a single photograph: warped by a random disparity, what becomes visible filled from another picture."""

import cv2
import numpy as np

from bridgedepth_jax.data.procedural.fields import Rng, smooth_noise


def random_disparity(rng: Rng, picture: np.ndarray, far: float, near: float) -> np.ndarray:
    """float32 (height, width) within far..near: a slanted plane, smooth hills and, at times, steps.

    Steps follow the outlines of bright or dark parts of the picture, uint8 (height, width, 3), as depth edges mostly do.
    """
    height, width = picture.shape[:2]
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    field = rng.normal(0, 0.5) * x[None] + rng.normal(0.4, 0.6) * y[:, None]
    for cells, amplitude in ((rng.uniform(1.5, 3), 1.0), (rng.uniform(3, 7), rng.uniform(0, 0.5))):
        field = field + amplitude * (smooth_noise(rng, height, width, cells) - 0.5)
    if rng.random() < 0.6:
        bright = cv2.GaussianBlur(np.ascontiguousarray(picture[..., rng.integers(3)]), (0, 0), rng.uniform(2, 5))
        for _ in range(int(rng.integers(1, 3))):
            edge = bright > rng.uniform(*np.percentile(bright[::8, ::8], (20, 80)))
            field = field + rng.normal(0, 0.5) * edge
    low, high = float(field.min()), float(field.max())
    return (far + (field - low) * ((near - far) / max(high - low, 1e-6))).astype(np.float32)


def right_disparity(left: np.ndarray) -> np.ndarray:
    """Disparity of the right view, float32 (H, W), -inf in holes; `left` may be wider than the result needs.

    Between neighbouring left pixels of one surface (step below one pixel per pixel) the surface is linear; every right pixel
    takes the nearest surface that covers it.
    """
    # Of two left pixels that meet in one right pixel the one further right is nearer (x - d equal, x larger), so in row order
    # the last one written is the one to see.
    height, width = left.shape
    target = np.arange(width, dtype=np.float32)[None] - left
    start, length = target[:, :-1], target[:, 1:] - target[:, :-1]
    rise = left[:, 1:] - left[:, :-1]
    joined = np.abs(rise) < 1
    first = np.ceil(start)
    out = np.full((2, height * width), -np.inf, np.float32)
    rows = np.arange(height, dtype=np.int32)[:, None] * width
    for step in range(2):  # a segment is shorter than two pixels
        column = first + np.float32(step)
        along = column - start
        inside = joined & (along <= length) & (column >= 0) & (column < width)
        value = left[:, :-1] + along * (rise / np.maximum(length, 1e-6))
        out[step, (rows + column.astype(np.int32))[inside]] = value[inside]
    return np.maximum(out[0], out[1]).reshape(height, width)


def warp_photo(picture: np.ndarray, disparity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right view (uint8 (H, W, 3)) and its disparity (float32 (H, W), finite) of a picture with the given left disparity.

    picture: uint8 (H, W + margin, 3); disparity: float32 (H, W + margin), margin at least the largest disparity.
    Holes continue their farther side: its disparity, its colours mirrored at the hole's border.
    """
    found = right_disparity(disparity)
    height, width = disparity.shape
    source, filled = _fill(found, np.isneginf(found))
    rows = np.repeat(np.arange(height, dtype=np.float32)[:, None], width, 1)
    return cv2.remap(picture, source + filled, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), filled


def _fill(disparity: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column to take the colour from, and disparity, float32 (H, W); holes continue the farther of their row neighbours."""
    width = disparity.shape[1]
    index = np.arange(width, dtype=np.int32)[None]
    before = np.maximum.accumulate(np.where(hole, -1, index), 1)
    after = np.minimum.accumulate(np.where(hole, width, index)[:, ::-1], 1)[:, ::-1]
    low = np.where(before >= 0, np.take_along_axis(disparity, before.clip(0), 1), np.inf)
    high = np.where(after < width, np.take_along_axis(disparity, after.clip(max=width - 1), 1), np.inf)
    border = np.where(low < high, before, after)
    filled = np.minimum(low, high)
    nothing = np.isinf(filled)  # a row without any match
    source = np.where(hole & ~nothing, 2 * border - index, index)
    return source.astype(np.float32), np.where(nothing, 0, filled).astype(np.float32)
