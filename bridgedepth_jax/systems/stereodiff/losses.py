"""DUSt3R's loss of a pair network, and EDM's of a video diffusion model (spec `video.md` section 6).

B pairs or clips, H W pixels. Poses are camera to world, points in the world or in camera 1.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

ALPHA = 0.2  # share of the reward for confidence
TINY = 1e-8  # pixels added to the number that a mean distance is over, and the least such mean, as in the original


class PairTruth(NamedTuple):
    """True points of a pair in camera 1, and where they are known."""

    points1: Float[Array, "B H W 3"]
    points2: Float[Array, "B H W 3"]
    valid1: Bool[Array, "B H W"]
    valid2: Bool[Array, "B H W"]


def to_camera(points: Float[Array, "B H W 3"], pose: Float[Array, "B 4 4"]) -> Float[Array, "B H W 3"]:
    """Points of the world in a camera."""
    return jnp.einsum("bji,bhwj->bhwi", pose[:, :3, :3], points - pose[:, None, None, :3, 3], precision="highest")


def mean_distance(points1: Array, points2: Array, valid1: Array, valid2: Array) -> Float[Array, "B"]:
    """Of both maps together, over valid pixels, from the origin."""
    total, count = 0.0, 0.0
    for points, valid in ((points1, valid1), (points2, valid2)):
        total = total + jnp.sum(length(points) * valid, axis=(1, 2))
        count = count + jnp.sum(valid, axis=(1, 2), dtype=points.dtype)
    return jnp.maximum(total / (count + TINY), TINY)


def length(x: Array) -> Array:
    """Of vectors on the last axis, with gradient 0 at 0."""
    square = jnp.sum(jnp.square(x), axis=-1)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def confidence_terms(
    points1: Float[Array, "B H W 3"],
    confidence1: Float[Array, "B H W"],
    points2: Float[Array, "B H W 3"],
    confidence2: Float[Array, "B H W"],
    truth: PairTruth,
) -> tuple[Array, Array]:
    """Sums over valid pixels of C l - alpha ln C, of each map; l is the distance once both sides are normalised."""
    valid = truth.valid1, truth.valid2
    scale = mean_distance(points1, points2, *valid)[:, None, None, None]
    true_scale = mean_distance(truth.points1, truth.points2, *valid)[:, None, None, None]
    sums = []
    for points, true, confidence, seen in (
        (points1, truth.points1, confidence1, valid[0]),
        (points2, truth.points2, confidence2, valid[1]),
    ):
        apart = length(points / scale - true / true_scale)
        sums.append(jnp.sum(jnp.where(seen, confidence * apart - ALPHA * jnp.log(confidence), 0)))
    return sums[0], sums[1]


def pair_loss(
    points1: Float[Array, "B H W 3"],
    confidence1: Float[Array, "B H W"],
    points2: Float[Array, "B H W 3"],
    confidence2: Float[Array, "B H W"],
    truth: PairTruth,
) -> Float[Array, ""]:
    """The mean of each map's terms over its valid pixels, of the whole batch, summed over both maps."""
    sums = confidence_terms(points1, confidence1, points2, confidence2, truth)
    return sum(total / jnp.maximum(jnp.sum(seen), 1) for total, seen in zip(sums, (truth.valid1, truth.valid2), strict=True))  # type: ignore[return-value]


def edm_error(v: Float[Array, "B ..."], noisy: Float[Array, "B ..."], clean: Float[Array, "B ..."], sigma: Array) -> Array:
    """(1 + sigma^2) / sigma^2 times the squared error of what a v-prediction says is clean, of each entry.

    sigma broadcasts. Written as the error of v itself, which is the same and keeps its digits where noise is little.
    """
    root = jnp.sqrt(jnp.square(sigma) + 1)
    return jnp.square(v - (noisy / root - root * clean) / sigma)
