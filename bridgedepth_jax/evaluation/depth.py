"""Metrics of depth in metres: the protocols of Eigen and of KITTI 2015 (spec `self-supervised.md` section 5).

H, W the ground truth's sides, h, w the network's. Everything in float64 on the host.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.ops.resize import Taps, bilinear_taps

NEAR, FAR = 1e-3, 80.0  # metres; predictions are clipped to them
BASELINE = 0.54  # metres, KITTI
FOCAL_OF_WIDTH = 0.58  # focal length over the image's width, nominal
GARG = ((0.40810811, 0.99189189), (0.03594771, 0.96405229))  # rows and columns of the crop, shares of the sides
FOCALS = {1242: 721.5377, 1241: 718.856, 1238: 718.3351, 1224: 707.0493}  # KITTI 2015, pixels by width
NAMES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")


def garg_crop(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that the Eigen protocol looks at."""
    rows, columns = (slice(int(low * side), int(high * side)) for (low, high), side in zip(GARG, (height, width), strict=True))
    return rows, columns


def resize_disparity(disparity: Float[np.ndarray, "h w"], height: int, width: int) -> Float[np.ndarray, "H W"]:
    """At the ground truth's size and in its pixels: bilinear, half-pixel centres, times W / w."""
    return resize_map(disparity, height, width) * (width / disparity.shape[1])


def resize_map(x: Float[np.ndarray, "h w"], height: int, width: int) -> Float[np.ndarray, "H W"]:
    """Bilinear, half-pixel centres, border clamped."""
    x = x.astype(np.float64)
    for axis, out in enumerate((height, width)):
        taps: Taps = bilinear_taps(x.shape[axis], out, align_corners=False)
        weights = taps.weights[:, :, None] if axis == 0 else taps.weights[None]
        x = (x[taps.indices] * weights).sum(1) if axis == 0 else (x[:, taps.indices] * weights).sum(2)
    return x


def depth_of(disparity: Float[np.ndarray, "H W"], focal_baseline: float) -> Float[np.ndarray, "H W"]:
    """Metres, within `NEAR` and `FAR`; a disparity of 0 or less is as far as can be."""
    depth = np.full(disparity.shape, FAR)
    np.divide(focal_baseline, disparity, out=depth, where=disparity > 0)
    return np.clip(depth, NEAR, FAR)


def measure(truth: Float[np.ndarray, "P"], depth: Float[np.ndarray, "P"]) -> dict[str, float]:
    """The seven metrics over some pixels, metres; `NAMES` names them."""
    off = truth - depth
    ratio = np.maximum(truth / depth, depth / truth)
    logs = np.log(truth) - np.log(depth)
    found = {
        "abs_rel": np.mean(np.abs(off) / truth),
        "sq_rel": np.mean(off**2 / truth),
        "rmse": np.sqrt(np.mean(off**2)),
        "rmse_log": np.sqrt(np.mean(logs**2)),
    }
    found |= {f"a{i}": np.mean(ratio < 1.25**i) for i in (1, 2, 3)}
    return {name: float(value) for name, value in found.items()}


def eigen(
    truth: Float[np.ndarray, "H W"], disparity: Float[np.ndarray, "h w"], *, focal_baseline: float | None = None
) -> dict[str, float]:
    """One image by the Eigen protocol: a scan's depth map, and a disparity in pixels of the network's width.

    Without `focal_baseline` (of the ground truth's size) the nominal 0.58 W and 0.54 m.
    """
    height, width = truth.shape
    inside = np.zeros(truth.shape, bool)
    inside[garg_crop(height, width)] = True
    return _one(truth, disparity, (truth > NEAR) & (truth < FAR) & inside, focal_baseline)


def eigen_improved(
    truth: Float[np.ndarray, "H W"], disparity: Float[np.ndarray, "h w"], *, focal_baseline: float | None = None
) -> dict[str, float]:
    """The same with an improved depth map: every pixel that has one, no crop."""
    return _one(truth, disparity, truth > 0, focal_baseline)


def _one(
    truth: np.ndarray, disparity: np.ndarray, mask: Bool[np.ndarray, "H W"], focal_baseline: float | None
) -> dict[str, float]:
    height, width = truth.shape
    if not mask.any():
        raise InputError(f"a depth map of {height} x {width} without any pixel that counts")
    scale = FOCAL_OF_WIDTH * width * BASELINE if focal_baseline is None else focal_baseline
    depth = depth_of(resize_disparity(disparity, height, width), scale)
    return measure(truth[mask].astype(np.float64), depth[mask])


def kitti_2015(
    truth: Float[np.ndarray, "H W"], disparity: Float[np.ndarray, "h w"], *, focal: float | None = None
) -> dict[str, float]:
    """One training pair of KITTI 2015, whose truth is a disparity (0: none): the seven metrics, and D1 in percent.

    InputError: a width without a known focal length.
    """
    height, width = truth.shape
    focal = focal_of_width(width) if focal is None else focal
    mask = truth > 0
    found = resize_disparity(disparity, height, width)
    depths = [depth_of(d, focal * BASELINE)[mask] for d in (truth.astype(np.float64), found)]
    error = np.abs(truth - found)[mask]
    wrong = (error >= 3) & (error >= 0.05 * truth[mask])
    return measure(*depths) | {"d1": float(100 * np.mean(wrong))}


def focal_of_width(width: int) -> float:
    """Pixels, of KITTI 2015's cameras. InputError: a width without a known focal length."""
    if width not in FOCALS:
        raise InputError(f"an image {width} pixels wide, expected a width of KITTI 2015: {', '.join(map(str, FOCALS))}")
    return FOCALS[width]


def average(values: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Means over images."""
    rows = list(values)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def post_process(disparity: Float[np.ndarray, "h w"], flipped: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Both passes of an image and of its mirror (mirrored back): each alone near the border where the other cannot see,
    their mean elsewhere (monodepth)."""
    width = disparity.shape[1]
    disparity, flipped = disparity.astype(np.float64), flipped.astype(np.float64)
    left = 1 - np.clip(20 * (np.linspace(0, 1, width) - 0.05), 0, 1)[None]
    right = left[:, ::-1]
    return right * disparity + left * flipped + (1 - left - right) * (disparity + flipped) / 2
