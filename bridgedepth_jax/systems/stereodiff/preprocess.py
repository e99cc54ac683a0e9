"""Frames as the pair network wants them (spec `video.md` section 1.1): sizes, and Pillow's filters on uint8.

H W pixels, O pixels after a resize.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from bridgedepth_jax.ops.resize import Filter, antialiased_taps, cubic_weights

Fit = Literal["resize", "crop"]
MULTIPLE = 16  # pixels of a token's side
SQUARE_MODEL = 224  # pixels; models of this side see squares
BITS = 22  # of Pillow's fixed-point weights


def lanczos(distance: np.ndarray) -> np.ndarray:
    """The windowed sinc of three lobes."""
    return np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)


def bicubic(distance: np.ndarray) -> np.ndarray:
    """Cubic convolution with a = -0.5."""
    return np.where(np.abs(distance) < 2, cubic_weights(distance, -0.5), 0)


LANCZOS, BICUBIC = Filter(lanczos, 3.0), Filter(bicubic, 2.0)


def resize_uint8(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int], kernel: Filter) -> UInt8[np.ndarray, "O O2 3"]:
    """To `size` = (width, height) as Pillow does it: columns, then rows, each in fixed point and rounded to grey levels."""
    for axis, out in ((1, size[0]), (0, size[1])):
        if image.shape[axis] == out:
            continue
        taps = antialiased_taps(image.shape[axis], out, kernel)
        weights = np.rint(taps.weights * (1 << BITS)).astype(np.int64)
        source = np.moveaxis(image, axis, 0).astype(np.int64)
        total = np.full((out, *source.shape[1:]), 1 << (BITS - 1), np.int64)
        for indices, factor in zip(taps.indices.T, weights.T, strict=True):
            total += source[indices] * factor[:, None, None]
        image = np.moveaxis(np.clip(total >> BITS, 0, 255).astype(np.uint8), 0, axis)
    return image


def first_size(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) after the first resize: the long side becomes `side`; of models for squares the short one."""
    longest = max(width, height)
    target = round(side * max(width / height, height / width)) if side == SQUARE_MODEL else side
    return round(width * target / longest), round(height * target / longest)


def window_of(width: int, height: int, side: int, fit: Fit) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what is seen of an image of `first_size`; "resize" sees all, but of squares 4:3."""
    centre = width // 2, height // 2
    if side == SQUARE_MODEL:
        half = min(centre)
        halves = half, half
    else:
        halves = tuple((2 * c // MULTIPLE) * (MULTIPLE // 2) for c in centre)
        if width == height:
            halves = halves[0], 3 * halves[0] // 4
        elif fit == "resize":
            return 0, 0, width, height
    (x, y), (dx, dy) = centre, halves
    return x - dx, y - dy, x + dx, y + dy


def network_size(width: int, height: int, side: int = 512, fit: Fit = "resize") -> tuple[int, int]:
    """(width, height) that the network sees of a frame."""
    width, height = first_size(width, height, side)
    left, top, right, bottom = window_of(width, height, side, fit)
    multiple = 1 if side == SQUARE_MODEL else MULTIPLE
    return (right - left) // multiple * multiple, (bottom - top) // multiple * multiple


def prepare(image: UInt8[np.ndarray, "H W 3"], side: int = 512, fit: Fit = "resize") -> UInt8[np.ndarray, "O O2 3"]:
    """A frame at the network's size: LANCZOS where it shrinks, BICUBIC where it grows, then a crop or a second resize."""
    height, width = image.shape[:2]
    size = first_size(width, height, side)
    image = resize_uint8(image, size, LANCZOS if max(width, height) > max(size) else BICUBIC)
    left, top, right, bottom = window_of(*size, side, fit)
    image = image[top:bottom, left:right]
    return resize_uint8(image, network_size(width, height, side, fit), LANCZOS)


def normalized(images: UInt8[np.ndarray, "*S 3"], dtype: type = np.float32) -> Float[np.ndarray, "*S 3"]:
    """0..255 to -1..1."""
    return images.astype(dtype) / dtype(255) * 2 - 1
