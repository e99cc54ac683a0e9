"""Order statistics of masked pixels, exact and without a sort: bisection over the bits of a float.

The bits of a float, read as a whole number (those of negative values turned round), have the order of the values. The k-th
smallest value is found bit by bit from the highest, each by one count of what lies below: 32 counts in float32, whatever the
number of pixels. On CPUs that is many times faster than XLA's sort (spec `mono-training.md` section 1).

Letters: B images, N pixels of one.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


def ordered_bits(values: Float[Array, "B N"]) -> Array:
    """Unsigned whole numbers in the order of the values; -0.0, and whatever the hardware takes for it, is 0.0."""
    unsigned = jnp.uint64 if values.dtype == jnp.float64 else jnp.uint32
    bits = lax.bitcast_convert_type(jnp.where(values == 0, jnp.zeros((), values.dtype), values), unsigned)
    sign = jnp.asarray(1 << (bits.dtype.itemsize * 8 - 1), unsigned)
    return jnp.where(bits & sign != 0, ~bits, bits | sign)


def _from_bits(key: Array, dtype: jnp.dtype) -> Array:
    sign = jnp.asarray(1 << (key.dtype.itemsize * 8 - 1), key.dtype)
    return lax.bitcast_convert_type(jnp.where(key & sign != 0, key ^ sign, ~key), dtype)


def _keys(values: Float[Array, "B N"], mask: Bool[Array, "B N"]) -> Array:
    """Ordered bits; beyond every candidate, and so never counted, where the mask is not."""
    key = ordered_bits(lax.stop_gradient(values))
    return jnp.where(mask, key, ~jnp.zeros((), key.dtype))


def _bits(key: Array) -> int:
    return key.dtype.itemsize * 8


def _next_bit(i: Array, found: Array, key: Array, k: Array) -> Array:
    """One step of the bisection: whether the i-th highest bit of each row's k-th smallest key is set."""
    candidate = found | (jnp.ones((), key.dtype) << jnp.asarray(_bits(key) - 1 - i, key.dtype))
    below = jnp.sum(key < candidate[:, None], axis=1, dtype=jnp.int32)
    return jnp.where(below <= k, candidate, found)


def kth_smallest(values: Float[Array, "B N"], mask: Bool[Array, "B N"], k: Int[Array, "B"]) -> Float[Array, "B"]:
    """The k-th smallest (from 0) of a row's masked values, without gradient.

    Whatever the number of masked values, k must be below it: else the result is no value of the row.
    """
    key = _keys(values, mask)
    found = lax.fori_loop(0, _bits(key), lambda i, found: _next_bit(i, found, key, k), jnp.zeros(len(key), key.dtype))
    return _from_bits(found, values.dtype)


def masked_median(values: Float[Array, "B N"], mask: Bool[Array, "B N"]) -> Float[Array, "B"]:
    """The median of a row's masked values, the mean of the middle two for an even number; 0 for none.

    Its gradient goes to the pixel that is the median; where several have its value, in equal parts.
    """
    fixed, count = lax.stop_gradient(values), jnp.sum(mask, axis=1, dtype=jnp.int32)
    low = kth_smallest(values, mask, jnp.maximum(count - 1, 0) // 2)
    up_to = jnp.sum(mask & (fixed <= low[:, None]), axis=1, dtype=jnp.int32)
    next_up = jnp.min(jnp.where(mask & (fixed > low[:, None]), fixed, jnp.inf), axis=1)
    high = jnp.where(up_to > count // 2, low, next_up)
    some = count > 0
    median = jnp.where(some, 0.5 * (low + high), 0)

    def share(middle: Array) -> Array:
        tied = mask & (fixed == middle[:, None])
        return jnp.where(tied, 0.5 / jnp.maximum(jnp.sum(tied, axis=1, dtype=fixed.dtype), 1)[:, None], 0)

    pulled = jnp.sum((share(low) + share(high)) * jnp.where(mask, values, 0), axis=1)
    return median + (pulled - lax.stop_gradient(pulled))


def smallest(values: Float[Array, "B N"], mask: Bool[Array, "B N"], number: Int[Array, "B"]) -> Bool[Array, "B N"]:
    """Which of a row's masked values are the `number` smallest; of equal ones the first in the row. No gradient.

    They are compared in the last turn of the loop that finds the largest of them. Outside of it a compiler may compute
    `values` a second time, fused in another way and an ulp off, and that one would not be found again.
    """
    key, k = _keys(values, mask), jnp.maximum(number, 1) - 1

    def choose(found: Array) -> Array:
        below, tied = mask & (key < found[:, None]), mask & (key == found[:, None])
        room = number - jnp.sum(below, axis=1, dtype=jnp.int32)
        rank = jnp.cumsum(tied, axis=1, dtype=jnp.int32)
        return (below | (tied & (rank <= room[:, None]))) & (number > 0)[:, None]

    def turn(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        found, chosen = state
        return lax.cond(i < _bits(key), lambda: (_next_bit(i, found, key, k), chosen), lambda: (found, choose(found)))

    first = jnp.zeros(len(key), key.dtype), jnp.zeros(mask.shape, bool)
    return lax.fori_loop(0, _bits(key) + 1, turn, first)[1]
