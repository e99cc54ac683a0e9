"""Depth Anything V2 (arXiv 2406.09414): the monocular branch, and relative depth on its own.

Spec `architecture.md` section 2. Letters: B batch, H W image, C features.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.networks.config import MonoConfig
from bridgedepth_jax.networks.dinov2 import DinoVisionTransformer
from bridgedepth_jax.networks.dpt import DPTHead


class DepthAnything(nn.Module):
    """A normalised image, whose sides are multiples of 14, to relative inverse depth (B, H, W).

    With `features=True`: to the (B, h, w, C) map before the last layers, at 8x the token grid: what BridgeDepth reads.
    """

    config: MonoConfig
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], *, features: bool = False) -> Float[Array, "..."]:
        patch = self.config.patch
        height, width = image.shape[1:3]
        if height % patch or width % patch:
            raise ValueError(f"image sides {height}x{width} are not multiples of the patch size {patch}")
        tokens = DinoVisionTransformer(self.config, self.dtype, self.remat, name="pretrained")(image)
        head = DPTHead(self.config, self.dtype, name="depth_head")
        return head(tokens, (height // patch, width // patch), depth=not features)
