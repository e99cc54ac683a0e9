"""Evaluation during training, by the code of `evaluate.py`. The set `synthetic` means scenes that training never sees."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bridgedepth_jax.data.pipeline import make_eval_dataset
from bridgedepth_jax.data.registry import Pair, Sample, find_pairs, read_sample
from bridgedepth_jax.evaluation.protocol import Protocol, default_protocol
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


def _rows(name: str, experiment: Experiment) -> tuple[Protocol, list[Pair], Callable[[Pair], Sample]]:
    if name != "synthetic":
        pairs = find_pairs(name, experiment.data.root)[: experiment.eval.limit or None]
        return default_protocol(name), list(pairs), read_sample
    (height, width), options = experiment.data.crop, experiment.data.synthetic
    options = dataclasses.replace(
        options, height=options.height or height, width=options.width or width, seed=(options.seed or experiment.seed) + UNSEEN
    )
    samples = make_eval_dataset(name, experiment.data.root, synthetic=options)
    numbers = range(experiment.eval.limit or SYNTHETIC_PAIRS)
    pairs = [Pair(name, f"{number:06d}", "masked", Path(), Path()) for number in numbers]
    return Protocol(name, (1.0, 3.0), options.max_disparity), pairs, lambda pair: samples[int(pair.name)]
