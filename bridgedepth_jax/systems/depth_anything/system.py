"""Depth Anything V2's row, relative and metric: a checkpoint of its own. Training is `bridge_mde`'s, which starts from it."""

import functools
from collections.abc import Callable

from jax import Array

from bridgedepth_jax.networks.config import DepthConfig
from bridgedepth_jax.system import Published, System, Weights

SIZES = {"vits": "Small", "vitb": "Base", "vitl": "Large", "vitg": "Giant"}
METRIC = {"hypersim": "Hypersim", "vkitti": "VKITTI"}


def init(config: DepthConfig, key: Array) -> Weights:
    """Random weights."""
    from bridgedepth_jax.networks.depth_anything import init_depth

    return init_depth(config, key)


def depth(config: DepthConfig) -> Callable[[Weights, Array], Array]:
    """See `networks.depth_anything.depth_of`."""
    from bridgedepth_jax.networks.depth_anything import depth_of

    return depth_of(config)


SYSTEM = System(
    name="depth-anything",
    config=DepthConfig,
    init=init,
    variants={f"depth_anything_v2_{vit}": functools.partial(DepthConfig.named, vit) for vit in SIZES},
    published={
        f"depth_anything_v2_{vit}": Published(
            "depth-anything", f"depth-anything/Depth-Anything-V2-{size}", f"depth_anything_v2_{vit}.pth"
        )
        for vit, size in SIZES.items()
    }
    | {
        f"depth_anything_v2_metric_{data}_{vit}": Published(
            "depth-anything",
            f"depth-anything/Depth-Anything-V2-Metric-{words}-{SIZES[vit]}",
            f"depth_anything_v2_metric_{data}_{vit}.pth",
            f"depth_anything_v2_metric_{data}_{vit}",
        )
        for data, words in METRIC.items()
        for vit in ("vits", "vitb", "vitl")
    },
    depth=depth,
    multiple=14,
    minimum=14,
    rules="bridgedepth_jax.convert.rules.depth_anything:RULES",
)
