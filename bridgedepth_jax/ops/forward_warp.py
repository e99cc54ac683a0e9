"""The right view of a left image with a disparity, by forward warping (spec `zerostereo.md` section 2).

Pixel x of a row lands at l = x - d. No loop over columns: in numpy scatters, whose last write wins, in a sorted order; on a
device scatters of a minimum and a maximum. H, W the image's sides. In the precision of the arguments; which targets are whole
numbers matters, so give float64, or disparities in 1/256.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

NOTHING = 10000.0  # distance of a layer where nothing was stored


class Warped(NamedTuple):
    """A right view and its masks."""

    right: Float[np.ndarray, "H W C"]  # 0 in holes, not rounded
    nonocc: Bool[np.ndarray, "H W"]  # of the left view: inside the right one and not hidden there
    inpaint: Bool[np.ndarray, "H W"]  # of the right view: no visible pixel lands there


def forward_warp(
    image: Num[np.ndarray, "H W C"], disparity: Float[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"] | None = None
) -> Warped:
    """Warps `image` by `disparity` (pixels, at least 0). Pixels outside `valid` are left out: they neither land nor hide."""
    height, width = disparity.shape
    size, dtype = height * width, np.result_type(disparity.dtype, np.float32)
    column = np.broadcast_to(np.arange(width), (height, width))
    position = column.astype(dtype) - disparity
    low, high = np.floor(position), np.ceil(position)
    if valid is not None:
        # A place that no pixel reads or writes.
        position, low, high = (np.where(valid, array, -1) for array in (position, low, high))
    start = (np.arange(height) * width)[:, None]
    index = [start + target.astype(np.int64) for target in (low, high)]
    inside = [(target >= 0) & (target < width) for target in (low, high)]

    # The largest column that hits each target. Rows are in order of columns, so the last write is the one.
    nearest = np.full(size, -1)
    last = np.full(size, -1)
    for targets, within, store in zip(index, inside, (nearest, last), strict=True):
        store[targets[within]] = column[within]
    nearest = np.maximum(nearest, last)
    limit = column + 2
    visible = position > 0
    hit = np.zeros_like(visible)
    for targets, within in zip(index, inside, strict=True):
        hit |= within & (nearest[np.where(within, targets, 0)] < limit)
    visible &= hit

    # Two layers: of the visible pixels the closest to the target from the left of it, and from the right of it.
    colours, distances = [], []
    above = high - position
    for targets, within, distance in ((index[1], inside[1], above), (index[0], inside[0], 1 - above)):
        chosen = visible & within
        source = np.flatnonzero(chosen)
        far = distance.ravel()[source]
        order = np.argsort(-far, kind="stable")  # the closest is written last, of equals the larger column
        source = source[order]
        stored = np.full(size, NOTHING, dtype)
        colour = np.zeros((size, image.shape[2]), dtype)
        target = targets.ravel()[source]
        stored[target] = far[order]
        colour[target] = image.reshape(size, -1)[source]
        colours.append(colour)
        distances.append(stored)
    a, b = distances
    right = (colours[0] * b[:, None] + colours[1] * a[:, None]) / (a + b + dtype.type(1e-7))[:, None]
    inpaint = (a == NOTHING) & (b == NOTHING)
    right[inpaint] = 0
    return Warped(right.reshape(image.shape), visible, inpaint.reshape(height, width))


def warp_on_device(
    image: Float[Array, "H W C"], disparity: Float[Array, "H W"], valid: Bool[Array, "H W"]
) -> tuple[Float[Array, "H W C"], Bool[Array, "H W"], Bool[Array, "H W"]]:
    """`forward_warp` inside a compiled program: right view, non-occlusion mask, inpainting mask. No gradient of `disparity`."""
    return jax.vmap(_warp_row)(image, jax.lax.stop_gradient(disparity), valid)


def _warp_row(
    image: Float[Array, "W C"], disparity: Float[Array, "W"], valid: Bool[Array, "W"]
) -> tuple[Float[Array, "W C"], Bool[Array, "W"], Bool[Array, "W"]]:
    width = len(disparity)
    column = jnp.arange(width)
    position = jnp.where(valid, column - disparity, -1)
    # A target outside is that of a spare cell.
    cell = lambda place: jnp.where((place >= 0) & (place < width), place, width).astype(jnp.int32)
    low, high = cell(jnp.floor(position)), cell(jnp.ceil(position))
    nearest = jnp.full(width + 1, -1).at[low].max(column).at[high].max(column)
    hit = lambda target: (target < width) & (nearest[target] < column + 2)
    visible = (position > 0) & (hit(low) | hit(high))
    above = jnp.ceil(position) - position

    def layer(target: Array, distance: Array) -> tuple[Array, Array]:
        target = jnp.where(visible, target, width)
        closest = jnp.full(width + 1, NOTHING, disparity.dtype).at[target].min(distance)
        winner = jnp.where(visible & (distance == closest[target]), target, width)
        source = jnp.full(width + 1, -1).at[winner].max(column)[:width]
        return closest[:width], jnp.where((source >= 0)[:, None], image[jnp.maximum(source, 0)], 0)

    (a, colour_above), (b, colour_below) = layer(high, above), layer(low, 1 - above)
    hole = (a == NOTHING) & (b == NOTHING)
    right = (colour_above * b[:, None] + colour_below * a[:, None]) / (a + b + 1e-7)[:, None]
    return jnp.where(hole[:, None], 0, right), visible, hole
