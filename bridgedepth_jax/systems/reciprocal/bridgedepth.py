"""BridgeDepth learning from pairs alone (spec `self-supervised.md` section 6): a student of stages 1 and 3.

Its candidates and the estimate between its stages are chosen without gradient, so a photometric loss on its disparities trains
heads and alignment around given proposals. The rest learns from the supervised losses with its own disparity as truth, where
both views agree (stage 3: the fused one, everywhere), and the scores of the candidates from the photometric error of each. So
it starts from trained weights; from nothing those labels are noise.
B batch, H W an image's sides, h w those at 1/8, N candidates, D disparity levels, M coarse outputs.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.layers import softmax
from bridgedepth_jax.ops.warp import warp_rows
from bridgedepth_jax.system import Objective, Rows, Teacher, Weights
from bridgedepth_jax.systems.bridgedepth import losses as supervised
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.systems.bridgedepth.losses import LossConfig, StereoTask
from bridgedepth_jax.systems.bridgedepth.system import MONO, SYSTEM
from bridgedepth_jax.systems.reciprocal import losses
from bridgedepth_jax.systems.reciprocal.config import ReciprocalTask
from bridgedepth_jax.systems.reciprocal.losses import Output
from bridgedepth_jax.systems.reciprocal.networks import Images, Network, Pass, View

CELL = 8  # pixels a side of a cell of the matching distribution


def supervised_task(config: ModelConfig) -> StereoTask:
    """The supervised losses on labels, for a network of any number of layers."""
    coarse, fine = config.nmp.infer_layers, config.nmp.refine_layers
    given = StereoTask().loss_weights
    # With another number of layers than published: rising alike, 1 to 1.4 and 1.4 to 2.
    weights = given if len(given) == coarse + fine else (*_rising(1.0, 1.4, coarse), *_rising(1.4, 2.0, fine))
    return StereoTask(max_disp=config.dpn.max_disp, loss_weights=weights)


def output_weights(config: ModelConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Shares of the coarse outputs and of the fine ones: those of the supervised loss, of sum 1."""
    weights, coarse = supervised_task(config).loss_weights, config.nmp.infer_layers
    shares = tuple(weight / sum(weights) for weight in weights)
    return shares[:coarse], shares[coarse:]


def _rising(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(low + (high - low) * i / max(count - 1, 1) for i in range(count))


def network(config: ModelConfig, task: ReciprocalTask) -> Network:
    from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth

    module = BridgeDepth(config)
    coarse_shares, fine_shares = output_weights(config)
    counted = StereoTask(max_disp=config.dpn.max_disp, loss_weights=(*coarse_shares, *fine_shares))
    loss_config = LossConfig.of(config, counted)

    def train(weights: Weights, images: Images, rows: Rows) -> Pass:
        numbers = jnp.concatenate([rows.numbers, rows.total + rows.numbers])  # left and right draw their own drop path
        variables = {"params": weights, "samples": {"numbers": numbers}}
        found: Any = module.apply(variables, *images, train=True, rngs={"drop_path": rows.keys["drop_path"]})
        outputs = tuple(Output(d, share) for d, share in zip(found.disparities, fine_shares, strict=True))
        return Pass(outputs, found.disparity, {}, found)

    def observe(weights: Weights, images: Images, rows: Rows) -> Array:
        found: Any = module.apply({"params": weights}, *images)
        return found.disparity

    def own(found: Pass, view: View, rows: Rows) -> tuple[Array, dict[str, Array]]:
        scores = coarse_loss(found.raw, view, coarse_shares)
        target, valid = lax.stop_gradient(view.target), view.trusted
        here = supervised.count(target, valid, loss_config)
        counts = supervised.Counts(
            *(rows.across(f"own_{name}", getattr(here, name)) for name in ("proposals", "cells", "pixels")),
            images=jnp.asarray(rows.total, target.dtype),
        )
        pseudo = {
            "proposals": supervised.proposal_loss(found.raw.proposals, jnp.where(valid, target, 0), loss_config, counts),
            "matching": supervised.initial_loss(found.raw.prob, jnp.where(valid, target, 0), loss_config, counts),
            "mono": config.recurrent_loss_weight
            * supervised.recurrent_loss(found.raw.mono, target, valid, loss_config, counts),
        }
        value = scores + task.pseudo * sum(pseudo.values())
        metrics = {"scores": scores, **pseudo}
        if task.bootstrap:
            first = matching_loss(found.raw.prob, view.left, view.right, rows.total)
            metrics["bootstrap"] = jnp.where(rows.step < task.bootstrap, first, 0)
            value = value + metrics["bootstrap"]
        return value, metrics

    return Network(2, train, observe, ("drop_path",), own)


def coarse_loss(output: Any, view: View, shares: tuple[float, ...]) -> Array:
    """Of each coarse output the photometric error of its candidates, weighted by their scores: what trains these."""
    total = jnp.zeros((), view.left.dtype)
    for disparities, logits, share in zip(output.coarse_disparities, output.logits, shares, strict=True):
        weight = softmax(logits)
        error = sum(
            weight[..., n] * losses.photometric(view.left, warp_rows(view.right, disparities[..., n]))
            for n in range(disparities.shape[-1])
        )
        total = total + share * losses.masked_mean(jnp.asarray(error), view.occluded, view.visible)
    return total


def matching_loss(
    prob: Float[Array, "B h w D"], left: Float[Array, "B H W 3"], right: Float[Array, "B H W 3"], rows: int
) -> Array:
    """The photometric error that the matching distribution expects, on images averaged over its cells."""
    small, other = (losses.average_blocks(image, CELL) for image in (left, right))
    column = lax.broadcasted_iota(jnp.int32, small.shape[:3], 2)

    def cost(level: Array) -> tuple[Array, Bool[Array, "B h w"]]:
        return losses.photometric(small, jnp.roll(other, level, axis=2)), column >= level

    costs, seen = lax.map(cost, jnp.arange(prob.shape[-1]))  # (D, B, h, w)
    weight = jnp.where(jnp.moveaxis(seen, 0, -1), prob, 0)
    weight = weight / jnp.maximum(jnp.sum(weight, axis=-1, keepdims=True), 1e-6)
    return losses.mean(jnp.sum(weight * jnp.moveaxis(costs, 0, -1), axis=-1), rows)


def objective(config: ModelConfig, task: ReciprocalTask, teachers: Mapping[str, Teacher]) -> Objective:
    from bridgedepth_jax.systems.reciprocal import stages

    return stages.objective(network(config, task), task, teachers, trained=lambda path: not path.startswith(MONO))


def check(config: ModelConfig, task: ReciprocalTask) -> None:
    if task.stage == "distil":
        raise InputError("task.stage = distil trains a monocular network, BridgeDepth is none")
    if task.image_pyramid:
        raise InputError("task.image_pyramid = True: BridgeDepth's outputs are all at full size, expected False")


# Its checkpoints are BridgeDepth's.
PAIRS = SYSTEM._replace(
    task=ReciprocalTask, objective=objective, check=check, moved={}, published={}, rules="", parts={}, extras=None
)
