"""The autoencoder of Stable Video Diffusion, whose decoder mixes frames (spec `video.md` section 4.2).

B images or clips, F frames of a clip, H W pixels, h w latents, Z latent channels. Images are in -1..1.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import at_least_float32, conv, torch_default
from bridgedepth_jax.networks.diffusion.attention import AttentionBlock
from bridgedepth_jax.networks.diffusion.autoencoder import Encoder, Gaussian
from bridgedepth_jax.networks.diffusion.resnet import Upsample2D, group_norm
from bridgedepth_jax.networks.video.config import VideoAutoencoderConfig
from bridgedepth_jax.networks.video.temporal import Clip, SpatioTemporalResBlock, TemporalConv, per_clip, per_frame


class TemporalBlocks(nn.Module):
    """Residual blocks, in the middle with attention within each frame after the first, on the way up with upsampling."""

    config: VideoAutoencoderConfig
    features: int
    layers: int
    attention: bool = False
    upsample: bool = False

    @nn.compact
    def __call__(self, x: Clip) -> Float[Array, "B F _ _ D"]:
        c, dtype, frames = self.config, jnp.dtype(self.config.dtype), x.shape[1]
        for j in range(self.layers):
            block = SpatioTemporalResBlock(
                self.features, c.norm_num_groups, c.norm_eps, c.temporal_eps, True, dtype, name=f"resnets_{j}"
            )
            x = block(x)
            if self.attention and j == 0:
                attend = AttentionBlock(c.norm_num_groups, c.norm_eps, dtype=dtype, name="attentions_0")
                x = per_clip(attend(per_frame(x)), frames)
        if self.upsample:
            x = per_clip(Upsample2D(self.features, dtype, name="upsamplers_0")(per_frame(x)), frames)
        return x


class TemporalDecoder(nn.Module):
    """A clip of latents to images; frames see each other."""

    config: VideoAutoencoderConfig

    @nn.compact
    def __call__(self, z: Float[Array, "B F h w Z"]) -> Float[Array, "B F H W D"]:
        c, dtype, frames = self.config, jnp.dtype(self.config.dtype), z.shape[1]
        widths: Any = c.block_out_channels[::-1]
        x = conv(widths[0], 3, kernel_init=torch_default, dtype=dtype, name="conv_in")(per_frame(z).astype(dtype))
        x = TemporalBlocks(c, widths[0], c.layers_per_block, attention=True, name="mid_block")(per_clip(x, frames))
        for i, width in enumerate(widths):
            up = i < len(widths) - 1
            x = TemporalBlocks(c, width, c.layers_per_block + 1, upsample=up, name=f"up_blocks_{i}")(x)
        x = nn.silu(group_norm(c.norm_num_groups, c.norm_eps, dtype, "conv_norm_out")(per_frame(x)))
        x = per_clip(conv(c.out_channels, 3, kernel_init=torch_default, dtype=dtype, name="conv_out")(x), frames)
        return TemporalConv(c.out_channels, dtype, name="time_conv_out")(x)


class AutoencoderKLTemporalDecoder(nn.Module):
    """`encode` gives the mode of images, `decode` the images of a clip of latents; neither scales a latent."""

    config: VideoAutoencoderConfig

    def setup(self) -> None:
        c = self.config
        self.encoder, self.decoder = Encoder(c), TemporalDecoder(c)
        self.quant_conv = conv(2 * c.latent_channels, 1, kernel_init=torch_default, dtype=jnp.dtype(c.dtype))

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w Z"]:
        """The mode of the latent of each image, at least float32."""
        x = self.quant_conv(self.encoder(image))
        return Gaussian.of(x.astype(at_least_float32(x.dtype))).mean

    def decode(self, latent: Float[Array, "B F h w Z"]) -> Float[Array, "B F H W 3"]:
        """The images, not clipped, at least float32. What is decoded together changes the result."""
        x = self.decoder(latent)
        return x.astype(at_least_float32(x.dtype))

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "1 B H W 3"]:
        """There and back, the images as one clip; makes every parameter."""
        return self.decode(self.encode(image)[None])
