"""The losses that need no ground truth (paper section 3; spec `self-supervised.md` section 3): functions of arrays.

B batch, H W an image's sides, h w those of a scale, k its number (1/2^k of the resolution). Disparities in pixels of the
image's full width, d >= 0 in front of the cameras; images RGB in 0..1. Everything is a sum over rows, divided by a number of
the global batch, so the parts of a batch add up to the whole.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from bridgedepth_jax.ops.resize import resize_bilinear
from bridgedepth_jax.ops.sampling import sample_along_rows
from bridgedepth_jax.ops.ssim import ssim
from bridgedepth_jax.ops.warp import match_columns, warp_rows

SSIM_SHARE = 0.85  # the rest is L1
SSIM: dict[str, Any] = dict(window=3, c1=0.01**2, c2=0.03**2)
SLACK = 0.5  # pixels by which two views may disagree whatever the disparity (Eq. 4)
SMOOTHNESS = 0.1  # weight (section 4.1)


class Output(NamedTuple):
    """One of a network's disparities, and its share of the loss."""

    disparity: Float[Array, "B _h _w"]
    weight: float


def dssim(a: Float[Array, "B H W C"], b: Float[Array, "B H W C"]) -> Float[Array, "B H W"]:
    """(1 - SSIM) / 2 in 0..1, mean over channels."""
    return jnp.mean(jnp.clip((1 - ssim(a, b, **SSIM)) / 2, 0, 1), axis=-1)


def photometric(image: Float[Array, "B H W C"], warped: Float[Array, "B H W C"]) -> Float[Array, "B H W"]:
    """How unlike two images are (Eq. 1). Masks come after: SSIM sees every pixel."""
    return SSIM_SHARE * dssim(image, warped) + (1 - SSIM_SHARE) * jnp.mean(jnp.abs(image - warped), axis=-1)


def out_of_view(disparity: Float[Array, "B H W"], *, right: bool = False) -> Bool[Array, "B H W"]:
    """Pixels whose match lies beside the other image."""
    x = match_columns(disparity, right=right)
    return (x < 0) | (x > disparity.shape[2] - 1)


def occlusion(
    disparity: Float[Array, "B H W"], other: Float[Array, "B H W"], alpha: float, *, right: bool = False
) -> Bool[Array, "B H W"]:
    """Pixels that the other view does not see, by its own disparity `other` (Eq. 4): it disagrees, or the match is outside.

    With `right`, `disparity` is of the right view and `other` of the left one. No gradient.
    """
    disparity, other = lax.stop_gradient((disparity, other))
    x = jnp.clip(match_columns(disparity, right=right), 0, disparity.shape[2] - 1)
    there = sample_along_rows(other[..., None], x[..., None])[..., 0, 0]
    apart = jnp.abs(disparity - there) >= alpha * (jnp.abs(disparity) + jnp.abs(there)) + SLACK
    return apart | out_of_view(disparity, right=right)


def log_l1(disparity: Float[Array, "B H W"], target: Float[Array, "B H W"]) -> Float[Array, "B H W"]:
    """log(1 + |target - disparity|), pixels (Eq. 6)."""
    return jnp.log1p(jnp.abs(target - disparity))


def fuse(stereo: Float[Array, "B H W"], mono: Float[Array, "B H W"], occluded: Bool[Array, "B H W"]) -> Float[Array, "B H W"]:
    """The stereo network's disparity where both cameras see, the monocular one's elsewhere (Eq. 7)."""
    return jnp.where(occluded, mono, stereo)


def smoothness(disparity: Float[Array, "B H W"], image: Float[Array, "B H W C"], rows: int) -> Array:
    """Edge-aware smoothness of the disparity over its image's mean (Eq. 2), as these rows' share of the mean over `rows`.

    The mean is that of |d|, since a network without a sign may start near 0; the gradient goes through it.
    """
    n = disparity / (jnp.mean(jnp.abs(disparity), axis=(1, 2), keepdims=True) + 1e-7)
    total = jnp.zeros((), disparity.dtype)
    for axis in (1, 2):
        edge = jnp.exp(-jnp.mean(jnp.abs(jnp.diff(image, axis=axis)), axis=-1))
        step = jnp.abs(jnp.diff(n, axis=axis)) * edge
        total = total + jnp.sum(step) / (rows * step.shape[1] * step.shape[2])
    return total


def masked_mean(values: Float[Array, "B H W"], occluded: Bool[Array, "B H W"], visible: Array) -> Array:
    """Sum over pixels that are not occluded over their number in the global batch, `visible`; 0 without any."""
    return jnp.sum(jnp.where(occluded, 0, values)) / jnp.maximum(visible, 1)


def mean(values: Float[Array, "B H W"], rows: int) -> Array:
    """These rows' share of the mean over all pixels of `rows` images."""
    return jnp.sum(values) / (rows * values.shape[1] * values.shape[2])


def average_blocks(image: Float[Array, "B H W C"], size: int) -> Float[Array, "B h w C"]:
    """Means over size x size pixels."""
    b, h, w, c = image.shape
    return jnp.mean(image.reshape(b, h // size, size, w // size, size, c), axis=(2, 4))


class Found(NamedTuple):
    """What a search of the images found."""

    disparity: Float[Array, "B H W"]  # pixels, the best match
    doubtful: Bool[Array, "B H W"]  # left and right do not find each other


WINDOW = 5  # a side, over which the search sums its costs
AGREE = 1.0  # levels within which left and right find each other


def search(left: Float[Array, "B H W C"], right: Float[Array, "B H W C"], largest: float, scale: int) -> Found:
    """The cheapest of all disparities up to `largest` by the photometric map, its mean over `WINDOW`, and a parabola.

    On images averaged over `scale` pixels. No gradient. It asks nothing of a network, so it starts one that cannot match yet.
    """
    height, width = left.shape[1:3]
    small, other = (average_blocks(lax.stop_gradient(image), scale) for image in (left, right))
    columns, levels = small.shape[2], min(int(largest / scale) + 1, small.shape[2])

    def cost(level: Array) -> Array:
        moved = jnp.roll(other, level, axis=2)  # what comes in from the other end is out of view
        seen = lax.broadcasted_iota(jnp.int32, small.shape[:3], 2) >= level
        pads = ((0, 0), (WINDOW // 2,) * 2, (WINDOW // 2,) * 2)
        padded = jnp.pad(photometric(small, moved), pads, mode="edge")
        mean = lax.reduce_window(padded, 0.0, lax.add, (1, WINDOW, WINDOW), (1, 1, 1), "VALID") / WINDOW**2
        return jnp.where(seen, mean, jnp.inf)

    costs = lax.map(cost, jnp.arange(levels))  # (D, B, h, w)
    best = jnp.argmin(costs, axis=0)
    at = lambda level: jnp.take_along_axis(costs, jnp.clip(level, 0, levels - 1)[None], axis=0)[0]
    least, before, after = at(best), at(best - 1), at(best + 1)
    curve = before - 2 * least + after
    inner = (best > 0) & (best < levels - 1) & jnp.isfinite(curve) & (curve > 1e-6)
    fraction = jnp.where(inner, 0.5 * (before - after) / jnp.where(inner, curve, 1), 0)

    # A right pixel's cost at a level is that of the left pixel so many columns to its right.
    from_right = jnp.argmin(lax.map(lambda pair: _shifted_left(pair[0], pair[1]), (costs, jnp.arange(levels))), axis=0)
    match = lax.broadcasted_iota(best.dtype, best.shape, 2) - best
    returned = jnp.take_along_axis(from_right, jnp.clip(match, 0, columns - 1), axis=2)
    doubtful = (jnp.abs(returned - best) > AGREE) | (match < 0)
    up = lambda x: jnp.repeat(jnp.repeat(x, scale, axis=1), scale, axis=2)[:, :height, :width]
    disparity = resize_bilinear(scale * (best + fraction)[..., None], (height, width), align_corners=False)[..., 0]
    return Found(lax.stop_gradient(disparity.astype(left.dtype)), up(doubtful))


def _shifted_left(cost: Array, level: Array) -> Array:
    outside = lax.broadcasted_iota(jnp.int32, cost.shape, 2) >= cost.shape[2] - level
    return jnp.where(outside, jnp.inf, jnp.roll(cost, -level, axis=2))


class Matching(NamedTuple):
    """Of a level of a network from coarse to fine: how alike a left pixel is to right ones around its estimate."""

    correlation: Float[Array, "B _h _w K"]  # channel j: at the estimate plus j - (K - 1) / 2
    estimate: Float[Array, "B _h _w"]  # pixels of the level


SHARPNESS = 10.0  # of the softmax over a correlation, whose values are within -1..1 where features are normalised


def matching_loss(level: Matching, found: Found, across: Callable[[str, Array], Array]) -> Array:
    """Cross entropy of a level's correlation with where the search found the match: features learn to tell pixels apart.

    Over cells without a doubtful pixel whose match is within the level's range. `across` sums over the global batch.
    """
    scores, channels = level.correlation, level.correlation.shape[-1]
    size = found.disparity.shape[2] // scores.shape[2]
    wanted = average_blocks(found.disparity[..., None], size)[..., 0] / size - lax.stop_gradient(level.estimate)
    certain = average_blocks(found.doubtful[..., None].astype(scores.dtype), size)[..., 0] == 0
    position = wanted + (channels - 1) / 2
    inside = certain & (position >= 0) & (position <= channels - 1)
    index = lax.broadcasted_iota(scores.dtype, scores.shape, 3)
    label = jax.nn.relu(1 - jnp.abs(position[..., None] - index))  # its linear spread over the two nearest
    error = -jnp.sum(label * jax.nn.log_softmax(SHARPNESS * scores, axis=-1), axis=-1)
    return masked_mean(error, ~inside, across(f"matched_{size}", jnp.sum(inside, dtype=scores.dtype)))


class Total(NamedTuple):
    """A loss and what it is made of, weighted over the scales."""

    loss: Array
    data: Array
    smoothness: Array


def over_scales(
    outputs: Sequence[Output],
    image: Float[Array, "B H W C"],
    data: Callable[[Array], Array],
    rows: int,
    weight: float = SMOOTHNESS,
    *,
    pyramid: bool = False,
) -> Total:
    """Sum over scales of weight_k (data(d_k at full size) + weight smoothness(d_k) / 2^k), smoothness at the scale's size.

    With `pyramid`, `data` gets d_k as it is, in pixels of the full width.
    """
    height, width = image.shape[1:3]
    found, smooth = jnp.zeros((), image.dtype), jnp.zeros((), image.dtype)
    for d, share in outputs:
        size = width // d.shape[2]
        full = d if pyramid else resize_bilinear(d[..., None], (height, width), align_corners=False)[..., 0]
        found = found + share * data(full)
        smooth = smooth + share * smoothness(d, average_blocks(image, size), rows) / size
    return Total(found + weight * smooth, found, smooth)


def photometric_data(
    image: Float[Array, "B H W C"], other: Float[Array, "B H W C"], occluded: Bool[Array, "B H W"], visible: Array
) -> Callable[[Array], Array]:
    """Stage 1: the photometric map where not occluded."""
    return lambda d: masked_mean(photometric(image, warp_rows(other, d)), occluded, visible)


def pyramid_data(
    image: Float[Array, "B H W C"],
    other: Float[Array, "B H W C"],
    occluded: Bool[Array, "B H W"],
    across: Callable[[str, Array], Array],
) -> Callable[[Array], Array]:
    """Stage 1 with each scale on images of its own size ([22]): a wider basin. Occluded: half of a block or more is.

    `across` sums over the global batch, as `Rows.across`.
    """

    def data(d: Array) -> Array:
        size = image.shape[2] // d.shape[2]
        small, there = (average_blocks(view, size) for view in (image, other))
        hidden = average_blocks(occluded[..., None].astype(d.dtype), size)[..., 0] >= 0.5
        visible = across(f"visible_{size}", jnp.sum(~hidden, dtype=d.dtype))
        return masked_mean(photometric(small, warp_rows(there, d / size)), hidden, visible)

    return data


def distillation_data(
    target: Float[Array, "B H W"], occluded: Bool[Array, "B H W"], visible: Array
) -> Callable[[Array], Array]:
    """Stage 2: log-L1 to the stereo network where not occluded."""
    target = jax.lax.stop_gradient(target)
    return lambda d: masked_mean(log_l1(d, target), occluded, visible)


def fusion_data(target: Float[Array, "B H W"], rows: int) -> Callable[[Array], Array]:
    """Stage 3: log-L1 to the fused disparity in every pixel."""
    target = jax.lax.stop_gradient(target)
    return lambda d: mean(log_l1(d, target), rows)
