"""ZeroStereo's row: its inpainting network, fine-tuned on stereo pairs with a true disparity (spec `zerostereo.md` section 4).

The left view is warped by the true disparity; the network learns to make the right view from what arrived, its holes and noise.
B batch, H W the crop, h w latents, Z latent channels.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.system import Batch, Group, Objective, Published, Result, Rows, System, Teacher, Weights
from bridgedepth_jax.systems.zerostereo.config import InpaintingTask, StereoGenConfig


def init(config: StereoGenConfig, key: Array) -> Weights:
    """Initial weights; the empty prompt is drawn too, and stays."""
    from bridgedepth_jax.networks.diffusion.autoencoder import AutoencoderKL
    from bridgedepth_jax.networks.diffusion.unet import UNet2DConditionModel

    keys, side, unet = jax.random.split(key, 3), config.unet.multiple, config.unet
    prompt = jax.random.normal(keys[2], (config.context_tokens, config.context_dim or unet.cross_attention_dim))
    sample, context = (jnp.zeros((1, *shape)) for shape in ((side, side, unet.in_channels), (1, unet.cross_attention_dim)))
    weights = {"unet": UNet2DConditionModel(unet).init(keys[0], sample, jnp.zeros(1), context)["params"]}
    if config.vae is not None:
        image = jnp.zeros((1, config.factor, config.factor, config.vae.in_channels))
        weights["vae"] = AutoencoderKL(config.vae).init(keys[1], image)["params"]
    return {**weights, "empty_prompt": prompt}


def codec_of(config: StereoGenConfig) -> Any:
    """Between images and latents."""
    from bridgedepth_jax.networks.diffusion.inpainting import autoencoder_codec, space_to_depth_codec

    return space_to_depth_codec(config.cell) if config.vae is None else autoencoder_codec(config.vae)


def objective(config: StereoGenConfig, task: InpaintingTask, teachers: Mapping[str, Teacher]) -> Objective:
    """Mean squared error of the predicted noise, over the whole latent, at a uniform time."""
    from bridgedepth_jax.networks.diffusion import schedule
    from bridgedepth_jax.networks.diffusion.inpainting import Basis, masked_condition
    from bridgedepth_jax.networks.diffusion.unet import UNet2DConditionModel
    from bridgedepth_jax.ops.forward_warp import warp_on_device

    unet, codec, basis = UNet2DConditionModel(config.unet), codec_of(config), Basis(config.residual)
    table = schedule.alphas_cumprod(config.schedule)

    def loss(weights: Weights, _: Any, batch: Batch, counts: Any, rows: Rows) -> tuple[Array, Result]:
        dtype = jax.tree.leaves(weights["unet"])[0].dtype
        left, right = (batch[side].astype(dtype) for side in ("left", "right"))
        valid = batch["valid"] if task.left_out else jnp.ones_like(batch["valid"])
        disparity = jnp.where(batch["valid"], batch["disparity"], 0).astype(dtype)
        warped, _, hole = jax.vmap(warp_on_device)(left, disparity, valid)
        mask = hole.astype(dtype)
        known = basis.known(warped / 127.5 - 1, mask)
        condition = masked_condition(codec, weights.get("vae"), known, mask)
        latent = codec.encode(weights.get("vae"), basis.unknown(right / 127.5 - 1, known))
        # A row's draw depends on its number in the batch alone.
        draw = lambda key, number: jax.random.fold_in(key, number)
        times = jax.vmap(lambda n: jax.random.randint(draw(rows.keys["time"], n), (), 0, config.schedule.train_steps))
        noises = jax.vmap(lambda n: jax.random.normal(draw(rows.keys["noise"], n), latent.shape[1:], dtype))
        t, noise = times(rows.numbers), noises(rows.numbers)
        noisy = schedule.add_noise(latent, noise, t, table)
        context = jax.lax.stop_gradient(weights["empty_prompt"])[None].astype(dtype)
        found: Any = unet.apply({"params": weights["unet"]}, jnp.concatenate([noisy, condition], axis=-1), t, context)
        aim = schedule.target(latent, noise, t, table, config.schedule.prediction)
        error = jnp.mean(jnp.square(found - aim), axis=(1, 2, 3))
        value = jnp.sum(error) / counts
        holes = jnp.sum(jnp.mean(hole, axis=(1, 2), dtype=dtype)) / counts
        return value, Result({"noise_error": value, "holes": holes}, warped)

    return Objective(
        trained=lambda path: path.startswith("unet/"),
        count=lambda batch: jnp.asarray(len(batch["left"]), jnp.float32),
        loss=loss,
        groups=lambda solver: (Group("unet", "unet/", solver.weight_decay),),
        keys=("time", "noise"),
        headline=("noise_error",),
        picture=picture,
    )


def check(config: StereoGenConfig, task: InpaintingTask) -> None:
    """InputError: a prompt that is not for this U-Net."""
    if config.context_dim not in (None, config.unet.cross_attention_dim):
        raise InputError(
            f"model.context_dim = {config.context_dim}: the empty prompt's width, expected that of the U-Net's context,"
            f" {config.unet.cross_attention_dim}"
        )


def picture(host: Mapping[str, np.ndarray], warped: np.ndarray) -> np.ndarray:
    """Left view, what is left of it in the right one, and the right view, one above the other, (H, W, 3)."""
    rows = (host["left"][0], np.asarray(warped)[0], host["right"][0])
    return np.concatenate([np.clip(row, 0, 255).astype(np.uint8) for row in rows])


DIFFUSERS = (  # what is read of a published folder
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
SYSTEM = System(
    name="zerostereo",
    config=StereoGenConfig,
    init=init,
    published={
        "zerostereo_stereogen": Published("zerostereo", "Windsrain/ZeroStereo", "StereoGen", files=DIFFUSERS),
        "stable_diffusion_2_inpainting": Published(
            "zerostereo", "sd2-community/stable-diffusion-2-inpainting", ".", files=DIFFUSERS
        ),
    },
    variants={"sd2": StereoGenConfig, "nano": StereoGenConfig.nano},
    task=InpaintingTask,
    objective=objective,
    check=check,
    multiple=8,
)
