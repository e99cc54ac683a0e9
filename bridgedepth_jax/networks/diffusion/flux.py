"""The transformer of FLUX.1 with control latents (spec `mono-training.md` section 7), in diffusers' names.

B batch, N image tokens, S text tokens, T = S + N tokens (text first), D width, H heads, K head width, C channels of a token.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Linear, MergeHeads, SplitHeads, at_least_float32, attention
from bridgedepth_jax.networks.diffusion.attention import MAX_LOGITS
from bridgedepth_jax.networks.diffusion.config import FluxConfig
from bridgedepth_jax.networks.diffusion.unet import TimestepEmbedding

EPS = 1e-6
FREQUENCIES = 256  # features of a scalar, cosines first
SCALE = 1000.0  # of noise levels and guidance before they are embedded
ROPE_BASE = 10_000.0

Tokens = Float[Array, "B N D"]


class Rotation(NamedTuple):
    """Cosines and sines of each token's pairs of channels."""

    cos: Float[Array, "T K2"]
    sin: Float[Array, "T K2"]


def scalar_features(values: np.ndarray) -> np.ndarray:
    """Noise levels or guidance (...) to (..., 256), float64 on the host: at 10,000 radians float32 loses three digits."""
    frequencies = ROPE_BASE ** (-np.arange(FREQUENCIES // 2) / (FREQUENCIES // 2))
    angles = np.asarray(values, np.float64)[..., None] * SCALE * frequencies
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)


def rotation(config: FluxConfig, text: int, rows: int, columns: int, dtype: Any) -> Rotation:
    """Angles of `text` tokens, all at 0, and of a grid of image tokens by (0, row, column); float64 on the host."""
    ids = np.zeros((text + rows * columns, 3))
    ids[text:, 1] = np.repeat(np.arange(rows), columns)
    ids[text:, 2] = np.tile(np.arange(columns), rows)
    return rotation_of(config, ids, dtype)


def rotation_of(config: FluxConfig, ids: np.ndarray, dtype: Any) -> Rotation:
    """Angles of tokens at `ids` (T, 3)."""
    widths = config.axes_dims_rope
    angles = [ids[:, i, None] * ROPE_BASE ** (-np.arange(0, width, 2) / width)[None] for i, width in enumerate(widths)]
    angle = np.concatenate(angles, axis=1)
    return Rotation(jnp.asarray(np.cos(angle), dtype), jnp.asarray(np.sin(angle), dtype))


def rotate(x: Float[Array, "B H T K"], by: Rotation) -> Float[Array, "B H T K"]:
    """Neighbouring channels (a, b) to (a cos - b sin, b cos + a sin), at least float32."""
    pairs = x.astype(at_least_float32(x.dtype)).reshape(*x.shape[:-1], -1, 2)
    a, b = pairs[..., 0], pairs[..., 1]
    cos, sin = by.cos.astype(a.dtype)[None, None], by.sin.astype(a.dtype)[None, None]
    return jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape).astype(x.dtype)


def gelu_tanh(x: Array) -> Array:
    """The tanh form of GELU."""
    return jax.nn.gelu(x, approximate=True)


def plain_norm(x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """LayerNorm without scale and shift, statistics at least float32."""
    y = x.astype(at_least_float32(x.dtype))
    y = y - jnp.mean(y, axis=-1, keepdims=True)
    return (y * lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + EPS)).astype(x.dtype)


def modulated(x: Float[Array, "B T D"], shift: Float[Array, "B D"], scale: Float[Array, "B D"]) -> Float[Array, "B T D"]:
    return plain_norm(x) * (1 + scale[:, None]) + shift[:, None]


class RMSNorm(nn.Module):
    """Over the last axis, with a weight."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H T K"]) -> Float[Array, "B H T K"]:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        y = x.astype(at_least_float32(x.dtype))
        y = y * lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + EPS)
        return (y * scale.astype(y.dtype).reshape(1, 1, 1, -1)).astype(x.dtype)


class Modulation(nn.Module):
    """linear(silu(temb)) in `parts` of the width."""

    parts: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, temb: Float[Array, "B D"]) -> list[Float[Array, "B D"]]:
        y = Linear(self.parts * temb.shape[-1], dtype=self.dtype, name="linear")(nn.silu(temb))
        return jnp.split(y, self.parts, axis=-1)


class JointAttention(nn.Module):
    """Attention of image and text tokens together; q, k and v of the text by layers of its own, and an output layer each.

    Without `text` (a single block): of all tokens alike, and no output layer.
    """

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"], text: Float[Array, "B S D"] | None, by: Rotation) -> Any:
        width = x.shape[-1]

        def heads_of(y: Array, names: tuple[str, str, str], norms: tuple[str, str]) -> list[Array]:
            q, k, v = (SplitHeads(width, heads=self.heads, dtype=self.dtype, name=name)(y)[0] for name in names)
            return [RMSNorm(name=norms[0])(q), RMSNorm(name=norms[1])(k), v]

        parts = heads_of(x, ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"))
        if text is not None:
            added = heads_of(text, ("add_q_proj", "add_k_proj", "add_v_proj"), ("norm_added_q", "norm_added_k"))
            parts = [jnp.concatenate([t, i], axis=2) for t, i in zip(added, parts, strict=True)]
        q, k, v = parts
        out = attention(rotate(q, by), rotate(k, by), v, MAX_LOGITS)
        if text is None:
            return jnp.moveaxis(out, 1, 2).reshape(x.shape)
        first = text.shape[1]
        image = MergeHeads(width, dtype=self.dtype, name="to_out_0")(out[:, :, first:])
        return image, MergeHeads(width, dtype=self.dtype, name="to_add_out")(out[:, :, :first])


class _Projection(nn.Module):
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T E"]:
        return gelu_tanh(Linear(self.features, dtype=self.dtype, name="proj")(x))


class FluxFeedForward(nn.Module):
    """Four times the width and back, tanh GELU between."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        h = _Projection(4 * x.shape[-1], self.dtype, name="net_0")(x)
        return Linear(x.shape[-1], dtype=self.dtype, name="net_2")(h)


class FluxTransformerBlock(nn.Module):
    """A double block: image and text tokens attend together and are transformed apart."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"], text: Float[Array, "B S D"], temb: Float[Array, "B D"], by: Rotation
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B S D"]]:
        own = Modulation(6, self.dtype, name="norm1")(temb)
        other = Modulation(6, self.dtype, name="norm1_context")(temb)
        attn = JointAttention(self.heads, self.dtype, name="attn")
        image_out, text_out = attn(modulated(x, *own[:2]), modulated(text, *other[:2]), by)

        def finish(y: Array, out: Array, parts: list[Array], name: str) -> Array:
            y = y + parts[2][:, None] * out
            ff = FluxFeedForward(self.dtype, name=name)
            return y + parts[5][:, None] * ff(modulated(y, *parts[3:5]))

        return finish(x, image_out, own, "ff"), finish(text, text_out, other, "ff_context")


class FluxSingleTransformerBlock(nn.Module):
    """Attention and MLP side by side, on all tokens."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, y: Float[Array, "B T D"], temb: Float[Array, "B D"], by: Rotation) -> Float[Array, "B T D"]:
        width = y.shape[-1]
        shift, scale, gate = Modulation(3, self.dtype, name="norm")(temb)
        n = modulated(y, shift, scale)
        mlp = gelu_tanh(Linear(4 * width, dtype=self.dtype, name="proj_mlp")(n))
        out = JointAttention(self.heads, self.dtype, name="attn")(n, None, by)
        return y + gate[:, None] * Linear(width, dtype=self.dtype, name="proj_out")(jnp.concatenate([out, mlp], axis=-1))


class TimeTextEmbedding(nn.Module):
    """Noise level, guidance and the pooled text in one vector."""

    dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, time: Float[Array, "B F"], guidance: Float[Array, "B F"], pooled: Float[Array, "B P"]
    ) -> Float[Array, "B D"]:
        embed = lambda name, x: TimestepEmbedding(self.dim, self.dtype, name=name)(x)
        temb = embed("timestep_embedder", time) + embed("guidance_embedder", guidance)
        return temb + embed("text_embedder", pooled)


class FluxTransformer2DModel(nn.Module):
    """The velocity of packed latents at a noise level, given control latents, text and guidance.

    packed: latents and control side by side, `pack`ed; time, guidance: `scalar_features` of noise level and guidance.
    remat: blocks are computed again in the backward pass.
    """

    config: FluxConfig
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        packed: Float[Array, "B N C"],
        time: Float[Array, "B F"],
        guidance: Float[Array, "B F"],
        text: Float[Array, "B S E"],
        pooled: Float[Array, "B P"],
        by: Rotation,
    ) -> Float[Array, "B N V"]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        wide = at_least_float32(dtype)
        embed = TimeTextEmbedding(c.dim, wide, name="time_text_embed")
        temb = embed(time.astype(wide), guidance.astype(wide), pooled.astype(wide)).astype(dtype)
        x = Linear(c.dim, dtype=dtype, name="x_embedder")(packed)
        context = Linear(c.dim, dtype=dtype, name="context_embedder")(text)
        for name, value in (("temb", temb), ("x_embedder", x), ("context_embedder", context)):
            self.sow("taps", f"{name}_out", value)
        double = nn.remat(FluxTransformerBlock) if self.remat else FluxTransformerBlock
        single = nn.remat(FluxSingleTransformerBlock) if self.remat else FluxSingleTransformerBlock
        for i in range(c.num_layers):
            x, context = double(c.num_attention_heads, dtype, name=f"transformer_blocks_{i}")(x, context, temb, by)
            self.sow("taps", f"double{i}_out", jnp.concatenate([context, x], axis=1))
        y = jnp.concatenate([context, x], axis=1)
        for i in range(c.num_single_layers):
            y = single(c.num_attention_heads, dtype, name=f"single_transformer_blocks_{i}")(y, temb, by)
            self.sow("taps", f"single{i}_out", y)
        y = y[:, text.shape[1] :]
        scale, shift = Modulation(2, dtype, name="norm_out")(temb)  # in this order here alone
        y = modulated(y, shift, scale)
        self.sow("taps", "norm_out_out", y)
        return Linear(c.out_channels, dtype=dtype, name="proj_out")(y).astype(wide)
