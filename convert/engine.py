"""From the state dict of an original to our weights and back, by the rules of its system.

A name maps by rule: list items merge into the name before them and the leaf is named after what it does
(`blocks.0.norm1.weight` is `blocks_0/norm1/scale`). The layout of a tensor depends on its module, which a system's table
tells by name. `convert_state` and `restore_state` account for each tensor and each weight or raise. Running statistics of
BatchNorm are weights of the collection `batch_stats` (`bn1.running_mean` is `batch_stats/bn1/mean`).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bridgedepth_jax.convert.pickled import Class
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.system import find_system, load


class Layout(NamedTuple):
    """How a tensor of the original becomes our leaf: a new name for it and a permutation of its axes."""

    leaf: str | None = None  # None: the name stays
    axes: tuple[int, ...] | None = None  # our axes by their numbers in the original; None: any number of axes, in their order
    ones: int = 0  # axes of length 1 that the original has behind these, as (C, 1, 1)
    collection: str = ""  # top level of our tree that it belongs to; "": parameters


SAME = Layout()
NORM = Layout("scale", (0,))
EMBEDDING = Layout("embedding", (0, 1))
LINEAR = Layout("kernel", (1, 0))  # (out, in) -> (in, out)
CONV1D = Layout("kernel", (2, 1, 0))  # (out, in, k) -> (k, in, out)
CONV = Layout("kernel", (2, 3, 1, 0))  # (out, in, kh, kw) -> (kh, kw, in, out); in groups too: in is then that of one group
CONV_TRANSPOSED = Layout("kernel", (2, 3, 0, 1))  # (in, out, kh, kw) -> (kh, kw, in, out)
COLUMN = Layout(axes=(0,), ones=2)  # (C, 1, 1) -> (C,)

STATISTICS = {
    "running_mean": Layout("mean", (0,), collection="batch_stats"),
    "running_var": Layout("var", (0,), collection="batch_stats"),
}
ORIGINALS = {"kernel": "weight", "scale": "weight", "embedding": "weight"}  # our leaves that have another name there
STATISTICS_ORIGINALS = {layout.leaf: name for name, layout in STATISTICS.items()}
SHOWN = 20  # names of tensors in a message
COUNTER = "num_batches_tracked"  # of a BatchNorm: ignored, since momentum needs no count; written as 0, as of a new module


def table(*rows: tuple[str, Layout]) -> tuple[tuple[re.Pattern[str], Layout], ...]:
    """Rows of (pattern, layout): the first pattern found at the end of a name decides. `@` is the number of a list item."""
    return tuple((re.compile(rf"(^|[._])({pattern.replace('@', '[0-9]+')})$"), layout) for pattern, layout in rows)


class Rules(NamedTuple):
    """How the original of one system stores its weights. `System.rules` names an instance of this."""

    layouts: tuple[tuple[re.Pattern[str], Layout], ...]  # see `table`
    config_of: Callable[[Any, dict[str, Any], Any], Any]  # (content of a file, its state dict, config given) -> config
    licence: Callable[[Any], str]  # of published weights with that config
    content: Callable[[Any, dict[str, np.ndarray]], Any]  # (config, state dict) -> what the original's loader expects
    order: str = ""  # names of children as modules register them, where a module has several; list items go by number
    order_of: tuple[tuple[re.Pattern[str], str], ...] = ()  # modules with an order of their own: the path to it, its children
    plain: frozenset[str] = frozenset()  # modules whose name ends in a number without being a list item: `align_0`
    buffers: Callable[[Any, Iterable[str]], dict[str, np.ndarray]] = lambda config, paths: {}  # constants in the state dict
    aliases: tuple[tuple[re.Pattern[str], str], ...] = ()  # names that match have a second one, after `re.sub`
    ignored: re.Pattern[str] | None = None  # names that may be in a file and are not of the network
    files: tuple[tuple[str, str], ...] = ()  # (first part of names, file) where the original is a folder of several files
    backbone: str = ""  # first part of the names of what torchvision's file of the encoder alone holds
    classes: tuple[Class, ...] = ()  # of objects that may be pickled in a file, read as dicts
    variants: Mapping[str, Callable[[], Any]] = {}  # configs by name, for files that do not say which network they are
    config_json: Callable[[Any], Any] | None = None  # config -> config.json beside a .safetensors; None: the original has none

    def layout(self, name: str) -> Layout | None:
        """Layout of a tensor of the original by its name, or None for a name that no rule knows."""
        statistics = STATISTICS.get(name.rpartition(".")[2])
        return statistics or next((layout for pattern, layout in self.layouts if pattern.search(name)), None)

    def path(self, name: str) -> str | None:
        """`blocks.0.norm1.weight` -> `blocks_0/norm1/scale`; None for a name that no rule knows."""
        layout = self.layout(name)
        if layout is None:
            return None
        *modules, leaf = re.sub(r"\.([0-9]+)(?=\.|$)", r"_\1", name).split(".")
        return "/".join([*filter(None, [layout.collection]), *modules, layout.leaf or leaf])

    def name(self, path: str) -> str:
        """Inverse of `path`."""
        *modules, leaf = path.split("/")
        originals = ORIGINALS
        if modules and modules[0] == "batch_stats":
            modules, originals = modules[1:], STATISTICS_ORIGINALS
        modules = [m if m in self.plain else re.sub(r"_([0-9]+)(?=_[0-9]|$)", r".\1", m) for m in modules]
        return ".".join([*modules, originals.get(leaf, leaf)])

    def order_key(self, name: str) -> list[int]:
        """Sorts names as the original's state dict lists them."""
        key = []
        parent = ""
        for part in name.split("."):
            order = next((order for where, order in self.order_of if where.search(parent)), self.order).split()
            key.append(int(part) if part.isdigit() else order.index(part) if part in order else len(order))
            parent += f"{part}."
        return key

    def alias(self, name: str) -> str | None:
        """The second name of the same tensor, or None."""
        return next((pattern.sub(second, name) for pattern, second in self.aliases if pattern.search(name)), None)


def find_rules(kind: str) -> Rules:
    """The converter's rules of a system. InputError: there is no such system, or nothing to convert."""
    system = find_system(kind)
    if not system.rules:
        raise InputError(f"{kind}: this system has no original whose files could be converted")
    return load(system.rules)


def original_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """Shape in the original of a leaf of ours."""
    kept = shape if layout.axes is None else tuple(shape[i] for i in np.argsort(layout.axes))
    return kept + (1,) * layout.ones


def _to_ours(value: np.ndarray, layout: Layout) -> np.ndarray:
    value = value.reshape(value.shape[: value.ndim - layout.ones])
    return value if layout.axes is None else np.ascontiguousarray(value.transpose(layout.axes))


def _to_original(value: np.ndarray, layout: Layout) -> np.ndarray:
    kept = value if layout.axes is None else np.ascontiguousarray(value.transpose(np.argsort(layout.axes)))
    return kept.reshape(original_shape(value.shape, layout))


def convert_state(
    rules: Rules,
    state: dict[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    *,
    constants: Mapping[str, np.ndarray] | None = None,
    ignored: re.Pattern[str] | None = None,
    source: str,
) -> dict[str, np.ndarray]:
    """State dict of the original to {path: weight}, float32; empties `state` on the way to save memory.

    `expected` has path and shape of each weight of ours; `constants` are the buffers, which must be equal where `state` has
    them; names that match `ignored` (or `rules.ignored`) are dropped. Of a tensor with two names one is enough, and two must
    be equal. Raises InputError with what is missing, what is left and what is wrong.
    """
    names = [rules.name(path) for path in expected]
    first_names = {second: name for name in names if (second := rules.alias(name))}
    counters = _counters(rules, expected)
    leaves: dict[str, np.ndarray] = {}
    unused, wrong = [], []
    fixed = constants or {}
    for given in list(state):
        value = state.pop(given)
        if given in counters or any(pattern and pattern.search(given) for pattern in (ignored, rules.ignored)):
            continue
        if not isinstance(value, np.ndarray):
            raise InputError(f"{source}: {given:.80} is {type(value).__name__}, expected a tensor")
        if given in fixed:
            if not np.array_equal(value, fixed[given]):
                wrong.append(f"{given} (a constant of the network) differs from what the config says")
            continue
        name = first_names.get(given, given)
        layout, path = rules.layout(name), rules.path(name)
        if layout is None or path is None or path not in expected:
            unused.append(given)
        elif original_shape(expected[path], layout) != value.shape:
            wrong.append(f"{given} has shape {value.shape}, expected {original_shape(expected[path], layout)}")
        elif value.dtype.kind != "f" and value.dtype.name != "bfloat16":
            wrong.append(f"{given} has dtype {value.dtype}, expected floating point")
        else:
            ours = _to_ours(value.astype(np.float32, copy=False), layout)
            if path in leaves and not np.array_equal(leaves[path], ours, equal_nan=True):
                wrong.append(f"{given} differs from the tensor's other name, {name if given != name else rules.alias(name)}")
            leaves[path] = ours
    missing = [rules.name(path) for path in sorted(set(expected) - set(leaves))]
    missing = [name for name in missing if not any(text.startswith(f"{name} ") for text in wrong)]
    check_fit(source, missing, unused, wrong)
    return leaves


def check_fit(source: object, missing: Sequence[str], unused: Sequence[str], wrong: Sequence[str]) -> None:
    """InputError that names the tensors which a file lacks, has beyond the network, or has in another shape."""
    problems = (("missing", missing), ("not part of this network", unused), ("wrong", wrong))
    texts = [
        f"{len(names)} {what}: {', '.join(names[:SHOWN])}" + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        for what, names in problems
        if names
    ]
    if texts:
        raise InputError(f"{source}: its tensors do not fit the network; {'; '.join(texts)}")


def restore_state(
    rules: Rules, leaves: Mapping[str, np.ndarray], constants: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Inverse of `convert_state`: the original's state dict, in its order, with buffers, counters and second names."""
    state = {}
    for path, value in leaves.items():
        name = rules.name(path)
        layout = rules.layout(name)
        if layout is None or rules.path(name) != path:
            raise InputError(f"the original has no parameter for {path}, expected a network as it was published")
        state[name] = _to_original(value, layout)
        if second := rules.alias(name):
            state[second] = state[name]
    state |= dict.fromkeys(_counters(rules, leaves), np.zeros((), np.int64)) | dict(constants or {})
    return {name: state[name] for name in sorted(state, key=rules.order_key)}


def _counters(rules: Rules, paths: Iterable[str]) -> list[str]:
    """The original's counters of batches, of every BatchNorm and under every name."""
    names = [
        rules.name(path).rpartition(".")[0] for path in paths if path.startswith("batch_stats/") and path.endswith("/mean")
    ]
    counters = [f"{name}.{COUNTER}" for name in names]
    return counters + [second for name in counters if (second := rules.alias(name))]
