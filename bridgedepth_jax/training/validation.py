"""Evaluation during training, by the code of `bridgedepth evaluate`. The set `synthetic` is scenes that training never sees."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bridgedepth_jax.data.pairs import Pair, Sample, find_pairs, read_sample
from bridgedepth_jax.data.pipeline import make_eval_dataset
from bridgedepth_jax.evaluation.protocol import MASKS, Protocol, default_protocol, pixel_masks
from bridgedepth_jax.evaluation.records import summarize
from bridgedepth_jax.evaluation.runner import Evaluator, network
from bridgedepth_jax.training.experiment import Experiment

UNSEEN = 1_000_003  # added to the seed of the scenes
SYNTHETIC_PAIRS = 64  # where eval.limit sets no number

Evaluate = Callable[[dict[str, Any]], dict[str, float]]  # whole parameter tree -> means over images, by set/metric


def make_evaluate(experiment: Experiment) -> Evaluate | None:
    """None without data sets to evaluate. InputError where their files are missing. All processes must call the result."""
    rows = [_rows(name, experiment) for name in experiment.eval.datasets]
    if not rows:
        return None
    evaluator = Evaluator(network(experiment.model), batch=experiment.eval.batch, devices=jax.local_devices())

    def evaluate(params: dict[str, Any]) -> dict[str, float]:
        values: dict[str, float] = {}
        for protocol, pairs, read in rows:
            means = summarize(evaluator(params, pairs, protocol, read=read))["protocols"].get("paper", {})
            values |= {f"{protocol.name}/{metric}": mean["images"] for metric, mean in means.items()}
        return values

    return evaluate


def constant_epe(experiment: Experiment, name: str) -> float:
    """EPE of the best guess without looking, the median true disparity of the set; mean over images, pixels."""
    protocol, pairs, read = _rows(name, experiment)
    truths = []
    for sample in map(read, pairs):
        paper = 1 << MASKS.index("paper")
        truths.append(sample["disparity"][pixel_masks(sample, protocol) & paper > 0])
    guess = np.median(np.concatenate(truths))
    return float(np.mean([np.abs(truth - guess).mean() for truth in truths if truth.size]))


def _rows(name: str, experiment: Experiment) -> tuple[Protocol, list[Pair], Callable[[Pair], Sample]]:
    data, limit = experiment.data, experiment.eval.limit or None
    if name != "synthetic" and data.source == "raw":
        return default_protocol(name), list(find_pairs(name, data.root)[:limit]), read_sample
    if name != "synthetic":
        packed = make_eval_dataset(name, data.root, source=data.source)
        return default_protocol(name), _numbered(name, range(len(packed))[:limit]), lambda pair: packed[int(pair.name)]
    (height, width), options = data.crop, data.synthetic
    options = dataclasses.replace(
        options, height=options.height or height, width=options.width or width, seed=(options.seed or experiment.seed) + UNSEEN
    )
    samples = make_eval_dataset(name, data.root, synthetic=options)
    pairs = _numbered(name, range(limit or SYNTHETIC_PAIRS))
    return Protocol(name, (1.0, 3.0), options.max_disparity), pairs, lambda pair: samples[int(pair.name)]


def _numbered(name: str, numbers: Iterable[int]) -> list[Pair]:
    """Stand-ins for samples that have no files of their own."""
    return [Pair(name, f"{number:06d}", "masked", Path(), Path()) for number in numbers]
