"""Evaluation during training, by the code of `bridgedepth evaluate`. The set `synthetic` is scenes that training never sees."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bridgedepth_jax.data.sources import open_source
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.protocol import MASKS, Protocol, default_protocol, pixel_masks
from bridgedepth_jax.evaluation.records import summarize
from bridgedepth_jax.evaluation.runner import Evaluator, Item
from bridgedepth_jax.training.experiment import Experiment

UNSEEN = 1_000_003  # added to the seed of the scenes
SYNTHETIC_PAIRS = 64  # where eval.limit sets no number

Evaluate = Callable[[dict[str, Any]], dict[str, float]]  # whole tree of weights -> means over images, by set/metric


def make_evaluate(experiment: Experiment) -> Evaluate | None:
    """None without data sets to evaluate. InputError where their files are missing. All processes must call the result."""
    sets = [evaluation_set(name, experiment) for name in experiment.eval.datasets]
    if not sets:
        return None
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
    (height, width), scenes = data.crop, data.synthetic
    scenes = dataclasses.replace(
        scenes, height=scenes.height or height, width=scenes.width or width, seed=(scenes.seed or experiment.seed) + UNSEEN
    )
    if name == "synthetic":
        limit, protocol = limit or SYNTHETIC_PAIRS, Protocol(name, (1.0, 3.0), scenes.max_disparity)
    source = open_source(name, data.root, storage=data.source, synthetic=scenes)
    return protocol, [
        Item(f"{index:06d}", functools.partial(source.__getitem__, index)) for index in range(len(source))[:limit]
    ]
