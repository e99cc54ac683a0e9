"""DUSt3R, MonST3R and MASt3R: points of two images in the camera of the first (spec `video.md` section 1.2).

B batch, H W pixels (multiples of the patch), T tokens, D width. Points have no known unit.
"""

import flax.struct
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Linear, layer_norm, zeros
from bridgedepth_jax.networks.croco.blocks import EPSILON, RotaryBlock, RotaryDecoderBlock, grid_positions
from bridgedepth_jax.networks.croco.config import PairConfig
from bridgedepth_jax.networks.croco.heads import PairHead, points_of
from bridgedepth_jax.networks.dinov2 import PatchEmbed


@flax.struct.dataclass
class PairPoints:
    """What the network says of a pair; all points in the first image's camera."""

    points1: Float[Array, "B H W 3"]
    confidence1: Float[Array, "B H W"]  # above 1
    points2: Float[Array, "B H W 3"]
    confidence2: Float[Array, "B H W"]


class PairNetwork(nn.Module):
    """`encode` sees one image, `decode` the tokens of two; so each frame of a video is encoded once."""

    config: PairConfig

    def setup(self) -> None:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        self.mask_token = self.param("mask_token", zeros, (1, 1, c.dec_embed_dim))  # in the files, never used
        self.patch_embed = PatchEmbed(c.patch, c.enc_embed_dim, dtype)
        rotary = c.mlp_ratio, c.rope_base, dtype
        self.enc_blocks = [RotaryBlock(c.enc_num_heads, *rotary) for _ in range(c.enc_depth)]
        self.enc_norm = layer_norm(EPSILON, dtype)
        self.decoder_embed = Linear(c.dec_embed_dim, dtype=dtype)
        self.dec_blocks = [RotaryDecoderBlock(c.dec_num_heads, *rotary) for _ in range(c.dec_depth)]
        self.dec_blocks2 = [RotaryDecoderBlock(c.dec_num_heads, *rotary) for _ in range(c.dec_depth)]
        self.dec_norm = layer_norm(EPSILON, dtype)
        self.downstream_head1, self.downstream_head2 = PairHead(c), PairHead(c)

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B T D"]:
        """Normed tokens of images in -1..1. ValueError: sides that are no multiples of the patch."""
        _, height, width, _ = image.shape
        patch = self.config.patch
        if height % patch or width % patch:
            raise ValueError(f"images of {height} x {width} pixels, expected multiples of {patch}")
        x, positions = self.patch_embed(image), grid_positions(height // patch, width // patch)
        for block in self.enc_blocks:
            x = block(x, positions)
        return self.enc_norm(x)

    def decode(self, tokens1: Float[Array, "B T D"], tokens2: Float[Array, "B T D"], grid: tuple[int, int]) -> PairPoints:
        """Of the tokens of both images, each of `grid` = (rows, columns) patches."""
        positions = grid_positions(*grid)
        one, two = self.decoder_embed(tokens1), self.decoder_embed(tokens2)
        steps1, steps2 = [tokens1], [tokens2]
        for block1, block2 in zip(self.dec_blocks, self.dec_blocks2, strict=True):
            one, two = block1(one, two, positions, positions), block2(two, one, positions, positions)
            steps1.append(one)
            steps2.append(two)
        steps1[-1], steps2[-1] = self.dec_norm(one), self.dec_norm(two)
        first = points_of(self.downstream_head1(steps1, grid))
        second = points_of(self.downstream_head2(steps2, grid))
        return PairPoints(*first, *second)

    def __call__(self, image1: Float[Array, "B H W 3"], image2: Float[Array, "B H W 3"]) -> PairPoints:
        """Both steps; makes every parameter."""
        grid = (image1.shape[1] // self.config.patch, image1.shape[2] // self.config.patch)
        return self.decode(self.encode(image1), self.encode(image2), grid)
