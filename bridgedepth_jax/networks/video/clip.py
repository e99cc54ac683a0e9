"""CLIP's image encoder, and how a frame comes to its size (spec `video.md` section 4.3).

B frames, H W pixels, T tokens (class token first), D width, E width of the embedding.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import (
    Linear,
    MergeHeads,
    Mlp,
    SplitHeads,
    at_least_float32,
    attention,
    conv,
    layer_norm,
    normal_002,
)
from bridgedepth_jax.networks.video.config import ImageEncoderConfig
from bridgedepth_jax.ops.resize import Taps, cubic_weights

# Of RGB in 0..1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def antialiased_cubic(size: int, out: int) -> Float[np.ndarray, "O I"]:
    """One axis of the resize as a matrix: a Gaussian with reflected borders, then cubic taps with aligned corners."""
    sigma = max((size / out - 1) / 2, 0.001)
    width = int(max(4 * sigma, 3))
    width += 1 - width % 2
    offsets = np.arange(width) - width // 2
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    if width // 2 >= size:
        raise ValueError(f"a side of {size} pixels, expected more than {width // 2} to be made {out}")
    blur = np.zeros((size, size))
    seen = np.abs(np.arange(size)[:, None] + offsets)
    seen = np.where(seen >= size, 2 * (size - 1) - seen, seen)
    np.add.at(blur, (np.arange(size)[:, None], seen), kernel)
    taps = aligned_cubic_taps(size, out)
    cubic = np.zeros((out, size))
    np.add.at(cubic, (np.arange(out)[:, None], taps.indices), taps.weights)
    return cubic @ blur


def aligned_cubic_taps(size: int, out: int) -> Taps:
    """Cubic convolution with a = -0.75, aligned corners, border clamped."""
    source = np.arange(out) * ((size - 1) / (out - 1)) if out > 1 else np.zeros(1)
    low = np.floor(source).astype(int)
    reach = low[:, None] + np.arange(-1, 3)
    return Taps(np.clip(reach, 0, size - 1), cubic_weights(source[:, None] - reach))


def resize_frames(images: Float[Array, "B H W 3"], size: tuple[int, int]) -> Float[Array, "B H2 W2 3"]:
    """To `size` = (height, width), antialiased; values may leave the range a little."""
    rows, columns = (
        jnp.asarray(antialiased_cubic(side, out), images.dtype) for side, out in zip(images.shape[1:3], size, strict=True)
    )
    return jnp.einsum("oh,bhwc,pw->bopc", rows, images, columns, precision="highest")


def normalize_frames(images: Float[Array, "B H W 3"], side: int) -> Float[Array, "B S S 3"]:
    """Frames in -1..1 at any size, as the encoder wants them."""
    x = (resize_frames(images, (side, side)) + 1) / 2
    mean, std = (jnp.asarray(v, x.dtype).reshape(1, 1, 1, 3) for v in (MEAN, STD))
    return (x - mean) / std


class ImageEmbeddings(nn.Module):
    """Patches, a class token before them, and positions."""

    config: ImageEncoderConfig

    @nn.compact
    def __call__(self, image: Float[Array, "B S S 3"]) -> Float[Array, "B T D"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        patches = conv(
            *(c.hidden_size, c.patch_size),
            stride=c.patch_size,
            padding=0,
            use_bias=False,
            kernel_init=normal_002,
            dtype=dtype,
            name="patch_embedding",
        )
        x = patches(image.astype(dtype)).reshape(len(image), -1, c.hidden_size)
        token = self.param("class_embedding", normal_002, (c.hidden_size,)).astype(dtype)
        x = jnp.concatenate([jnp.broadcast_to(token[None, None], (len(image), 1, c.hidden_size)), x], axis=1)
        places = nn.Embed(1 + (c.image_size // c.patch_size) ** 2, c.hidden_size, dtype=dtype, name="position_embedding")
        return x + places.embedding.astype(dtype)[None]


class ImageAttention(nn.Module):
    """Attention of an image's tokens with each other."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        split = lambda name: SplitHeads(x.shape[-1], heads=self.heads, dtype=self.dtype, name=name)
        (q,), (k,), (v,) = split("q_proj")(x), split("k_proj")(x), split("v_proj")(x)
        return MergeHeads(x.shape[-1], dtype=self.dtype, name="out_proj")(attention(q, k, v))


class ImageLayer(nn.Module):
    """x += self_attn(layer_norm1 x); x += mlp(layer_norm2 x)."""

    config: ImageEncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        norm = lambda name: layer_norm(c.layer_norm_eps, dtype, name)
        x = x + ImageAttention(c.num_attention_heads, dtype, name="self_attn")(norm("layer_norm1")(x))
        return x + Mlp(c.intermediate_size, c.hidden_size, dtype=dtype, name="mlp")(norm("layer_norm2")(x))


class ImageLayers(nn.Module):
    """All layers, one after the other."""

    config: ImageEncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        for i in range(self.config.num_hidden_layers):
            x = ImageLayer(self.config, name=f"layers_{i}")(x)
        return x


class VisionTransformer(nn.Module):
    """Tokens after the last layer, and the normed class token."""

    config: ImageEncoderConfig

    @nn.compact
    def __call__(self, image: Float[Array, "B S S 3"]) -> tuple[Float[Array, "B T D"], Float[Array, "B D"]]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        norm = lambda name: layer_norm(c.layer_norm_eps, dtype, name)
        x = norm("pre_layrnorm")(ImageEmbeddings(c, name="embeddings")(image))  # spelled as in the files
        x = ImageLayers(c, name="encoder")(x)
        return x, norm("post_layernorm")(x[:, 0])


class CLIPVisionModelWithProjection(nn.Module):
    """Embeddings (B, E) of frames (B, H, W, 3) in -1..1 of any size, and the tokens after the last layer."""

    config: ImageEncoderConfig

    @nn.compact
    def __call__(self, frames: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B E"], Float[Array, "B T D"]]:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        frames = normalize_frames(frames.astype(at_least_float32(frames.dtype)), c.image_size)
        tokens, pooled = VisionTransformer(c, name="vision_model")(frames)
        embedding = Linear(c.projection_dim, use_bias=False, dtype=dtype, name="visual_projection")(pooled)
        return embedding.astype(at_least_float32(dtype)), tokens
