"""Rules of Depth Anything V2, its metric networks and BRIDGE's: a file is a bare state dict, and the width of its tokens says
which size it is.

A metric file has the names and shapes of a relative one: whether it is, and its largest depth, the converter is told.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bridgedepth_jax.convert.engine import Rules, convert_state
from bridgedepth_jax.convert.pth import read_pth, state_dict
from bridgedepth_jax.convert.rules.networks import VIT_DPT, VIT_DPT_ORDER
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.config import DepthConfig
from bridgedepth_jax.store.checkpoint import Checkpoint

# Of the published weights, by the ViT in them; also of networks that were trained with one of these inside.
LICENCES = {"vits": "Apache-2.0", "vitb": "CC-BY-NC-4.0", "vitl": "CC-BY-NC-4.0", "vitg": "CC-BY-NC-4.0"}


def config_of(content: Any, state: Mapping[str, Any], config: DepthConfig | None) -> DepthConfig:
    """The size that fits the class token, unless `config` says another one. Raises ValueError where none does."""
    token = state.get("pretrained.cls_token")
    width = token.shape[-1] if isinstance(token, np.ndarray) and token.ndim else None
    if config is not None and (config.name not in LICENCES or config.dim == width):
        return config
    configs = {config.dim: config for config in map(DepthConfig.named, LICENCES)}
    found = configs.get(width) if width else None
    if found is None:
        raise ValueError(f"no Depth Anything V2 weights, expected pretrained.cls_token of width {sorted(configs)}")
    if config is not None:
        raise ValueError(f"weights of {found.name}, expected {config.name}")
    return found


def sized(config: DepthConfig, *, max_depth: float | None) -> DepthConfig:
    """The same network with a sigmoid that reaches `max_depth` metres; None: as it is."""
    return config if max_depth is None else dataclasses.replace(config, head="metric", max_depth=max_depth)


def as_metric(checkpoint: Checkpoint, max_depth: float) -> Checkpoint:
    """The same weights as a metric network's. InputError: no depth above the smallest."""
    try:
        return dataclasses.replace(checkpoint, config=sized(checkpoint.config, max_depth=max_depth))
    except ValueError as error:
        raise InputError(f"--max-depth {max_depth}: {error}") from error


METRIC = {"hypersim": 20.0, "vkitti": 80.0}  # metres


def metric_config(vit: str, data: str) -> DepthConfig:
    return sized(DepthConfig.named(vit), max_depth=METRIC[data])


# Of files that do not say what they are.
VARIANTS: dict[str, Callable[[], DepthConfig]] = {
    f"depth_anything_v2_metric_{data}_{vit}": functools.partial(metric_config, vit, data)
    for data in METRIC
    for vit in ("vits", "vitb", "vitl")
}

RULES = Rules(
    layouts=VIT_DPT,
    order=VIT_DPT_ORDER + " scale_head",
    config_of=config_of,
    licence=lambda config: LICENCES.get(config.name, "unknown"),
    content=lambda config, state: state,
    variants=VARIANTS,
)
BRIDGE = RULES._replace(licence=lambda config: "unknown", variants={})


def read_dinov2(path: str, config: DepthConfig) -> dict[str, np.ndarray]:
    """The encoder of Meta's `dinov2_vit*14_pretrain.pth`, {path: float32 array}. InputError: another network."""
    from bridgedepth_jax.store.checkpoint import expected_shapes

    state = {f"pretrained.{name}": value for name, value in state_dict(Path(path), read_pth(Path(path), ())).items()}
    expected = {name: shape for name, shape in expected_shapes("bridge_mde", config).items() if name.startswith("pretrained/")}
    return convert_state(RULES, state, expected, source=path)
