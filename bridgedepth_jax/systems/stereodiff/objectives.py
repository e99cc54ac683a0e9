"""What training the two networks minimises, on frames of clips (`data/clips.py`; spec `video.md` section 6).

B rows, F frames, H W pixels, h w latents, Z latent channels. Inverse depths are in 1/metres.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.croco.config import PairConfig
from bridgedepth_jax.system import Batch, Group, Objective, Result, Rows, Teacher, Weights
from bridgedepth_jax.systems.stereodiff.config import PairTask, VideoDiffusionConfig, VideoTask

NORMS = r".*(norm[^/]*|layrnorm|layernorm)/(scale|bias)$"  # of all parts


def no_teachers(teachers: Mapping[str, Teacher]) -> None:
    if teachers:
        raise InputError(f"teachers {', '.join(teachers)}: this network learns from true depth alone, expected none")


def groups(solver: Any) -> tuple[Group, ...]:
    """Scales and shifts of norms decay on their own."""
    return Group("norms", NORMS, solver.weight_decay_norm), Group("others", rf"(?!{NORMS})", solver.weight_decay)


def pair_truth(batch: Batch, far: float) -> Any:
    """True points of the first two frames, in the camera of the first."""
    from bridgedepth_jax.systems.stereodiff.losses import PairTruth, to_camera

    depth, (height, width) = batch["depth"][:, :2], batch["depth"].shape[2:]
    valid = jnp.isfinite(depth) & (depth > 0) & (depth < far)
    depth = jnp.where(valid, depth, 1)
    focal, centre = batch["K"][:, (0, 1), (0, 1)], batch["K"][:, :2, 2]
    x, y = jnp.arange(width, dtype=depth.dtype), jnp.arange(height, dtype=depth.dtype)
    rays_x = ((x[None] - centre[:, :1]) / focal[:, :1])[:, None, None, :]
    rays_y = ((y[None] - centre[:, 1:]) / focal[:, 1:])[:, None, :, None]
    points = jnp.stack([rays_x * depth, rays_y * depth, depth], axis=-1)
    pose = batch["pose"]
    world = jnp.einsum("bij,bhwj->bhwi", pose[:, 1, :3, :3], points[:, 1], precision="highest")
    second = to_camera(world + pose[:, 1, None, None, :3, 3], pose[:, 0])
    return PairTruth(points[:, 0], second, valid[:, 0], valid[:, 1])


def pairs(config: PairConfig, task: PairTask, teachers: Mapping[str, Teacher]) -> Objective:
    """DUSt3R's loss, and what holds the scale that it leaves free."""
    from bridgedepth_jax.networks.croco.network import PairNetwork
    from bridgedepth_jax.systems.stereodiff.losses import confidence_terms, mean_distance

    no_teachers(teachers)
    network = PairNetwork(config)

    def count(batch: Batch) -> tuple[Array, Array, Array]:
        truth = pair_truth(batch, task.far)
        return jnp.sum(truth.valid1), jnp.sum(truth.valid2), jnp.asarray(len(batch["image"]))

    def run(weights: Weights, batch: Batch) -> Any:
        images = images_of(batch)[:, :2]
        tokens = network.apply({"params": weights}, images.reshape(-1, *images.shape[2:]), method="encode")
        one, two = jnp.moveaxis(tokens.reshape(-1, 2, *tokens.shape[1:]), 1, 0)  # type: ignore[union-attr]
        grid = images.shape[2] // config.patch, images.shape[3] // config.patch
        return tokens, network.apply({"params": weights}, one, two, grid, method="decode")

    def loss(weights: Weights, _: Any, batch: Batch, counts: Any, rows: Rows) -> tuple[Array, Result]:
        truth, found = pair_truth(batch, task.far), run(weights, batch)[1]
        maps = found.points1, found.confidence1, found.points2, found.confidence2
        sums = confidence_terms(*maps, truth)
        value = sum(total / jnp.maximum(n, 1) for total, n in zip(sums, counts[:2], strict=True))
        scale = mean_distance(found.points1, found.points2, truth.valid1, truth.valid2)
        held = jnp.sum(jnp.square(jnp.log(scale))) / counts[2]
        sure = jnp.sum(jnp.mean(found.confidence1, axis=(1, 2))) / counts[2]
        metrics = {"pair_loss": jnp.asarray(value), "log_scale_squared": held, "confidence": sure}
        return value + task.hold * held, Result(metrics, jax.lax.stop_gradient(found.points1[..., 2]))

    def health(weights: Weights, batch: Batch) -> dict[str, Array]:
        tokens, found = run(weights, batch)
        truth = pair_truth(batch, task.far)
        scale = mean_distance(found.points1, found.points2, truth.valid1, truth.valid2)
        return {
            "size/tokens": jnp.max(jnp.abs(tokens)),
            "size/scale": jnp.max(scale),
            "size/points": jnp.max(jnp.abs(found.points2)),
            "size/confidence": jnp.max(found.confidence1),
        }

    return Objective(
        trained=lambda path: True,
        count=count,
        loss=loss,
        groups=groups,
        headline=("pair_loss", "confidence"),
        picture=pair_picture,
        health=health,
        part=lambda path: path.split("/")[0].rstrip("0123456789").rstrip("_"),
    )


def pair_picture(host: Mapping[str, np.ndarray], shown: np.ndarray) -> np.ndarray:
    """Both frames, true inverse depth of the first, and what was found, one above the other, (H, W, 3) uint8."""
    from bridgedepth_jax.visualize import colorize

    maps = [1 / np.maximum(depth, 1e-3) for depth in (host["depth"][0, 0], np.asarray(shown)[0])]
    return np.concatenate([*host["image"][0, :2], *(colorize(m, float(np.quantile(m, 0.99)) or 1.0) for m in maps)])


def disparity_of(batch: Batch) -> Array:
    """(B, F, H, W, 3): inverse depth of the frames, -1 and 1 where it is least and largest in the whole clip."""
    depth, span = batch["depth"], batch["span"][:, :, None, None, None]
    known = jnp.isfinite(depth) & (depth > 0)
    inverse = jnp.where(known, 1 / jnp.where(known, depth, 1), span[:, 0])
    share = (inverse - span[:, 0]) / jnp.maximum(span[:, 1] - span[:, 0], 1e-9)
    return jnp.repeat((2 * jnp.clip(share, 0, 1) - 1)[..., None], 3, axis=-1)


class VideoLearner:
    """The parts of the video diffusion model, and what each of its two stages of training minimises.

    The autoencoder: L1 of images and of disparities, a small KL term, and a term that keeps the mean square of scaled latents
    at 1 (`hold`), so that the config's scaling factor is right. The U-Net: EDM's loss of disparity latents at a random noise
    level, weighted so that all levels count alike; this is the squared error of its v-prediction.
    """

    def __init__(self, config: VideoDiffusionConfig, task: VideoTask) -> None:
        from bridgedepth_jax.networks.video.autoencoder import AutoencoderKLTemporalDecoder
        from bridgedepth_jax.networks.video.clip import FrameEncoder
        from bridgedepth_jax.networks.video.unet import UNetSpatioTemporalConditionModel

        self.task, self.scaling = task, config.vae.scaling_factor
        self.vae, self.unet = AutoencoderKLTemporalDecoder(config.vae), UNetSpatioTemporalConditionModel(config.unet)
        self.clip = FrameEncoder(config.image_encoder)

    def moments(self, weights: Weights, images: Array) -> tuple[Array, Array]:
        """Mean and log variance of the latents of images (B, F, H, W, 3)."""
        from bridgedepth_jax.networks.diffusion.autoencoder import Gaussian

        flat = images.reshape(-1, *images.shape[2:])
        raw = self.vae.apply({"params": weights["vae"]}, flat, method=lambda module, x: module.quant_conv(module.encoder(x)))
        found: Any = Gaussian.of(raw)  # type: ignore[arg-type]
        mean, logvar = (part.reshape(*images.shape[:2], *part.shape[1:]) for part in found)
        return mean, logvar

    def decoded(self, batch: Batch) -> dict[str, Array]:
        """What the autoencoder learns from, by name: (B, F, H, W, 3)."""
        frames = slice(0, self.task.decoded)
        return {"disparity": disparity_of(batch)[:, frames], "image": images_of(batch)[:, frames]}

    def mean_square(self, mean: Array, counts: Array) -> Array:
        """Of scaled latents: these rows' share."""
        return jnp.sum(jnp.mean(jnp.square(self.scaling * mean), axis=(1, 2, 3, 4))) / counts

    def autoencoder(self, weights: Weights, batch: Batch, counts: Array, rows: Rows) -> tuple[Array, dict[str, Array]]:
        value, metrics = jnp.zeros(()), {}
        for name, clips in self.decoded(batch).items():
            mean, logvar = self.moments(weights, clips)
            noise = normal(jax.random.fold_in(rows.keys["noise"], len(name)), rows, mean.shape[1:])
            latent = mean + jnp.exp(logvar / 2) * noise
            again: Any = self.vae.apply({"params": weights["vae"]}, latent, method="decode")
            error = jnp.sum(jnp.mean(jnp.abs(again - clips), axis=(1, 2, 3, 4))) / counts
            kl = (jnp.square(mean) + jnp.exp(logvar) - 1 - logvar) / 2
            square = self.mean_square(mean, counts)
            # The gradient is that of (whole - 1)^2 over the global batch, the value a part's share of twice as much.
            held = 2 * (rows.across(f"square_{name}", square) - 1) * square
            value += error + self.task.kl * jnp.sum(jnp.mean(kl, axis=(1, 2, 3, 4))) / counts + self.task.hold * held
            metrics |= {f"{name}_error": error, f"{name}_square": square}
        return value, metrics

    def context(self, weights: Weights, images: Array) -> Array:
        """(B, F, E): the image encoder's embeddings."""
        flat = images.reshape(-1, *images.shape[2:])
        found: Any = self.clip.apply({"params": weights["image_encoder"]}, flat)
        return found[0].reshape(*images.shape[:2], -1)

    def velocity(self, weights: Weights, context: Array, sample: Array, time: Array) -> Any:
        """(B, F, h, w, Z): what the U-Net says of noisy latents beside the frames' own, (B, F, h, w, 2 Z). `time`: (B,)."""
        from bridgedepth_jax.systems.stereodiff.refine import TIME_IDS

        ids = jnp.tile(jnp.asarray([TIME_IDS], jnp.float32), (len(sample), 1))
        return self.unet.apply({"params": weights["unet"]}, sample, time, context, ids)

    def diffusion(self, weights: Weights, batch: Batch, counts: Array, rows: Rows) -> tuple[Array, dict[str, Array]]:
        from bridgedepth_jax.systems.stereodiff.losses import edm_error
        from bridgedepth_jax.systems.stereodiff.refine import AUGMENTATION

        images = images_of(batch)
        key = lambda number: jax.random.fold_in(rows.keys["noise"], number)
        condition = self.moments(weights, images + AUGMENTATION * normal(key(0), rows, images.shape[1:]))[0]
        latent = self.scaling * self.moments(weights, disparity_of(batch))[0]
        levels = jax.vmap(lambda n: jax.random.normal(jax.random.fold_in(rows.keys["level"], n)))(rows.numbers)
        log_sigma = self.task.level_mean + self.task.level_deviation * levels
        sigma = jnp.exp(log_sigma)[:, None, None, None, None]
        noisy = latent + sigma * normal(key(1), rows, latent.shape[1:])
        sample = jnp.concatenate([noisy / jnp.sqrt(jnp.square(sigma) + 1), condition], axis=-1)
        v = self.velocity(weights, self.context(weights, images), sample, log_sigma / 4)
        wrong = jnp.mean(edm_error(v, noisy, latent, sigma), axis=(1, 2, 3, 4))
        value, share = jnp.sum(wrong) / counts, (jnp.square(sigma) / (jnp.square(sigma) + 1)).reshape(-1)
        return value, {"edm": value, "latent_error": jnp.sum(wrong * share) / counts}

    def loss(self, weights: Weights, _: Any, batch: Batch, counts: Array, rows: Rows) -> tuple[Array, Result]:
        value, metrics = (self.autoencoder if self.task.stage == "autoencoder" else self.diffusion)(
            weights, batch, counts, rows
        )
        return value, Result(metrics)

    def health(self, weights: Weights, batch: Batch) -> dict[str, Array]:
        images = images_of(batch)
        condition, latent = self.moments(weights, images)[0], self.scaling * self.moments(weights, disparity_of(batch))[0]
        embedding = self.context(weights, images)
        v = self.velocity(weights, embedding, jnp.concatenate([latent, condition], axis=-1), jnp.zeros(len(images)))
        sizes = {"condition": condition, "latent": latent, "embedding": embedding, "v": v}
        return {f"size/{name}": jnp.max(jnp.abs(x)) for name, x in sizes.items()}


def images_of(batch: Batch) -> Array:
    """(B, F, H, W, 3) in -1..1."""
    return batch["image"].astype(jnp.float32) / 127.5 - 1


def normal(key: Array, rows: Rows, shape: tuple[int, ...]) -> Array:
    """A row's draw depends on its number in the batch alone."""
    return jax.vmap(lambda n: jax.random.normal(jax.random.fold_in(key, n), shape))(rows.numbers)


def video(config: VideoDiffusionConfig, task: VideoTask, teachers: Mapping[str, Teacher]) -> Objective:
    """The autoencoder alone; or U-Net and image encoder, which learn to take noise away while the autoencoder stands still.

    Two runs, not two branches of one step: XLA's convolutions on a CPU are six times slower inside a `lax.cond`.
    """
    no_teachers(teachers)
    learner, early = VideoLearner(config, task), task.stage == "autoencoder"
    return Objective(
        trained=lambda path: path.startswith("vae/") == early,
        count=lambda batch: jnp.asarray(len(batch["image"]), jnp.float32),
        loss=learner.loss,
        groups=groups,
        keys=("noise",) if early else ("noise", "level"),
        headline=("disparity_error", "disparity_square") if early else ("edm", "latent_error"),
        health=learner.health,
        part=lambda path: path.split("/")[0],
    )
