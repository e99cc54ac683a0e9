"""The three stages as objectives (paper section 3; spec `self-supervised.md`, the table at its top).

    photometric   pair -> student, checked by both views
    distil        frozen stereo network -> student, where both cameras see
    fusion        frozen stereo network, and a frozen monocular one where it does not see -> student

Any network of `networks.py` can be the student, any system's stereo network and any monocular one of `MONOCULAR` a teacher.
B batch, H W an image's sides.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.system import Batch, Estimate, Group, Objective, Result, Rows, Teacher, Weights, find_system
from bridgedepth_jax.systems.reciprocal import losses
from bridgedepth_jax.systems.reciprocal.augment import augment
from bridgedepth_jax.systems.reciprocal.config import ALPHA, ReciprocalTask
from bridgedepth_jax.systems.reciprocal.networks import (
    Network,
    Pass,
    View,
    mirrored,
    mono_teacher,
    other_view,
    row_keys,
    stereo_teacher,
)

TEACHERS: dict[str, tuple[str, ...]] = {"photometric": (), "distil": ("stereo",), "fusion": ("stereo", "mono")}
OPTIONS = {"stereo": "--teacher", "mono": "--mono"}  # of `bridgedepth train`
VIEWS = {"photometric": (1, 2), "distil": (1,), "fusion": (2,)}  # that a student of the stage looks at


class _Judged(NamedTuple):
    """A stage's loss of a student's pass on a pair, and what a network's own losses may use (`View`)."""

    total: losses.Total
    occluded: Array
    visible: Array  # pixels that are not, of the global batch
    target: Array
    trusted: Array


_Stage = Callable[[Weights, Pass, Mapping[str, Weights], Any, Any, Rows], _Judged]


def objective(
    network: Network,
    task: ReciprocalTask,
    teachers: Mapping[str, Teacher],
    *,
    trained: Callable[[str], bool] = lambda path: True,
    groups: Callable[[Any], tuple[Group, ...]] | None = None,
) -> Objective:
    """The task's stage, for the student `network`. InputError: a student or a teacher that the stage is not for."""
    if network.views not in VIEWS[task.stage]:
        kind = "a stereo network" if 2 in VIEWS[task.stage] else "a monocular network"
        raise InputError(f"task.stage = {task.stage} trains {kind}, this system is none")
    wanted = ("stereo",) if task.keep else TEACHERS[task.stage]
    if set(teachers) != set(wanted):
        raise InputError(
            f"task.stage = {task.stage}: teachers {', '.join(sorted(teachers)) or 'none'},"
            f" expected {', '.join(f'{name} ({OPTIONS[name]})' for name in wanted) or 'none'}"
        )
    stage = {"photometric": _photometric, "distil": _distil, "fusion": _fusion}[task.stage](network, task, teachers)

    def loss(weights: Weights, frozen: Mapping[str, Weights], batch: Batch, counts: Any, rows: Rows) -> tuple[Array, Result]:
        dtype = jax.tree.leaves({name: tree for name, tree in weights.items() if name != "batch_stats"})[0].dtype
        left, right = (batch[side].astype(dtype) for side in ("left", "right"))
        views = augment(left, right, row_keys(rows.keys["augment"], rows), mirror=task.mirror, colour=task.colour)
        found = network.train(weights, views.seen[: network.views], rows)
        judged = stage(weights, found, frozen, views.clean, views.seen, rows)
        value = judged.total.loss
        metrics = {
            "data": judged.total.data,
            "smoothness": judged.total.smoothness,
            "occluded": losses.mean(judged.occluded.astype(dtype), rows.total),
        }
        if network.own is not None:
            view = View(views.clean[0] / 255, views.clean[1] / 255, *judged[1:])
            more, own = network.own(found, view, rows)
            value, metrics = value + more, metrics | own
        shown = {"left": views.clean[0], "disparity": found.full, "occluded": judged.occluded}
        return value, Result(metrics, jax.lax.stop_gradient(shown), found.collections)

    return Objective(
        trained=trained,
        count=lambda batch: jnp.asarray(len(batch["left"]), jnp.float32),
        loss=loss,
        groups=groups or (lambda solver: (Group("all", "", solver.weight_decay),)),
        keys=(*network.keys, "augment"),
        headline=("data", "occluded"),
        picture=picture,
    )


def _visible(occluded: Array, dtype: Any, rows: Rows) -> Array:
    """Pixels of the global batch that are not occluded: it depends on what networks say, so it is summed apart."""
    return rows.across("visible", jnp.sum(~occluded, dtype=dtype))


def _photometric(network: Network, task: ReciprocalTask, teachers: Mapping[str, Teacher]) -> _Stage:
    before = stereo_teacher("stereo", teachers["stereo"]) if task.keep else None

    def stage(weights: Weights, found: Pass, frozen: Any, clean: Any, seen: Any, rows: Rows) -> _Judged:
        left, right = (view / 255 for view in clean)
        disparity = jax.lax.stop_gradient(found.full)
        check = lambda: losses.occlusion(disparity, other_view(network, weights, seen, rows), task.occlusion_alpha)
        if task.occlusion_warmup:
            occluded = lax.cond(rows.step < task.occlusion_warmup, lambda: losses.out_of_view(disparity), check)
        else:
            occluded = check()
        visible = _visible(occluded, left.dtype, rows)
        if task.image_pyramid:
            data = losses.pyramid_data(left, right, occluded, rows.across)
        else:
            data = losses.photometric_data(left, right, occluded, visible)
        total = losses.over_scales(found.outputs, left, data, rows.total, task.smoothness, pyramid=task.image_pyramid)
        if before is not None:
            known = before(frozen["stereo"], *clean).astype(left.dtype)
            hidden = rows.across("hidden", jnp.sum(occluded, dtype=left.dtype))
            kept = losses.over_scales(found.outputs, left, losses.distillation_data(known, ~occluded, hidden), rows.total, 0.0)
            total = total._replace(loss=total.loss + task.keep * kept.data)
        if task.search:
            pull = _pull(found, left, right, task, rows)
            total = total._replace(loss=total.loss + pull, data=total.data + pull)
        return _Judged(total, occluded, visible, disparity, ~occluded)

    return stage


def _pull(found: Pass, left: Array, right: Array, task: ReciprocalTask, rows: Rows) -> Array:
    """Log-L1 of all outputs to what a search of the images finds where left and right agree, in the first steps; and the
    cross entropy of each level's correlation with it."""
    over = lambda: losses.Found(jnp.zeros_like(left[..., 0]), jnp.ones(left.shape[:3], bool))  # nothing to pull to
    now = lambda: losses.search(left, right, task.search_range, task.search_scale)
    best = lax.cond(rows.step < task.search, now, over)
    agreed = rows.across("agreed", jnp.sum(~best.doubtful, dtype=left.dtype))
    data = losses.distillation_data(best.disparity, best.doubtful, agreed)
    value = losses.over_scales(found.outputs, left, data, rows.total, 0.0).data
    for level in found.matching:
        value = value + losses.matching_loss(level, best, rows.across) / len(found.matching)
    return value


def _distil(network: Network, task: ReciprocalTask, teachers: Mapping[str, Teacher]) -> _Stage:
    stereo = stereo_teacher("stereo", teachers["stereo"])

    def stage(_: Any, found: Pass, frozen: Any, clean: Any, seen: Any, rows: Rows) -> _Judged:
        target, occluded = consult(stereo, frozen["stereo"], clean, task.occlusion_alpha)
        visible = _visible(occluded, target.dtype, rows)
        data = losses.distillation_data(target, occluded, visible)
        total = losses.over_scales(found.outputs, clean[0] / 255, data, rows.total, task.smoothness)
        return _Judged(total, occluded, visible, target, ~occluded)

    return stage


def _fusion(network: Network, task: ReciprocalTask, teachers: Mapping[str, Teacher]) -> _Stage:
    stereo, mono = stereo_teacher("stereo", teachers["stereo"]), mono_teacher("mono", teachers["mono"])

    def stage(_: Any, found: Pass, frozen: Any, clean: Any, seen: Any, rows: Rows) -> _Judged:
        target, occluded = consult(stereo, frozen["stereo"], clean, task.occlusion_alpha)
        guess = mono(frozen["mono"], clean[0], target, occluded)
        fused = losses.fuse(target, guess, occluded)
        data = losses.fusion_data(fused, rows.total)
        total = losses.over_scales(found.outputs, clean[0] / 255, data, rows.total, task.smoothness)
        return _Judged(total, occluded, _visible(occluded, target.dtype, rows), fused, jnp.ones_like(occluded))

    return stage


def consult(
    stereo: Callable[[Weights, Array, Array], Array], weights: Weights, pair: tuple[Array, Array], alpha: float
) -> tuple[Array, Array]:
    """A frozen stereo network's disparity of the left view and what is occluded there, (B, H, W) each. Images RGB 0..255."""
    left, right = pair
    disparity = stereo(weights, left, right).astype(left.dtype)
    other = mirrored(stereo)(weights, left, right).astype(left.dtype)
    return disparity, losses.occlusion(disparity, other, alpha)


def fused_estimate(stereo: Teacher, mono: Teacher) -> Callable[[Weights, Array, Array], Estimate]:
    """Eq. 7 as a method of the evaluator: weights are {"stereo": ..., "mono": ...}. InputError: networks of the wrong kind."""
    forward, guess = stereo_teacher("stereo", stereo), mono_teacher("mono", mono)

    def run(weights: Weights, left: Array, right: Array) -> Estimate:
        pair = left.astype(jnp.float32), right.astype(jnp.float32)
        disparity, occluded = consult(forward, weights["stereo"], pair, ALPHA["fusion"])
        return Estimate(losses.fuse(disparity, guess(weights["mono"], pair[0], disparity, occluded), occluded))

    return run


def post_processed_estimate(teacher: Teacher) -> Callable[[Weights, Array, Array], Estimate]:
    """A monocular network on an image and on its mirror; `raw` is the second, mirrored back. InputError: one for pairs."""
    system = find_system(teacher.system)
    if system.estimate is None or not system.monocular:
        raise InputError(f"post-processing of {teacher.system}, expected a monocular network: singlenet")
    estimate = system.estimate(teacher.config)

    def run(weights: Weights, left: Array, right: Array) -> Estimate:
        flipped = estimate(weights, left[:, :, ::-1], right[:, :, ::-1]).disparity[:, :, ::-1]
        return Estimate(estimate(weights, left, right).disparity, raw=flipped)

    return run


def picture(host: Mapping[str, np.ndarray], shown: Mapping[str, np.ndarray]) -> np.ndarray:
    """Left view, disparity, and the same with what is occluded blackened, one above the other, (H, W, 3) uint8."""
    from bridgedepth_jax.visualize import colorize

    left, disparity, occluded = (np.asarray(shown[name])[0] for name in ("left", "disparity", "occluded"))
    top = max(float(np.quantile(disparity, 0.99)), 1.0)
    rows = (np.clip(left, 0, 255).astype(np.uint8), colorize(disparity, top), colorize(disparity, top, ~occluded))
    return np.concatenate(rows)
