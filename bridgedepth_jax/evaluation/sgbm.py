"""Semi-global matching as the floor to compare with: OpenCV's StereoSGBM with fixed, published parameters.

Hirschmueller, "Stereo Processing by Semiglobal Matching and Mutual Information", TPAMI 2008; eight directions (MODE_HH),
block 5, P1/P2 600/2400, uniqueness 10 %, speckles 100 pixels within 2, left-right check within 1. Letters: H W image.
"""

import cv2
import numpy as np


def sgbm(left: np.ndarray, right: np.ndarray, max_disparity: float) -> np.ndarray:
    """Disparity (H, W) float32 in pixels, NaN where the matcher gives no answer.

    Args:
      left, right: (H, W, 3) uint8.
      max_disparity: the largest disparity to search, in pixels; rounded up to a multiple of 16.
    """
    matcher = cv2.StereoSGBM.create(
        minDisparity=0,
        numDisparities=max(16, int(np.ceil(max_disparity / 16)) * 16),
        blockSize=5,
        P1=600,
        P2=2400,
        disp12MaxDiff=1,
        uniquenessRatio=10,
        speckleWindowSize=100,
        speckleRange=2,
        mode=cv2.STEREO_SGBM_MODE_HH,
    )
    disparity = matcher.compute(left, right).astype(np.float32) / 16
    return np.where(disparity > 0, disparity, np.float32(np.nan))


def fill_rows(disparity: np.ndarray) -> np.ndarray:
    """Linear interpolation along each row across NaN, the nearest answer beyond the first and last; 0 in an empty row."""
    filled = np.zeros_like(disparity)
    columns = np.arange(disparity.shape[1])
    for row, values in zip(filled, disparity, strict=True):
        known = np.isfinite(values)
        if known.any():
            row[:] = np.interp(columns, columns[known], values[known])
    return filled
