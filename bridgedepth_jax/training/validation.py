"""Evaluation during training, by the code of `bridgedepth evaluate`. The set `synthetic` is scenes that training never sees."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bridgedepth_jax.data.sources import SyntheticOptions, open_source
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import mono_suite
from bridgedepth_jax.evaluation.protocol import MASKS, Protocol, default_protocol, pixel_masks
from bridgedepth_jax.evaluation.records import summarize
from bridgedepth_jax.evaluation.runner import Evaluator, Item
from bridgedepth_jax.training.experiment import Experiment

UNSEEN = 1_000_003  # added to the seed of the scenes
SYNTHETIC_PAIRS = 64  # where eval.limit sets no number

Evaluate = Callable[[dict[str, Any]], dict[str, float]]  # whole tree of weights -> means over images, by set/metric


def make_evaluate(experiment: Experiment) -> Evaluate | None:
    """None without data sets to evaluate. InputError where their files are missing. All processes must call the result."""
    if not experiment.eval.datasets:
        return None
    if experiment.data.views == "clips":
        raise InputError(
            f"eval.datasets = {experiment.eval.datasets}: videos are evaluated by `bridgedepth evaluate --video`, expected ()"
        )
    if experiment.data.views == "single":
        return _mono_evaluate(experiment)
    sets = [evaluation_set(name, experiment) for name in experiment.eval.datasets]
    system = experiment.how
    if system.estimate is None:
        raise InputError(f"eval.datasets = {experiment.eval.datasets}: {experiment.system} gives no disparity, expected ()")
    evaluator = Evaluator(
        system.estimate(experiment.model),
        batch=experiment.eval.batch,
        multiple=system.multiple,
        minimum=system.minimum,
        devices=jax.local_devices(),
    )

    def evaluate(weights: dict[str, Any]) -> dict[str, float]:
        values: dict[str, float] = {}
        for protocol, items in sets:
            means = summarize(evaluator(weights, items, protocol))["protocols"].get("paper", {})
            values |= {f"{protocol.name}/{metric}": mean["images"] for metric, mean in means.items()}
        return values

    return evaluate


def unseen_scenes(experiment: Experiment) -> SyntheticOptions:
    """The rendered scenes of evaluation, of the size of training's."""
    (height, width), scenes = experiment.data.crop, experiment.data.synthetic
    return dataclasses.replace(
        scenes, height=scenes.height or height, width=scenes.width or width, seed=(scenes.seed or experiment.seed) + UNSEEN
    )


def _mono_evaluate(experiment: Experiment) -> Evaluate:
    """Of a network of one view, by the code of `bridgedepth evaluate`; each process measures all images."""
    system = experiment.how
    if system.depth is None:
        raise InputError(f"eval.datasets = {experiment.eval.datasets}: {experiment.system} gives no depth, expected ()")
    scenes, metric = unseen_scenes(experiment), bool(getattr(experiment.model, "metric", False))
    limit, forward = experiment.eval.limit or SYNTHETIC_PAIRS, jax.jit(system.depth(experiment.model))
    if wrong := [name for name in experiment.eval.datasets if name != "synthetic"]:
        raise InputError(
            f"eval.datasets: {wrong[0]} is evaluated by `bridgedepth evaluate`, expected synthetic during training"
        )

    def evaluate(weights: dict[str, Any]) -> dict[str, float]:
        predict = lambda image: np.asarray(forward(weights, image[None]))[0]  # of the crop's size, which the network takes
        method = mono_suite.MonoMethod(experiment.system, {}, predict, metric)
        values: dict[str, float] = {}
        for name in experiment.eval.datasets:
            choice = mono_suite.Choice(limit=limit)
            found = mono_suite.evaluate_set(method, name, Path(experiment.data.root), choice, synthetic=scenes)
            values |= {f"{name}/{measure}": value for measure, value in found["means"].items()}
        return values

    return evaluate


def constant_epe(experiment: Experiment, name: str) -> float:
    """EPE of the best guess without looking, the median true disparity of the set; mean over images, pixels."""
    protocol, items = evaluation_set(name, experiment)
    truths, paper = [], 1 << MASKS.index("paper")
    for item in items:
        sample = item.read()
        truths.append(sample["disparity"][pixel_masks(sample, protocol) & paper > 0])
    guess = np.median(np.concatenate(truths))
    return float(np.mean([np.abs(truth - guess).mean() for truth in truths if truth.size]))


def evaluation_set(name: str, experiment: Experiment) -> tuple[Protocol, list[Item]]:
    """Protocol and images of a data set, read from where training reads, as the evaluator takes them: named by number,
    without cameras (no metric depth during training). InputError where files are missing."""
    data, limit, protocol = experiment.data, experiment.eval.limit or None, default_protocol(name)
    scenes = unseen_scenes(experiment)
    if name == "synthetic":
        limit, protocol = limit or SYNTHETIC_PAIRS, Protocol(name, (1.0, 3.0), scenes.max_disparity)
    source = open_source(name, data.root, storage=data.source, synthetic=scenes)
    return protocol, [
        Item(f"{index:06d}", functools.partial(source.__getitem__, index)) for index in range(len(source))[:limit]
    ]
