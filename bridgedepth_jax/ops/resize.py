"""Resizing with PyTorch's filters (spec `architecture.md` sections 1, 2.1 and 2.2).

A filter is a table of taps per output position, made on the host from the sizes alone: `indices` (O, K) of input
positions and `weights` (O, K). Applying it is K gathers and a weighted sum, far cheaper than a dense resize matrix.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Taps(NamedTuple):
    """What each output position reads, and with which weight."""

    indices: np.ndarray  # (O, K) int
    weights: np.ndarray  # (O, K) float64


def bilinear_taps(size: int, out: int, *, align_corners: bool) -> Taps:
    """Linear interpolation without antialias, half-pixel centres or aligned corners, border clamped."""
    o = np.arange(out, dtype=np.float64)
    if align_corners:
        source = o * ((size - 1) / (out - 1)) if out > 1 else 0 * o
    else:
        source = np.maximum((o + 0.5) * (size / out) - 0.5, 0)
    low = np.minimum(np.floor(source).astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    fraction = source - low
    return Taps(np.stack([low, high], 1), np.stack([1 - fraction, fraction], 1))


class Filter(NamedTuple):
    """A kernel, a function of the distance in pixels, that is zero from `support` on."""

    weights: Callable[[np.ndarray], np.ndarray]
    support: float


TRIANGLE = Filter(lambda distance: np.maximum(1 - np.abs(distance), 0), 1.0)


def antialiased_taps(size: int, out: int, kernel: Filter = TRIANGLE) -> Taps:
    """A filter widened by the down-scale factor, weights renormalised at the border."""
    scale = max(size / out, 1.0)
    reach = scale * kernel.support
    centre = (np.arange(out) + 0.5) * (size / out)
    first = np.maximum((centre - reach + 0.5).astype(int), 0)
    last = np.minimum((centre + reach + 0.5).astype(int), size)
    indices = first[:, None] + np.arange((last - first).max())[None]
    weights = kernel.weights((indices - centre[:, None] + 0.5) / scale) * (indices < last[:, None])
    return Taps(np.minimum(indices, size - 1), weights / weights.sum(1, keepdims=True))


def bicubic_taps(size: int, out: int, scale: float) -> Taps:
    """Cubic convolution with a = -0.75, half-pixel centres, no antialias, border clamped; `scale` is input over output."""
    source = (np.arange(out) + 0.5) * scale - 0.5
    low = np.floor(source).astype(int)
    weights = cubic_weights((source - low)[:, None] - np.arange(-1, 3)[None])
    return Taps(np.clip(low[:, None] + np.arange(-1, 3)[None], 0, size - 1), weights)


def cubic_weights(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    """The cubic convolution kernel at distances from -2 to 2."""
    t = np.abs(distance)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((t - 5) * t + 8) * t * a - 4 * a
    return np.where(t <= 1, near, far)


def apply_taps(x: Float[Array, "..."], taps: Taps, axis: int) -> Float[Array, "..."]:
    """The weighted sum of taps along one axis, in the dtype of `x`."""
    shape = [1] * x.ndim
    shape[axis] = -1
    total = None
    for indices, weights in zip(taps.indices.T, taps.weights.T, strict=True):
        if not weights.any():
            continue
        term = jnp.take(x, indices, axis, mode="clip") * jnp.asarray(weights, x.dtype).reshape(shape)
        total = term if total is None else total + term
    assert total is not None
    return total


def resize_bilinear(x: Float[Array, "B H W C"], size: tuple[int, int], *, align_corners: bool) -> Float[Array, "B H2 W2 C"]:
    """Bilinear resize to `size` = (height, width)."""
    for axis, out in zip((1, 2), size, strict=True):
        if x.shape[axis] != out:
            x = apply_taps(x, bilinear_taps(x.shape[axis], out, align_corners=align_corners), axis)
    return x


def resize_antialiased(x: Float[Array, "B H W C"], size: tuple[int, int]) -> Float[Array, "B H2 W2 C"]:
    """Bilinear resize with antialias to `size` = (height, width)."""
    for axis, out in zip((1, 2), size, strict=True):
        if x.shape[axis] != out:
            x = apply_taps(x, antialiased_taps(x.shape[axis], out), axis)
    return x


def resize_map(x: Float[np.ndarray, "h w"], height: int, width: int, *, align_corners: bool = True) -> Float[np.ndarray, "H W"]:
    """Bilinear, on the host, in float64 and then in the dtype of `x`."""
    rows = bilinear_taps(x.shape[0], height, align_corners=align_corners)
    columns = bilinear_taps(x.shape[1], width, align_corners=align_corners)
    tall = (x[rows.indices] * rows.weights[..., None]).sum(1)
    return (tall[:, columns.indices] * columns.weights).sum(2).astype(x.dtype)
