"""Two results on the same images: differences with a paired bootstrap interval, so that a gain can be told from noise.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993: images are drawn with replacement, the same draw for both.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bridgedepth_jax.errors import InputError

HIGHER_IS_BETTER = (
    "density",
    "prop_recall_3",
    "prop_recall_8",
    "depth_delta1",
    "depth_delta2",
    "depth_delta3",
    "delta1",
    "delta2",
    "delta3",
    "right",
)
MIN_IMAGES = 5
_CHUNK = 500


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """b minus a of one metric, mean over the common images, with the interval that holds it at the level asked for."""

    dataset: str
    mask: str
    metric: str
    images: int
    a: float
    b: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        return self.b - self.a

    @property
    def verdict(self) -> str:
        """Of b against a: better, worse, noise, or too few (images to say so)."""
        if self.images < MIN_IMAGES:
            return "too few"
        if self.low <= 0 <= self.high:
            return "noise"
        return "better" if (self.difference < 0) != (self.metric in HIGHER_IS_BETTER) else "worse"


def compare(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    *,
    masks: Sequence[str] | None = None,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> list[PairedDifference]:
    """Every metric of every mask (or of `masks`) that both results have, on the images that both have.

    Raises InputError: nothing in common, or a data set measured by different protocols.
    """
    result = []
    for dataset in sorted(set(a["datasets"]) & set(b["datasets"])):
        first, second = a["datasets"][dataset], b["datasets"][dataset]
        if first["protocol"] != second["protocol"]:
            raise InputError(f"{dataset}: different protocols, {first['protocol']['words']} and {second['protocol']['words']}")
        names = sorted(set(first["per_image"]) & set(second["per_image"]))
        left, right = ([_flat(entry["per_image"][name], masks) for name in names] for entry in (first, second))
        keys = [key for key in dict.fromkeys(key for row in left for key in row) if any(key in row for row in right)]
        if not names or not keys:
            continue
        values = [np.array([[row.get(key, np.nan) for key in keys] for row in rows], np.float64) for rows in (left, right)]
        low, high = _interval(values[1] - values[0], level, draws, np.random.default_rng(seed))
        for i, (mask, metric) in enumerate(keys):
            both = np.isfinite(values[0][:, i]) & np.isfinite(values[1][:, i])
            if both.any():
                mean_a, mean_b = (float(v[both, i].mean()) for v in values)
                result.append(
                    PairedDifference(dataset, mask, metric, int(both.sum()), mean_a, mean_b, float(low[i]), float(high[i]))
                )
    if not result:
        raise InputError("the two results have no data set, image and metric in common")
    return result


def lines(differences: Sequence[PairedDifference], level: float = 0.95) -> list[str]:
    """A Markdown table a data set and mask."""
    text: list[str] = []
    previous = None
    for d in differences:
        if (d.dataset, d.mask) != previous:
            previous = d.dataset, d.mask
            text += ["", f"{d.dataset}, {d.mask}", ""]
            text += [
                f"| metric | images | a | b | b - a | {level * 100:g} % interval | b is |",
                "|---|---|---|---|---|---|---|",
            ]
        interval = f"{d.low:+.4f} .. {d.high:+.4f}"
        text.append(f"| {d.metric} | {d.images} | {d.a:.4f} | {d.b:.4f} | {d.difference:+.4f} | {interval} | {d.verdict} |")
    return text[1:]


def _flat(tables: Mapping[str, Mapping[str, float]], masks: Sequence[str] | None) -> dict[tuple[str, str], float]:
    return {(m, k): value for m, row in tables.items() if masks is None or m in masks for k, value in row.items()}


def _interval(difference: np.ndarray, level: float, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean over axis 0 of (images, metrics), NaN left out; the same draws for all metrics."""
    images = len(difference)
    there = np.isfinite(difference)
    values = np.where(there, difference, 0)
    means = []
    for start in range(0, draws, _CHUNK):
        weights = rng.multinomial(images, np.full(images, 1 / images), size=min(_CHUNK, draws - start)).astype(np.float64)
        count = weights @ there
        means.append(np.divide(weights @ values, count, out=np.full(count.shape, np.nan), where=count > 0))
    low, high = np.nanquantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
