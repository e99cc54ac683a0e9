"""Structural similarity with a uniform window.

B batch, H W the map's sides, C channels, K the window's side.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


class _Moments(NamedTuple):
    """Means, variances and covariance of the windows."""

    mx: Array
    my: Array
    vx: Array
    vy: Array
    vxy: Array


def ssim(
    x: Float[Array, "B H W C"],
    y: Float[Array, "B H W C"],
    *,
    window: int,
    c1: float,
    c2: float,
    padding: str = "reflect",
    centred: bool = True,
) -> Float[Array, "B H2 W2 C"]:
    """SSIM of each window, at each pixel (padding "reflect": mirrored, the edge not repeated) or where it fits ("valid").

    c1, c2 are those of the formula, on the scale of the images. Centred: deviations from the mean are formed before they are
    squared, first along rows, then of and in the row's means (the law of total variance: 2 K shifted differences instead of
    K^2). E[x^2] - E[x]^2, the other form, is noise in float32 on flat and bright patches.
    """
    if padding == "reflect":
        pads = ((0, 0), (window // 2,) * 2, (window // 2,) * 2, (0, 0))
        x, y = (jnp.pad(image, pads, mode="reflect") for image in (x, y))
    elif padding != "valid":
        raise ValueError(f"padding {padding!r}, expected 'reflect' or 'valid'")
    if centred:
        nothing = jnp.zeros_like(x)
        m = _gather(_gather(_Moments(x, y, nothing, nothing, nothing), window, 2), window, 1)
    else:
        raw = _Moments(x, y, x * x, y * y, x * y)
        m = _Moments(*(_mean(_mean(value, window, 2), window, 1) for value in raw))
        m = m._replace(vx=m.vx - m.mx * m.mx, vy=m.vy - m.my * m.my, vxy=m.vxy - m.mx * m.my)
    return (2 * m.mx * m.my + c1) * (2 * m.vxy + c2) / ((m.mx * m.mx + m.my * m.my + c1) * (m.vx + m.vy + c2))


def _shifts(x: Array, window: int, axis: int) -> list[Array]:
    return [lax.slice_in_dim(x, k, k + x.shape[axis] - window + 1, axis=axis) for k in range(window)]


def _mean(x: Array, window: int, axis: int) -> Array:
    return sum(_shifts(x, window, axis)) / window  # type: ignore[return-value]


def _gather(m: _Moments, window: int, axis: int) -> _Moments:
    """Moments of `window` neighbours along an axis taken together: mean of variances plus variance of means."""
    mx, my = _mean(m.mx, window, axis), _mean(m.my, window, axis)
    parts = zip(*(_shifts(value, window, axis) for value in m), strict=True)
    sums = [jnp.zeros_like(mx)] * 3
    for part in map(_Moments._make, parts):
        dx, dy = part.mx - mx, part.my - my
        sums = [sums[0] + part.vx + dx * dx, sums[1] + part.vy + dy * dy, sums[2] + part.vxy + dx * dy]
    return _Moments(mx, my, *(total / window for total in sums))
