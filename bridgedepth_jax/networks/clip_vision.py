"""The image tower of CLIP in transformers' names, every number a field (spec `mono-training.md` section 9, `video.md` 4.3).

B batch, H W pixels, T tokens (class token first), D width, P width of the shared space.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Linear, MergeHeads, SplitHeads, attention, conv, gelu, layer_norm, normal_002
from bridgedepth_jax.networks.config import Dtype

# Of RGB in 0..1.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class ClipVisionConfig:
    """The defaults are ViT-L/14's."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    projection_dim: int = 768
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: float = 1e-5
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act {self.hidden_act!r}, expected one of {', '.join(ACTIVATIONS)}")
        if self.image_size % self.patch_size or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"image_size {self.image_size} and hidden_size {self.hidden_size}, expected multiples of patch_size "
                f"{self.patch_size} and num_attention_heads {self.num_attention_heads}"
            )


def quick_gelu(x: Array) -> Array:
    """x sigmoid(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


def clip_normalize(image: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """RGB in 0..1 to CLIP's pixels."""
    mean, std = (jnp.asarray(v, image.dtype).reshape(1, 1, 1, 3) for v in (CLIP_MEAN, CLIP_STD))
    return (image - mean) / std


class ClipVisionEmbeddings(nn.Module):
    """Patches without bias, the class token first, positions added."""

    config: ClipVisionConfig

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B T D"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        if pixels.shape[1:3] != (c.image_size, c.image_size):
            raise ValueError(f"image of {pixels.shape[1:3]} pixels, expected {c.image_size} a side")
        patches = conv(
            c.hidden_size, c.patch_size, stride=c.patch_size, padding=0, use_bias=False, kernel_init=normal_002,
            dtype=dtype, name="patch_embedding",
        )(pixels)  # fmt: skip
        x = patches.reshape(len(pixels), -1, c.hidden_size)
        cls = self.param("class_embedding", normal_002, (c.hidden_size,)).astype(dtype)
        x = jnp.concatenate([jnp.broadcast_to(cls.reshape(1, 1, -1), (len(x), 1, c.hidden_size)), x], axis=1)
        places = nn.Embed(x.shape[1], c.hidden_size, embedding_init=normal_002, dtype=dtype, name="position_embedding")
        return x + places.embedding.astype(dtype)[None]


class ClipAttention(nn.Module):
    """Self attention, biases everywhere."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        split = lambda name: SplitHeads(x.shape[-1], heads=self.heads, dtype=self.dtype, name=name)(x)[0]
        out = attention(split("q_proj"), split("k_proj"), split("v_proj"))
        return MergeHeads(x.shape[-1], dtype=self.dtype, name="out_proj")(out)


class ClipMlp(nn.Module):
    config: ClipVisionConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        x = ACTIVATIONS[c.hidden_act](Linear(c.intermediate_size, dtype=dtype, name="fc1")(x))
        return Linear(c.hidden_size, dtype=dtype, name="fc2")(x)


class ClipEncoderLayer(nn.Module):
    config: ClipVisionConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        norm = lambda name: layer_norm(c.layer_norm_eps, dtype, name)
        x = x + ClipAttention(c.num_attention_heads, dtype, name="self_attn")(norm("layer_norm1")(x))
        return x + ClipMlp(c, name="mlp")(norm("layer_norm2")(x))


class ClipEncoder(nn.Module):
    config: ClipVisionConfig
    remat: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        layer = nn.remat(ClipEncoderLayer) if self.remat else ClipEncoderLayer
        for i in range(self.config.num_hidden_layers):
            x = layer(self.config, name=f"layers_{i}")(x)
        return x


class ClipVisionTransformer(nn.Module):
    """CLIP's pixels to all tokens before the last norm, and the normed class token."""

    config: ClipVisionConfig
    remat: bool = False

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B T D"], Float[Array, "B D"]]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        x = ClipVisionEmbeddings(c, name="embeddings")(pixels)
        x = layer_norm(c.layer_norm_eps, dtype, "pre_layrnorm")(x)  # [sic]
        x = ClipEncoder(c, self.remat, name="encoder")(x)
        return x, layer_norm(c.layer_norm_eps, dtype, "post_layernorm")(x[:, 0])


class ClipVisionModelWithProjection(nn.Module):
    """CLIP's pixels (B, H, W, 3), see `clip_normalize`, to an embedding in the space that it shares with text."""

    config: ClipVisionConfig
    remat: bool = False

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B P"]:
        c = self.config
        hidden, pooled = ClipVisionTransformer(c, self.remat, name="vision_model")(pixels)
        self.sow("taps", "last_hidden", hidden)
        return Linear(c.projection_dim, use_bias=False, dtype=jnp.dtype(c.dtype), name="visual_projection")(pooled)
