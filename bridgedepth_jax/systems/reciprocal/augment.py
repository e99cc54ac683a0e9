"""What changes a pair before the networks see it (spec section 4): mirroring with exchange of the views, and colour.

On the device, since both the changed and the clean images are needed; the draws of a row depend on its number alone.
B batch, H W an image's sides; RGB 0..255.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FACTORS = (0.8, 1.2)  # of brightness, contrast and saturation
HUE = 0.1  # turns, either way
GREY = (0.299, 0.587, 0.114)


class Views(NamedTuple):
    """A pair as the losses and teachers see it, and as the student does."""

    clean: tuple[Array, Array]  # left, right (B, H, W, 3)
    seen: tuple[Array, Array]


def augment(
    left: Float[Array, "B H W 3"], right: Float[Array, "B H W 3"], keys: Array, *, mirror: float, colour: float
) -> Views:
    """One random key a row. The right view of a mirrored pair is its left one, mirrored, so disparities stay positive."""

    def one(left: Array, right: Array, key: Array) -> Views:
        flip, recolour, shades = jax.random.split(key, 3)
        flipped = jax.random.bernoulli(flip, mirror)
        pair = jnp.where(flipped, right[:, ::-1], left), jnp.where(flipped, left[:, ::-1], right)
        draws = jax.random.uniform(shades, (4,), left.dtype)
        changed = jax.random.bernoulli(recolour, colour)
        recoloured = [jnp.where(changed, jitter(view, draws), view) for view in pair]
        return Views(pair, (recoloured[0], recoloured[1]))

    return jax.vmap(one)(left, right, keys)


def jitter(image: Float[Array, "H W 3"], draws: Float[Array, "4"]) -> Float[Array, "H W 3"]:
    """Brightness, contrast, saturation and hue, in this order, by four draws from 0..1; clipped after each."""
    low, high = FACTORS
    brightness, contrast, saturation = (low + (high - low) * draws[i] for i in range(3))
    grey = jnp.asarray(GREY, image.dtype)
    clip = lambda x: jnp.clip(x, 0, 255)
    image = clip(brightness * image)
    image = clip(contrast * image + (1 - contrast) * jnp.mean(image @ grey))
    image = clip(saturation * image + (1 - saturation) * (image @ grey)[..., None])
    return turn_hue(image, HUE * (2 * draws[3] - 1))


def turn_hue(image: Float[Array, "H W 3"], turns: Float[Array, ""]) -> Float[Array, "H W 3"]:
    """Hue of HSV plus `turns`; maximum and minimum of the channels stay."""
    top, bottom = jnp.max(image, axis=-1), jnp.min(image, axis=-1)
    spread = top - bottom
    safe = jnp.where(spread > 0, spread, 1)
    r, g, b = (image[..., i] for i in range(3))
    # Comparing channels with each other, not with their maximum: a compiler may round the two differently.
    red, green = (r >= g) & (r >= b), g >= b
    sixth = jnp.where(red, (g - b) / safe, jnp.where(green, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue = sixth / 6 + turns
    # Each channel is a trapezoid of the hue, a third of a turn apart.
    channel = lambda n: top - spread * jnp.clip(jnp.minimum((n + 6 * hue) % 6, 4 - (n + 6 * hue) % 6), 0, 1)
    return jnp.stack([channel(5), channel(3), channel(1)], axis=-1)
