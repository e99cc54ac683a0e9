"""Inpainting with a latent diffusion network (spec `zerostereo.md` sections 3 and 7).

B batch, H W pixels, h w latents, Z latent channels, M channels of the mask beside a latent, S tokens of the context.
Images are in -1..1; a mask is 1 in holes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, UInt8

from bridgedepth_jax.networks.diffusion import schedule
from bridgedepth_jax.networks.diffusion.autoencoder import (
    AutoencoderKL,
    Gaussian,
    decode_tiled,
    encode_tiled,
    scale_latent,
    unscale_latent,
)
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, ScheduleConfig, UNetConfig
from bridgedepth_jax.networks.diffusion.unet import UNet2DConditionModel


class Codec(NamedTuple):
    """Between images and what the diffusion network works on; images' sides are multiples of `factor`."""

    factor: int  # pixels of a latent's side
    channels: int  # Z
    mask_channels: int  # M
    encode: Callable[[Any, Array], Array]  # (params, image): the latent as the network sees it
    decode: Callable[[Any, Array], Array]  # (params, latent): the image, not clipped
    shrink: Callable[[Array], Array]  # mask (B, H, W): (B, h, w, M)


def autoencoder_codec(config: AutoencoderConfig, tile: int | None = None) -> Codec:
    """Stable Diffusion's: the mode of the autoencoder, scaled; of the mask the top-left pixel of each cell.

    tile: pixels of a side beyond which both ways go tile by tile (not equal to the whole).
    """
    model = AutoencoderKL(config)
    encode = jax.jit(lambda params, x: model.apply({"params": params}, x, method="encode"))
    decode = jax.jit(lambda params, z: model.apply({"params": params}, z, method="decode"))

    def to_latent(params: Any, image: Array) -> Array:
        once = lambda x: encode(params, x)
        moments = encode_tiled(once, image, tile, config.factor) if tile else once(image)
        return scale_latent(Gaussian.of(moments).mean, config)

    def to_image(params: Any, latent: Array) -> Array:
        once = lambda z: decode(params, z)
        latent = unscale_latent(latent, config)
        return decode_tiled(once, latent, tile, config.factor) if tile else once(latent)

    factor = config.factor
    return Codec(factor, config.latent_channels, 1, to_latent, to_image, lambda mask: mask[:, ::factor, ::factor, None])


def space_to_depth_codec(factor: int = 4) -> Codec:
    """Pixels of a cell as channels, an exact inverse without parameters; the mask likewise."""
    fold = lambda x: rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=factor, q=factor)
    unfold = lambda z: rearrange(z, "b h w (p q c) -> b (h p) (w q) c", p=factor, q=factor)
    cells = factor * factor
    return Codec(factor, 3 * cells, cells, lambda _, x: fold(x), lambda _, z: unfold(z), lambda mask: fold(mask[..., None]))


@flax.struct.dataclass
class Inpainted:
    """A sampled image and what led to it."""

    latent: Float[Array, "B h w Z"]
    decoded: Float[Array, "B H W 3"]  # -1..1
    blended: Float[Array, "B H W 3"]  # -1..1, decoded in the holes only
    image: UInt8[Array, "B H W 3"]


def pad_edges(x: Array, factor: int) -> Array:
    """(B, H, W, ...) to sides that are multiples of `factor`, the edge repeated, the smaller half at the left and top."""
    pads = [(0, 0)] * x.ndim
    for axis in (1, 2):
        missing = -x.shape[axis] % factor
        pads[axis] = (missing // 2, missing - missing // 2)
    return jnp.pad(x, pads, mode="edge")


def crop_edges(x: Any, size: tuple[int, int], factor: int) -> Array:
    """Inverse of `pad_edges` for an image of `size` = (height, width)."""
    top, left = ((-side % factor) // 2 for side in size)
    return x[:, top : top + size[0], left : left + size[1]]


def fill_rows(image: Float[Array, "B H W 3"], mask: Float[Array, "B H W"]) -> Float[Array, "B H W 3"]:
    """Holes take the next pixel to the right that is none, where there is none that to the left; an empty row becomes 0."""
    hole, width = mask >= 0.5, mask.shape[-1]
    column = jax.lax.broadcasted_iota(jnp.int32, mask.shape, mask.ndim - 1)
    after = jax.lax.cummin(jnp.where(hole, width, column), axis=mask.ndim - 1, reverse=True)
    before = jax.lax.cummax(jnp.where(hole, -1, column), axis=mask.ndim - 1)
    source = jnp.where(after < width, after, before)
    filled = jnp.take_along_axis(image, jnp.maximum(source, 0)[..., None], axis=-2)
    return jnp.where((source >= 0)[..., None], filled, 0)


class Basis(NamedTuple):
    """What a network draws: the image, or with `gain` > 0 that many times its difference from the one with filled rows.

    A small network need not draw what is known, then; the known part enters as the condition and is added to what it draws.
    """

    gain: float = 0.0

    def known(self, image: Float[Array, "B H W 3"], mask: Float[Array, "B H W"]) -> Float[Array, "B H W 3"]:
        """The image without its holes: 0 in them, or filled along rows."""
        return fill_rows(image, mask) if self.gain else image * (mask < 0.5)[..., None]

    def unknown(self, image: Float[Array, "B H W 3"], known: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """What is drawn for a whole image."""
        return (image - known) * self.gain if self.gain else image

    def whole(self, drawn: Float[Array, "B H W 3"], known: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """Inverse of `unknown`."""
        return known + drawn / self.gain if self.gain else drawn


IMAGE = Basis()  # as published


def masked_condition(
    codec: Codec, params: Any, known: Float[Array, "B H W 3"], mask: Float[Array, "B H W"]
) -> Float[Array, "B h w MZ"]:
    """What the network is told: the mask, and the latent of what is known (`Basis.known`)."""
    return jnp.concatenate([codec.shrink(mask), codec.encode(params, known)], axis=-1)


def to_uint8(x: Float[Array, "*S"]) -> UInt8[Array, "*S"]:
    """-1..1 to grey levels, half to even."""
    return jnp.round((x + 1) * 127.5).clip(0, 255).astype(jnp.uint8)


def make_inpainter(
    unet: UNetConfig, codec: Codec, config: ScheduleConfig, steps: int, *, basis: Basis = IMAGE, **options: Any
) -> Callable[..., Inpainted]:
    """f(params, image, mask, context, start) -> Inpainted, for images of any size.

    params {"unet", "vae"}; context (B or 1, S, E); start (B, h, w, Z), unit normal, of the padded size. Encoding, the walk and
    decoding are three programs, each compiled once for a padded size; `options` go to `schedule.sample`.
    """
    if unet.in_channels != 2 * codec.channels + codec.mask_channels or unet.out_channels != codec.channels:
        raise ValueError(
            f"unet channels {unet.in_channels} in, {unet.out_channels} out, expected "
            f"{2 * codec.channels + codec.mask_channels} and {codec.channels} for inpainting"
        )
    model = UNet2DConditionModel(unet)

    @jax.jit
    def walk(params: Any, start: Array, condition: Array, context: Array) -> Array:
        def predict(x: Array, t: Array) -> Array:
            return model.apply({"params": params}, jnp.concatenate([x, condition], axis=-1), t, context)  # type: ignore[return-value]

        return schedule.sample(predict, start, config, steps, **options)

    def inpaint(params: Any, image: Array, mask: Array, context: Array, start: Array) -> Inpainted:
        padded, holes = pad_edges(image, codec.factor), pad_edges(mask, codec.factor)
        known = basis.known(padded, holes)
        condition = masked_condition(codec, params.get("vae"), known, holes)
        latent = walk(params["unet"], start, condition, context)
        decoded = jnp.clip(basis.whole(codec.decode(params.get("vae"), latent), known), -1, 1)
        decoded = crop_edges(decoded, (image.shape[1], image.shape[2]), codec.factor)
        blended = jnp.where((mask >= 0.5)[..., None], decoded, image)
        return Inpainted(latent, decoded, blended, to_uint8(blended))

    return inpaint
