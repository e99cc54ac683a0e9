"""The rows of StereoNet and SingleNet. Networks load when they are needed."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.system import Estimate, Objective, System, Teacher, Weights
from bridgedepth_jax.systems.reciprocal.config import (
    VARIANTS,
    ReciprocalTask,
    SingleNetConfig,
    StereoNetConfig,
)


def init_stereo(config: StereoNetConfig, key: Array) -> Weights:
    from bridgedepth_jax.systems.reciprocal.stereonet import StereoNet

    image = jnp.zeros((1, config.multiple, config.multiple, 3))
    return StereoNet(config).init(key, image, image)["params"]


def init_single(config: SingleNetConfig, key: Array) -> Weights:
    from bridgedepth_jax.systems.reciprocal.singlenet import SingleNet

    # Twice the least side: a map of one pixel cannot be reflected.
    variables = SingleNet(config).init(key, jnp.zeros((1, 2 * config.multiple, 2 * config.multiple, 3)))
    return {**variables["params"], "batch_stats": variables["batch_stats"]}


def stereo_objective(config: StereoNetConfig, task: ReciprocalTask, teachers: Mapping[str, Teacher]) -> Objective:
    from bridgedepth_jax.systems.reciprocal import networks, stages

    return stages.objective(networks.stereonet(config), task, teachers)


def single_objective(config: SingleNetConfig, task: ReciprocalTask, teachers: Mapping[str, Teacher]) -> Objective:
    from bridgedepth_jax.systems.reciprocal import networks, stages

    return stages.objective(networks.singlenet(config), task, teachers)


def stereo_estimate(config: StereoNetConfig) -> Any:
    """StereoNet as a method of the evaluator: nothing lies behind the cameras."""
    from bridgedepth_jax.systems.reciprocal.stereonet import StereoNet

    def run(weights: Weights, left: Array, right: Array) -> Estimate:
        dtype = jax.tree.leaves(weights)[0].dtype
        found: Any = StereoNet(config).apply({"params": weights}, left.astype(dtype), right.astype(dtype))
        return Estimate(jnp.maximum(found[0], 0))

    return run


def single_estimate(config: SingleNetConfig) -> Any:
    """SingleNet as a method of the evaluator: it does not look at the right view."""
    from bridgedepth_jax.systems.reciprocal.networks import split_weights
    from bridgedepth_jax.systems.reciprocal.singlenet import SingleNet, disparities

    def run(weights: Weights, left: Array, right: Array) -> Estimate:
        dtype = jax.tree.leaves(weights)[0].dtype
        found: Any = SingleNet(config).apply(split_weights(weights), left.astype(dtype))
        return Estimate(disparities(found, config, left.shape[2])[0])

    return run


def single_depth(config: SingleNetConfig) -> Any:
    """SingleNet as a network of one view: disparity in pixels of its width, inverse depth up to a factor."""
    from bridgedepth_jax.systems.reciprocal.networks import split_weights
    from bridgedepth_jax.systems.reciprocal.singlenet import SingleNet, disparities

    def run(weights: Weights, image: Array) -> Array:
        found: Any = SingleNet(config).apply(split_weights(weights), image)
        return disparities(found, config, image.shape[2])[0]

    return run


def imagenet(path: str, config: SingleNetConfig) -> Mapping[str, Any]:
    """torchvision's weights of the ResNet, {path: array}."""
    from bridgedepth_jax.convert.rules.reciprocal import read_resnet

    return read_resnet(path, config)


def check_stereo(config: StereoNetConfig, task: ReciprocalTask) -> None:
    if task.stage == "distil":
        raise InputError("task.stage = distil trains a monocular network, system stereonet is none")


def check_single(config: SingleNetConfig, task: ReciprocalTask) -> None:
    if task.stage == "fusion":
        raise InputError("task.stage = fusion trains a stereo network, system singlenet is none")


STEREONET = System(
    name="stereonet",
    config=StereoNetConfig,
    init=init_stereo,
    variants={"unet": StereoNetConfig, "pyramid": functools.partial(StereoNetConfig, "pyramid")},
    task=ReciprocalTask,
    objective=stereo_objective,
    check=check_stereo,
    estimate=stereo_estimate,
    multiple=64,
    minimum=64,
    rules="bridgedepth_jax.convert.rules.reciprocal:STEREONET",
)
SINGLENET = System(
    name="singlenet",
    config=SingleNetConfig,
    init=init_single,
    variants={name: functools.partial(SingleNetConfig.named, name) for name in VARIANTS},
    collections=("batch_stats",),
    task=ReciprocalTask,
    objective=single_objective,
    check=check_single,
    estimate=single_estimate,
    depth=single_depth,
    multiple=32,
    minimum=64,
    rules="bridgedepth_jax.convert.rules.reciprocal:SINGLENET",
    imagenet=imagenet,
)
