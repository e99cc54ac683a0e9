"""Images for depth maps with FLUX.1-Depth (spec `mono-training.md` sections 7 and 8): control, sampler, decoder.

B images, H W pixels (multiples of 16), h w latents, N tokens. Images are RGB in -1..1.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.diffusion import flow, flux
from bridgedepth_jax.networks.diffusion.autoencoder import AutoencoderKL, Gaussian, scale_latent, unscale_latent
from bridgedepth_jax.systems.bridge_mde.generator.config import GeneratorConfig

# Weights: transformer, vae, prompt_embeds (S, 4096), pooled_prompt_embeds (768,).
Weights = Mapping[str, Any]


def control_image(inverse: Float[Array, "B H W"]) -> Float[Array, "B H W 3"]:
    """Inverse depth, near = 1, by its smallest and largest value to -1..1, thrice; a constant map is -1."""
    low, high = (reduce(inverse, axis=(1, 2), keepdims=True) for reduce in (jnp.min, jnp.max))
    scaled = (inverse - low) / jnp.maximum(high - low, 1e-12) * 2 - 1
    return jnp.repeat(scaled[..., None], 3, axis=-1)


def check_side(height: int, width: int, multiple: int, where: str) -> None:
    """InputError: sides that tokens do not cover."""
    if height % multiple or width % multiple or min(height, width) < multiple:
        raise InputError(f"{where}: {height}x{width}, expected sides that are multiples of {multiple}")


class Generator(NamedTuple):
    """Functions of the weights; jittable."""

    encode: Callable[[Weights, Array], Array]  # image -> scaled latent, the mean
    decode: Callable[[Weights, Array], Array]  # scaled latent -> image
    sample: Callable[..., Array]  # (weights, packed control, noise (B, h, w, Z), last=, steps=) -> latent


def make_generator(config: GeneratorConfig, *, remat: bool = False) -> Generator:
    """FLUX and its autoencoder. remat: steps, blocks and decoder levels are computed again in the backward pass."""
    transformer, vae = flux.FluxTransformer2DModel(config.transformer, remat), AutoencoderKL(config.vae, remat)

    def encode(weights: Weights, image: Array) -> Array:
        moments: Any = vae.apply({"params": weights["vae"]}, image, method="encode")
        return scale_latent(Gaussian.of(moments).mean, config.vae)

    def decode(weights: Weights, latent: Array) -> Array:
        image: Any = vae.apply({"params": weights["vae"]}, unscale_latent(latent, config.vae), method="decode")
        return image

    def sample(weights: Weights, control: Array, noise: Array, *, last: int | Array = 0, steps: int | None = None) -> Array:
        steps, dtype, batch = steps or config.steps, noise.dtype, len(noise)
        rows, columns = noise.shape[1] // flow.CELL, noise.shape[2] // flow.CELL
        text = jnp.broadcast_to(weights["prompt_embeds"], (batch, *weights["prompt_embeds"].shape)).astype(dtype)
        pooled = jnp.broadcast_to(weights["pooled_prompt_embeds"], (batch, *weights["pooled_prompt_embeds"].shape)).astype(
            dtype
        )
        by = flux.rotation(config.transformer, text.shape[1], rows, columns, dtype)
        levels = flow.sigmas(config.flow, steps, rows * columns)
        times = jnp.asarray(flux.scalar_features(levels[:-1]), dtype)
        guidance = jnp.asarray(flux.scalar_features(np.full(batch, config.guidance)), dtype)

        def velocity(params: Any, x: Array, time: Array) -> Array:
            both = jnp.concatenate([x, control.astype(x.dtype)], axis=-1)
            time = jnp.broadcast_to(time[None], (batch, time.shape[-1]))
            found: Any = transformer.apply({"params": params}, both, time, guidance, text, pooled, by)
            return found

        x = flow.sample(velocity, weights["transformer"], flow.pack(noise), levels, times, last=last, remat=remat)
        return flow.unpack(x, rows, columns)

    return Generator(encode, decode, sample)


def draw_noise(seed: int, path: str, draw: int, shape: tuple[int, ...]) -> Float[Array, "h w Z"]:
    """The start of an image: a function of the seed, the depth map's path and the number of the draw alone."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), np.uint32(zlib.crc32(path.encode()))), draw)
    return jax.random.normal(key, shape)


def make_images(config: GeneratorConfig, *, steps: int | None = None) -> Callable[[Weights, Array, Array], Array]:
    """(weights, inverse depth (B, H, W), noise (B, h, w, Z)) -> RGB 0..1 (B, H, W, 3); compile once for a size."""
    made = make_generator(config)

    def run(weights: Weights, inverse: Array, noise: Array) -> Array:
        control = flow.pack(made.encode(weights, control_image(inverse)))
        image = made.decode(weights, made.sample(weights, control, noise, steps=steps))
        return jnp.clip(image / 2 + 0.5, 0, 1)

    return run
