"""Depth Anything V2's row: the monocular branch of BridgeDepth as a checkpoint of its own. It is not trained here."""

import functools

import jax.numpy as jnp
from jax import Array

from bridgedepth_jax.networks.config import MonoConfig
from bridgedepth_jax.system import Published, System, Weights

SIZES = {"vits": "Small", "vitb": "Base", "vitl": "Large", "vitg": "Giant"}


def init(config: MonoConfig, key: Array) -> Weights:
    """Random weights."""
    from bridgedepth_jax.networks.depth_anything import DepthAnything

    return DepthAnything(config).init(key, jnp.zeros((1, 2 * config.patch, 2 * config.patch, 3)))["params"]


SYSTEM = System(
    name="depth-anything",
    config=MonoConfig,
    init=init,
    variants={f"depth_anything_v2_{vit}": functools.partial(MonoConfig.named, vit) for vit in SIZES},
    published={
        f"depth_anything_v2_{vit}": Published(
            "depth-anything", f"depth-anything/Depth-Anything-V2-{size}", f"depth_anything_v2_{vit}.pth"
        )
        for vit, size in SIZES.items()
    },
    multiple=14,
    minimum=14,
    rules="bridgedepth_jax.convert.rules.depth_anything:RULES",
)
