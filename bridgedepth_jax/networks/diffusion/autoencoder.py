"""The KL autoencoder of Stable Diffusion, whole or in tiles (spec `diffusion.md` section 3).

B batch, H W pixels, h w latents (1/8 pixels), Z latent channels. Images are in -1..1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import at_least_float32, conv, torch_default
from bridgedepth_jax.networks.diffusion.blocks import DownEncoderBlock2D, MidBlock2D, UpDecoderBlock2D
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig
from bridgedepth_jax.networks.diffusion.resnet import group_norm

Function = Callable[[Array], Array]
OVERLAP = 0.25  # of a tile


class Encoder(nn.Module):
    """An image to mean and log variance of its latent, before `quant_conv`."""

    config: AutoencoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B h w Z2"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        shared: dict[str, Any] = dict(groups=c.norm_num_groups, eps=c.norm_eps, dtype=dtype)
        levels = len(c.block_out_channels)
        x = conv(c.block_out_channels[0], 3, kernel_init=torch_default, dtype=dtype, name="conv_in")(x.astype(dtype))
        for i, width in enumerate(c.block_out_channels):
            down = i < levels - 1
            x = DownEncoderBlock2D(width, c.layers_per_block, downsample=down, name=f"down_blocks_{i}", **shared)(x)
        x = MidBlock2D(c.block_out_channels[-1], name="mid_block", **shared)(x)
        x = nn.silu(group_norm(c.norm_num_groups, c.norm_eps, dtype, "conv_norm_out")(x))
        return conv(2 * c.latent_channels, 3, kernel_init=torch_default, dtype=dtype, name="conv_out")(x)


class Decoder(nn.Module):
    """A latent, after `post_quant_conv`, to an image. remat: levels are computed again in the backward pass."""

    config: AutoencoderConfig
    remat: bool = False

    @nn.compact
    def __call__(self, z: Float[Array, "B h w Z"]) -> Float[Array, "B H W 3"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        shared: dict[str, Any] = dict(groups=c.norm_num_groups, eps=c.norm_eps, dtype=dtype)
        levels = len(c.block_out_channels)
        x = conv(c.block_out_channels[-1], 3, kernel_init=torch_default, dtype=dtype, name="conv_in")(z.astype(dtype))
        x = MidBlock2D(c.block_out_channels[-1], name="mid_block", **shared)(x)
        block = nn.remat(UpDecoderBlock2D) if self.remat else UpDecoderBlock2D
        for i, width in enumerate(reversed(c.block_out_channels)):
            up = i < levels - 1
            x = block(width, c.layers_per_block + 1, upsample=up, name=f"up_blocks_{i}", **shared)(x)
        x = nn.silu(group_norm(c.norm_num_groups, c.norm_eps, dtype, "conv_norm_out")(x))
        return conv(c.out_channels, 3, kernel_init=torch_default, dtype=dtype, name="conv_out")(x)


class AutoencoderKL(nn.Module):
    """`encode` gives moments, `decode` an image; neither scales a latent."""

    config: AutoencoderConfig
    remat: bool = False  # of the decoder's levels

    def setup(self) -> None:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        self.encoder, self.decoder = Encoder(c), Decoder(c, self.remat)
        if c.quant_conv:
            self.quant_conv = conv(2 * c.latent_channels, 1, kernel_init=torch_default, dtype=dtype)
            self.post_quant_conv = conv(c.latent_channels, 1, kernel_init=torch_default, dtype=dtype)

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w Z2"]:
        """Mean and log variance side by side, at least float32."""
        x = self.encoder(image)
        x = self.quant_conv(x) if self.config.quant_conv else x
        return x.astype(at_least_float32(x.dtype))

    def decode(self, latent: Float[Array, "B h w Z"]) -> Float[Array, "B H W 3"]:
        """The image, not clipped, at least float32."""
        x = latent.astype(self.config.dtype)
        x = self.decoder(self.post_quant_conv(x) if self.config.quant_conv else x)
        return x.astype(at_least_float32(x.dtype))

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """There and back through the mode; makes every parameter."""
        return self.decode(Gaussian.of(self.encode(image)).mean)


class Gaussian(NamedTuple):
    """A latent's distribution; its mode is its mean."""

    mean: Float[Array, "B h w Z"]
    logvar: Float[Array, "B h w Z"]

    @classmethod
    def of(cls, moments: Float[Array, "B h w Z2"]) -> "Gaussian":
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return cls(mean, jnp.clip(logvar, -30, 20))

    @property
    def std(self) -> Float[Array, "B h w Z"]:
        return jnp.exp(0.5 * self.logvar)

    def sample(self, noise: Float[Array, "B h w Z"]) -> Float[Array, "B h w Z"]:
        """A draw for unit normal `noise`."""
        return self.mean + self.std * noise


def scale_latent(latent: Array, config: AutoencoderConfig) -> Array:
    """What a diffusion network sees of an encoder's mode."""
    return (latent - config.shift_factor) * config.scaling_factor


def unscale_latent(latent: Array, config: AutoencoderConfig) -> Array:
    """Inverse of `scale_latent`: what the decoder wants."""
    return latent / config.scaling_factor + config.shift_factor


def encode_tiled(encode: Function, image: Float[Array, "B H W 3"], tile: int, factor: int = 8) -> Float[Array, "B h w Z2"]:
    """`encode` tile by tile where a side exceeds `tile` pixels, overlaps blended; else of the whole.

    Not equal to the whole: a tile's norms see less. `encode` is called for few sizes: give it compiled.
    """
    if max(image.shape[1:3]) <= tile:
        return encode(image)
    small = tile // factor
    return _tiled(encode, image, tile, int(tile * (1 - OVERLAP)), int(small * OVERLAP), small)


def decode_tiled(decode: Function, latent: Float[Array, "B h w Z"], tile: int, factor: int = 8) -> Float[Array, "B H W 3"]:
    """`decode` tile by tile where a side exceeds `tile` / `factor` latents, overlaps blended; else of the whole."""
    small = tile // factor
    if max(latent.shape[1:3]) <= small:
        return decode(latent)
    return _tiled(decode, latent, small, int(small * (1 - OVERLAP)), int(tile * OVERLAP), tile)


def _tiled(function: Function, x: Array, size: int, stride: int, overlap: int, out: int) -> Array:
    """Tiles of `size` every `stride`; of each result the first `out` - `overlap`, its first `overlap` faded in."""
    above: list[Array] = []
    rows = []
    for i in range(0, x.shape[1], stride):
        row: list[Array] = []
        for j in range(0, x.shape[2], stride):
            tile = function(x[:, i : i + size, j : j + size])
            if above:
                tile = _blend(above[len(row)], tile, overlap, 1)
            if row:
                tile = _blend(row[-1], tile, overlap, 2)
            row.append(tile)
        above = row
        keep = out - overlap
        rows.append(jnp.concatenate([tile[:, :keep, :keep] for tile in row], axis=2))
    return jnp.concatenate(rows, axis=1)


def _blend(before: Array, tile: Array, overlap: int, axis: int) -> Array:
    """`tile` whose first pixels along `axis` fade from the last ones of `before`."""
    overlap = min(overlap, before.shape[axis], tile.shape[axis])
    shape = [1] * tile.ndim
    shape[axis] = overlap
    weight = (jnp.arange(overlap, dtype=tile.dtype) / max(overlap, 1)).reshape(shape)
    last = jnp.moveaxis(jnp.moveaxis(before, axis, 0)[before.shape[axis] - overlap :], 0, axis)
    first, rest = jnp.split(tile, [overlap], axis=axis)
    return jnp.concatenate([last * (1 - weight) + first * weight, rest], axis=axis)
