"""Windows: partition, relative index and masks (spec `architecture.md` sections 3 and 6).

Those of Swin (arXiv 2103.14030), and of two maps of different resolution, which BridgeDepth's alignment has.

Letters: B batch, H W map, V U windows down and across, P pixels of a window, row by row.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def pad_to_windows(x: Array, window: int) -> Array:
    """Zero padding of (B, H, W, ...) on the bottom and right to whole windows."""
    pads = [(0, 0)] * x.ndim
    pads[1], pads[2] = (0, -x.shape[1] % window), (0, -x.shape[2] % window)
    return jnp.pad(x, pads) if any(p[1] for p in pads) else x


def partition(x: Array, window: int) -> Array:
    """(B, V*window, U*window, ...) to (B*V*U, window*window, ...)."""
    b, h, w, *rest = x.shape
    x = x.reshape(b, h // window, window, w // window, window, *rest)
    return jnp.swapaxes(x, 2, 3).reshape(-1, window * window, *rest)


def unpartition(x: Array, window: int, height: int, width: int) -> Array:
    """Inverse of `partition` and of the padding before it: (B*V*U, P, ...) to (B, height, width, ...)."""
    v, u = -(-height // window), -(-width // window)
    rest = x.shape[2:]
    x = jnp.swapaxes(x.reshape(-1, v, u, window, window, *rest), 2, 3)
    return x.reshape(-1, v * window, u * window, *rest)[:, :height, :width]


def relative_index(query: int, key: int) -> np.ndarray:
    """(query*query, key*key) entry of the relative table for each pair of pixels of two windows over the same area.

    The windows have `query` and `key` pixels a side; the entry counts the offset between pixel centres, in units of the
    finer grid. Equal sides give the (2w-1)^2 entries of Swin.
    """
    fine = max(query, key)
    centres = [(np.arange(side) + 0.5) * (fine / side) for side in (query, key)]
    offset = centres[0][:, None] - centres[1][None]
    steps = np.rint(offset - offset.min()).astype(np.int64)
    side = steps.max() + 1
    index = steps[:, None, :, None] * side + steps[None, :, None, :]
    return index.reshape(query * query, key * key)


def table_size(query: int, key: int) -> int:
    """Number of entries of the relative table."""
    return int(relative_index(query, key).max()) + 1


def shift_regions(height: int, width: int, window: int, shift: tuple[int, int]) -> np.ndarray:
    """(V*U, P, P) bool: pairs of pixels of a map rolled by -shift that come from different sides of the wrap."""
    regions = np.zeros((1, height, width), np.int64)
    for axis, (size, by) in enumerate(zip((height, width), shift, strict=True)):
        position = np.arange(size)
        label = (position >= size - window).astype(int) + (position >= size - by) if by else 0 * position
        regions = regions * 3 + (label[None, :, None] if axis == 0 else label[None, None, :])
    flat = regions.reshape(height // window, window, width // window, window).swapaxes(1, 2).reshape(-1, window * window)
    return flat[:, :, None] != flat[:, None, :]
