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
) -> Total:
    """Sum over scales of weight_k (data(d_k at full size) + weight smoothness(d_k) / 2^k), smoothness at the scale's size."""
    height, width = image.shape[1:3]
    found, smooth = jnp.zeros((), image.dtype), jnp.zeros((), image.dtype)
    for d, share in outputs:
        size = width // d.shape[2]
        full = resize_bilinear(d[..., None], (height, width), align_corners=False)[..., 0]
        found = found + share * data(full)
        smooth = smooth + share * smoothness(d, average_blocks(image, size), rows) / size
    return Total(found + weight * smooth, found, smooth)


def photometric_data(
    image: Float[Array, "B H W C"], other: Float[Array, "B H W C"], occluded: Bool[Array, "B H W"], visible: Array
) -> Callable[[Array], Array]:
    """Stage 1: the photometric map where not occluded."""
    return lambda d: masked_mean(photometric(image, warp_rows(other, d)), occluded, visible)


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
