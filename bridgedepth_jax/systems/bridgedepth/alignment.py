"""Alignment of stereo tokens and monocular state: the bridge between the two branches that the paper is named for.

BridgeDepth (arXiv 2508.04611), latent alignment of stereo and monocular representations: `align_0` over the disparity
hypotheses at 1/8, `align_1` at 1/4 for the refinement; spec `architecture.md` section 6. `nmp` in names of parameters is the
original's neural message passing: attention among the tokens of one branch.

Letters: B batch, Y X map, N candidates, C channels; M windows of the whole batch, P Q pixels of a query and a key window,
n l candidates of query and key, h heads, k head width, E = 3k encodings of a pair (for q, k and v); t = (P n) and u = (Q l)
tokens of a window, r = (M n) or (M l) rows of a pixel.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Linear, Mlp, Remat, at_least_float32, layer_norm, normal_002, rematted, softmax
from bridgedepth_jax.ops.windows import (
    pad_to_windows,
    partition,
    relative_index,
    shift_regions,
    table_size,
    unpartition,
)
from bridgedepth_jax.systems.bridgedepth.config import NMPConfig

Tokens = Float[Array, "B Y X N C"]
Memory = Float[Array, "B v u l K"]  # of another map over the same area
Wide = Float[Array, "B Y X N D"]  # tokens of another width


@jax.jit
def window_attention(
    q: Float[Array, "M P n C"],
    k: Float[Array, "M Q l C"],
    v: Float[Array, "M Q l C"],
    encodings: Float[Array, "P Q h E"],
    hidden: Array | None,
) -> Float[Array, "M P n C"]:
    """Attention in windows with learned relative encodings; all candidates of a pixel share them.

    logit = s q.k + s q.k_rpe + s k.q_rpe, out = sum softmax(logit) (v + v_rpe), s = 1/sqrt(k).
    `hidden` (M or 1, P, n, Q, l) bool marks pairs that do not see each other.
    """
    h, (_, P, n, C), Q = encodings.shape[2], q.shape, k.shape[1]
    q_rpe, k_rpe, v_rpe = rearrange(encodings.astype(q.dtype), "P Q h (part k) -> part h P Q k", part=3)
    scale = (C // h) ** -0.5
    q = q * scale

    # Tokens meet within a window, so there windows are the batch. What a pair of pixels adds is the same in all windows and for
    # all candidates, so there pixels are the batch and the rest is rows: few large products instead of many small ones.
    by_window = lambda x: rearrange(x, "M p c (h k) -> h M (p c) k", h=h)
    by_pixel = lambda x: rearrange(x, "M p c (h k) -> h p (M c) k", h=h)
    logits = jnp.einsum("hMtk,hMuk->hMtu", by_window(q), by_window(k))
    logits = rearrange(logits, "h M (P n) (Q l) -> h M P n Q l", P=P, Q=Q)
    of_query = jnp.einsum("hPrk,hPQk->hPrQ", by_pixel(q), k_rpe)
    of_key = jnp.einsum("hQrk,hPQk->hQrP", by_pixel(k), q_rpe * scale)
    of_query = rearrange(of_query, "h P (M n) Q -> h M P n Q 1", n=n)
    logits += of_query + rearrange(of_key, "h Q (M l) P -> h M P 1 Q l", l=k.shape[2])
    if hidden is not None:
        logits = jnp.where(hidden[None], -jnp.inf, logits)

    logits = rearrange(logits, "h M P n Q l -> h M (P n) (Q l)").astype(at_least_float32(q.dtype))
    weights = softmax(logits).astype(v.dtype)
    out = jnp.einsum("hMtu,hMuk->hMtk", weights, by_window(v))
    of_pixel = reduce(weights, "h M (P n) (Q l) -> h P (M n) Q", "sum", P=P, Q=Q)
    encoded = jnp.einsum("hPrQ,hPQk->hPrk", of_pixel, v_rpe)
    out = rearrange(out, "h M (P n) k -> h M P n k", n=n) + rearrange(encoded, "h P (M n) k -> h M P n k", n=n)
    return rearrange(out, "h M P n k -> M P n (h k)")


class RelativeTable(nn.Module):
    """Mixin: the table of relative encodings and its look-up for two window sides."""

    def encodings(self, query: int, key: int, dim: int, heads: int) -> Float[Array, "P Q h E"]:
        """Of all pairs of pixels of a query and a key window with `query` and `key` pixels a side; `dim` = heads * k."""
        table = self.param("relative_position_enc_table", normal_002, (table_size(query, key), 3 * dim))
        return table.reshape(-1, heads, 3 * dim // heads)[relative_index(query, key)]


class CrossWindowAttention(RelativeTable):
    """Queries of one map read the pixels of another map's window over the same area."""

    dim: int
    heads: int
    query_window: int
    key_window: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens, memory: Memory) -> Wide:
        q = Linear(self.dim, kernel_init=normal_002, dtype=self.dtype, name="projq")(x)
        kv = Linear(2 * self.dim, kernel_init=normal_002, dtype=self.dtype, name="projkv")(memory)
        q, kv = (partition(pad_to_windows(t, w), w) for t, w in ((q, self.query_window), (kv, self.key_window)))
        k, v = jnp.split(kv, 2, -1)
        encodings = self.encodings(self.query_window, self.key_window, self.dim, self.heads)
        out = window_attention(q, k, v, encodings, None)
        out = unpartition(out, self.query_window, *x.shape[1:3])
        return Linear(self.dim, kernel_init=normal_002, dtype=self.dtype, name="proj")(out)


class CrossBlock(nn.Module):
    """x += attn(norm1(x) [, pos], norm_y(memory) [, pos]), x += mlp(norm2(x)). `pos` belongs to the stereo tokens."""

    config: NMPConfig
    query_window: int
    key_window: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens, memory: Memory, *, pos: Array | None = None, memory_pos: Array | None = None) -> Tokens:
        c = self.config
        query = with_position(layer_norm(1e-6, self.dtype, "norm1")(x), pos)
        memory = with_position(layer_norm(1e-6, self.dtype, "norm_y")(memory), memory_pos)
        attn = CrossWindowAttention(c.dim, c.heads, self.query_window, self.key_window, self.dtype, name="attn")
        x = x + attn(query, memory)
        mlp = Mlp(int(c.dim * c.mlp_ratio), c.dim, dtype=self.dtype, name="mlp")
        return x + mlp(layer_norm(1e-6, self.dtype, "norm2")(x))


def with_position(x: Array, pos: Array | None) -> Array:
    """Tokens with their fourier features, which stay at least float32, appended."""
    return x if pos is None else jnp.concatenate([x.astype(pos.dtype), pos], -1)


def _sides(x: Tokens) -> tuple[int, int]:
    _, height, width, _, _ = x.shape
    return height, width


class SelfWindowAttention(RelativeTable):
    """Attention among the tokens of a window; the other candidates of a pixel are hidden from each other."""

    dim: int
    heads: int
    window: int
    shift: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens) -> Wide:
        w, s = self.window, self.shift
        _, height, width, candidates, _ = x.shape
        x = pad_to_windows(x, w)
        sides = _sides(x)
        tokens = partition(jnp.roll(x, (-s, -s), (1, 2)), w)
        qkv = Linear(3 * self.dim, dtype=self.dtype, name="qkv")(tokens)
        hidden = self._hidden(x.shape[0], sides, candidates)
        out = window_attention(*jnp.split(qkv, 3, -1), self.encodings(w, w, self.dim, self.heads), hidden)
        out = jnp.roll(unpartition(out, w, *sides), (s, s), (1, 2))[:, :height, :width]
        return Linear(self.dim, dtype=self.dtype, name="proj")(out)

    def _hidden(self, batch: int, sides: tuple[int, int], candidates: int) -> Array | None:
        pixels = self.window**2
        hidden = np.zeros((1, pixels, candidates, pixels, candidates), bool)
        for pixel in range(pixels):
            hidden[0, pixel, :, pixel, :] = ~np.eye(candidates, dtype=bool)
        if self.shift:
            wrapped = shift_regions(*sides, self.window, (self.shift, self.shift))
            hidden = hidden | wrapped[:, :, None, :, None]
        if not hidden.any():
            return None
        return jnp.tile(jnp.asarray(hidden), (batch if len(hidden) > 1 else 1, 1, 1, 1, 1))


class CandidateAttention(nn.Module):
    """Attention among the candidates of one pixel, `attn.self_nmp`; no MLP."""

    config: NMPConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens, pos: Array) -> Tokens:
        c = self.config
        linear = lambda name: Linear(c.dim, dtype=self.dtype, name=name)
        y = layer_norm(1e-5, self.dtype, "norm1")(x)
        with_pos = with_position(y, pos)
        q, k, v = (t.reshape(*t.shape[:4], c.heads, -1) for t in (linear("q")(with_pos), linear("k")(with_pos), linear("v")(y)))
        delicate = at_least_float32(self.dtype)
        logits = jnp.einsum("byxnhk,byxlhk->byxhnl", q, k).astype(delicate) * q.shape[-1] ** -0.5
        out = jnp.einsum("byxhnl,byxlhk->byxnhk", softmax(logits).astype(v.dtype), v)
        return x + linear("proj")(out.reshape(x.shape))


class WindowBlock(nn.Module):
    """x += attn(concat(norm1(x), pos)), x += mlp(norm2(x)), `attn.nmp`."""

    config: NMPConfig
    window: int
    shift: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens, pos: Array) -> Tokens:
        c = self.config
        attn = SelfWindowAttention(c.dim, c.heads, self.window, self.shift, self.dtype, name="attn")
        x = x + attn(with_position(layer_norm(1e-6, self.dtype, "norm1")(x), pos))
        mlp = Mlp(int(c.dim * c.mlp_ratio), c.dim, dtype=self.dtype, name="mlp")
        return x + mlp(layer_norm(1e-6, self.dtype, "norm2")(x))


class StereoAttention(nn.Module):
    """Attention among stereo tokens, `attn`: candidates of a pixel (where there are several), then windows."""

    config: NMPConfig
    window: int
    shift: int
    among_candidates: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Tokens, pos: Array) -> Tokens:
        if self.among_candidates:
            x = CandidateAttention(self.config, self.dtype, name="self_nmp")(x, pos)
        return WindowBlock(self.config, self.window, self.shift, self.dtype, name="nmp")(x, pos)


class AlignmentLayer(nn.Module):
    """Stereo reads mono, stereo attends to itself, mono reads stereo."""

    config: NMPConfig
    window: int
    mono_window: int
    shift: int
    among_candidates: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, stereo: Tokens, mono: Float[Array, "B y x 1 C"], pos: Array) -> tuple[Tokens, Array]:
        c = self.config
        stereo = CrossBlock(c, self.window, self.mono_window, self.dtype, name="readout")(stereo, mono, pos=pos)
        attn = StereoAttention(c, self.window, self.shift, self.among_candidates, self.dtype, name="attn")
        stereo = attn(stereo, pos)
        update = CrossBlock(c, self.mono_window, self.window, self.dtype, name="update")
        return stereo, update(mono, stereo, memory_pos=pos)


class Alignment(nn.Module):
    """One stage: normed stereo tokens and monocular maps, of every layer in training, else of the last."""

    config: NMPConfig
    layers: int
    window: int
    mono_window: int
    among_candidates: bool
    dtype: Any = jnp.float32
    kept: Remat | None = None

    @nn.compact
    def __call__(
        self, stereo: Tokens, mono: Float[Array, "B y x C"], pos: Float[Array, "B Y X N 31"], *, train: bool
    ) -> tuple[list[Tokens], list[Float[Array, "B y x C"]]]:
        layer = rematted(AlignmentLayer, self.kept)
        norm = layer_norm(1e-6, at_least_float32(self.dtype), "norm")
        mono = mono[..., None, :]
        stereos, monos = [], []
        for i in range(self.layers):
            shift = self.window // 2 if i % 2 else 0
            build = layer(
                self.config, self.window, self.mono_window, shift, self.among_candidates, self.dtype, name=f"layers_{i}"
            )
            stereo, mono = build(stereo, mono, pos)
            if train or i == self.layers - 1:
                stereos.append(norm(stereo))
                monos.append(mono[..., 0, :])
        return stereos, monos
