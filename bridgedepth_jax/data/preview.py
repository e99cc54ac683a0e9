"""Contact sheets: what a data set looks like, and whether its disparity is right."""

from collections.abc import Iterable

import cv2
import numpy as np

from bridgedepth_jax.data.pairs import Sample
from bridgedepth_jax.visualize import colorize

_GAP = 4
_ERROR_GAIN = 4  # a difference of 64 grey levels is white


def warped_error(sample: Sample) -> np.ndarray:
    """float32 (H, W): mean absolute colour difference between the left view and the right one at the match.

    0 where nothing can be compared: not valid, matched outside the image, or known to be occluded.
    """
    disparity, left = sample["disparity"], sample["left"]
    height, width = disparity.shape
    x = np.arange(width, dtype=np.float32)[None] - disparity
    y = np.repeat(np.arange(height, dtype=np.float32)[:, None], width, 1)
    warped = cv2.remap(sample["right"], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    comparable = sample["valid"] & (x >= 0) & (x <= width - 1) & sample.get("nonocc", np.ones_like(sample["valid"]))
    return np.abs(warped.astype(np.float32) - left).mean(2) * comparable


def contact_sheet(samples: Iterable[Sample], width: int = 320) -> np.ndarray:
    """uint8 (rows, columns, 3) RGB: one sample a row: left, right, disparity, masks, warped error; each `width` pixels wide.

    Masks: white valid and visible in both views, grey valid but occluded, black not valid; darker where the set trusts its
    disparity less. The right view is red where it was made up. Error: white is 64 grey levels.
    """
    return np.concatenate([_row(sample, width) for sample in samples])


def _row(sample: Sample, width: int) -> np.ndarray:
    valid = sample["valid"]
    masks = np.where(valid, np.where(sample.get("nonocc", valid), 255, 110), 0).astype(np.uint8)
    masks = (masks * sample.get("confidence", np.float32(1))).astype(np.uint8)
    right = sample["right"].copy()
    if "inpaint" in sample:
        right[sample["inpaint"]] = right[sample["inpaint"]] // 2 + np.array([127, 0, 0], np.uint8)
    error = np.clip(warped_error(sample) * _ERROR_GAIN, 0, 255).astype(np.uint8)
    pictures = (sample["left"], right, colorize(sample["disparity"], valid=valid), masks, error)
    height = max(1, round(width * valid.shape[0] / valid.shape[1]))
    return np.concatenate([_cell(picture, height, width) for picture in pictures], axis=1)


def _cell(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    colours = picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    how = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_NEAREST
    small = cv2.resize(colours, (width, height), interpolation=how)
    return cv2.copyMakeBorder(small, 0, _GAP, 0, _GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))
