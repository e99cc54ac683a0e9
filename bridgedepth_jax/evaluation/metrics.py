"""Metrics of a disparity, as (sum, count) per image (data specification, section Metrics).

Pure functions of arrays with any leading axes; they run under `jax.jit`, on padded images (padding has a false mask) and in
float32 or, under `jax_enable_x64`, in float64. Letters: H W image, h8 = H/8, w8 = W/8, N proposals. Disparities in pixels of
the image. `sum / count` is the value of an image; a count of 0 means that the image has none.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

THRESHOLDS = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
QUANTILES = {"a50": 0.5, "a90": 0.9, "a99": 0.99}
SQUARED = ("rmse", "depth_rmse")  # their sums are of squares: the value is the root of sum / count
PER_IMAGE = tuple(QUANTILES)  # order statistics: there is no sum over pixels, count is 1
MIN_DISPARITY = 0.1  # pixels; a smaller predicted disparity is set to this before it becomes a depth

SumCount = tuple[jax.Array, jax.Array]
_BLOCK = 32


def pixel_sum(values: Float[Array, "*#b H W"]) -> Float[Array, " *b"]:
    """Sum over the last two axes in a fixed tree of short sums, so that float32 keeps 1e-6 on images of any size."""
    flat = values.reshape(*values.shape[:-2], -1)
    while flat.shape[-1] > 1:
        flat = jnp.pad(flat, [(0, 0)] * (flat.ndim - 1) + [(0, -flat.shape[-1] % _BLOCK)])
        flat = flat.reshape(*flat.shape[:-1], -1, _BLOCK).sum(-1)
    return flat[..., 0]


def masked(values: Array, mask: Bool[Array, "*#b H W"]) -> SumCount:
    """Sum of `values` where `mask`, and the number of such pixels (int32)."""
    return pixel_sum(jnp.where(mask, values, 0)), mask.sum((-2, -1), dtype=jnp.int32)


def percent(hit: Bool[Array, "*#b H W"], mask: Bool[Array, "*#b H W"]) -> SumCount:
    """A hundred times the pixels of `mask` that are hit (int32, exact), and how many there are: in per cent once divided."""
    if mask.shape[-2] * mask.shape[-1] > 2**31 // 100:
        raise ValueError(f"image of shape {mask.shape[-2:]}, expected at most {2**31 // 100} pixels")
    return (hit & mask).sum((-2, -1), dtype=jnp.int32) * 100, mask.sum((-2, -1), dtype=jnp.int32)


def epe(prediction: Array, gt: Array, mask: Array) -> SumCount:
    """End-point error: |d - gt| in pixels."""
    return masked(jnp.abs(prediction - gt), mask)


def rmse(prediction: Array, gt: Array, mask: Array) -> SumCount:
    """Sum of (d - gt)^2; the root of sum / count is the RMSE in pixels."""
    return masked(jnp.square(prediction - gt), mask)


def d1(prediction: Array, gt: Array, mask: Array) -> SumCount:
    """KITTI's outliers: error > 3 px and > 5 % of gt, in per cent."""
    error = jnp.abs(prediction - gt)
    return percent((error > 3) & (error > 0.05 * gt), mask)


def bad(prediction: Array, gt: Array, mask: Array, threshold: float) -> SumCount:
    """Error > threshold pixels, in per cent."""
    return percent(jnp.abs(prediction - gt) > threshold, mask)


def density(answered: Bool[Array, "*#b H W"], mask: Array) -> SumCount:
    """Pixels with an answer, in per cent of those with ground truth."""
    return percent(answered, mask)


def error_quantiles(error: Array, masks: Bool[Array, "*b M H W"], levels: Sequence[float]) -> list[SumCount]:
    """Quantiles of the error (*b, H, W) over each of M masks, linear between order statistics (NumPy's default).

    For each level the value, (*b, M), and a count of 1 or 0. One sort serves all masks: their flags are sorted along.
    """
    shape = (*error.shape[:-2], -1)
    bits = range(masks.shape[-3])
    flags = jnp.stack([masks[..., bit, :, :].astype(jnp.int32) << bit for bit in bits]).sum(0)
    ordered, flags = jax.lax.sort((jnp.where(flags != 0, error, jnp.inf).reshape(shape), flags.reshape(shape)), num_keys=1)
    rank = jnp.cumsum(jnp.stack([(flags >> bit) & 1 for bit in bits], -2), -1)  # (*b, M, H*W)
    count = rank[..., -1]
    last = jnp.maximum(count - 1, 0)

    def statistic(position):  # the `position`-th smallest error of each mask
        index = (rank <= position[..., None]).sum(-1, dtype=jnp.int32)
        return jnp.take_along_axis(ordered, jnp.minimum(index, ordered.shape[-1] - 1), -1)

    result = []
    for level in levels:
        position = last * jnp.asarray(level, ordered.dtype)
        below = jnp.floor(position).astype(jnp.int32)
        low, high = statistic(below), statistic(jnp.minimum(below + 1, last))
        value = low + (high - low) * (position - below)
        result.append((jnp.where(count > 0, value, 0), (count > 0).astype(jnp.int32)))
    return result


def proposals(proposal: Float[Array, "*b h8 w8 N"], gt: Float[Array, "*#b H W"], max_disp: float | None) -> dict[str, SumCount]:
    """Distance of the ground truth to the nearest proposal of its 1/8 cell, and the per cent within 3 and 8 pixels.

    Args:
      proposal: in 1/8 pixels, of the padded image.
      gt: padded as the input was, its edge repeated; 0 = none. Counted are 0 < gt < max_disp.
    """
    h8, w8, n = proposal.shape[-3:]
    cells = gt.reshape(*gt.shape[:-2], h8, 8, w8, 8, 1)
    candidates = proposal.reshape(*proposal.shape[:-3], h8, 1, w8, 1, n) * 8
    error = jnp.abs(cells - candidates).min(-1).reshape(gt.shape)
    mask = (gt > 0) & _below(gt, max_disp)
    return {
        "prop_epe": masked(error, mask),
        "prop_recall_3": percent(error < 3, mask),
        "prop_recall_8": percent(error < 8, mask),
    }


def depths(prediction: Array, gt: Array, mask: Array, focal_baseline: Array, doffs: Array) -> dict[str, SumCount]:
    """Depth errors: AbsRel (ratio), RMSE (metres), and per cent of pixels within 1.25, 1.25^2, 1.25^3.

    Args:
      prediction, gt: (*b, H, W) pixels; disparity + doffs below MIN_DISPARITY is set to that in the prediction.
      focal_baseline: (*b) focal length in pixels times baseline in metres; 0 = no calibration, all counts 0.
      doffs: (*b) difference of the principal points in pixels: depth = focal_baseline / (disparity + doffs).
    """
    scale, shift = focal_baseline[..., None, None], doffs[..., None, None]
    mask = mask & (scale > 0) & (gt + shift > 0)
    predicted = scale / jnp.maximum(prediction + shift, MIN_DISPARITY)
    true = scale / jnp.where(mask, gt + shift, 1)
    true = jnp.where(mask, true, 1)
    ratio = jnp.maximum(predicted / true, true / jnp.where(predicted > 0, predicted, 1))
    return {
        "depth_absrel": masked(jnp.abs(predicted - true) / true, mask),
        "depth_rmse": masked(jnp.square(predicted - true), mask),
        "depth_delta1": percent(ratio < 1.25, mask),
        "depth_delta2": percent(ratio < 1.25**2, mask),
        "depth_delta3": percent(ratio < 1.25**3, mask),
    }


def all_metrics(
    prediction: Array,
    gt: Array,
    masks: Mapping[str, Array],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    camera: tuple[Array, Array] | None = None,
) -> dict[str, dict[str, SumCount]]:
    """Every metric over each mask: {mask: {metric: (sum, count)}}.

    Args:
      prediction: (*b, H, W) pixels; not finite = no answer, counted by `density` and by nothing else.
      gt: (*b, H, W) pixels, finite where any mask is true.
      camera: (*b) twice, `focal_baseline` and `doffs` of `depths`; None without depth metrics.
    """
    answered = jnp.isfinite(prediction)[..., None, :, :]
    everywhere = jnp.stack(list(masks.values()), -3)  # all masks as one axis: a short program
    over = everywhere & answered
    prediction, gt = (jnp.where(answered, x[..., None, :, :], 0) for x in (jnp.asarray(prediction), jnp.asarray(gt)))
    row = {"epe": epe(prediction, gt, over), "rmse": rmse(prediction, gt, over), "d1": d1(prediction, gt, over)}
    row |= {f"bad-{t:g}": bad(prediction, gt, over, t) for t in thresholds}
    row |= dict(
        zip(QUANTILES, error_quantiles(jnp.abs(prediction - gt)[..., 0, :, :], over, tuple(QUANTILES.values())), strict=True)
    )
    row["density"] = density(jnp.broadcast_to(answered, over.shape), everywhere)
    if camera is not None:
        row |= depths(prediction, gt, over, *(x[..., None] for x in camera))
    return {name: {k: (s[..., i], n[..., i]) for k, (s, n) in row.items()} for i, name in enumerate(masks)}


def _below(gt: Array, max_disp: float | None) -> Array:
    return gt < (jnp.inf if max_disp is None else max_disp)
