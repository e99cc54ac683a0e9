"""BridgeDepth's row: how the shared floors train, evaluate, keep and convert it. Networks load when they are needed."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bridgedepth_jax.store.checkpoint import flatten
from bridgedepth_jax.system import Batch, Estimate, Group, Objective, Published, Result, Rows, System, Teacher, Weights
from bridgedepth_jax.systems.bridgedepth import losses
from bridgedepth_jax.systems.bridgedepth.config import MINIMUM, MULTIPLE, VARIANTS, ModelConfig
from bridgedepth_jax.systems.bridgedepth.losses import LossConfig, StereoTask

MONO, BACKBONE = r"mono/", r"stereo_encoder/backbone/"
NORM = r".*\bnorm[^/]*/(scale|bias)$"


def init(config: ModelConfig, key: Array) -> Weights:
    """Initial weights (spec `architecture.md`, section 8)."""
    from bridgedepth_jax.systems.bridgedepth.network import init_params

    return init_params(config, key)


def objective(config: ModelConfig, task: StereoTask, teachers: Mapping[str, Teacher]) -> Objective:
    """The losses of the paper on batches of left, right (B, H, W, 3), disparity (B, H, W) in pixels and valid."""
    from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth

    network, loss_config = BridgeDepth(config), LossConfig.of(config, task)

    def loss(weights: Weights, teachers: Any, batch: Batch, counts: losses.Counts, rows: Rows) -> tuple[Array, Result]:
        dtype = jax.tree.leaves(weights["stereo_encoder"])[0].dtype
        numbers = jnp.concatenate([rows.numbers, rows.total + rows.numbers])  # left and right draw their own drop path
        output: Any = network.apply(
            {"params": weights, "samples": {"numbers": numbers}},
            batch["left"].astype(dtype),
            batch["right"].astype(dtype),
            train=True,
            train_mono=task.train_mono,
            rngs=dict(rows.keys),
        )
        values = losses.losses(output, batch["disparity"], batch["valid"], loss_config, counts)
        return losses.total(values, loss_config), Result(values, output.disparities[-1])

    return Objective(
        trained=lambda path: task.train_mono or not path.startswith(MONO),
        count=lambda batch: losses.count(batch["disparity"], batch["valid"], loss_config),
        loss=loss,
        groups=functools.partial(groups, task),
        keys=("drop_path",),
        headline=("epe_train",),
        picture=picture,
    )


def groups(task: StereoTask, solver: Any) -> tuple[Group, ...]:
    """Every parameter matches exactly one row."""
    return (
        Group("mono", MONO, solver.weight_decay, task.mono_rate),
        Group("backbone", BACKBONE, task.backbone_weight_decay),
        Group("norm", rf"(?!{MONO}|{BACKBONE}){NORM}", solver.weight_decay_norm),
        Group("other", rf"(?!{MONO}|{BACKBONE}|{NORM})", solver.weight_decay),
    )


def picture(host: Mapping[str, np.ndarray], disparity: np.ndarray) -> np.ndarray:
    """Left image, ground truth, prediction and error of the first row, one above the other, (H, W, 3)."""
    from bridgedepth_jax.visualize import colorize, error_colors

    left, gt, valid = (host[name][0] for name in ("left", "disparity", "valid"))
    top = max(float(gt[valid].max(initial=0)), 1.0)
    return np.concatenate(
        [
            np.clip(left, 0, 255).astype(np.uint8),
            colorize(gt, top, valid),
            colorize(disparity[0], top),
            error_colors(disparity[0], gt, valid),
        ]
    )


def check(config: ModelConfig, task: StereoTask) -> None:
    LossConfig.of(config, task)


def estimate(config: ModelConfig) -> Any:
    """The network as a method of the evaluator: (weights, left, right (B, H, W, 3)) -> `Estimate`."""
    from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth

    network = BridgeDepth(config)
    dtype = jnp.float64 if config.dtype == "float64" else jnp.float32

    def run(weights: Weights, left: Array, right: Array) -> Estimate:
        output: Any = network.apply({"params": weights}, left.astype(dtype), right.astype(dtype))
        return Estimate(output.disparity, output.confidence, output.proposals)

    return run


def imagenet(path: str, config: ModelConfig) -> dict[str, Any]:
    """torchvision's weights of a convnext or swin encoder, {path: array}."""
    from bridgedepth_jax.convert.rules.bridgedepth import read_imagenet_backbone

    return flatten({"stereo_encoder": {"backbone": read_imagenet_backbone(path, config)}})


SYSTEM = System(
    name="bridgedepth",
    config=ModelConfig,
    init=init,
    variants={name: functools.partial(ModelConfig.variant, name) for name in VARIANTS} | {"nano": ModelConfig.nano},
    published={name: Published("bridgedepth", "aeolusguan/BridgeDepth", f"bridge_{name}.pth") for name in VARIANTS},
    parts={"depth-anything": MONO},
    task=StereoTask,
    objective=objective,
    check=check,
    estimate=estimate,
    moved={
        f"solver.{name}": f"task.{name}"
        for name in ("train_mono", "mono_rate", "backbone_weight_decay", "loss_type", "max_disp", "loss_weights")
    },
    multiple=MULTIPLE,
    minimum=MINIMUM,
    reach=lambda config: float(config.dpn.max_disp),
    rules="bridgedepth_jax.convert.rules.bridgedepth:RULES",
    imagenet=imagenet,
)
