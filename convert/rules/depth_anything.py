"""Rules of Depth Anything V2: a file is a bare state dict, and the width of its tokens says which size it is."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bridgedepth_jax.convert.engine import Rules
from bridgedepth_jax.convert.rules.networks import VIT_DPT, VIT_DPT_ORDER
from bridgedepth_jax.networks.config import MonoConfig

# Of the published weights, by the ViT in them; also of networks that were trained with one of these inside.
LICENCES = {"vits": "Apache-2.0", "vitb": "CC-BY-NC-4.0", "vitl": "CC-BY-NC-4.0", "vitg": "CC-BY-NC-4.0"}


def config_of(content: Any, state: Mapping[str, Any], config: MonoConfig | None) -> MonoConfig:
    """The size that fits the class token, unless `config` says another one. Raises ValueError where none does."""
    if config is not None:
        return config
    configs = {config.dim: config for config in map(MonoConfig.named, LICENCES)}
    token = state.get("pretrained.cls_token")
    found = configs.get(token.shape[-1]) if isinstance(token, np.ndarray) and token.ndim else None
    if found is None:
        raise ValueError(f"no Depth Anything V2 weights, expected pretrained.cls_token of width {sorted(configs)}")
    return found


RULES = Rules(
    layouts=VIT_DPT,
    order=VIT_DPT_ORDER,
    config_of=config_of,
    licence=lambda config: LICENCES.get(config.name, "unknown"),
    content=lambda config, state: state,
)
