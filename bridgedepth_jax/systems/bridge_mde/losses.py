"""The losses of monocular training (spec `mono-training.md` section 1): ssi and gm of MiDaS with trimming, and SiLog.

B images, H W their sides, L levels of the gradient term. Predictions and targets are relative inverse depth, or metres where
the name says silog. Whatever an image's loss says depends on that image alone; what is divided over the global batch is given.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bridgedepth_jax.layers import at_least_float32
from bridgedepth_jax.ops.selection import masked_median, smallest

FEWEST = 10  # valid pixels of an image that counts
LEVELS = 4  # of the gradient term, each of half the resolution
SSI, GM = 1.0, 4.0  # weights: the paper's 1 : 4
LEAST_SCALE = 1e-6
SILOG_LAMBDA = 0.5

Map = Float[Array, "B H W"]
Mask = Bool[Array, "B H W"]
PerImage = Float[Array, "B"]


class Scale(NamedTuple):
    """What is taken from a map, and what it is divided by."""

    median: PerImage
    scale: PerImage

    def apply(self, d: Map) -> Map:
        return (d - self.median[:, None, None]) / self.scale[:, None, None]


def scale_of(d: Map, mask: Mask) -> Scale:
    """Median and mean absolute deviation from it over the masked pixels; the gradient passes through both."""
    rows = lambda x: x.reshape(len(x), -1)
    median = masked_median(rows(d), rows(mask))
    deviation = jnp.sum(jnp.where(mask, jnp.abs(d - median[:, None, None]), 0), axis=(1, 2))
    count = jnp.sum(mask, axis=(1, 2), dtype=d.dtype)
    return Scale(median, jnp.maximum(deviation / jnp.maximum(count, 1), LEAST_SCALE))


class Terms(NamedTuple):
    """Of each image of a batch; zeros where it does not count."""

    ssi: PerImage
    gm: PerImage
    levels: Float[Array, "B L"]  # of gm, finest first
    counts: Bool[Array, "B"]
    kept: Mask
    prediction: Scale
    target: Scale


def counting(mask: Mask) -> Bool[Array, "B"]:
    """Images with enough valid pixels to count."""
    return jnp.sum(mask, axis=(1, 2), dtype=jnp.int32) >= FEWEST


def terms(
    prediction: Map,
    target: Map,
    mask: Mask,
    percent: Int[Array, "B"],
    *,
    renormalise: int = 0,
    trim_gradient: bool = True,
) -> Terms:
    """Both terms of each image.

    percent: of an image's valid pixels that are trimmed, those of the largest |R|; whole numbers, one an image.
    renormalise: how often both maps are normalised over the kept pixels and those chosen anew.
    trim_gradient: whether the gradient term sees the kept pixels only.
    """
    dtype = at_least_float32(prediction.dtype)
    target = jnp.where(mask, target, 0).astype(dtype)  # it may be infinite or no number elsewhere
    # Values that are found again by comparison: computed once, not again in each fusion with other rounding.
    prediction, target = lax.optimization_barrier((prediction.astype(dtype), target))
    valid = jnp.sum(mask, axis=(1, 2), dtype=jnp.int32)
    number = valid - (valid * percent.astype(jnp.int32)) // 100

    def choose(over: Mask) -> Mask:
        """The pixels of smallest |R|, R normalised over `over`."""
        p, t = lax.stop_gradient(prediction), target
        distance = jnp.abs(scale_of(p, over).apply(p) - scale_of(t, over).apply(t))
        return smallest(distance.reshape(len(p), -1), mask.reshape(len(p), -1), number).reshape(mask.shape)

    kept = choose(mask)
    for _ in range(renormalise):
        kept = choose(kept)
    over = kept if renormalise else mask
    scales = scale_of(prediction, over), scale_of(target, over)
    residual = scales[0].apply(prediction) - scales[1].apply(target)
    ssi = jnp.sum(jnp.where(kept, jnp.abs(residual), 0), axis=(1, 2)) / jnp.maximum(number, 1)
    levels = gradient_levels(residual, kept if trim_gradient else mask)
    counts = valid >= FEWEST
    return Terms(
        jnp.where(counts, ssi, 0),
        jnp.where(counts, jnp.sum(levels, axis=1), 0),
        jnp.where(counts[:, None], levels, 0),
        counts,
        kept,
        *scales,
    )


def gradient_levels(residual: Map, mask: Mask) -> Float[Array, "B L"]:
    """Sums of |differences| of neighbours that are both in the mask, over its pixels, at every 2^k-th row and column."""
    found = []
    for level in range(LEVELS):
        r, m = residual[:, :: 2**level, :: 2**level], mask[:, :: 2**level, :: 2**level]
        across = jnp.where(m[:, :, 1:] & m[:, :, :-1], jnp.abs(r[:, :, 1:] - r[:, :, :-1]), 0)
        down = jnp.where(m[:, 1:] & m[:, :-1], jnp.abs(r[:, 1:] - r[:, :-1]), 0)
        pixels = jnp.maximum(jnp.sum(m, axis=(1, 2), dtype=residual.dtype), 1)
        found.append((jnp.sum(across, axis=(1, 2)) + jnp.sum(down, axis=(1, 2))) / pixels)
    return jnp.stack(found, axis=1)


class Total(NamedTuple):
    """Means over the images that count."""

    loss: Float[Array, ""]
    ssi: Float[Array, ""]
    gm: Float[Array, ""]


def total(found: Terms, images: Array | int, *, ssi: float = SSI, gm: float = GM) -> Total:
    """The loss; `images` that count in the global batch, of which these may be a part. None: 0."""
    mean = lambda x: jnp.sum(x) / jnp.maximum(jnp.asarray(images, x.dtype), 1)
    terms = mean(found.ssi), mean(found.gm)
    return Total(ssi * terms[0] + gm * terms[1], *terms)


class Logs(NamedTuple):
    """Sums over valid pixels, of which SiLog is made: they add up over the parts of a batch."""

    difference: Float[Array, ""]  # of log z* - log z
    square: Float[Array, ""]


def log_sums(depth: Map, truth: Map, valid: Mask) -> Logs:
    """Of depths in metres."""
    dtype = at_least_float32(depth.dtype)
    of = lambda z: jnp.log(jnp.where(valid, z, 1).astype(dtype))
    g = of(truth) - of(depth)
    return Logs(jnp.sum(g), jnp.sum(jnp.square(g)))


def silog(here: Logs, everywhere: Logs, pixels: Array | int, share: Array | float = 1.0) -> Float[Array, ""]:
    """sqrt(mean g^2 - 0.5 (mean g)^2) over the valid `pixels` of the global batch; 0 without any.

    `everywhere` are the sums over the global batch, without gradient; `here` those of the part whose gradient is wanted. The
    value is `share` of the whole loss, so that parts add up; the gradient is that of the whole in this part's prediction.
    """
    count = jnp.maximum(jnp.asarray(pixels, here.square.dtype), 1)
    mean = lax.stop_gradient(everywhere.difference) / count
    square = lax.stop_gradient(everywhere.square) / count
    value = jnp.sqrt(jnp.maximum(square - SILOG_LAMBDA * mean * mean, 0))
    slope = (here.square / count - 2 * SILOG_LAMBDA * mean * (here.difference / count)) / (2 * jnp.maximum(value, LEAST_SCALE))
    return share * value + (slope - lax.stop_gradient(slope))
