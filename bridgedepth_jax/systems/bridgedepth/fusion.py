"""The last choice, pixel by pixel: the network's disparity, or one of the classical ones around.

Semi-global matching keeps thin structures and sharp edges where it is sure, and has no answer where left and right disagree;
the network is the other way round. Every pixel has CANDIDATES disparities, all at hand already: the network's, those of the
matcher's cell and of the two cells that are nearest, and what the matcher is sure of farther left and right (beside a
foreground the background goes on); with `reach` the network's own farther left, right, above and below as well, since at an
edge the right value is usually near. A small convolutional head sees the image, the network's tokens and what the matcher's
costs say of every candidate, and gives each a probability. The disparity is the mean of the heaviest cluster, not of all of
them: nothing comes out between two surfaces. An addition of this project: no published weights use it.

Letters: B batch, H W at 1/4, Y X full size, V cells of a row (`sgm.py`), D levels, S pixels of a 4 x 4 cell (16, rows first),
K candidates, C channels.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Head, Linear, at_least_float32, conv, zeros
from bridgedepth_jax.systems.bridgedepth.config import SGMConfig
from bridgedepth_jax.systems.bridgedepth.sgm import ROWS, Evidence
from bridgedepth_jax.systems.bridgedepth.upsampling import SIDE, fold

CANDIDATES = ("network", "own", "left", "right", "row", "column")
TOGETHER = 0.5  # 1/4 pixels: candidates that close to each other are one cluster
TRUST = 2.0  # logit that a candidate begins with where left and right agree, its negative where they do not
AFAR = -4.0  # that of the network's disparities from elsewhere
AROUND = ((0, -1), (0, 1), (-1, 0), (1, 0))  # rows and columns: left, right, above, below


class Fusion(nn.Module):
    """Candidates of every pixel, 1/4 pixels, their logits, and a logit that the chosen one is right."""

    dim: int
    reach: tuple[int, ...]
    sgm: SGMConfig
    confidence: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        disparity: Float[Array, "B H W 16"],
        tokens: Float[Array, "B H W C"],
        image: Float[Array, "B Y X 3"],
        found: Evidence,
        cost: Float[Array, "B H V D"],
        keep: Float[Array, "B 1 1 1"],
    ) -> tuple[Float[Array, "B H W 16 K"], Float[Array, "B H W 16 K"], Float[Array, "B H W 16"] | None]:
        delicate = at_least_float32(self.dtype)
        disparity = lax.stop_gradient(disparity)
        sub = ROWS // self.sgm.columns  # cells beside each other in 4 x 4 pixels
        network = _cells(disparity, sub)
        left, far_left = nearest(found.disparity, found.consistent > 0)
        right, far_right = (x[..., ::-1] for x in nearest(found.disparity[..., ::-1], found.consistent[..., ::-1] > 0))
        beside = [moved(disparity, far * y, far * x) for far in self.reach for y, x in AROUND]
        others = [left, right, *(_cells(x, sub) for x in beside)]
        gap = gaps(cost, jnp.stack([network, *others], -1) * (ROWS / self.sgm.columns))
        offsets = jnp.stack([found.disparity, *others], -1) - network[..., None]
        facts = [jnp.tanh(2 * offsets), jnp.tanh(offsets / 4), jnp.tanh(2 * gap), jnp.stack(
            [found.consistent, found.margin, jnp.tanh(far_left / 8), jnp.tanh(far_right / 8), jnp.ones_like(far_left)], -1
        )]  # fmt: skip
        told = (jnp.concatenate(facts, -1) * keep).reshape(*disparity.shape[:3], -1)  # (B, H, W, sub * C)

        picture = fold(2 * (image / 255) - 1).astype(delicate)
        seen = jnp.concatenate([picture, told], -1).astype(self.dtype)
        seen = nn.relu(conv(self.dim, 3, dtype=self.dtype, name="conv_0")(seen))
        seen = conv(self.dim, 3, dtype=self.dtype, name="conv_1")(seen) + Linear(self.dim, dtype=self.dtype, name="token")(
            tokens
        )
        seen = nn.relu(seen)
        head = Head((self.dim, SIDE**2 * len(names(self.reach))), last_init=zeros, dtype=self.dtype, name="choice")
        logits = head(seen).astype(delicate).reshape(*disparity.shape, -1)

        sure = (2 * found.consistent - 1) * TRUST
        here = [_pixels(x, sub) for x in (found.disparity, left, right, sure)]
        nearer = [_neighbours(x, sub) for x in (found.disparity, sure)]
        candidates = jnp.stack([disparity, *here[:3], *nearer[0]], -1)
        trust = jnp.stack([jnp.zeros_like(disparity), here[3], *2 * [-jnp.abs(here[3])], *nearer[1]], -1)
        candidates = jnp.where(keep[..., None] > 0, candidates, disparity[..., None])
        trust = jnp.where(keep[..., None] > 0, trust, 0)
        if beside:
            candidates = jnp.concatenate([candidates, jnp.stack(beside, -1)], -1)
            trust = jnp.concatenate([trust, jnp.full((*trust.shape[:-1], len(beside)), AFAR)], -1)
        logits = logits + trust
        certainty = None
        if self.confidence:
            certainty = Head((self.dim, SIDE**2), dtype=self.dtype, name="certainty")(lax.stop_gradient(seen)).astype(delicate)
        return candidates, logits, certainty


def names(reach: tuple[int, ...]) -> tuple[str, ...]:
    """Of the candidates, in their order."""
    return *CANDIDATES, *(f"{where} {far}" for far in reach for where in ("left", "right", "above", "below"))


def moved(x: Float[Array, "B H W C"], rows: int, columns: int) -> Float[Array, "B H W C"]:
    """At each cell what is so many rows farther down and columns farther right; beyond the border the border's."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (abs(rows),) * 2, (abs(columns),) * 2, (0, 0)), mode="edge")
    return padded[:, abs(rows) + rows :, abs(columns) + columns :][:, :height, :width]


def choose(candidates: Float[Array, "*B K"], logits: Float[Array, "*B K"], together: float) -> Float[Array, "*B"]:
    """Mean of the heaviest cluster: of the candidates within `together` of one of them, of the largest probability in all."""
    weights = jnp.exp(logits - jnp.max(logits, -1, keepdims=True))
    # Over lists, since there are few candidates and many pixels: XLA's CPU compiler is slow along short last axes.
    values, weight = ([x[..., k] for k in range(x.shape[-1])] for x in (candidates, weights))

    def cluster(centre: Array, of: list[Array]) -> Array:
        return sum((jnp.where(jnp.abs(v - centre) < together, x, 0) for v, x in zip(values, of, strict=True)), start=zero)

    zero = jnp.zeros_like(values[0])
    centre, mass = values[0], cluster(values[0], weight)
    for value in values[1:]:
        other = cluster(value, weight)
        centre, mass = jnp.where(other > mass, value, centre), jnp.maximum(other, mass)
    return cluster(centre, [v * x for v, x in zip(values, weight, strict=True)]) / mass


def nearest(values: Float[Array, "B H V"], known: Array) -> tuple[Float[Array, "B H V"], Float[Array, "B H V"]]:
    """The nearest known value at or left of each cell, and how far it is; where there is none, the cell's own and the width."""
    width = values.shape[-1]
    found, there, far = jnp.where(known, values, 0), known, jnp.zeros_like(values)
    step = 1
    while step < width:  # doubling: what is known within `step` cells
        before = lambda x: jnp.pad(x, ((0, 0), (0, 0), (step, 0)))[..., :width]  # noqa: B023
        far = jnp.where(there, far, before(far) + step)
        found, there = jnp.where(there, found, before(found)), there | before(there)
        step *= 2
    return jnp.where(there, found, values), jnp.where(there, far, width)


def gaps(cost: Float[Array, "B H V D"], levels: Float[Array, "B H V N"]) -> Float[Array, "B H V N"]:
    """How much dearer the given levels are than the cheapest."""
    index = jnp.clip(jnp.round(levels), 0, cost.shape[-1] - 1).astype(jnp.int32)
    return jnp.take_along_axis(cost, index, -1) - jnp.min(cost, -1, keepdims=True)


def _cells(x: Float[Array, "B H W 16"], sub: int) -> Float[Array, "B H V"]:
    """Means over the cells of the matcher."""
    b, height, width, _ = x.shape
    return x.reshape(b, height, width, SIDE, sub, SIDE // sub).mean((3, 5)).reshape(b, height, width * sub)


def _pixels(x: Float[Array, "B H V"], sub: int) -> Float[Array, "B H W 16"]:
    """Each cell's value at its pixels."""
    b, height, width = x.shape
    x = x.reshape(b, height, width // sub, 1, sub, 1)
    return jnp.broadcast_to(x, (*x.shape[:3], SIDE, sub, SIDE // sub)).reshape(b, height, width // sub, -1)


def _neighbours(x: Float[Array, "B H V"], sub: int) -> tuple[Float[Array, "B H W 16"], Float[Array, "B H W 16"]]:
    """At each pixel the value of the nearer cell above or below, and of the nearer one left or right; at the border the own."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge")
    above, below = _pixels(padded[:, :-2, 1:-1], sub), _pixels(padded[:, 2:, 1:-1], sub)
    before, behind = _pixels(padded[:, 1:-1, :-2], sub), _pixels(padded[:, 1:-1, 2:], sub)
    place = jnp.arange(SIDE**2).reshape(1, 1, 1, -1)
    upper = place // SIDE < SIDE // 2
    first = place % (SIDE // sub) < SIDE // sub / 2
    return jnp.where(upper, above, below), jnp.where(first, before, behind)
