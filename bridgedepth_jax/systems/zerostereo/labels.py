"""From a monocular depth map to a disparity label and its confidence, in numpy (paper section 3; spec `zerostereo.md` 1).

H, W the photograph's sides. Depth here is Depth Anything's output: larger is nearer.
"""

import cv2
import numpy as np
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt

STEEP = 3.0  # gradient beyond which a pixel takes another one's disparity


def normalise(depth: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Depth to 0..1 over the image, in float64. ValueError for a depth that is the same everywhere, or not finite."""
    depth = depth.astype(np.float64)
    low, high = depth.min(), depth.max()
    if not high > low or not np.isfinite(high - low):  # NaN fails the first
        raise ValueError(f"depth is {low:.6g} to {high:.6g}, expected two finite values or more")
    return (depth - low) / (high - low)


def confidence(depth: Float[np.ndarray, "H W"], mirrored: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Trust in a depth map, 0..1, float64: how well the mirrored photograph's depth, mirrored back, agrees with it.

    Training-Guided Confidence of the paper. In every image some pixel has 0 and some 1; 1 everywhere where all agree alike.
    """
    agreement = 1 - np.abs(normalise(depth) - normalise(mirrored))
    low, high = agreement.min(), agreement.max()
    return (agreement - low) / (high - low) if high > low else np.ones_like(agreement)


def scale_of(choice: float, place: float) -> float:
    """Share of the image's width that the nearest disparity has, for two uniform numbers in 0..1 (ADS).

    Adaptive Disparity Selection: mostly 0.05 to 0.15, one in ten below, one in ten above up to 0.2.
    """
    if choice < 0.1:
        return 0.05 * place
    if choice > 0.9:
        return 0.15 + 0.05 * place
    return 0.05 + 0.1 * place


def gradient(disparity: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """A step of height h gives 0.707 h on both sides of it, a ramp of slope 1 gives 1.414; float64."""
    d = np.pad(disparity.astype(np.float64), 1, mode="symmetric")
    along_x, along_y = d[:, 2:] - d[:, :-2], d[2:] - d[:-2]
    gx = (along_x[:-2] + 2 * along_x[1:-1] + along_x[2:]) / 4
    gy = (along_y[:, :-2] + 2 * along_y[:, 1:-1] + along_y[:, 2:]) / 4
    return np.sqrt((gx * gx + gy * gy) / 2)


def dilate(disparity: Float[np.ndarray, "H W"], times: int = 1) -> Float[np.ndarray, "H W"]:
    """Grey dilation by the 3x3 cross."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return cv2.dilate(disparity, cross, iterations=times) if times else disparity


def sharpen(disparity: Float[np.ndarray, "H W"], times: int = 1) -> Float[np.ndarray, "H W"]:
    """Depth edges as steps: dilated `times`, then steep pixels take the value of the nearest one that is not."""
    disparity = dilate(disparity, times)
    steep = gradient(disparity) > STEEP
    if steep.all() or not steep.any():
        return disparity
    rows, columns = distance_transform_edt(steep, return_distances=False, return_indices=True)  # type: ignore[misc]
    return disparity[rows, columns]
