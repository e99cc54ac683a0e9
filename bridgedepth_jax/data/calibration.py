"""Calibration files of the data sets: a reader a format, for the table of data sets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.geometry import Calibration

_CAMERAS = (("P_rect_02", "P_rect_03"), ("P2", "P3"))  # left and right colour camera, by year


def kitti_calibration(path: Path) -> Calibration:
    """Of KITTI's rectified colour cameras, from calib/NNNNNN.txt (2012) or calib_cam_to_cam/NNNNNN.txt (2015).

    From the 3x4 projection matrices of the file (pixels and metres). InputError where it has none of the names.
    """
    try:
        lines = [line.partition(":") for line in path.read_text().splitlines()]
        entries = {name.strip(): values.split() for name, _, values in lines}
        names = next(names for names in _CAMERAS if set(names) <= set(entries))
        left, right = (np.array(entries[name], np.float64).reshape(3, 4) for name in names)
    except (OSError, UnicodeDecodeError, StopIteration, ValueError) as error:
        expected = " or ".join(" and ".join(names) for names in _CAMERAS)
        raise InputError(f"{path}: no calibration of KITTI ({error or type(error).__name__}), expected {expected}") from None
    fx = float(left[0, 0])
    baseline = float(left[0, 3] - right[0, 3]) / fx if fx else 0.0
    doffs = float(right[0, 2] - left[0, 2])
    return Calibration(fx, float(left[1, 1]), float(left[0, 2]), float(left[1, 2]), baseline, doffs)


READERS: dict[str, Callable[[Path], Calibration]] = {"kitti": kitti_calibration, "middlebury": Calibration.from_middlebury}
