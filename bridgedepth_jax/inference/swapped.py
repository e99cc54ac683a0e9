"""Are left and right swapped? A test that needs no second run of the network.

In a swapped pair the matches lie at x + d, where no disparity >= 0 finds them. So semi-global matching on thumbnails, once in
the order given and once in the other, tells: whichever order is right, its warped image fits clearly better.
"""

import cv2
import numpy as np

WIDTH = 160  # of the thumbnails
# Error of the swapped order over that of the order given, on five real pairs: 2.5 to 3.5, and 0.29 to 0.40 when swapped.
RATIO = 0.75
MIN_ERROR = 2.0  # grey levels; below that the order given explains the images anyway


def looks_swapped(left: np.ndarray, right: np.ndarray, disparity: np.ndarray) -> bool:
    """True when the swapped order explains the images clearly better than `disparity`, and than any match in the order given.

    Args:
      left, right: (H, W, 3) RGB, uint8 or float in 0..255.
      disparity: (H, W) pixels, what was predicted for the order given.
    """
    height, width = disparity.shape
    size = min(width, WIDTH), max(16, round(height * min(1, WIDTH / width)))
    small = cv2.resize(disparity.astype(np.float32), size, interpolation=cv2.INTER_AREA) * (size[0] / width)
    left, right = (cv2.resize(_grey(image), size, interpolation=cv2.INTER_AREA) for image in (left, right))
    predicted, given = _error(left, right, small), _error(left, right, _match(left, right))
    swapped = _error(right, left, _match(right, left))
    return min(predicted, given) > MIN_ERROR and swapped < RATIO * min(predicted, given)


def _grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.clip(image, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)


def _match(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Semi-global matching, dense: (h, w) uint8 twice -> (h, w) pixels, up to a quarter of the width."""
    levels = -(-left.shape[1] // 64) * 16
    matcher = cv2.StereoSGBM.create(0, levels, blockSize=5, P1=200, P2=800, mode=cv2.STEREO_SGBM_MODE_HH)
    # OpenCV leaves out the first `levels` columns, so it gets that many more.
    wide = (cv2.copyMakeBorder(image, 0, 0, levels, 0, cv2.BORDER_REPLICATE) for image in (left, right))
    return np.maximum(matcher.compute(*wide)[:, levels:] / np.float32(16), 0)


def _error(left: np.ndarray, right: np.ndarray, disparity: np.ndarray) -> float:
    """Mean |left(x) - right(x - d)| in grey levels."""
    y, x = np.mgrid[: left.shape[0], : left.shape[1]].astype(np.float32)
    warped = cv2.remap(right, x - disparity, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(warped.astype(np.float32) - left).mean())
