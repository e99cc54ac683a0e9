"""Leaf modules of attention (spec `diffusion.md` section 1). The softmax is at least float32.

B batch, T tokens, S tokens of the context, C channels, E channels of the context, H W a map's sides.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Linear, MergeHeads, SplitHeads, attention, conv, gelu, layer_norm, torch_default
from bridgedepth_jax.networks.diffusion.resnet import group_norm

# Logits held at a time: 64 MiB in float32, one head of 64 x 64 tokens. Queries are taken in chunks beyond that.
MAX_LOGITS = 2**24


class Attention(nn.Module):
    """softmax(q k^T / sqrt(head width)) v and an output layer; of x with itself, or with a context."""

    heads: int
    use_bias: bool = False  # of q, k and v
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T C"], context: Float[Array, "B S E"] | None = None) -> Float[Array, "B T C"]:
        context = x if context is None else context
        split = lambda name: SplitHeads(x.shape[-1], self.use_bias, heads=self.heads, dtype=self.dtype, name=name)
        merge = MergeHeads(x.shape[-1], dtype=self.dtype, name="to_out_0")
        (v,) = split("to_v")(context)
        if context.shape[1] == 1 and not self.is_initializing():  # the softmax over one key is 1 whatever q and k say
            return jnp.broadcast_to(merge(v), x.shape)
        (q,), (k,) = split("to_q")(x), split("to_k")(context)
        return merge(attention(q, k, v, MAX_LOGITS))


class GEGLU(nn.Module):
    """u * GELU(g), both halves of one linear layer, u the first."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B D"]:
        u, g = jnp.split(Linear(2 * self.features, dtype=self.dtype, name="proj")(x), 2, axis=-1)
        return u * gelu(g)


class FeedForward(nn.Module):
    """GEGLU of `mult` times the width, and back."""

    mult: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        h = GEGLU(self.mult * x.shape[-1], dtype=self.dtype, name="net_0")(x)
        return Linear(x.shape[-1], dtype=self.dtype, name="net_2")(h)


class BasicTransformerBlock(nn.Module):
    """Attention with itself, with the context, and a feed-forward layer, each added to what its norm was given."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T C"], context: Float[Array, "B S E"] | None) -> Float[Array, "B T C"]:
        norm = lambda name: layer_norm(1e-5, self.dtype, name)
        x = x + Attention(self.heads, dtype=self.dtype, name="attn1")(norm("norm1")(x))
        x = x + Attention(self.heads, dtype=self.dtype, name="attn2")(norm("norm2")(x), context)
        return x + FeedForward(dtype=self.dtype, name="ff")(norm("norm3")(x))


class Transformer2DModel(nn.Module):
    """A transformer block over the pixels of a map, between two projections, added to it.

    linear: whether the projections are Linear layers or 1x1 convolutions: the same mathematics, other shapes in a file.
    """

    heads: int
    groups: int
    linear: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], context: Float[Array, "B S E"] | None) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape

        def project(name: str) -> nn.Module:
            if self.linear:
                return Linear(channels, dtype=self.dtype, name=name)
            return conv(channels, 1, kernel_init=torch_default, dtype=self.dtype, name=name)

        h = project("proj_in")(group_norm(self.groups, 1e-6, self.dtype, "norm")(x))
        h = h.reshape(batch, height * width, channels)
        h = BasicTransformerBlock(self.heads, self.dtype, name="transformer_blocks_0")(h, context)
        return x + project("proj_out")(h.reshape(batch, height, width, channels))


class AttentionBlock(nn.Module):
    """Attention of a map with itself after a GroupNorm, added to it: the autoencoder's, one head of the full width."""

    groups: int
    eps: float
    heads: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        h = group_norm(self.groups, self.eps, self.dtype, "group_norm")(x).reshape(batch, height * width, channels)
        # The parameters lie beside those of the norm, so the layers are this module's own.
        split = lambda name: SplitHeads(channels, True, heads=self.heads, dtype=self.dtype, name=name)
        (q,), (k,), (v,) = split("to_q")(h), split("to_k")(h), split("to_v")(h)
        h = MergeHeads(channels, dtype=self.dtype, name="to_out_0")(attention(q, k, v, MAX_LOGITS))
        return x + h.reshape(batch, height, width, channels)
