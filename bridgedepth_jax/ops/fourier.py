"""Fourier features of a disparity: the position of a hypothesis in BridgeDepth (spec `architecture.md` section 4)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

FREQUENCIES = 15  # 2^0 .. 2^14
HALF_TURN = 3.14  # not pi: the original's constant, which its weights were trained with


def fourier_features(disparity: Float[Array, "*shape"], levels: int) -> Float[Array, "*shape 31"]:
    """sin and cos of t * 2^k for k = 0..14, then t, with t = disparity * HALF_TURN / levels.

    Never below float32: at 2^14 an error of 1e-5 in the disparity moves the features by 1e-2.
    """
    t = disparity.astype(jnp.promote_types(disparity.dtype, jnp.float32))[..., None] * HALF_TURN / levels
    frequencies = jnp.asarray([2.0**k for k in range(FREQUENCIES)], t.dtype).reshape((1,) * disparity.ndim + (-1,))
    angles = t * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles), t], axis=-1)
