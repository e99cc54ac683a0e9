"""Where a generated image still shows what its original shows: masks of hybrid labels (spec `mono-training.md` section 6).

In numpy and OpenCV. Letters: H W the original's sides. Images are uint8 RGB, masks bool, G is the generated image, O the
original.
"""

from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

SIMILAR = 0.85  # SSIM above which a pixel is the same
WINDOW = 7  # of SSIM, and of the erosion of what a warp covers
FEATURES = 1000
FARTHEST = 64  # Hamming distance of a match
FEWEST = 10  # matches, and inliers
REPROJECTION = 3.0  # pixels
LARGEST_MOVE = 0.1  # of the diagonal, of a corner
MOVED = 1.0  # pixels of a corner, beyond which the warped image is the sample
ELLIPSE = (5, 5)
ENOUGH = 0.5  # of the image
CROP = 518

Grey = UInt8[np.ndarray, "H W"]
Mask = Bool[np.ndarray, "H W"]


def ssim(x: Grey, y: Grey) -> Float[np.ndarray, "H W"]:
    """Structural similarity of grey images at each pixel: uniform 7x7, symmetric border, sample covariance, float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean = lambda values: cv2.boxFilter(values, -1, (WINDOW, WINDOW), borderType=cv2.BORDER_REFLECT)
    mx, my, xx, yy, xy = mean(x), mean(y), mean(x * x), mean(y * y), mean(x * y)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    vx, vy, vxy = sample * (xx - mx * mx), sample * (yy - my * my), sample * (xy - mx * my)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))


class Registration(NamedTuple):
    """How G lies over O. Without enough agreement there is no homography."""

    matches: int
    inliers: int
    homography: Float[np.ndarray, "3 3"] | None
    shift: float | None  # largest move of a corner, pixels; also of a homography that was refused
    reason: str = ""


def register(generated: Grey, original: Grey) -> Registration:
    """ORB features of both, matched both ways, and the homography from G to O that most of them agree with."""
    orb = cv2.ORB_create(nfeatures=FEATURES)  # type: ignore[attr-defined]
    (points, words), (others, other_words) = (orb.detectAndCompute(image, None) for image in (generated, original))
    pairs: list[Any] = []
    if words is not None and other_words is not None:
        found = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(words, other_words)
        pairs = [match for match in found if match.distance < FARTHEST]
    if len(pairs) < FEWEST:
        return Registration(len(pairs), 0, None, None, f"{len(pairs)} matches, expected {FEWEST}")
    source = np.array([points[match.queryIdx].pt for match in pairs], np.float32)
    target = np.array([others[match.trainIdx].pt for match in pairs], np.float32)
    homography, agreeing = cv2.findHomography(source, target, cv2.RANSAC, REPROJECTION, maxIters=2000, confidence=0.995)
    inliers = 0 if homography is None else int(agreeing.sum())
    if homography is None or inliers < FEWEST:
        return Registration(len(pairs), inliers, None, None, f"{inliers} inliers, expected {FEWEST}")
    height, width = original.shape
    shift = corner_shift(homography, height, width)
    if not shift <= LARGEST_MOVE * np.hypot(height, width):
        return Registration(len(pairs), inliers, None, shift, f"a corner moves by {shift:.1f} pixels")
    return Registration(len(pairs), inliers, homography, shift)


def corners(homography: Float[np.ndarray, "3 3"], height: int, width: int) -> Float[np.ndarray, "4 2"]:
    """Where the outermost pixels go."""
    at = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)
    return cv2.perspectiveTransform(at[None], homography)[0]


def corner_shift(homography: Float[np.ndarray, "3 3"], height: int, width: int) -> float:
    """The largest distance that one of them goes, pixels."""
    moved = corners(homography, height, width) - corners(np.eye(3), height, width)
    return float(np.hypot(moved[:, 0], moved[:, 1]).max())


def warp(image: np.ndarray, homography: Float[np.ndarray, "3 3"], *, nearest: bool = False) -> np.ndarray:
    """An image (of O's size) moved to where O has it; 0 where nothing lands."""
    size = image.shape[1], image.shape[0]
    flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return cv2.warpPerspective(image, homography, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def covered(homography: Float[np.ndarray, "3 3"], height: int, width: int) -> Mask:
    """Pixels whose whole window of SSIM the warped image covers."""
    full = warp(np.full((height, width), 255, np.uint8), homography, nearest=True)
    kernel = np.ones((WINDOW, WINDOW), np.uint8)
    return cv2.erode(full, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0  # type: ignore[call-overload]


def clean(mask: Mask, valid: Mask) -> Mask:
    """Opened, closed, and only where there is depth."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, ELLIPSE)
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    return (cv2.morphologyEx(opened, cv2.MORPH_CLOSE, kernel) > 0) & valid


def erode(mask: Mask) -> Mask:
    """By one pixel on all sides; beyond the border counts as inside."""
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


class Component(NamedTuple):
    """The box of a connected part of a mask, and its pixels."""

    x: int
    y: int
    width: int
    height: int
    area: int


def largest_component(mask: Mask) -> Component | None:
    """Of the parts that touch at a side or corner; None of an empty mask."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if len(stats) < 2:
        return None
    return Component(*map(int, stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))]))


def crop_of(box: Component, height: int, width: int, size: int, jitter: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """(top, left) of a crop centred on a box, moved by `jitter`, within the image."""
    top = box.y + box.height // 2 - size // 2 + jitter[0]
    left = box.x + box.width // 2 - size // 2 + jitter[1]
    return max(0, min(top, height - size)), max(0, min(left, width - size))


class Fusion(NamedTuple):
    """What fusing a pair gave: the sample is (image, mask, O's depth)."""

    registration: Registration
    direct: Mask
    registered: Mask | None
    chosen: Literal["union", "registered"]
    closed: Mask  # before erosion, with depth
    mask: Mask  # after it
    image: UInt8[np.ndarray, "H W 3"]  # G, or G warped to O
    fraction: float  # of `closed`
    accepted: bool
    reason: str  # why not, in words


def union(direct: Mask, registered: Mask | None) -> Mask:
    return direct if registered is None else direct | registered


def like_original(generated: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
    """G at O's size."""
    if generated.shape[:2] == (height, width):
        return generated
    smaller = height < generated.shape[0] or width < generated.shape[1]
    return cv2.resize(generated, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def fuse(generated: UInt8[np.ndarray, "h w 3"], original: UInt8[np.ndarray, "H W 3"], valid: Mask) -> Fusion:
    """The mask of a generated image for the depth of its original; `valid` says where that depth is known."""
    height, width = original.shape[:2]
    generated = like_original(generated, height, width)
    grey, target = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (generated, original))
    direct = ssim(grey, target) > SIMILAR
    found = register(grey, target)
    registered = None
    if found.homography is not None:
        same = ssim(warp(grey, found.homography), target) > SIMILAR
        registered = same & covered(found.homography, height, width)
    moved = found.homography is not None and found.shift is not None and found.shift > MOVED
    if moved:
        assert registered is not None and found.homography is not None
        chosen, mask, image = "registered", registered, warp(generated, found.homography)
    else:
        chosen, mask, image = "union", union(direct, registered), generated
    closed = clean(mask, valid)
    fraction = float(closed.mean())
    accepted = fraction > ENOUGH
    reason = "" if accepted else f"{100 * fraction:.1f} % of the image agree, expected more than {100 * ENOUGH:.0f} %"
    if not accepted and found.reason:
        reason += f"; {found.reason}"
    return Fusion(found, direct, registered, chosen, closed, erode(closed), image, fraction, accepted, reason)
