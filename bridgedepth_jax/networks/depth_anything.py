"""Depth Anything V2 (arXiv 2406.09414): the monocular branch, and relative depth on its own.

Spec `architecture.md` section 2. Letters: B batch, H W image, C features.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Remat, at_least_float32
from bridgedepth_jax.networks.config import DepthConfig, MonoConfig
from bridgedepth_jax.networks.dinov2 import DinoVisionTransformer
from bridgedepth_jax.networks.dpt import DPTHead
from bridgedepth_jax.networks.scale_head import ScaleHead, metric_depth
from bridgedepth_jax.ops.image import normalize


class DepthAnything(nn.Module):
    """A normalised image, whose sides are multiples of 14, to (B, H, W): relative inverse depth, or metres of a metric head.

    With `features=True`: to the (B, h, w, C) map before the last layers, at 8x the token grid: what BridgeDepth reads.
    """

    config: MonoConfig
    dtype: Any = jnp.float32
    kept: Remat | None = None  # of a block, in training

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], *, features: bool = False) -> Float[Array, "..."]:
        c, patch = self.config, self.config.patch
        height, width = image.shape[1:3]
        if height % patch or width % patch:
            raise ValueError(f"image sides {height}x{width} are not multiples of the patch size {patch}")
        tokens = DinoVisionTransformer(c, self.dtype, self.kept, name="pretrained")(image)
        head = DPTHead(c, self.dtype, self.kept, name="depth_head")
        found = head([x[:, 1:] for x in tokens], (height // patch, width // patch), depth=not features)
        if features or not isinstance(c, DepthConfig) or c.max_depth is None:
            return found
        if c.head == "metric":
            return found * c.max_depth
        scale = ScaleHead(self.dtype, name="scale_head")(tokens[-1][:, 0], tokens[-1][:, 1:])
        return metric_depth(found.astype(scale.dtype), scale, c.min_depth, c.max_depth)


def init_depth(config: MonoConfig, key: Array) -> Any:
    """Random parameters."""
    side = 2 * config.patch
    return DepthAnything(config).init(key, jnp.zeros((1, side, side, 3)))["params"]


def depth_of(config: DepthConfig) -> Callable[[Any, Array], Array]:
    """(parameters, RGB 0..255 (B, H, W, 3)) -> (B, H, W) relative inverse depth, or metres; at least float32.

    It computes in the parameters' dtype where the config says float32.
    """

    def run(params: Any, image: Array) -> Array:
        kind = jax.tree.leaves(params)[0].dtype
        dtype = kind if config.dtype == "float32" else jnp.dtype(config.dtype)
        network = DepthAnything(config, dtype=dtype, kept=config.kept)
        found: Any = network.apply({"params": params}, normalize(image.astype(kind)))
        return found.astype(at_least_float32(found.dtype))

    return run
