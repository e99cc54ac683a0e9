"""Windows of a long video: where they are, their noise, and how results are joined (spec `video.md` section 3).

T frames, F frames of a window, O frames that neighbours share, ... the latent's axes.
"""

import numpy as np
from jaxtyping import Float

from bridgedepth_jax.errors import InputError

WINDOW, OVERLAP = 110, 25


def check_windows(window: int, overlap: int) -> None:
    """InputError: a window that is not above the overlap."""
    if not 0 <= overlap < window:
        raise InputError(
            f"windows of {window} frames that share {overlap}, expected more frames than shared ones, of which 0 or more"
        )


def spans_of(frames: int, window: int = WINDOW, overlap: int = OVERLAP) -> list[tuple[int, int]]:
    """(start, stop) of each window. InputError: a window that is not above the overlap."""
    check_windows(window, overlap)
    if frames <= window:
        return [(0, frames)]
    starts = range(0, frames - overlap, window - overlap)
    return [(start, min(start + window, frames)) for start in starts]


def noise_of(
    first: Float[np.ndarray, "F ..."], spans: list[tuple[int, int]], overlap: int = OVERLAP
) -> list[Float[np.ndarray, "_ ..."]]:
    """The noise of each window: the last frames of the one before go first, then its first ones; so frames keep theirs."""
    found, noise = [], first
    for start, stop in spans:
        found.append(noise[: stop - start])
        noise = np.concatenate([noise[len(noise) - overlap :], noise[: len(noise) - overlap]])
    return found


def blend(old: Float[np.ndarray, "T ..."], new: Float[np.ndarray, "F ..."], overlap: int = OVERLAP) -> np.ndarray:
    """`new` after `old`, whose last `overlap` frames it fades in."""
    weight = np.linspace(0, 1, overlap).reshape(-1, *(1,) * (new.ndim - 1)).astype(new.dtype)
    shared = new[:overlap] * weight + old[len(old) - overlap :] * (1 - weight)
    return np.concatenate([old[: len(old) - overlap], shared, new[overlap:]])
