"""The real pair that comes with scikit-image, and a disparity beside its ground truth and semi-global matching.

Letters: H W size of the images. Disparities in pixels; ground truth is NaN where unknown.
"""

from typing import NamedTuple

import cv2
import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.sgbm import fill_rows, sgbm
from bridgedepth_jax.geometry import Calibration
from bridgedepth_jax.inference.run import LoadedPair
from bridgedepth_jax.visualize import colorize, error_colors

# As the documentation of `skimage.data.stereo_motorcycle` has it; metres.
MOTORCYCLE = Calibration(994.978, 994.978, 311.193, 254.877, 0.193001, 31.086, (741, 500))


JUMP, NEAR = 2.0, 5  # pixels: an edge is a larger step of the true disparity between neighbours; how near a pixel is to one


class Errors(NamedTuple):
    """Over all pixels with ground truth, occluded ones too."""

    bad2: float  # per cent of pixels that are wrong by more than 2 pixels
    epe: float  # mean error in pixels


def motorcycle() -> tuple[LoadedPair, np.ndarray]:
    """The pair "motorcycle" of Middlebury 2014 at a quarter of its size, and its disparity (H, W) float32.

    Raises InputError: scikit-image is not installed.
    """
    try:
        from skimage.data import stereo_motorcycle
    except ImportError:
        raise InputError(
            "the sample pair comes with scikit-image, which is not installed: pip install 'bridgedepth-jax[demo]',"
            " or give --left and --right"
        ) from None
    left, right, truth = stereo_motorcycle()
    truth = np.where(np.isfinite(truth), truth, np.nan).astype(np.float32)
    return LoadedPair("motorcycle", left, right, ("left", "right"), MOTORCYCLE), truth


def errors(disparity: np.ndarray, truth: np.ndarray) -> Errors:
    """Of (H, W) against ground truth (H, W)."""
    known = np.isfinite(truth)
    error = np.abs(disparity - truth)[known]
    return Errors(100 * float(np.mean(error > 2)), float(np.mean(error)))


def near_edges(truth: np.ndarray) -> np.ndarray:
    """Known pixels within NEAR pixels (in rows and columns) of a depth edge, (H, W) bool. Holes of the truth are no edges."""
    edges = np.zeros(truth.shape, np.uint8)  # the pixels on either side
    across, down = (np.abs(np.diff(truth, axis=axis)) > JUMP for axis in (1, 0))
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return (cv2.dilate(edges, np.ones((2 * NEAR + 1,) * 2, np.uint8)) > 0) & np.isfinite(truth)


def filled_sgbm(pair: LoadedPair, truth: np.ndarray) -> np.ndarray:
    """Semi-global matching (H, W), holes filled, searching up to the pair's largest true disparity."""
    return fill_rows(sgbm(pair.left, pair.right, float(np.nanmax(truth))))


def overview(left: np.ndarray, disparity: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
    """Left image, disparity and, with ground truth, KITTI's error colours side by side: (H, 2 W or 3 W, 3) uint8."""
    columns = [left]
    if truth is None:
        columns.append(colorize(disparity))
    else:
        columns += [colorize(disparity, float(np.nanmax(truth))), error_colors(disparity, truth)]
    return np.concatenate(columns, axis=1)
