"""The smallest network that still has every part, for tests of what is around it."""

import cv2
import jax
import numpy as np
from flax import linen as nn

from bridgedepth_jax.networks.config import BackboneConfig, MonoConfig
from bridgedepth_jax.networks.depth_anything import DepthAnything
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig, NMPConfig, ProposalConfig
from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth

MONO = MonoConfig("tiny", dim=16, depth=4, heads=2, taps=(0, 1, 2, 3), features=8, out_channels=(8, 8, 8, 8))
MODEL = ModelConfig(
    mono=MONO,
    backbone=BackboneConfig("convnext", out_channels=16, dims=(8, 8, 16), depths=(1, 1, 1)),
    dpn=ProposalConfig(max_disp=64, context_dim=8, mlp_dims=(4, 4), seed_dim=8, lookup_dim=16),
    nmp=NMPConfig(
        prop_dim=16, dim=16, prop_layers=1, infer_layers=1, refine_layers=1, mlp_ratio=2,
        concat_dim=8, concat_hidden=8, correlation_dim=16, correlation_groups=4,
    ),
)  # fmt: skip


def images(height: int, width: int, *, disparity: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth texture seen twice, (H, W, 3) uint8 each, shifted by `disparity` pixels."""
    random = np.random.default_rng(seed)
    wide = cv2.GaussianBlur(random.integers(0, 256, (height, width + disparity, 3), np.uint8), (0, 0), 1.5)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    return wide[:, :width].copy(), wide[:, disparity:].copy()


def params(network: nn.Module, *inputs: jax.ShapeDtypeStruct) -> dict:
    """Random parameters without compiling an initialisation: shapes by tracing, values by numpy."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)["params"]
    random = np.random.default_rng(0)

    def value(leaf):
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        return (random.standard_normal(leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree.map(value, shapes)


def model_params() -> dict:
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    return params(BridgeDepth(MODEL), image, image)


def mono_params() -> dict:
    return params(DepthAnything(MONO), jax.ShapeDtypeStruct((1, 28, 28, 3), np.float32))
