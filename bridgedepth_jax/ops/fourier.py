"""Fourier features of a disparity: the position of a hypothesis in BridgeDepth (spec `architecture.md` section 4)."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

FREQUENCIES = 15  # 2^0 .. 2^14
HALF_TURN = 3.14  # not pi: the original's constant, which its weights were trained with


def fourier_features(
    disparity: Float[Array, "*shape"], levels: int, rest: Float[Array, "*shape"] | None = None
) -> Float[Array, "*shape 31"]:
    """sin and cos of t * 2^k for k = 0..14, then t, with t = disparity * HALF_TURN / levels.

    Never below float32: at 2^14 an error of 1e-5 in the disparity moves the features by 1e-2. There a step of float32 is 1e-3
    radians, and t * 2^14 of the original is off by that. With `rest`, what rounding took off the disparity (0: nothing), whole
    turns are taken off before anything is rounded. In float64 it has no effect.
    """
    x = disparity.astype(jnp.promote_types(disparity.dtype, jnp.float32))[..., None]
    t = x * HALF_TURN / levels
    frequencies = jnp.asarray([2.0**k for k in range(FREQUENCIES)], t.dtype).reshape((1,) * disparity.ndim + (-1,))
    if rest is None or t.dtype == jnp.float64:
        angles = t * frequencies
    else:
        angles = _phases(x, rest[..., None], HALF_TURN / levels / (2 * math.pi), frequencies)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles), t], axis=-1)


def _phases(x: Array, rest: Array, slope: float, frequencies: Array) -> Array:
    """(x + rest) * slope * frequencies turns as radians within +-pi, as exact as float32 is there.

    x (below 2^8) and slope are each a number of 12 bits and some more, so that the large products are exact.
    """
    high = jnp.round(x * 2**4) / 2**4
    low = (x - high) + rest
    exponent = math.frexp(slope)[1]
    first = round(math.ldexp(slope, 12 - exponent)) * 2.0 ** (exponent - 12)
    second = round(math.ldexp(slope - first, 24 - exponent)) * 2.0 ** (exponent - 24)
    whole, small = high * first * frequencies, high * second * frequencies
    last = (low * slope + high * (slope - first - second)) * frequencies
    turns = (whole - jnp.round(whole)) + (small - jnp.round(small)) + (last - jnp.round(last))
    return 2 * math.pi * (turns - jnp.round(turns))
