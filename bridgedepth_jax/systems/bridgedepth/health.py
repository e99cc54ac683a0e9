"""What a network is made of after training: sizes of its activations, dead units, and what each of its parts is good for.

A part that can be switched off without the disparity noticing was not trained, or is drowned by another (a monocular state of
1e10 beside tokens of 1 leaves nothing of them in float32). Reliability and sparsification say what the confidence is worth:
Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), Ilg et al., "Uncertainty Estimates and Multi-Hypotheses
Networks for Optical Flow" (ECCV 2018, section 4.3).

Letters: B pairs, H W size, C channels. Disparities in pixels.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.inference import demo
from bridgedepth_jax.store.checkpoint import flatten, unflatten
from bridgedepth_jax.systems.bridgedepth import fusion
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig, SGMConfig
from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth

LARGEST = {"float16": 65504.0, "bfloat16": 3.39e38, "float32": 3.4e38}
WRONG = 2.0  # pixels
NO_CHOICE: dict[str, Any] = {"fusion": 0, "fusion_reach": ()}
GROUPS = {  # of parameters, by the beginning of their path
    "mono": "mono/",
    "monocular state": "depth_feature_down/",
    "stereo backbone": "stereo_encoder/backbone/",
    "proposals": "stereo_encoder/dpn/",
    "hypotheses": "stereo_encoder/",
    "classical": "classical/",
    "align_0": "align_0/",
    "align_1": "align_1/",
    "upsampling": "upsampling/",
    "last choice": "fusion/",
    "heads": "",
}
OPTIONAL = ("classical", "upsampling", "last choice")
# Units that a relu follows; those that never are positive are dead.
BEFORE_RELU = re.compile(r"(head|mask|certainty|choice|mono_output)/layers_[01]$|mlp_[02]$|proj_0$|conv1$|guide_[02]$")


class Size(NamedTuple):
    """Of one activation over all pairs."""

    name: str  # path of the module, or of the tap
    rms: float
    largest: float  # absolute value
    finite: bool
    dead: float  # share of the channels that are never positive where a relu follows, else 0


class Effect(NamedTuple):
    """What switching a part off does."""

    part: str
    change: float  # mean absolute change of the disparity, pixels
    epe: float  # of what is left, pixels, mean over pairs
    bad2: float  # per cent, mean over pairs
    worse: tuple[float, float]  # by how much bad-2 is worse than the whole network's: 95 % interval over pairs, per cent


class Bin(NamedTuple):
    """Pixels of similar confidence."""

    low: float
    share: float  # of all pixels
    confidence: float  # mean
    wrong: float  # share that is wrong by more than 2 px


class Ceiling(NamedTuple):
    """A disparity that the network holds, and bad-2 (%) of all valid pixels, those near depth edges and the occluded ones."""

    name: str
    bad2: float
    edges: float
    occluded: float


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Images float32 (B, H, W, 3) in 0..255, disparity (B, H, W), valid (B, H, W); visible in the right view too (B, H, W)."""

    left: np.ndarray
    right: np.ndarray
    disparity: np.ndarray
    valid: np.ndarray
    visible: np.ndarray

    @classmethod
    def of(cls, samples: Iterable[Mapping[str, Any]]) -> "Pairs":
        rows = list(samples)
        stack = lambda name, dtype: np.stack([row[name] for row in rows]).astype(dtype)
        left, right, disparity = (stack(name, np.float32) for name in ("left", "right", "disparity"))
        return cls(left, right, disparity, stack("valid", bool), stack("nonocc", bool))

    def __len__(self) -> int:
        return len(self.valid)


def sizes(config: ModelConfig, params: Mapping[str, Any], left: np.ndarray, right: np.ndarray) -> list[Size]:
    """Every module's output in the order of the computation, and the network's taps (`tap NAME`), over all pairs."""
    run, names = _measuring(config.replace(remat=False))
    rows = np.stack([np.asarray(run(params, left[i : i + 1], right[i : i + 1])) for i in range(len(left))])
    rms, largest, finite, dead = np.sqrt(rows[..., 0].mean(0)), rows[..., 1].max(0), rows[..., 2].min(0), rows[..., 3].min(0)
    return [Size(*row) for row in zip(names, rms.tolist(), largest.tolist(), (finite > 0).tolist(), dead.tolist(), strict=True)]


@functools.cache
def _measuring(config: ModelConfig) -> tuple[Callable[..., Array], list[str]]:
    """A compiled function to (rows, 4), and the names of its rows, which are there after its first call."""
    names: list[str] = []

    def measured(name: str, x: Array) -> Array:
        y = x.astype(jnp.float32)
        highest = jnp.max(y, tuple(range(y.ndim - 1))) if BEFORE_RELU.search(name) else jnp.ones(1)
        names.append(name)
        return jnp.stack([jnp.mean(jnp.square(y)), jnp.max(jnp.abs(y)), jnp.all(jnp.isfinite(y)), jnp.mean(highest <= 0)])

    @jax.jit
    def run(params: Any, left: Array, right: Array) -> Array:
        names.clear()
        found: list[Array] = []

        def spy(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            out = call(*args, **kwargs)
            path = "/".join(context.module.path)
            if context.method_name == "__call__" and path:
                leaves = [leaf for leaf in jax.tree.leaves(out) if leaf.ndim and jnp.issubdtype(leaf.dtype, jnp.floating)]
                found.extend(measured(path, leaf) for leaf in leaves[:1])
            return out

        with nn.intercept_methods(spy):
            _, sown = BridgeDepth(config).apply({"params": params}, left, right, mutable=["taps"])
        found.extend(measured(f"tap {name}", value) for name, value in flatten_taps(sown["taps"]))
        return jnp.stack(found)

    return run, names


def flatten_taps(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Array]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten_taps(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value[-1]


def check_finite(found: Sequence[Size], source: str) -> None:
    """InputError naming the first layer whose output is not finite."""
    for row in found:
        if not row.finite:
            raise InputError(f"{source}: the output of {row.name} is not finite, expected finite activations")


def check_dtype(found: Sequence[Size], dtype: str) -> None:
    """InputError naming the first layer whose output, measured in float32, `dtype` cannot hold."""
    for row in found:
        if not row.finite or row.largest > LARGEST[dtype]:
            raise InputError(f"dtype {dtype!r}: {row.name} reaches {row.largest:.3g}, expected at most {LARGEST[dtype]:.3g}")


def parts(config: ModelConfig, params: Mapping[str, Any]) -> dict[str, tuple[ModelConfig, Mapping[str, Any]]]:
    """The network without each of its parts: config and parameters of what is left."""

    def without(*patterns: str) -> tuple[ModelConfig, Mapping[str, Any]]:
        flat = flatten(params)
        hit = [path for path in flat if any(re.match(pattern, path) for pattern in patterns)]
        if not hit:
            raise ValueError(f"no parameter matches {patterns}")
        return config, unflatten({path: np.zeros_like(value) if path in hit else value for path, value in flat.items()})

    residual = r"(attn/proj|mlp/fc2)/"
    flat = dict(flatten(params))
    first = "stereo_encoder/ffn/fc1/kernel"
    correlation = np.array(flat[first])
    correlation[-config.nmp.correlation_groups :] = 0  # the last inputs of the embedding
    found = {
        "propagation": without(r"stereo_encoder/dpn/propagation/layers_\d+/nmp/(proj|mlp/fc2)/"),
        "monocular updates, stage 1": without(rf"align_0/layers_\d+/update/{residual}"),
        "monocular updates, stage 2": without(rf"align_1/layers_\d+/update/{residual}"),
        "monocular readout": without(r"align_[01]/layers_\d+/readout/attn/proj/"),
        "correlation": (config, unflatten(flat | {first: correlation})),
        "prior of the seeds": without(r"stereo_encoder/dpn/prior_proj/"),
    }
    if config.dpn.num_proposals > 1:
        found["second candidate"] = (config.replace(dpn=dataclasses.replace(config.dpn, num_proposals=1)), params)
    if config.sgm.candidates:
        rest = {path: value for path, value in flat.items() if not path.startswith(("classical/", "fusion/"))}
        # The learned confidence goes with the last choice that it speaks of.
        less = config.replace(**NO_CHOICE, sgm=SGMConfig(), learned_confidence=config.learned_confidence and not config.fusion)
        found["classical evidence"] = (less, unflatten(rest))
    if config.fusion:
        rest = {path: value for path, value in flat.items() if not path.startswith("fusion/")}
        found["last choice"] = (config.replace(**NO_CHOICE, learned_confidence=False), unflatten(rest))
        found["what the last choice learnt"] = without(r"fusion/choice/layers_1/")
    if config.upsampling:
        found["image in the upsampling"] = without(r"upsampling/guide_2/")
    return found


def predict(config: ModelConfig, params: Mapping[str, Any], pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Disparity and confidence (B, H, W), one pair at a time."""
    run = _predicting(config)
    rows = [run(params, pairs.left[i : i + 1], pairs.right[i : i + 1]) for i in range(len(pairs))]
    disparity, confidence = (np.concatenate([np.asarray(row[k]) for row in rows]) for k in (0, 1))
    return disparity, confidence


@functools.cache
def _predicting(config: ModelConfig) -> Callable[..., tuple[Array, Array]]:
    @jax.jit
    def run(params: Any, left: Array, right: Array) -> tuple[Array, Array]:
        output: Any = BridgeDepth(config).apply({"params": params}, left, right)
        return output.disparity, output.confidence

    return run


def ceilings(config: ModelConfig, params: Mapping[str, Any], pairs: Pairs) -> list[Ceiling]:
    """What the network says first, then what it chose among, stage by stage, and what a perfect choice would be wrong by."""

    @jax.jit
    def run(params: Any, left: Array, right: Array) -> dict[str, Array]:
        output: Any = BridgeDepth(config).apply({"params": params}, left, right)
        height, width = left.shape[1:3]
        held = {"coarse": output.coarse_disparities[-1][:, -height:, :width], "refined": output.disparities[-1][..., None]}
        held |= {} if output.choices is None else {"choices": output.choices}
        return {"chosen": output.disparity[..., None]} | held

    held = [jax.device_get(run(params, pairs.left[i : i + 1], pairs.right[i : i + 1])) for i in range(len(pairs))]
    errors = {name: np.abs(np.concatenate([row[name] for row in held]) - pairs.disparity[..., None]) for name in held[0]}
    rows = {"what it says": errors["chosen"], "best of the coarse candidates": errors["coarse"], "refined": errors["refined"]}
    if "choices" in errors:
        names = [f"last choice: {name}" for name in fusion.names(config.fusion_reach)]
        rows |= {"best of the last choice": errors["choices"]}
        rows |= {name: errors["choices"][..., k, None] for k, name in enumerate(names)}
    near = np.stack([demo.near_edges(np.where(v, d, np.nan)) for d, v in zip(pairs.disparity, pairs.valid, strict=True)])
    parts = (pairs.valid, near, pairs.valid & ~pairs.visible)
    return [Ceiling(name, *(_bad2(error.min(-1), part) for part in parts)) for name, error in rows.items()]


def _bad2(error: Float[np.ndarray, "B H W"], where: np.ndarray) -> float:
    """Per cent, mean over the pairs that have such pixels; NaN where none has."""
    shares = [float(np.mean(e[w] > WRONG)) for e, w in zip(error, where, strict=True) if w.any()]
    return 100 * float(np.mean(shares)) if shares else float("nan")


def effects(config: ModelConfig, params: Mapping[str, Any], pairs: Pairs) -> list[Effect]:
    """The whole network first (`part` is "nothing"), then without each part."""
    whole, _ = predict(config, params, pairs)
    rows = [_effect("nothing", whole, whole, pairs)]
    for name, (smaller, left) in parts(config, params).items():
        rows.append(_effect(name, predict(smaller, left, pairs)[0], whole, pairs))
    return rows


def _effect(part: str, disparity: np.ndarray, whole: np.ndarray, pairs: Pairs) -> Effect:
    found, before = pair_errors(disparity, pairs), pair_errors(whole, pairs)
    epe, bad2 = found.mean(0).tolist()
    return Effect(part, float(np.abs(disparity - whole).mean()), epe, bad2, interval(found[:, 1] - before[:, 1]))


def pair_errors(disparity: np.ndarray, pairs: Pairs) -> Float[np.ndarray, "B 2"]:
    """EPE (px) and bad-2 (%) of each pair."""
    error = np.abs(disparity - pairs.disparity)
    rows = [(e[v].mean(), 100 * (e[v] > WRONG).mean()) for e, v in zip(error, pairs.valid, strict=True)]
    return np.array(rows, np.float64)


def interval(values: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean, bootstrapped."""
    picks = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values[picks].mean(1), (2.5, 97.5))
    return float(low), float(high)


def part_of(path: str) -> str:
    """The first of GROUPS that a parameter's path fits."""
    return next(name for name, beginning in GROUPS.items() if path.startswith(beginning))


def shares(gradient: Mapping[str, Any]) -> dict[str, float]:
    """Of the squared norm of a gradient, by GROUPS; a parameter belongs to the first that fits."""
    sums = dict.fromkeys(GROUPS, 0.0)
    for path, value in flatten(gradient).items():
        sums[part_of(path)] += float(np.sum(np.square(np.asarray(value, np.float64))))
    whole = sum(sums.values())
    return {name: value / whole for name, value in sums.items() if value or name not in OPTIONAL} if whole else sums


def reliability(
    confidence: Float[np.ndarray, "B H W"], error: Float[np.ndarray, "B H W"], valid: Bool[np.ndarray, "B H W"], bins: int = 10
) -> list[Bin]:
    """Equal bins of confidence; empty ones are left out."""
    c, wrong = confidence[valid], error[valid] > WRONG
    number = np.minimum((c * bins).astype(int), bins - 1)
    rows = []
    for k in range(bins):
        here = number == k
        if here.any():
            rows.append(Bin(k / bins, float(here.mean()), float(c[here].mean()), float(wrong[here].mean())))
    return rows


def sparsification(confidence: np.ndarray, error: np.ndarray, valid: np.ndarray, steps: int = 20) -> dict[str, float]:
    """Area under the curve of EPE (px) over the share of pixels kept, least confident dropped first; of `confidence`, of the
    errors themselves (`best`), and of no order (`random`, the EPE). Lower is better."""
    e, c = error[valid].astype(np.float64), confidence[valid]
    curves = {}
    for name, order in {"confidence": np.argsort(-c, kind="stable"), "best": np.argsort(e, kind="stable")}.items():
        means = np.cumsum(e[order]) / np.arange(1, len(e) + 1)
        curves[name] = float(np.mean([means[max(int(len(e) * k / steps) - 1, 0)] for k in range(1, steps + 1)]))
    return {**curves, "random": float(e.mean())}


def fit_temperature(config: ModelConfig, confidence: np.ndarray, error: np.ndarray, valid: np.ndarray) -> float:
    """The temperature, of which the config's is part, of the likeliest confidence (a sigmoid, or a softmax of two)."""
    c = np.clip(confidence[valid].astype(np.float64), 1e-7, 1 - 1e-7)
    logit, right = np.log(c / (1 - c)), error[valid] <= WRONG
    candidates = np.exp(np.linspace(np.log(0.1), np.log(30), 120))
    losses = [np.mean(np.logaddexp(0, np.where(right, -logit, logit) / t)) for t in candidates]
    return config.temperature * float(candidates[int(np.argmin(losses))])
