"""What the generator is rewarded for: that its images show the depth they were made from, and that they please.

Paper section 3 and spec `mono-training.md` section 8. B batch, H W pixels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from bridgedepth_jax.ops.resize import resize_antialiased, resize_bilinear
from bridgedepth_jax.systems.bridge_mde.generator.config import RewardTask

DEPTH, AESTHETIC = 0.9, 0.1  # the paper's weights
LEAST_NORM = 1e-12


def depth_loss(
    generated: Float[Array, "B H W"],
    source: Float[Array, "B H W"],
    mask: Bool[Array, "B H W"] | None = None,
    *,
    centred: bool = True,
) -> Float[Array, "B"]:
    """1 - cosine of two inverse depth maps over an image's valid pixels, both centred by their mean there.

    Not centred is the paper's letter: positive maps of unrelated scenes then agree by 0.8.
    """
    mask = jnp.ones(source.shape, bool) if mask is None else mask
    count = jnp.maximum(jnp.sum(mask, axis=(1, 2), keepdims=True, dtype=generated.dtype), 1)

    def prepared(d: Array) -> Array:
        d = jnp.where(mask, d, 0)
        return jnp.where(mask, d - jnp.sum(d, axis=(1, 2), keepdims=True) / count, 0) if centred else d

    a, b = prepared(generated), prepared(source.astype(generated.dtype))
    dot = lambda x, y: jnp.sum(x * y, axis=(1, 2))
    return 1 - dot(a, b) / jnp.sqrt(jnp.maximum(dot(a, a) * dot(b, b), LEAST_NORM**2))


class Rewards(NamedTuple):
    """Means over images."""

    loss: Float[Array, ""]
    depth_loss: Float[Array, ""]
    aesthetic: Float[Array, ""]


def combine(
    depth: Float[Array, "B"], aesthetic: Float[Array, "B"] | None, weights: tuple[float, float] = (DEPTH, AESTHETIC)
) -> Rewards:
    """What is minimised: 0.9 of the depth loss less 0.1 of the score."""
    mean = jnp.mean(depth)
    score = jnp.zeros_like(mean) if aesthetic is None else jnp.mean(aesthetic)
    return Rewards(weights[0] * mean - weights[1] * score, mean, score)


def see_depth(
    depth: Callable[[Array], Array], image: Float[Array, "B H W 3"], size: tuple[int, int], multiple: int = 14
) -> Float[Array, "B h w"]:
    """What a frozen relative network (RGB 0..255 to inverse depth) sees in images of -1..1, at `size`.

    They are clipped and resized with antialias to sides that are multiples of what its patches are.
    """
    seen = tuple(max(multiple, round(side / multiple) * multiple) for side in image.shape[1:3])
    found = depth(255 * resize_antialiased(jnp.clip(image / 2 + 0.5, 0, 1), seen))  # type: ignore[arg-type]
    return resize_bilinear(found[..., None], size, align_corners=True)[..., 0]


def draw_last(task: RewardTask, key: Array) -> int | Array:
    """How many steps of this update carry a gradient: a number, or an array of one that is drawn."""
    return jax.random.randint(key, (), 1, task.steps + 1) if task.last == "random" else task.last


def reward_loss(
    task: RewardTask,
    generate: Callable[..., Array],
    depth: Callable[[Array], Array],
    score: Callable[[Array], Array] | None = None,
) -> Callable[..., tuple[Array, tuple[Rewards, Array]]]:
    """The loss of an update: (parameters, source, noise, key, mask=None) -> (loss, (rewards, images)).

    generate: (parameters, source, noise, last=) to images, about -1..1. depth, score: of images, frozen; depth at the source's
    size, inverse depth (B, H, W). Parameters are whatever `generate` takes: all of a transformer, or low-rank changes.
    """

    def loss(
        params: Any, source: Array, noise: Array, key: Array, mask: Array | None = None
    ) -> tuple[Array, tuple[Rewards, Array]]:
        image = generate(params, source, noise, last=draw_last(task, key))
        unlike = depth_loss(depth(image), source, mask, centred=task.centred)
        found = combine(unlike, None if score is None else score(image), (task.depth, task.aesthetic))
        return found.loss, (found, image)

    return loss
