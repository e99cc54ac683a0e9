"""StereoDiff's rows: the pair network of the first stage, and the video diffusion model of the second."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from bridgedepth_jax.networks.croco.config import PairConfig
from bridgedepth_jax.system import Published, System, Weights
from bridgedepth_jax.systems.stereodiff.config import VideoDiffusionConfig


def init_pairs(config: PairConfig, key: Array) -> Weights:
    """Initial weights of the pair network."""
    from bridgedepth_jax.networks.croco.network import PairNetwork

    image = jnp.zeros((1, 2 * config.patch, 2 * config.patch, 3))
    return PairNetwork(config).init(key, image, image)["params"]


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
    multiple=16,
    rules="bridgedepth_jax.convert.rules.dust3r:RULES",
)
DIFFUSION = System(
    name="depthcrafter",
    config=VideoDiffusionConfig,
    init=init_diffusion,
    variants={"depthcrafter": VideoDiffusionConfig, "tiny": VideoDiffusionConfig.tiny},
    multiple=64,
)
