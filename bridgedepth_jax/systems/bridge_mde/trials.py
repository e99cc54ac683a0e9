"""Small experiments on rendered scenes that run in minutes: scenes, corrupted labels, a small network, paired intervals.

What `scripts/mono_robustness.py`, `mono_hybrid.py` and `reward_demo.py` share. B images, H W their sides (small).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from bridgedepth_jax.data.mono import open_mono
from bridgedepth_jax.data.sources import SyntheticOptions
from bridgedepth_jax.evaluation import mono
from bridgedepth_jax.layers import gelu
from bridgedepth_jax.systems.bridge_mde import losses

UNSEEN = 1_000_003  # added to the seed of held-out scenes
LARGEST = 16.0  # disparity of the scenes, pixels of twice the size
CORRUPT = 0.11  # of the pixels of a corrupted label
FAR = (3.0, 10.0)  # times the largest value of a scene
CAP = 80.0  # metres, where depth is the largest disparity over a pixel's


class Scenes(NamedTuple):
    image: np.ndarray  # (B, H, W, 3) float32, -1..1
    inverse: np.ndarray  # (B, H, W) float32, 0..1


def scenes(count: int, size: tuple[int, int], seed: int, *, start: int = 0, kind: Any = "sparse") -> Scenes:
    """Rendered scenes `start` to `start + count` of a seed and kind (`SCENES`), shrunk from twice the size."""
    height, width = (2 * side for side in size)
    options = SyntheticOptions(height, width, max_disparity=LARGEST, seed=seed, size=start + count, scenes=kind)
    source = open_mono("synthetic", ".", options)
    shrink = lambda x: cv2.resize(x, size[::-1], interpolation=cv2.INTER_AREA)
    images, inverse = [], []
    for i in range(start, start + count):
        sample = source[i]
        images.append(shrink(sample["image"]))
        inverse.append(shrink(sample["inverse"]))
    return Scenes(np.stack(images).astype(np.float32) / 127.5 - 1, np.stack(inverse).astype(np.float32) / np.float32(LARGEST))


def corrupted(inverse: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Labels with blocks of a wrong value over 11 % of their pixels: `near` within a scene's range, `far` well beyond it."""
    if kind == "clean":
        return inverse
    rng = np.random.default_rng((seed, 11))
    wrong = inverse.copy()
    for label in wrong:
        height, width = label.shape
        low, high = float(label.min()), float(label.max())
        seen = np.zeros(label.shape, bool)
        while seen.mean() < CORRUPT:
            h, w = (int(rng.integers(max(side // 12, 2), side // 5)) for side in (height, width))
            top, left = rng.integers(0, height - h), rng.integers(0, width - w)
            block = slice(top, top + h), slice(left, left + w)
            label[block] = rng.uniform(low, high) if kind == "near" else high * rng.uniform(*FAR)
            seen[block] = True
    return wrong


class SmallDepth(nn.Module):
    """Dilated convolutions at half the resolution, softplus: (B, H, W, 3) in -1..1 to inverse depth (B, H, W)."""

    features: int = 32
    dilations: tuple[int, ...] = (1, 2, 4, 8, 4, 2)
    stride: int = 2

    @nn.compact
    def __call__(self, image: Any) -> Any:
        x = gelu(nn.Conv(self.features, (5, 5), (self.stride, self.stride), name="conv_in")(image))
        for i, dilation in enumerate(self.dilations):
            x = x + gelu(nn.Conv(self.features, (3, 3), kernel_dilation=dilation, name=f"conv_{i}")(x))
        x = nn.softplus(nn.Conv(1, (3, 3), name="conv_out")(x))
        return jax.image.resize(x, (*image.shape[:3], 1), "bilinear")[..., 0]


def train(
    loss: Callable[..., Any],
    params: Any,
    steps: int,
    rate: float,
    batch: Callable[[int], tuple[Any, ...]],
    *,
    words: str = "",
    watch: Callable[[int, Any], None] | None = None,
) -> Any:
    """Adam with clipping and a rate that falls straight to 0; `batch(step)` gives the arguments behind the parameters.

    watch: is told the parameters before the first step, and after every quarter.
    """
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(rate, 0, steps)))
    state = optimiser.init(params)

    @jax.jit
    def step(params: Any, state: Any, *arguments: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(params, *arguments)
        updates, state = optimiser.update(gradients, state)
        return optax.apply_updates(params, updates), state, value

    every = max(1, steps // 4)
    for i in range(steps):
        if watch and i % every == 0:
            watch(i, params)
        params, state, value = step(params, state, *batch(i))
        if words and i % every == 0:
            print(f"  {words}, step {i}: {float(value):.4f}", flush=True)
    if watch:
        watch(steps, params)
    return params


def train_depth(
    network: nn.Module,
    data: Scenes,
    steps: int,
    seed: int,
    *,
    percent: np.ndarray | None = None,
    renormalise: int = 0,
    valid: np.ndarray | None = None,
    rate: float = 1e-3,
    rows: int = 8,
    choose: Callable[[np.random.Generator, int], np.ndarray] | None = None,
    params: Any = None,
) -> Any:
    """A network from labels (`data.inverse`), of which each image's `percent` are trimmed and only `valid` pixels count."""
    percent = np.zeros(len(data.image), np.int32) if percent is None else percent.astype(np.int32)
    valid = np.ones(data.inverse.shape, bool) if valid is None else valid
    rng = np.random.default_rng((seed, 5))
    choose = choose or (lambda rng, rows: rng.integers(0, len(data.image), rows))

    def loss(params: Any, image: Any, inverse: Any, valid: Any, percent: Any) -> Any:
        found: Any = network.apply({"params": params}, image)
        terms = losses.terms(found, inverse, valid, percent, renormalise=renormalise)
        return losses.total(terms, jnp.sum(terms.counts)).loss

    def batch(_: int) -> tuple[Any, ...]:
        chosen = choose(rng, rows)
        return data.image[chosen], data.inverse[chosen], valid[chosen], percent[chosen]

    if params is None:
        params = jax.jit(network.init)(jax.random.key(seed), data.image[:1])["params"]
    return train(loss, params, steps, rate, batch)


def predict(network: nn.Module, params: Any, images: np.ndarray, rows: int = 50) -> np.ndarray:
    """Inverse depth of all images."""
    forward: Any = jax.jit(lambda params, image: network.apply({"params": params}, image))
    return np.concatenate([np.asarray(forward(params, images[i : i + rows])) for i in range(0, len(images), rows)])


def measure(predictions: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """AbsRel (of depth) and delta1 of each image, after its fit; depth is the largest disparity over a pixel's."""
    rows = []
    everything = slice(None), slice(None)
    for prediction, inverse in zip(predictions, truth, strict=True):
        metres = np.where(inverse > 0, 1 / np.maximum(inverse, 1e-9), 0)
        rows.append(mono.evaluate_image(prediction, metres, 1e-3, CAP, everything, metric=False).measures)
    return {name: np.array([row[name] for row in rows]) for name in ("abs_rel", "abs_rel_inverse", "delta1")}


def mean_map(inverse: np.ndarray) -> np.ndarray:
    """The mean of training maps, each normalised as the loss does: what any model must beat."""
    middle = np.median(inverse, axis=(1, 2), keepdims=True)
    return np.mean((inverse - middle) / np.maximum(np.abs(inverse - middle).mean((1, 2), keepdims=True), 1e-6), axis=0)


class Interval(NamedTuple):
    """Mean of b - a over images (and seeds) with the interval that holds it at 95 %."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({self.low:+.4f} .. {self.high:+.4f})"


def paired(a: np.ndarray, b: np.ndarray, *, draws: int = 5000) -> Interval:
    """Bootstrap over images: the same ones of both, and of every seed. a, b: (seeds, images)."""
    difference = (b - a).mean(0)
    rng = np.random.default_rng(0)
    means = difference[rng.integers(0, len(difference), (draws, len(difference)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(difference.mean()), float(low), float(high))
