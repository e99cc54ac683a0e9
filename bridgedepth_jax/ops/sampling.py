"""Reading the right image where a disparity says , as a disparity hypothesis is embedded (spec `architecture.md` section 5).

Letters: B batch, H W map, N candidates, C channels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def sample_along_rows(fmap: Float[Array, "B H W C"], x: Float[Array, "B H W N"]) -> Float[Array, "B H W N C"]:
    """Linear interpolation of `fmap` at columns `x` of the same row.

    Each of the two columns counts as zero when outside the image, so a position in (-1, 0) keeps part of its weight.
    """
    low = jnp.floor(x)
    return _between(fmap, low.astype(jnp.int32), x - low)


def sample_matches(fmap: Float[Array, "B H W C"], disparity: Float[Array, "B H W N"]) -> Float[Array, "B H W N C"]:
    """`sample_along_rows` at column - disparity, whose fraction is the disparity's: a float32 column would round it."""
    whole = jnp.ceil(disparity)
    columns = jnp.arange(disparity.shape[2], dtype=jnp.int32).reshape(1, 1, -1, 1)
    return _between(fmap, columns - whole.astype(jnp.int32), whole - disparity)


def _between(
    fmap: Float[Array, "B H W C"], column: Int[Array, "B H W N"], fraction: Float[Array, "B H W N"]
) -> Float[Array, "B H W N C"]:
    width = fmap.shape[2]
    fraction = fraction[..., None]

    def read(column, weight):
        inside = (column >= 0) & (column < width)
        index = jnp.clip(column, 0, width - 1).reshape(*column.shape[:2], -1, 1)
        values = jnp.take_along_axis(fmap, index, axis=2, mode="promise_in_bounds")
        return values.reshape(*column.shape, -1) * (weight * inside[..., None])

    return read(column, 1 - fraction) + read(column + 1, fraction)
