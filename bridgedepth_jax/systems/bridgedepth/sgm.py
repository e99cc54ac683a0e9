"""Classical evidence: census matching, aggregated semi-globally, as hypotheses beside the network's own proposals.

Hirschmueller, "Stereo Processing by Semiglobal Matching and Mutual Information" (PAMI 2008), with the census transform as
the matching cost and four paths. All of it is `lax.scan`, matrix products and gathers: it lives inside the compiled graph and
is exported with it. It has no parameters and no gradient. An addition of this project: no published weights use it.

A matched cell has 4 rows and `SGMConfig.columns` columns of pixels: disparity lies along the rows, so that is where a finer
grid pays (4 x 2 finds what 2 x 2 does, for half the time).

Letters: B batch, Y X full size, H 1/4 of the rows, V cells of a row (W at 1/4 of the columns; h w at 1/8), D disparity levels,
N candidates, P neighbours of a cell.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bridgedepth_jax.layers import Linear, normal_002
from bridgedepth_jax.ops.correlation import correlation_volume
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig, SGMConfig

GREY = (299.0, 587.0, 114.0)  # thousandths: whole, as images are, so that sums are exact and ties are ties everywhere
ROWS = 4  # pixels of a cell
STEPS = 2**12  # in which costs are told apart, of 1


class Evidence(NamedTuple):
    """What the classical matcher says of the left image, cell by cell."""

    disparity: Float[Array, "B H V"]  # 1/4 pixels
    consistent: Float[Array, "B H V"]  # 1 where left and right agree to one level, else 0
    margin: Float[Array, "B H V"]  # 0..1, how much dearer the best other level is


def evidence(
    left: Float[Array, "B Y X 3"], right: Float[Array, "B Y X 3"], config: SGMConfig, search: int
) -> tuple[Evidence, Float[Array, "B H V D"]]:
    """Matches two RGB images in 0..255 over disparities below `search` pixels; also the aggregated cost of every level, each
    of `config.columns` pixels. No gradient passes."""
    grey = (_grey(lax.stop_gradient(image), config.columns) for image in (left, right))
    signs = [census(image, config.radius, 1000 * config.threshold) for image in grey]
    # Mean product of signs: 1 for equal neighbourhoods, -1 for opposite ones; what is out of the right image counts as 0.
    # As many times that as there are neighbours: whole numbers, whose sums no order of adding changes.
    count = signs[0].shape[-1]
    cost = count - jnp.round(count * correlation_volume(signs[0], signs[1], 1, search // config.columns)[..., 0])
    total = aggregate(cost, count * config.small_step, count * config.large_step)
    found = winner(total)
    return found._replace(disparity=found.disparity * (config.columns / ROWS)), total / count


def census(grey: Float[Array, "B H W"], radius: int, threshold: float) -> Float[Array, "B H W P"]:
    """Sign of each neighbour's difference from the pixel: -1, 0 (within the threshold, grey levels) or 1."""
    height, width = grey.shape[1:]
    padded = jnp.pad(grey, ((0, 0), (radius, radius), (radius, radius)), mode="edge")
    side = range(2 * radius + 1)
    around = [padded[:, i : i + height, j : j + width] - grey for i in side for j in side if (i, j) != (radius, radius)]
    difference = jnp.stack(around, -1)
    return jnp.where(jnp.abs(difference) > threshold, jnp.sign(difference), 0)


def aggregate(cost: Float[Array, "B H V D"], small_step: float, large_step: float) -> Float[Array, "B H V D"]:
    """Mean over four paths (from the left, right, top and bottom) of the cheapest way to each cell and level.

    A path pays `small_step` for a change by one level and `large_step` for any larger one.
    """

    def step(before: Array, here: tuple[Array, Array]) -> tuple[Array, Array]:
        cost, so_far = here
        beside = jnp.pad(before, ((0, 0), (0, 0), (1, 1)), constant_values=jnp.inf)
        change = jnp.minimum(beside[..., :-2], beside[..., 2:]) + small_step
        after = cost + jnp.minimum(jnp.minimum(before, change), large_step)
        return after - jnp.min(after, -1, keepdims=True), so_far + after  # what lies before is 0 at its least

    total = jnp.zeros_like(cost)
    for axis in (1, 2):
        rows = jnp.moveaxis(cost, axis, 0)
        both = jnp.zeros_like(rows)
        for reverse in (False, True):
            both = lax.scan(step, jnp.zeros_like(rows[0]), (rows, both), reverse=reverse)[1]
        total = total + jnp.moveaxis(both, 0, axis)
    return total / 4


def winner(total: Float[Array, "B H V D"]) -> Evidence:
    """The cheapest level with a parabola's fraction, the check from right to left, and the margin to the next best."""
    width, levels = total.shape[2:]
    rank = ranked(total)
    best = jnp.min(rank, -1) % levels
    at = lambda index: jnp.take_along_axis(total, jnp.clip(index, 0, levels - 1)[..., None], -1)[..., 0]
    least, before, after = at(best), at(best - 1), at(best + 1)
    curve = before - 2 * least + after
    inner = (best > 0) & (best < levels - 1) & (curve > 1e-6)
    fraction = jnp.where(inner, 0.5 * (before - after) / jnp.where(inner, curve, 1), 0)

    from_right = jnp.min(seen_from_right(rank), -1) % levels
    match = jnp.arange(width)[None, None] - best
    returned = jnp.take_along_axis(from_right, jnp.maximum(match, 0), -1)
    consistent = (match >= 0) & (jnp.abs(returned - best) <= 1)

    level = jnp.arange(levels).reshape(1, 1, 1, -1)
    other = jnp.min(jnp.where(jnp.abs(level - best[..., None]) > 1, total, jnp.inf), -1)
    margin = jnp.where(jnp.isfinite(other), 1 - least / jnp.maximum(other, 1e-6), 1)
    return Evidence(best + fraction, consistent.astype(total.dtype), jnp.clip(margin, 0, 1))


def ranked(total: Float[Array, "B H V D"]) -> Int[Array, "B H V D"]:
    """Whole numbers in the order of the costs, levels in their order where costs are equal; modulo D they are the levels.

    Their minimum is an `argmin`, which XLA's CPU compiler does one number at a time. Costs below 2^31 / (D STEPS) fit.
    """
    levels = total.shape[-1]
    return jnp.round(total * STEPS).astype(jnp.int32) * levels + jnp.arange(levels, dtype=jnp.int32).reshape(1, 1, 1, -1)


def seen_from_right(x: Int[Array, "B H V D"]) -> Int[Array, "B H V D"]:
    """The levels of a cell of the right image, whose match at level d is d cells to its right; huge beyond the left image.

    A shear: row d of a level-first plane moves d cells left, which is another length of its rows, without any gather.
    """
    b, height, width, levels = x.shape
    planes = jnp.moveaxis(x, 3, 2)
    flat = jnp.pad(planes.reshape(b, height, -1), ((0, 0), (0, 0), (0, levels)))
    sheared = flat.reshape(b, height, levels, width + 1)[..., :width]
    inside = jnp.arange(width)[None] + jnp.arange(levels)[:, None] < width
    return jnp.moveaxis(jnp.where(inside[None, None], sheared, jnp.iinfo(x.dtype).max), 2, 3)


def hypotheses(found: Evidence, count: int, columns: int) -> tuple[Float[Array, "B h w N"], Float[Array, "B h w N 5"]]:
    """Of the cells of 8 x 8 pixels `count` of their disparities, in 1/8 pixels, spread over their order, and their `features`.

    One: the lower median. Two: the smallest and the largest, one for each side of an edge.
    """
    disparity, consistent, margin = (_blocks(value, 2, 2 * ROWS // columns) for value in found)
    last = disparity.shape[-1] - 1
    ranks = [last // 2] if count == 1 else np.linspace(0, last, count).astype(int).tolist()
    chosen = jnp.argsort(disparity, -1)[..., ranks]
    disparity, consistent, margin = (jnp.take_along_axis(value, chosen, -1) for value in (disparity, consistent, margin))
    return disparity / 2, features(jnp.zeros_like(disparity), consistent, margin)


def squares(found: Evidence, columns: int) -> Evidence:
    """At 1/4: of the cells of 4 x 4 pixels the one that left and right agree on, of the larger margin; (B, H, W) each."""
    cells = Evidence(*(_blocks(value, 1, ROWS // columns) for value in found))
    best = jnp.argmax(cells.consistent + cells.margin / 2, -1, keepdims=True)
    return Evidence(*(jnp.take_along_axis(value, best, -1)[..., 0] for value in cells))


class ClassicalEvidence(nn.Module):
    """The matcher's hypotheses as candidates, and what tokens are told of it. In training some samples do without."""

    config: ModelConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        linear = lambda: Linear(self.config.nmp.dim, use_bias=False, kernel_init=normal_002, dtype=self.dtype)
        self.coarse, self.fine = linear(), linear()

    def __call__(
        self, left: Float[Array, "B Y X 3"], right: Float[Array, "B Y X 3"], *, train: bool
    ) -> tuple[Evidence, Float[Array, "B H V D"], Float[Array, "B 1 1 1"]]:
        """Evidence, the cost of every level, and 1 for each sample that may use them, else 0."""
        sgm = self.config.sgm
        found, cost = evidence(left, right, sgm, self.config.dpn.max_disp)
        for name, value in found._asdict().items():
            self.sow("taps", f"sgm_{name}", value)
        keep = jnp.ones(left.shape[0], left.dtype)  # may be symbolic
        if train and sgm.dropped:
            keep = _kept(self, 1 - sgm.dropped, len(left)).astype(left.dtype)
        return found, cost, keep.reshape(-1, 1, 1, 1)

    def join(
        self,
        proposals: Float[Array, "B h w N"],
        rest: Float[Array, "B h w N"],
        found: Evidence,
        keep: Float[Array, "B 1 1 1"],
    ) -> tuple[Float[Array, "B h w N2"], Float[Array, "B h w N2"], Float[Array, "B h w N2 C"]]:
        """Proposals and hypotheses (1/8 pixels), what rounding took off them, and what to add to their tokens.

        Without evidence: the proposals again.
        """
        own = proposals.shape[-1]
        extra, told = hypotheses(found, self.config.sgm.candidates, self.config.sgm.columns)
        again = jnp.arange(extra.shape[-1]) % own
        told = jnp.pad(told * keep[..., None], ((0, 0), (0, 0), (0, 0), (own, 0), (0, 0)))
        joined = jnp.concatenate([proposals, jnp.where(keep > 0, extra, proposals[..., again])], -1)
        rest = jnp.concatenate([rest, jnp.where(keep > 0, 0, rest[..., again])], -1)
        return joined, rest, self.coarse(told).astype(proposals.dtype)

    def beside(
        self, estimate: Float[Array, "B H W 1"], found: Evidence, keep: Float[Array, "B 1 1 1"]
    ) -> Float[Array, "B H W 1 C"]:
        """What to add to the tokens of the refinement: how far the evidence is from the estimate, both in 1/4 pixels."""
        best = squares(found, self.config.sgm.columns)
        offset = jnp.tanh((best.disparity - estimate[..., 0]) / 2)
        told = features(offset, best.consistent, best.margin)[..., None, :]
        return self.fine(told * keep[..., None]).astype(estimate.dtype)


def features(offset: Array, consistent: Array, margin: Array) -> Float[Array, "*B 5"]:
    """What a token is told of a classical disparity: how far it is from the token's own (0 for a hypothesis), the same where
    left and right agree, whether they do, the margin, and that there is one at all."""
    return jnp.stack([offset, offset * consistent, consistent, margin, jnp.ones_like(margin)], -1)


def _kept(module: nn.Module, probability: float, batch: int) -> Bool[Array, "B"]:
    """Drawn by a sample's number, as in `layers.drop_path`."""
    numbers = module.scope.root.get_variable("samples", "numbers", jnp.arange(batch))[:batch]  # type: ignore[union-attr]
    key = module.make_rng("drop_path")
    return jax.vmap(lambda number: jax.random.bernoulli(jax.random.fold_in(key, number), probability))(numbers)


def _grey(image: Float[Array, "B Y X 3"], columns: int) -> Float[Array, "B H V"]:
    b, height, width, _ = image.shape
    grey = (image * jnp.asarray(GREY, image.dtype).reshape(1, 1, 1, 3)).sum(-1)
    return grey.reshape(b, height // ROWS, ROWS, width // columns, columns).mean((2, 4))


def _blocks(x: Float[Array, "B H V"], rows: int, columns: int) -> Float[Array, "B h w S"]:
    """Blocks of rows x columns cells, rows first."""
    b, height, width = x.shape
    x = x.reshape(b, height // rows, rows, width // columns, columns).swapaxes(2, 3)
    return x.reshape(b, height // rows, width // columns, rows * columns)
