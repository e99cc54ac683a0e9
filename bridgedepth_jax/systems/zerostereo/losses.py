"""The loss for pairs made from single photographs (paper section 3.4; spec `zerostereo.md` section 5).

A disparity term that trusts a label by its confidence, and a photometric term that takes over where it is not trusted.
B batch, H W the image's sides, L predictions. Disparities in pixels, images in grey levels 0..255.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from bridgedepth_jax.ops.sampling import sample_along_rows
from bridgedepth_jax.ops.ssim import ssim

SSIM_SHARE = 0.85  # the rest is L1, in grey levels
SSIM: dict[str, Any] = dict(
    window=7, c1=0.01**2, c2=0.03**2
)  # constants of a 0..1 scale on grey levels, as published: mu is tuned to it


class Terms(NamedTuple):
    """Means of both terms for each prediction."""

    disparity: Float[Array, "L"]  # confidence times distance over the labelled pixels
    photometric: Float[Array, "L"]  # (1 - confidence) times the photometric map over the matched pixels

    def loss(self, mu: float) -> Float[Array, "L"]:
        return self.disparity + mu * self.photometric


def columns(like: Float[Array, "*B H W"]) -> Float[Array, "*B H W"]:
    """The column of each pixel."""
    return lax.broadcasted_iota(like.dtype, like.shape, like.ndim - 1)


def matched(
    disparity: Float[Array, "B H W"], nonocc: Bool[Array, "B H W"], inpaint: Bool[Array, "B H W"]
) -> Bool[Array, "B H W"]:
    """Left pixels whose match is in the right image, not hidden there, and was not inpainted.

    nonocc is of the left view, inpaint of the right one, read at the nearest pixel (half to even).
    """
    width = disparity.shape[-1]
    match = jnp.round(columns(disparity) - disparity).astype(jnp.int32)
    inside = (match >= 0) & (match < width)
    made = jnp.take_along_axis(inpaint, jnp.clip(match, 0, width - 1), axis=-1)
    return nonocc & inside & ~made


def photometric_map(
    left: Float[Array, "B H W 3"],
    right: Float[Array, "B H W 3"],
    disparity: Float[Array, "B H W"],
    share: float = SSIM_SHARE,
) -> Float[Array, "B H W"]:
    """How unlike the left image is what the right one has where `disparity` says; beyond the border its last column.

    `share` of it is of SSIM, the rest the difference in grey levels.
    """
    position = jnp.clip(columns(disparity) - disparity, 0, disparity.shape[-1] - 1)
    warped = sample_along_rows(right, position[..., None])[..., 0, :]
    unlike = jnp.clip((1 - ssim(left, warped, **SSIM)) / 2, 0, 1)
    return jnp.mean(share * unlike + (1 - share) * jnp.abs(left - warped), axis=-1)


def terms(
    predictions: Float[Array, "L B H W"],
    disparity: Float[Array, "B H W"],
    confidence: Float[Array, "B H W"],
    left: Float[Array, "B H W 3"],
    right: Float[Array, "B H W 3"],
    labelled: Bool[Array, "B H W"],
    seen: Bool[Array, "B H W"],
    *,
    distance: Callable[[Array], Array] = jnp.abs,
    labels: Array | None = None,
    matches: Array | None = None,
) -> Terms:
    """Both means of each prediction. They divide by the numbers of `labelled` and `seen` pixels, not by the sum of weights.

    `labels` and `matches` are those numbers over the global batch, by default of these rows. Without a pixel a mean is 0.
    """
    labels = jnp.sum(labelled, dtype=predictions.dtype) if labels is None else labels
    matches = jnp.sum(seen, dtype=predictions.dtype) if matches is None else matches
    mean = lambda values, mask, count: jnp.sum(jnp.where(mask[None], values, 0), axis=(1, 2, 3)) / jnp.maximum(count, 1)
    wrong = mean(confidence[None] * distance(predictions - disparity[None]), labelled, labels)
    unlike = jax.vmap(lambda prediction: photometric_map(left, right, prediction))(predictions)
    return Terms(wrong, mean((1 - confidence)[None] * unlike, seen, matches))


def sequence_weights(count: int, gamma: float = 0.9) -> list[float]:
    """Weights of iterations, rising to 1: gamma^(15/(n-1)) for each one that comes after."""
    base = gamma ** (15 / max(count - 1, 1))
    return [base ** (count - 1 - i) for i in range(count)]
