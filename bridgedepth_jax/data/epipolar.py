"""How far a pair is from being rectified: sparse matches of keypoints, and a plane fitted to their vertical offsets.

In a rectified pair a match lies in the same row. After small errors of mounting or of calibration it lies lower by

    dy(x, y) = offset + slope * x + stretch * y      (x, y) pixels from the image's centre

where `offset` is a difference in height, pitch or principal points, `slope` (radians) a rotation about the optical axis, and
`stretch` a difference of the focal lengths. Fitted by RANSAC and least squares on what it keeps (Hartley and Zisserman,
Multiple View Geometry, 4.7). Letters: H W size of the images, P matches.
"""

from typing import NamedTuple

import cv2
import numpy as np

from bridgedepth_jax.errors import InputError

SIDE = 1280  # pixels: larger images are matched at this width or height, whichever is larger
KEYPOINTS = 2000
RATIO = 0.8  # of the distances of the nearest and the second nearest descriptor (Lowe)
ENOUGH = 12  # matches that agree, below which nothing is said
SAMPLES = 500  # of RANSAC, three matches each
AGREE = 1.5  # pixels as matched, within which a match agrees with a sample
LARGEST_OFFSET = 2.0  # pixels, that `check_pair` lets pass
WRONG_WAY = 1.0  # pixels, by which a match lies to the right of where it can


class Alignment(NamedTuple):
    """Of the right image to the left one; pixels of the images as given."""

    matches: int  # that agree with the plane
    share: float  # of all matches
    offset: float  # pixels, by which the right image's content lies lower at the centre
    slope: float  # radians, by which it is turned clockwise
    stretch: float  # by which it is taller, 0 for not
    error: float  # standard error of the offset, pixels
    left: np.ndarray  # (P, 2) float64: x, y of the matches that agree
    right: np.ndarray  # (P, 2)

    @property
    def disparity(self) -> np.ndarray:
        """(P,) pixels, x of the left minus x of the right image."""
        return self.left[:, 0] - self.right[:, 0]


def align(left: np.ndarray, right: np.ndarray) -> Alignment | None:
    """From two images (H, W, 3) uint8 RGB of one size; None where too few matches agree to say anything."""
    height, width = left.shape[:2]
    seen = min(1.0, SIDE / max(height, width))
    first, second = _matches(left, right, seen)
    if len(first) < ENOUGH:
        return None
    centre = (np.array([width, height]) - 1) / 2
    design = np.concatenate([np.ones((len(second), 1)), second - centre], 1)
    dy = second[:, 1] - first[:, 1]
    agree = _ransac(design, dy, AGREE / seen)
    plane = np.zeros(3)
    for _ in range(3):
        if agree.sum() < ENOUGH:
            return None
        plane = np.linalg.lstsq(design[agree], dy[agree], rcond=None)[0]
        residual = dy - design @ plane
        spread = 1.4826 * float(np.median(np.abs(residual[agree])))  # of a normal distribution
        agree = np.abs(residual) < np.clip(3 * spread, 0.3 / seen, AGREE / seen)
    count = int(agree.sum())
    if count < ENOUGH:
        return None
    variance = float(np.sum(residual[agree] ** 2)) / (count - 3)
    covariance = variance * np.linalg.pinv(design[agree].T @ design[agree])
    offset, slope, stretch = plane
    return Alignment(
        count, count / len(dy), float(offset), float(slope), float(stretch), float(covariance[0, 0]) ** 0.5,
        first[agree], second[agree],
    )  # fmt: skip


def check_pair(left: np.ndarray, right: np.ndarray, name: str) -> bool:
    """Whether the images show the same at all, before something is trained on them; arguments as for `align`.

    InputError: a pair that is not rectified, or swapped.
    """
    found = align(left, right)
    if found is None:
        return False
    backwards = float(np.mean(found.disparity < -WRONG_WAY))
    if backwards > 0.5:
        raise InputError(
            f"{name}: left and right are swapped ({backwards:.0%} of {found.matches} matches lie to the right in the right"
            " image), expected the left camera's image first"
        )
    if abs(found.offset) > LARGEST_OFFSET:
        raise InputError(
            f"{name}: not rectified, {found.matches} matches lie {found.offset:+.1f} pixels lower in the right image,"
            f" expected at most {LARGEST_OFFSET:g}"
        )
    return True


def _matches(left: np.ndarray, right: np.ndarray, seen: float) -> tuple[np.ndarray, np.ndarray]:
    """(P, 2) twice: x, y of keypoints that are each other's nearest, in pixels of the images as given."""
    sift = cv2.SIFT.create(KEYPOINTS)
    found = []
    for image in (left, right):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        size = round(grey.shape[1] * seen), round(grey.shape[0] * seen)
        if seen < 1:
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        points, descriptors = sift.detectAndCompute(cv2.equalizeHist(grey), None)
        factor = np.array([image.shape[1] / size[0], image.shape[0] / size[1]])
        points = np.array([point.pt for point in points], np.float64).reshape(-1, 2)
        found.append(((points + 0.5) * factor - 0.5, descriptors))
    (first, a), (second, b) = found
    if min(len(first), len(second)) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    back = _nearest(b, a)
    pairs = np.array([(i, j) for i, j in _nearest(a, b).items() if back.get(j) == i], int).reshape(-1, 2)
    return first[pairs[:, 0]], second[pairs[:, 1]]


def _nearest(a: np.ndarray, b: np.ndarray) -> dict[int, int]:
    rows = cv2.BFMatcher(cv2.NORM_L2).knnMatch(a, b, k=2)
    return {row[0].queryIdx: row[0].trainIdx for row in rows if row[0].distance < RATIO * row[1].distance}


def _ransac(design: np.ndarray, values: np.ndarray, within: float) -> np.ndarray:
    """(P,) bool: what agrees with the plane through three matches with which the most agree; the same at each call."""
    random = np.random.default_rng(0)
    chosen = random.integers(0, len(values), (SAMPLES, 3))
    # Three matches in one spot say nothing of the slopes: a plane that is steeper than 15 degrees is no mounting error.
    matrices, targets = design[chosen], values[chosen]
    usable = np.abs(np.linalg.det(matrices)) > 1e-6 * np.ptp(design[:, 1]) * np.ptp(design[:, 2]) + 1e-9
    if not usable.any():
        return np.zeros(len(values), bool)
    planes = np.linalg.solve(matrices[usable], targets[usable][..., None])[..., 0]
    planes = planes[np.abs(planes[:, 1:]).max(1) < 0.26]
    if not len(planes):
        return np.zeros(len(values), bool)
    agree = np.abs(values[None] - planes @ design.T) < within
    return agree[agree.sum(1).argmax()]
