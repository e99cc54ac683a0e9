"""Pictures of disparities: Turbo colours, and KITTI's logarithmic error colours. Plain numpy and OpenCV.

Letters: H W size of the image. Colours are uint8 RGB.
"""

import cv2
import numpy as np

# KITTI 2015 stereo: error relative to the outlier threshold (3 px and 5 %), and the colour up to that value.
_ERROR_LIMITS = np.array([0.0625, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16])
_ERROR_COLORS = np.array(
    [
        (49, 54, 149), (69, 117, 180), (116, 173, 209), (171, 217, 233), (224, 243, 248),
        (254, 224, 144), (253, 174, 97), (244, 109, 67), (215, 48, 39), (165, 0, 38),
    ],
    np.uint8,
)  # fmt: skip


def colorize(disparity: np.ndarray, max_disparity: float | None = None, valid: np.ndarray | None = None) -> np.ndarray:
    """Turbo colours, from 0 (dark blue) to `max_disparity` (dark red); what lies outside takes the end's colour.

    Args:
      disparity: (H, W) in any unit; values that are not finite count as invalid.
      max_disparity: the upper end in the same unit; None is the largest valid value of this image.
      valid: (H, W) bool, or None where all finite values are valid.

    Returns:
      (H, W, 3) uint8 RGB, invalid pixels black.

    Raises:
      ValueError: wrong shapes, or a `max_disparity` that is not a positive finite number.
    """
    disparity = np.asarray(disparity, np.float32)
    if disparity.ndim != 2:
        raise ValueError(f"disparity of shape {disparity.shape}, expected (H, W)")
    if max_disparity is not None and not (np.isfinite(max_disparity) and max_disparity > 0):
        raise ValueError(f"max_disparity {max_disparity}, expected a positive number")
    shown = np.isfinite(disparity) & _mask(valid, disparity)
    if max_disparity is None:
        max_disparity = float(disparity[shown].max(initial=0)) or 1.0
    level = np.clip(np.where(shown, disparity, 0) / max_disparity, 0, 1)
    color = cv2.applyColorMap(np.rint(level * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(shown[..., None], color, np.uint8(0))


def error_colors(prediction: np.ndarray, gt: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """KITTI's error colours: blue is right, red is wrong, the change from one to the other is the 3 px and 5 % outlier limit.

    Args:
      prediction, gt: (H, W) disparities in pixels. A prediction that is not finite has the largest error.
      valid: (H, W) bool, where there is ground truth; None where `gt` is finite and positive.

    Returns:
      (H, W, 3) uint8 RGB, pixels without ground truth black.

    Raises:
      ValueError: shapes that differ.
    """
    prediction, gt = np.asarray(prediction, np.float32), np.asarray(gt, np.float32)
    if prediction.shape != gt.shape or gt.ndim != 2:
        raise ValueError(
            f"prediction of shape {prediction.shape} and ground truth of shape {gt.shape}, expected the same (H, W)"
        )
    shown = np.isfinite(gt) & (_mask(valid, gt) if valid is not None else gt > 0)
    truth = np.where(shown, gt, 1)
    error = np.abs(np.where(np.isfinite(prediction), prediction, np.inf) - truth)
    relative = np.minimum(error / 3, error / np.maximum(0.05 * np.abs(truth), 1e-9))
    color = _ERROR_COLORS[np.searchsorted(_ERROR_LIMITS, relative, side="right")]
    return np.where(shown[..., None], color, np.uint8(0))


def _mask(valid: np.ndarray | None, like: np.ndarray) -> np.ndarray:
    if valid is None:
        return np.ones(like.shape, bool)
    valid = np.asarray(valid)
    if valid.shape != like.shape:
        raise ValueError(f"valid of shape {valid.shape}, expected {like.shape}")
    return valid.astype(bool)
