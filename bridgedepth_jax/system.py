"""The one door between the shared floors (store, data, training, evaluation, inference) and the systems.

A system is a folder under `systems/` with a `system.py` that holds a `System`, and a row in `SYSTEMS`. The shared floors ask
`find_system(name)` and speak to what they get; they import no system and no network. This file imports neither.

Trees: `weights` are all a network needs, a nested dict whose top level holds its parameters and, under the names in
`System.collections`, its mutable collections (BatchNorm's running statistics as `batch_stats`). A checkpoint stores weights.
"""

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
from jax import Array

from bridgedepth_jax.errors import InputError

Weights = Mapping[str, Any]
Batch = Mapping[str, Array]  # any keys; the leading axis of each is the row
Counts = Any  # pytree of scalars: what the masked means of a loss divide by, over the global batch

# A sixth system is one folder, one config folder, one rule table, and one row here.
SYSTEMS = {
    "bridgedepth": "bridgedepth_jax.systems.bridgedepth.system:SYSTEM",
    "depth-anything": "bridgedepth_jax.systems.depth_anything.system:SYSTEM",
    "zerostereo": "bridgedepth_jax.systems.zerostereo.system:SYSTEM",
    "stereonet": "bridgedepth_jax.systems.reciprocal.system:STEREONET",
    "singlenet": "bridgedepth_jax.systems.reciprocal.system:SINGLENET",
    "bridgedepth-pairs": "bridgedepth_jax.systems.reciprocal.bridgedepth:PAIRS",  # bridgedepth, trained without ground truth
    "dust3r": "bridgedepth_jax.systems.stereodiff.system:PAIRS",
    "depthcrafter": "bridgedepth_jax.systems.stereodiff.system:DIFFUSION",
    "bridge_mde": "bridgedepth_jax.systems.bridge_mde.system:SYSTEM",
    "flux-depth": "bridgedepth_jax.systems.bridge_mde.generator.system:SYSTEM",
}


class Group(NamedTuple):
    """Parameters whose path (names joined by /) matches `pattern` from its beginning share a decay and a rate."""

    name: str
    pattern: str
    decay: float
    rate: float = 1.0  # factor on the learning rate


class Rows(NamedTuple):
    """Where the rows of a part of a batch stand in the whole, for what must not depend on how the batch is split."""

    numbers: Array  # (b,) int, their positions in the global batch
    total: int  # rows of the global batch
    step: Array  # int32, steps done
    keys: Mapping[str, Array]  # random keys of the step by the names in `Objective.keys`, the same for every part of it
    across: Callable[[str, Array], Array]  # ("visible", sum over these rows) -> sum over the global batch, without gradient
    axes: tuple[str, ...]  # mesh axes over which the batch is split: `axis_name` of a synchronised BatchNorm


class Result(NamedTuple):
    """What a loss says beside its value. Sums of the parts of a batch are the numbers of the whole."""

    metrics: Mapping[str, Array]  # scalars, each a part's share: they add up
    shown: Any = None  # pytree of arrays with rows first, for pictures
    collections: Weights = {}  # noqa: RUF012  # new mutable collections


class Teacher(NamedTuple):
    """What a frozen network is, beside its weights."""

    system: str
    config: Any


class Objective(NamedTuple):
    """What training minimises, as the loop sees it."""

    trained: Callable[[str], bool]  # by parameter path; the rest is frozen and saved once
    count: Callable[[Batch], Counts]  # of the global batch; what depends on predictions goes through `Rows.across`
    loss: Callable[[Weights, Mapping[str, Weights], Batch, Counts, Rows], tuple[Array, Result]]  # weights, teachers, ...
    groups: Callable[[Any], tuple[Group, ...]]  # of the solver's settings; each trained parameter in exactly one
    keys: tuple[str, ...] = ()  # names of the random keys of a step
    headline: tuple[str, ...] = ("loss",)  # metrics of the progress line
    picture: Callable[[Mapping[str, Any], Any], Any] | None = None  # (host's rows, shown) -> (H, W, 3) uint8
    health: Callable[[Weights, Batch], Mapping[str, Array]] | None = None  # sizes of activations, by name, for the log
    part: Callable[[str], str] | None = None  # parameter path -> what the log calls its part of the gradient


class Published(NamedTuple):
    """A file in a model repository of the Hugging Face hub, or a folder of several."""

    kind: str  # name of the system
    repository: str
    file: str  # or folder, "." is all of the repository
    variant: str = ""  # of the converter's rules, where the file does not say which network it is
    files: tuple[str, ...] = ()  # of a folder: what is read


@flax.struct.dataclass
class Estimate:
    """What a method says about a batch of padded pairs, for the evaluator."""

    disparity: Array  # (B, Hp, Wp) pixels
    confidence: Array | None = None  # (B, Hp, Wp) 0..1
    proposals: Array | None = None  # (B, Hp/8, Wp/8, N) 1/8 pixels
    raw: Array | None = None  # (B, Hp, Wp) pixels, before holes are filled, NaN in them


class System(NamedTuple):
    """A network, or several that belong together, and how the shared floors handle it."""

    name: str  # the `kind` of its checkpoints
    config: type  # frozen dataclass: the section `model` of a config, and what a checkpoint describes
    init: Callable[[Any, Array], Weights]  # (config, key) -> weights; under `eval_shape` it gives a checkpoint's shapes
    variants: Mapping[str, Callable[[], Any]] = {}  # published configs by name
    published: Mapping[str, Published] = {}  # files on the hub by name
    collections: tuple[str, ...] = ()  # top-level names of weights that are no parameters
    parts: Mapping[str, str] = {}  # other systems whose weights a run may start from -> where they go, "mono/"
    task: type | None = None  # frozen dataclass: the section `task` of a config
    objective: Callable[[Any, Any, Mapping[str, Teacher]], Objective] | None = None  # of (config, task, teachers by name)
    check: Callable[[Any, Any], None] | None = None  # (config, task): InputError unless they fit
    extras: Callable[[Any], tuple[str, ...]] | None = None  # (task) -> what a batch holds more: `EXTRAS` of data/augment.py
    estimate: Callable[[Any], Callable[[Weights, Array, Array], Estimate]] | None = None  # (config) -> f(weights, left, right)
    depth: Callable[[Any], Callable[[Weights, Array], Array]] | None = None  # (config) -> f(weights, image): of one view
    holds: Callable[[Any, Weights, str], None] | None = None  # (config, weights, dtype): InputError naming the layer it cannot
    moved: Mapping[str, str] = {}  # keys of older configs and runs -> where they are now
    multiple: int = 1  # of the sides of what the network computes on
    minimum: int = 1  # pixels, of each side of an image
    reach: Callable[[Any], float] | None = None  # (config) -> largest disparity that is looked for, pixels as seen
    rules: str = ""  # "module:NAME" of its converter's rules
    imagenet: Callable[[str, Any], Mapping[str, Any]] | None = None  # (file, config) -> {path: array} of ImageNet weights

    @property
    def monocular(self) -> bool:
        """One view is enough: `estimate`, where there is one, looks at the left image alone."""
        return self.depth is not None


DEFAULT = "bridgedepth"  # of a config, and of runs from before there were others


def find_system(name: str) -> System:
    """The system of that name, loaded now; "module:NAME" is one that is not part of this package. InputError: no such thing."""
    if name not in SYSTEMS and ":" not in name:
        near = difflib.get_close_matches(name, SYSTEMS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(SYSTEMS)}"
        raise InputError(f"unknown system {name!r}, {hint}")
    try:
        return load(SYSTEMS.get(name, name))
    except (ImportError, AttributeError) as error:
        if name in SYSTEMS:
            raise
        raise InputError(f"system {name!r}: {error}, expected MODULE:NAME of a System that can be imported") from error


def load(where: str) -> Any:
    """The object that "module:NAME" names."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)
