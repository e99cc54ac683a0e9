"""Neural message passing between disparity seeds, the neural Markov random field of the stereo branch: cross-shaped attention.

BridgeDepth (arXiv 2508.04611), stereo branch; spec `architecture.md` section 4, `dpn.propagation` of the original: `dpn` is its
disparity proposal network, `nmp` neural message passing. A node is a pixel's candidate, its neighbours the candidates of the
other pixels of its column and row.

Letters: B batch, H W map at 1/8, N candidates, C channels, h heads, k head width; a stripe is a column or a row.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from bridgedepth_jax.layers import (
    Linear,
    Mlp,
    Remat,
    at_least_float32,
    depthwise_conv,
    gelu,
    kaiming_normal,
    layer_norm,
    normal_002,
    rematted,
    softmax,
)
from bridgedepth_jax.ops.fourier import fourier_features
from bridgedepth_jax.systems.bridgedepth.config import NMPConfig, ProposalConfig

FOURIER_LEVELS = 64  # disparity levels (1/8 pixels) in half a turn of the slowest fourier feature; twice that at 1/4


@functools.partial(jax.jit, static_argnums=3)
def stripe_attention(q: Array, k: Array, v: Array, heads: int) -> Float[Array, "B L M N C"]:
    """Attention within stripes: (B, stripes, pixels of a stripe, N, C).

    A token sees itself and all tokens of other pixels, not the other candidates of its own pixel.
    """
    *_, pixels, candidates, _ = q.shape
    pixel = np.arange(pixels * candidates) // candidates
    hidden = (pixel[:, None] == pixel[None]) & ~np.eye(pixels * candidates, dtype=bool)
    q, k, v = (x.reshape(*x.shape[:2], pixels * candidates, heads, -1) for x in (q, k, v))
    delicate = at_least_float32(q.dtype)
    logits = jnp.einsum("bsthk,bsuhk->bshtu", q, k).astype(delicate) * q.shape[-1] ** -0.5
    logits = jnp.where(jnp.asarray(hidden)[None, None, None], -jnp.inf, logits)
    out = jnp.einsum("bshtu,bsuhk->bsthk", softmax(logits).astype(v.dtype), v)
    return out.reshape(*out.shape[:2], pixels, candidates, -1)


class PositionKernel(nn.Module):
    """The depthwise 3x3 kernel of one half of the channels, `attns.{0,1}.get_v`."""

    features: int

    @nn.compact
    def __call__(self) -> Float[Array, "3 3 1 C"]:
        return Kernel((3, 3, 1, self.features), name="get_v")()


class Kernel(nn.Module):
    """A bare `kernel` parameter."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> Array:
        return self.param("kernel", kaiming_normal, self.shape)


class CrossAttention(nn.Module):
    """x + proj(attention in columns and rows + position term), then x + mlp(norm2(x))."""

    config: NMPConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W N C"], context: Float[Array, "B H W 1 K"]) -> Float[Array, "B H W N C"]:
        c = self.config
        linear = lambda name: Linear(c.prop_dim, kernel_init=normal_002, dtype=self.dtype, name=name)
        y = layer_norm(1e-6, self.dtype, "norm1")(x)
        with_context = jnp.concatenate([y, jnp.broadcast_to(context, (*y.shape[:4], context.shape[-1]))], -1)
        q, k, v = linear("q")(with_context), linear("k")(with_context), linear("v")(y)

        half = c.prop_dim // 2
        columns = stripe_attention(*(jnp.swapaxes(t[..., :half], 1, 2) for t in (q, k, v)), c.prop_heads // 2)
        rows = stripe_attention(*(t[..., half:] for t in (q, k, v)), c.prop_heads // 2)
        out = jnp.concatenate([jnp.swapaxes(columns, 1, 2), rows], -1)

        # From the neighbours the candidates' sum, from the centre the candidate alone.
        kernel = jnp.concatenate([PositionKernel(half, name=f"attns_{i}")() for i in (0, 1)], -1).astype(self.dtype)
        around = depthwise_conv(v.sum(3), kernel.at[1, 1].set(0))
        out = out + around[..., None, :] + v * kernel[1, 1].reshape(1, 1, 1, 1, -1)

        x = x + linear("proj")(out)
        mlp = Mlp(int(c.prop_dim * c.mlp_ratio), c.prop_dim, normal_002, self.dtype, name="mlp")
        return x + mlp(layer_norm(1e-6, self.dtype, "norm2")(x))


class PropagationLayer(nn.Module):
    """One entry of `propagation.layers`."""

    config: NMPConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, context: Array) -> Array:
        return CrossAttention(self.config, self.dtype, name="nmp")(x, context)


class Propagation(nn.Module):
    """Seeds and what was looked up around them to normed tokens."""

    config: ProposalConfig
    nmp: NMPConfig
    dtype: Any = jnp.float32
    kept: Remat | None = None
    exact_phases: bool = False

    @nn.compact
    def __call__(
        self,
        correlation: Float[Array, "B H W N K"],
        seeds: Int[Array, "B H W N"],
        context: Float[Array, "B H W C1"],
        prior: Float[Array, "B H W C2"],
    ) -> Float[Array, "B H W N C"]:
        c = self.config
        delicate = at_least_float32(self.dtype)
        y = gelu(Linear(c.lookup_dim, kernel_init=normal_002, dtype=self.dtype, name="corr_encoder_0")(correlation))
        y = Linear(c.seed_dim, kernel_init=normal_002, dtype=self.dtype, name="corr_encoder_2")(y).astype(delicate)
        level = seeds.astype(delicate)
        position = fourier_features(level, FOURIER_LEVELS, jnp.zeros_like(level) if self.exact_phases else None)
        prior = jnp.broadcast_to(prior.astype(delicate)[..., None, :], (*seeds.shape, prior.shape[-1]))
        x = jnp.concatenate([y, position, prior], -1)
        x = Linear(self.nmp.prop_dim, use_bias=False, kernel_init=normal_002, dtype=self.dtype, name="proj")(x)
        x = x.astype(delicate)
        layer = rematted(PropagationLayer, self.kept)
        for i in range(self.nmp.prop_layers):
            x = layer(self.nmp, self.dtype, name=f"layers_{i}")(x, context[..., None, :])
        return layer_norm(1e-5, delicate, "norm")(x)
