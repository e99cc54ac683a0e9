"""StereoDiff's rows: the pair network of the first stage, and the video diffusion model of the second."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from bridgedepth_jax.networks.croco.config import PairConfig
from bridgedepth_jax.system import Objective, Published, System, Teacher, Weights
from bridgedepth_jax.systems.stereodiff.config import PairTask, VideoDiffusionConfig, VideoTask

FROM_KAIMING = 6**-0.5  # to PyTorch's default, of a convolution's deviation, where it has as many outputs as inputs
LAST = 0.1  # of that for the last layer


def init_pairs(config: PairConfig, key: Array) -> Weights:
    """Initial weights of the pair network: every point near (0, 0, 1), every confidence near 2.

    A dense head's convolutions begin at PyTorch's default. Twice that, and the exponentials after them overflow.
    """
    from bridgedepth_jax.networks.croco.network import PairNetwork

    image = jnp.zeros((1, 2 * config.patch, 2 * config.patch, 3))
    weights = PairNetwork(config).init(key, image, image)["params"]
    first = [0, 0, math.log(2), 0]

    def smaller(path: Any, leaf: Array) -> Array:
        names = [entry.key for entry in path]
        if not names[0].startswith("downstream_head") or names[-1] == "mask_token":
            return leaf
        if names[-2] == "proj":  # a linear head: a patch's channels come first, then its pixels
            return leaf * LAST if leaf.ndim == 2 else jnp.repeat(jnp.asarray(first, leaf.dtype), config.patch**2)
        last = names[-2] == "head_4"
        if names[-1] == "bias":
            return jnp.asarray(first, leaf.dtype) if last else leaf
        return leaf * (FROM_KAIMING * (LAST if last else 1)) if leaf.ndim == 4 else leaf

    return jax.tree_util.tree_map_with_path(smaller, weights)


def init_diffusion(config: VideoDiffusionConfig, key: Array) -> Weights:
    """Initial weights of U-Net, autoencoder and image encoder, by these names."""
    from bridgedepth_jax.networks.video.autoencoder import AutoencoderKLTemporalDecoder
    from bridgedepth_jax.networks.video.clip import FrameEncoder
    from bridgedepth_jax.networks.video.unet import UNetSpatioTemporalConditionModel

    keys, side, frames = jax.random.split(key, 3), config.unet.multiple, 1
    sample = jnp.zeros((1, frames, side, side, config.unet.in_channels))
    context = jnp.zeros((1, frames, config.unet.cross_attention_dim))
    ids = jnp.zeros((1, config.unet.time_ids))
    image = jnp.zeros((1, config.vae.factor, config.vae.factor, config.vae.in_channels))
    seen = config.image_encoder.image_size
    networks: dict[str, tuple[Any, tuple[Array, ...]]] = {
        "unet": (UNetSpatioTemporalConditionModel(config.unet), (sample, jnp.zeros(1), context, ids)),
        "vae": (AutoencoderKLTemporalDecoder(config.vae), (image,)),
        "image_encoder": (FrameEncoder(config.image_encoder), (jnp.zeros((1, seen, seen, 3)),)),
    }
    return {
        name: network.init(key, *inputs)["params"]
        for key, (name, (network, inputs)) in zip(keys, networks.items(), strict=True)
    }


def pairs_objective(config: PairConfig, task: PairTask, teachers: Mapping[str, Teacher]) -> Objective:
    """See `objectives.pairs`."""
    from bridgedepth_jax.systems.stereodiff.objectives import pairs

    return pairs(config, task, teachers)


def video_objective(config: VideoDiffusionConfig, task: VideoTask, teachers: Mapping[str, Teacher]) -> Objective:
    """See `objectives.video`."""
    from bridgedepth_jax.systems.stereodiff.objectives import video

    return video(config, task, teachers)


PAIRS = System(
    name="dust3r",
    config=PairConfig,
    init=init_pairs,
    variants={"dust3r_512": PairConfig, "dust3r_512_linear": lambda: PairConfig("linear"), "dust3r_224": PairConfig.small},
    published={
        "dust3r_512": Published("dust3r", "naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt", "model.safetensors"),
        "dust3r_512_linear": Published("dust3r", "naver/DUSt3R_ViTLarge_BaseDecoder_512_linear", "model.safetensors"),
        "mast3r": Published("dust3r", "naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric", "model.safetensors"),
        "monst3r": Published("dust3r", "Junyi42/MonST3R_PO-TA-S-W_ViTLarge_BaseDecoder_512_dpt", "model.safetensors"),
    },
    task=PairTask,
    objective=pairs_objective,
    multiple=16,
    rules="bridgedepth_jax.convert.rules.dust3r:RULES",
)
DIFFUSION = System(
    name="depthcrafter",
    config=VideoDiffusionConfig,
    init=init_diffusion,
    variants={"depthcrafter": VideoDiffusionConfig, "tiny": VideoDiffusionConfig.tiny},
    task=VideoTask,
    objective=video_objective,
    multiple=8,  # of the autoencoder; the U-Net takes any size
)
