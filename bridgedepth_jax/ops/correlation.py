"""The group-wise correlation volume (GwcNet, arXiv 1903.04025) and look-ups in it (spec `architecture.md` section 4).

Letters: B batch, H W map, C channels, D disparity levels, G groups, N seeds, K = G * (2 radius + 1) values.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def correlation_volume(
    left: Float[Array, "B H W C"], right: Float[Array, "B H W C"], groups: int, levels: int
) -> Float[Array, "B H W D G"]:
    """vol[y, x, d, g] = mean over the channels of group g of left[y, x] * right[y, x - d], 0 where x < d.

    All pairs of a row as one matrix product, then a gather of the wanted diagonals: nothing grows beyond a stripe.
    """
    b, h, w, c = left.shape
    split = lambda f: f.reshape(b, h, w, groups, c // groups)
    pairs = jnp.einsum("bhxgc,bhzgc->bhgxz", split(left), split(right)) / (c // groups)
    x, d = np.arange(w)[:, None], np.arange(levels)[None]
    index = jnp.asarray(np.maximum(x - d, 0)).reshape(1, 1, 1, w, levels)
    volume = jnp.take_along_axis(pairs, index, axis=4, mode="promise_in_bounds")
    volume = jnp.where(jnp.asarray(x >= d).reshape(1, 1, 1, w, levels), volume, 0)
    return jnp.moveaxis(volume, 2, 4)


def lookup(volume: Float[Array, "B H W D G"], seeds: Int[Array, "B H W N"], radius: int) -> Float[Array, "B H W N K"]:
    """The values at seed - radius .. seed + radius, levels clamped to the volume, ordered (group, offset)."""
    levels, groups = volume.shape[-2:]
    offsets = jnp.arange(-radius, radius + 1).reshape(1, 1, 1, 1, -1)
    index = jnp.clip(seeds[..., None] + offsets, 0, levels - 1)
    flat = index.reshape(*seeds.shape[:3], -1, 1)
    values = jnp.take_along_axis(volume, flat, axis=3, mode="promise_in_bounds").reshape(*index.shape, groups)
    return jnp.swapaxes(values, -1, -2).reshape(*seeds.shape, -1)
