"""Are the images of a pair rectified, and in their order? What sparse matches of keypoints say, before anything is trained.

In a rectified pair a match lies in the same row, and in the right image further to the left. H, W an image's sides.
"""

from typing import NamedTuple

import cv2
import numpy as np

from bridgedepth_jax.errors import InputError

LARGEST_OFFSET = 2.0  # pixels, of the median match
ENOUGH = 8  # matches of a pair that say something about it
RATIO = 0.75  # of the distances of the nearest and the second nearest descriptor (Lowe)
SIDE = 640  # pixels, to which wide images are made smaller; small ones are made twice as large, for more keypoints
WRONG_WAY = 1.0  # pixels, by which a match lies to the right of where it can


class Matches(NamedTuple):
    """Of the keypoints of two images, pixels of the left one."""

    count: int
    vertical: float  # median of y_right - y_left
    backwards: float  # share that lies to the right in the right image


def match(left: np.ndarray, right: np.ndarray) -> Matches:
    """Of two RGB images (H, W, 3) uint8, by SIFT, nearest in both directions."""
    width = left.shape[1]
    scale = 2.0 if width <= SIDE // 2 else min(1.0, SIDE / width)
    found = []
    for image in (left, right):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        low, high = np.quantile(grey, (0.01, 0.99))  # dark images have corners too
        grey = np.clip((grey - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
        size = round(width * scale), round(grey.shape[0] * scale)
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        found.append(cv2.SIFT.create(1000).detectAndCompute(grey, None))
    (first, a), (second, b) = found
    if a is None or b is None or min(len(first), len(second)) < 2:
        return Matches(0, 0.0, 0.0)
    back = {pair[0].queryIdx: pair[0].trainIdx for pair in _nearest(b, a)}
    kept = [pair[0] for pair in _nearest(a, b) if back.get(pair[0].trainIdx) == pair[0].queryIdx]
    if not kept:
        return Matches(0, 0.0, 0.0)
    offsets = np.array([np.subtract(second[m.trainIdx].pt, first[m.queryIdx].pt) for m in kept]) / scale
    return Matches(len(kept), float(np.median(offsets[:, 1])), float(np.mean(offsets[:, 0] > WRONG_WAY)))


def _nearest(a: np.ndarray, b: np.ndarray) -> list:
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(a, b, k=2)
    return [pair for pair in pairs if len(pair) == 2 and pair[0].distance < RATIO * pair[1].distance]


def check_pair(left: np.ndarray, right: np.ndarray, name: str) -> bool:
    """Whether the images show the same at all. InputError: a pair that is not rectified, or swapped."""
    found = match(left, right)
    if found.count < ENOUGH:
        return False
    if found.backwards > 0.5:
        raise InputError(
            f"{name}: left and right are swapped ({found.backwards:.0%} of {found.count} matches lie to the right in the right"
            " image), expected the left camera's image first"
        )
    if abs(found.vertical) > LARGEST_OFFSET:
        raise InputError(
            f"{name}: not rectified, {found.count} matches lie {found.vertical:+.1f} pixels lower in the right image (median),"
            f" expected at most {LARGEST_OFFSET:g}"
        )
    return True
