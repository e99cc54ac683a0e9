"""The row of the depth-to-image generator: what a converted FLUX.1-Depth folder is, and its shapes."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from bridgedepth_jax.system import System, Weights
from bridgedepth_jax.systems.bridge_mde.generator.config import GeneratorConfig


def init(config: GeneratorConfig, key: Array) -> Weights:
    """Random weights; the prompt's embeddings are zeros."""
    import jax

    from bridgedepth_jax.networks.diffusion import flux
    from bridgedepth_jax.networks.diffusion.autoencoder import AutoencoderKL

    keys, c, factor = jax.random.split(key), config.transformer, config.vae.factor
    one = lambda *shape: jnp.zeros((1, *shape))
    by = flux.rotation(c, 1, 1, 1, jnp.float32)
    inputs: Any = (
        one(1, c.in_channels), one(flux.FREQUENCIES), one(flux.FREQUENCIES), one(1, c.joint_attention_dim),
        one(c.pooled_projection_dim), by,
    )  # fmt: skip
    return {
        "transformer": flux.FluxTransformer2DModel(c).init(keys[0], *inputs)["params"],
        "vae": AutoencoderKL(config.vae).init(keys[1], one(factor, factor, config.vae.in_channels))["params"],
        "prompt_embeds": jnp.zeros((config.text_tokens, c.joint_attention_dim)),
        "pooled_prompt_embeds": jnp.zeros((c.pooled_projection_dim,)),
    }


SYSTEM = System(
    name="flux-depth",
    config=GeneratorConfig,
    init=init,
    variants={"flux_depth_dev": GeneratorConfig},
    multiple=16,
)
