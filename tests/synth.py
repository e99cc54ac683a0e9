"""Name-seeded synthetic weights, the ones the golden numbers were made with: a function of each parameter's name."""

import functools
import zlib

import jax
import numpy as np

from bridgedepth_jax.convert.engine import convert_state, find_rules, restore_state
from bridgedepth_jax.networks.config import MonoConfig
from bridgedepth_jax.store.checkpoint import expected_shapes, unflatten
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig


def synth_value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Value of the original's parameter `name`, float32."""
    x = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return 1.0 + 0.2 * np.abs(x)
    if leaf == "running_mean":
        return 0.2 * x
    if leaf == "gamma":
        return 0.4 + 0.1 * x
    if leaf == "layer_scale":
        return 0.3 + 0.1 * x
    if leaf in ("pos_embed", "cls_token", "mask_token") or "relative_position" in leaf:
        return 0.3 * x
    if leaf == "bias":
        return 0.1 * x
    if x.ndim == 1:
        return 1.0 + 0.2 * x
    return x * np.float32(1.0 / np.sqrt(int(np.prod(shape[1:]))))


@functools.cache
def synth_params(config: ModelConfig | MonoConfig) -> dict:
    """Our parameter tree of synthetic weights."""
    kind = "bridgedepth" if isinstance(config, ModelConfig) else "depth-anything"
    expected = expected_shapes(kind, config)
    rules = find_rules(kind)
    names = restore_state(rules, {path: np.broadcast_to(np.float32(0), shape) for path, shape in expected.items()})
    state = {name: synth_value(name, value.shape) for name, value in names.items()}
    assert {rules.name(path) for path in expected} == set(state)
    return unflatten(convert_state(rules, state, expected, source="synthetic weights"))


def as_float64(params: dict) -> dict:
    return jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
