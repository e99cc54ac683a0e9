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

MEASURED = (96, 160)  # pixels, of the pair on which activations are measured before half precision
MONO, BACKBONE = r"mono/", r"stereo_encoder/backbone/"
NORM = r".*\bnorm[^/]*/(scale|bias)$"


def init(config: ModelConfig, key: Array) -> Weights:
    """Initial weights (spec `architecture.md`, section 8)."""
    from bridgedepth_jax.systems.bridgedepth.network import init_params

    return init_params(config, key)


def objective(config: ModelConfig, task: StereoTask, teachers: Mapping[str, Teacher]) -> Objective:
    """The losses of the paper on batches of left, right (B, H, W, 3), disparity (B, H, W) in pixels and valid.

    Or those of pairs made from photographs, which also need `losses.TRUSTED`.
    """
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
        trust = losses.trust_of(batch, loss_config)
        values = losses.losses(output, batch["disparity"], batch["valid"], loss_config, counts, trust)
        return losses.total(values, loss_config), Result(values, output.disparity)

    def count(batch: Batch) -> losses.Counts:
        trust = losses.trust_of(batch, loss_config)
        return losses.count(batch["disparity"], batch["valid"], loss_config, None if trust is None else trust.seen)

    return Objective(
        trained=lambda path: (task.train_mono or not path.startswith(MONO)) and path.startswith(task.only or ""),
        count=count,
        loss=loss,
        groups=functools.partial(groups, task),
        keys=("drop_path",),
        headline=("epe_train",),
        picture=picture,
        health=functools.partial(measured, config),
        part=part,
    )


def measured(config: ModelConfig, weights: Weights, batch: Batch) -> dict[str, Array]:
    """RMS and largest magnitude of every tap of an inference pass, as `rms/TAP` and `largest/TAP`."""
    from bridgedepth_jax.systems.bridgedepth.health import flatten_taps
    from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth

    images = (batch[side].astype(jnp.float32) for side in ("left", "right"))
    _, sown = BridgeDepth(config).apply({"params": weights}, *images, mutable=["taps"])
    found: dict[str, Array] = {}
    for name, value in flatten_taps(sown["taps"]):
        size = jnp.abs(value.astype(jnp.float32))
        found |= {f"rms/{name}": jnp.sqrt(jnp.mean(jnp.square(size))), f"largest/{name}": jnp.max(size)}
    return found


def part(path: str) -> str:
    """Of the network, by a parameter's path."""
    from bridgedepth_jax.systems.bridgedepth.health import part_of

    return part_of(path)


def holds(config: ModelConfig, weights: Weights, dtype: str) -> None:
    """InputError naming the first layer whose output on a rendered pair `dtype` cannot hold."""
    from bridgedepth_jax.data.procedural import SyntheticStereo
    from bridgedepth_jax.systems.bridgedepth import health

    pair = SyntheticStereo(MEASURED[0], MEASURED[1], max_disparity=MEASURED[1] / 4, photos=False)[0]
    left, right = (pair[side][None].astype(np.float32) for side in ("left", "right"))
    found = health.sizes(config.replace(dtype="float32"), weights, left, right)
    health.check_finite(found, "the model")
    health.check_dtype(found, dtype)


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
    variants={name: functools.partial(ModelConfig.variant, name) for name in VARIANTS}
    | {"nano": ModelConfig.nano, "nano_sharp": ModelConfig.nano_sharp},
    published={name: Published("bridgedepth", "aeolusguan/BridgeDepth", f"bridge_{name}.pth") for name in VARIANTS},
    parts={"depth-anything": MONO},
    task=StereoTask,
    objective=objective,
    check=check,
    extras=lambda task: losses.TRUSTED if task.loss == "zero" else (),
    estimate=estimate,
    holds=holds,
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
