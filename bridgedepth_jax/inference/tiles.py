"""Images beyond a device's memory: overlapping tiles around one coarse answer for the whole image.

The whole image is seen once at a smaller scale. Then each tile is seen at the scale asked for, against the part of the right
image in which its smallest coarse disparity is zero, so that the network's search range is spent on what the tile contains.
Tiles overlap by more than the search range. A tile's weight grows with the distance from where it ends and from where its
matches leave what it sees of the right image, over all that it shares with its neighbours: answers that differ change slowly
into each other. Where no tile can know (the match lies outside the right image, or beyond the range) the coarse answer stays.
The weights come from the coarse answer alone, not from what a tile guesses.

Letters: H W size of the images, h w of a tile. Disparities in pixels of the images that are given here.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

from bridgedepth_jax.errors import InputError

COARSE = 1_000_000  # pixels of the coarse pass, at most
OVERLAP = 64  # pixels, of tiles above each other, at least
RAMP = 48  # pixels from where a tile begins to know, over which the coarse answer goes out
QUANTILE = 0.02  # of the coarse disparities of a tile, which its right part is shifted by, less SLACK
SLACK = 8.0  # pixels
MARGIN = 2.0  # pixels from the end of the right image, where a match begins to be known
FULL = 0.9  # what tiles know together, from which the coarse answer has no weight: what neighbours that both know reach
HOST = 30  # bytes a pixel of the whole image: four sums, the coarse answer, and what is added

# Of (B, h, w, 3) twice -> disparity and confidence (B, h, w), pixels of what is given to it.
Matcher = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Tile(NamedTuple):
    """Rows y .. y + h, columns x .. x + w of the left image; its right part begins `shift` pixels further left."""

    y: int
    x: int
    shift: int


def match_tiled(
    left: np.ndarray, right: np.ndarray, match: Matcher, size: tuple[int, int], reach: float | None, group: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Disparity and confidence (H, W) float32 of one pair (H, W, 3).

    Args:
      match: the network; called with the whole pair made smaller, and with tiles of `size` (h, w).
      reach: pixels, its search range; None: as wide as a tile.
      group: tiles of one call.

    Raises InputError: a tile too small for its overlap.
    """
    height, width = left.shape[:2]
    planned = plan(height, width, size, reach)
    h, w = planned.size
    if planned.coarse is None:
        disparity, confidence = match(left[None], right[None])
        return disparity[0], confidence[0]
    coarse, coarse_confidence = _coarse(left, right, match, planned.coarse)
    totals = np.zeros((4, height, width), np.float32)  # of disparity, confidence, weight and what is known
    tiles = list(cut(coarse, (h, w), planned.overlap))
    for start in range(0, len(tiles), group):
        some = tiles[start : start + group]
        given = [(_crop(left, tile.y, tile.x, h, w), _crop(right, tile.y, tile.x - tile.shift, h, w)) for tile in some]
        given += [given[-1]] * (group - len(given))  # one size of call
        found = match(*(np.stack(images) for images in zip(*given, strict=True)))
        for tile, disparity, confidence in zip(some, *found, strict=False):
            place = slice(tile.y, tile.y + h), slice(tile.x, tile.x + w)
            weight, known = weigh(tile, coarse, planned, reach)
            added = weight * (disparity + tile.shift), weight * confidence, weight, known
            for total, value in zip(totals, added, strict=True):
                total[place] += value
    share = fine_share(totals[3]) / np.maximum(totals[2], 1e-6)
    rest = 1 - share * totals[2]
    return share * totals[0] + rest * coarse, share * totals[1] + rest * coarse_confidence


class Plan(NamedTuple):
    """How an image is seen."""

    size: tuple[int, int]  # (h, w) of a tile, at most the image
    coarse: tuple[int, int] | None  # (height, width) of the coarse pass; None: one tile is the whole image
    overlap: int  # columns that neighbours share
    count: int  # of tiles


def plan(height: int, width: int, size: tuple[int, int], reach: float | None) -> Plan:
    """Arguments as for `match_tiled`. Raises InputError: a tile too small for its overlap."""
    h, w = min(size[0], height), min(size[1], width)
    wide = min(reach or w / 2, w / 2)
    if h < height and h < 2 * OVERLAP:
        raise InputError(f"tiles of {size[0]}x{size[1]}, expected at least {2 * OVERLAP} rows")
    if w < width and w < 2 * RAMP + wide:
        raise InputError(f"tiles of {size[0]}x{size[1]}, expected at least {round(2 * RAMP + wide)} columns")
    overlap = round(wide) + RAMP
    if (h, w) == (height, width):
        return Plan((h, w), None, overlap, 1)
    factor = min(0.5, (COARSE / (height * width)) ** 0.5)  # at most half, so that it looks at least twice as far
    count = len(starts(height, h, OVERLAP)) * len(starts(width, w, overlap))
    return Plan((h, w), (round(height * factor), round(width * factor)), overlap, count)


def cut(coarse: np.ndarray, size: tuple[int, int], overlap: int) -> Iterator[Tile]:
    """Tiles of `size` that cover an image with that coarse disparity (H, W); neighbours share at least `overlap` columns."""
    (height, width), (h, w) = coarse.shape, size
    for y in starts(height, h, OVERLAP):
        for x in starts(width, w, overlap):
            least = float(np.quantile(coarse[y : y + h : 4, x : x + w : 4], QUANTILE))
            yield Tile(y, x, max(0, int(least - SLACK)))


def starts(length: int, part: int, overlap: int) -> list[int]:
    """Where parts begin that overlap by at least so much and reach both ends."""
    count = 1 if part >= length else -(-(length - overlap) // (part - overlap))
    return [round(i * (length - part) / max(count - 1, 1)) for i in range(count)]


def _coarse(left: np.ndarray, right: np.ndarray, match: Matcher, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    height, width = left.shape[:2]
    size = shape[::-1]
    small = (cv2.resize(image, size, interpolation=cv2.INTER_AREA)[None] for image in (left, right))
    disparity, confidence = match(*small)
    whole = (cv2.resize(value[0], (width, height), interpolation=cv2.INTER_LINEAR) for value in (disparity, confidence))
    disparity, confidence = whole
    return disparity * np.float32(width / size[0]), confidence


def _crop(image: np.ndarray, y: int, x: int, h: int, w: int) -> np.ndarray:
    """Columns x .. x + w of rows y .. y + h, the edge repeated beyond the image."""
    columns = np.clip(np.arange(x, x + w), 0, image.shape[1] - 1)
    return image[y : y + h, columns]


def weigh(tile: Tile, coarse: np.ndarray, planned: Plan, reach: float | None) -> tuple[np.ndarray, np.ndarray]:
    """The weights (h, w) of a tile among others, and how far (0..1) it knows: from both `fine_share` says how far all do.

    Args:
      coarse: (H, W), pixels of disparity.
    """
    (height, width), (h, w) = coarse.shape, planned.size
    shared_rows, shared_columns = (
        length - np.diff(starts(whole, length, least)).max(initial=0)
        for whole, length, least in ((height, h, OVERLAP), (width, w, planned.overlap))
    )
    expected = coarse[tile.y : tile.y + h, tile.x : tile.x + w] - np.float32(tile.shift)
    rows = _from_ends(h, shared_rows, tile.y == 0, tile.y + h == height)[:, None] / np.float32(shared_rows)
    columns = _from_ends(w, shared_columns, tile.x == 0, tile.x + w == width)[None]
    # From the end of its right part, and of the right image: what a tile answers to its own padding is worth nothing.
    match = np.arange(w, dtype=np.float32)[None] - expected - MARGIN + min(0, tile.x - tile.shift)
    columns = np.minimum(columns, np.maximum(match, 0))
    inside = np.ones_like(expected)
    if reach is not None:
        inside = np.clip((0.95 * reach - expected) / (0.05 * reach), 0, 1)
    if tile.shift:  # below zero nothing is found
        inside = inside * np.clip((expected - 1) / (SLACK - 1), 0, 1)
    # Squares: blending begins and ends without a kink.
    weight, known = (rows * columns / w) ** 2 * inside, rows * np.minimum(columns / RAMP, 1) * inside
    return weight.astype(np.float32), known.astype(np.float32)


def fine_share(known: np.ndarray) -> np.ndarray:
    """How much of the answer tiles give that know so much together; the coarse answer gives the rest."""
    return np.minimum(known / FULL, 1)


def _from_ends(length: int, most: int, first: bool, last: bool) -> np.ndarray:
    """Pixels (length,) from where a tile begins and ends, up to `most`; a tile that is the first or last has no such end."""
    at = np.arange(length, dtype=np.float32) + 0.5
    ends = np.minimum(np.inf if first else at, np.inf if last else length - at)
    return np.broadcast_to(np.minimum(ends, np.float32(most)), (length,)).astype(np.float32)
