"""PyTorch's float32 bicubic resize on a CPU, to the bit: what the original's position embedding went through.

Depth Anything resizes that embedding in float32 even where all else is double, and what is rounded there is all that its
double precision differs from ours by (3.7e-7 of a sigmoid; without AVX2 PyTorch differs from itself by 4.8e-7). The order of
operations, and which products are fused with their sum, were found with PyTorch 2.13 by the weights of images that are 1 in
one place. Letters: N side of the embedding's grid, H W the new sides, D channels.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

_A = np.float32(-0.75)
OFFSET = 0.1  # of the new sides, as Depth Anything gives its scales


def fused(a: np.ndarray, b: np.ndarray, c: np.ndarray | np.float32) -> np.ndarray:
    """a b + c, rounded once."""
    return (a.astype(np.float64) * b + c).astype(np.float32)


def _near(x: np.ndarray) -> np.ndarray:
    return ((_A + 2) * x - (_A + 3)) * x * x + 1


def _far(x: np.ndarray) -> np.ndarray:
    return fused(_A * x - 5 * _A, x, 8 * _A) * x - 4 * _A


def taps(side: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and float32 weights (4, out) along one axis."""
    scale = np.full(out, 1 / ((out + OFFSET) / side), np.float32)
    source = fused(scale, np.arange(out, dtype=np.float32) + np.float32(0.5), np.float32(-0.5))
    low = np.floor(source)
    t = source - low
    weights = np.stack([_far(t + 1), _near(t), _near(1 - t), _far(1 - t + 1)])
    assert weights.dtype == np.float32
    return np.clip(low.astype(int) + np.arange(-1, 3)[:, None], 0, side - 1), weights


def _sum(value: Callable[[int], np.ndarray], weights: np.ndarray) -> np.ndarray:
    """The second product first, to which the others are added, each fused."""
    total = value(1) * weights[1]
    for k in (0, 2, 3):
        total = fused(value(k), weights[k], total)
    return total


def resize_bicubic(grid: Float32[np.ndarray, "N N D"], height: int, width: int) -> Float32[np.ndarray, "H W D"]:
    """The grid at another size, rows last."""
    side = grid.shape[0]
    (rows, tall), (columns, wide) = taps(side, height), taps(side, width)
    narrow = _sum(lambda k: grid[:, columns[k]], wide[:, None, :, None])
    return _sum(lambda k: narrow[rows[k]], tall[:, :, None, None])
