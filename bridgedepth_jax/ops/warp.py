"""One view of a rectified pair as seen from the other, by a disparity.

B batch, H W the map's sides, C channels. Disparities in pixels of the map, at least 0 for what is in front of the cameras.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bridgedepth_jax.ops.sampling import sample_along_rows


def match_columns(disparity: Float[Array, "B H W"], *, right: bool = False) -> Float[Array, "B H W"]:
    """Where in the other view each pixel's match lies: x - d, and for pixels of the right view x + d."""
    x = lax.broadcasted_iota(disparity.dtype, disparity.shape, 2)
    return x + disparity if right else x - disparity


def warp_rows(
    image: Float[Array, "B H W C"], disparity: Float[Array, "B H W"], *, right: bool = False
) -> Float[Array, "B H W C"]:
    """`image`, the other view, read linearly at the matches of this one; columns clamped to the image.

    With `right`, this view is the right one. Where a column is clamped (at or beyond the border) the disparity gets no
    gradient.
    """
    last = image.shape[2] - 1
    x = match_columns(disparity, right=right)
    x = jnp.where((x > 0) & (x < last), x, jax.lax.stop_gradient(jnp.clip(x, 0, last)))
    return sample_along_rows(image, x[..., None])[..., 0, :]


def row_correlation(left: Float[Array, "B H W C"], right: Float[Array, "B H W C"], radius: int) -> Float[Array, "B H W K"]:
    """Channel j is the mean over channels of left(x) * right(x - (j - radius)), 0 where that is outside; K = 2 radius + 1."""
    width = left.shape[2]
    padded = jnp.pad(right, ((0, 0), (0, 0), (radius, radius), (0, 0)))
    starts = range(2 * radius, -1, -1)
    return jnp.stack([jnp.mean(left * padded[:, :, start : start + width], axis=-1) for start in starts], axis=-1)
