"""The second stage: a step of a video diffusion model that smooths what flickers (spec `video.md` section 3).

T frames, F frames of a window, H W pixels (multiples of `VideoDiffusionConfig.multiple`), h w latents, Z latent channels, E
width of an embedding. Frames are RGB in 0..1, disparities in any unit, larger is nearer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.video import schedule
from bridgedepth_jax.networks.video.autoencoder import AutoencoderKLTemporalDecoder
from bridgedepth_jax.networks.video.clip import FrameEncoder
from bridgedepth_jax.networks.video.unet import UNetSpatioTemporalConditionModel
from bridgedepth_jax.systems.stereodiff import windows
from bridgedepth_jax.systems.stereodiff.config import RefineOptions, VideoDiffusionConfig

TIME_IDS = (7.0, 127.0, 0.02)  # frames per second, motion bucket, noise augmentation
AUGMENTATION = 0.02  # deviation of the noise on a condition's pixels
Progress = Callable[[str, int, int], None]  # (what, done, of how many)


class Refined(NamedTuple):
    """A video's disparities, and what led to them."""

    disparity: Float[np.ndarray, "T H W"]  # 0..1
    latents: Float[np.ndarray, "T h w Z"]
    condition: Float[np.ndarray, "T h w Z"]
    embeddings: Float[np.ndarray, "T E"]
    start: Float[np.ndarray, "T h w Z"] | None  # the first stage's latents, scaled


class VideoDiffusion:
    """The networks with their weights, each compiled once for a size, a chunk and a window's length."""

    def __init__(self, config: VideoDiffusionConfig, params: Mapping[str, Any]) -> None:
        self.config = config
        self.params = {name: jax.device_put(params[name]) for name in ("unet", "vae", "image_encoder")}
        self.dtype = np.result_type(jax.tree.leaves(self.params["vae"])[0].dtype, np.float32)
        vae, unet = AutoencoderKLTemporalDecoder(config.vae), UNetSpatioTemporalConditionModel(config.unet)
        clip = FrameEncoder(config.image_encoder)
        self._encode = jax.jit(lambda params, x: vae.apply({"params": params}, x, method="encode"))
        self._decode = jax.jit(lambda params, z: vae.apply({"params": params}, z[None], method="decode")[0])  # type: ignore[index]
        self._embed = jax.jit(lambda params, x: clip.apply({"params": params}, x)[0])

        @jax.jit
        def predict(params: Any, x: Any, condition: Any, t: Any, context: Any) -> Any:
            both = jnp.concatenate([x, condition], axis=-1)[None]
            ids = jnp.asarray([TIME_IDS], x.dtype)
            return unet.apply({"params": params}, both, t, context[None], ids)[0]  # type: ignore[index]

        self._predict = predict

    def encode(self, images: Float[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "T h w Z"]:
        """Modes of images in -1..1, not scaled."""
        return self._run(self._encode, "vae", images)

    def embed(self, images: Float[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "T E"]:
        """Of images in -1..1."""
        return self._run(self._embed, "image_encoder", images)

    def decode(self, latents: Float[np.ndarray, "F h w Z"]) -> Float[np.ndarray, "F H W 3"]:
        """Images in about -1..1 of latents that are not scaled, frames together."""
        return self._run(self._decode, "vae", latents)

    def predict(self, x: Any, condition: Any, t: float, context: Any) -> Any:
        """The v-prediction of a window."""
        with jax.default_matmul_precision("highest"):
            return self._predict(self.params["unet"], x, condition, jnp.asarray(t, x.dtype), context)

    def _run(self, function: Callable, part: str, x: np.ndarray) -> np.ndarray:
        with jax.default_matmul_precision("highest"):
            return np.asarray(function(self.params[part], jnp.asarray(x, self.dtype)))


def frame_size(width: int, height: int, multiple: int, longest: int = 1024) -> tuple[int, int]:
    """(width, height) of this stage: the nearest multiples, at least one, after limiting the long side."""
    scale = min(1.0, longest / max(width, height))
    wide, high = (max(1, round(side * scale / multiple)) * multiple for side in (width, height))
    return wide, high


def resize_frame(frame: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> np.ndarray:
    """To (width, height): by area where it shrinks, bilinear where it grows."""
    if (frame.shape[1], frame.shape[0]) == size:
        return frame
    shrinks = size[0] * size[1] < frame.shape[0] * frame.shape[1]
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def nearest(value: Float[np.ndarray, "H W"], size: tuple[int, int]) -> np.ndarray:
    """To (width, height), source floor(i in / out)."""
    rows, columns = (np.arange(out) * side // out for out, side in zip(size[::-1], value.shape, strict=True))
    return value[rows[:, None], columns]


def value_range(disparity: Float[np.ndarray, "T H W"], options: RefineOptions) -> tuple[float, float]:
    """What becomes 0 and 1. InputError: values that are not finite, or all the same."""
    if not np.isfinite(disparity).all():
        bad = int((~np.isfinite(disparity)).sum())
        raise InputError(f"{bad} disparities of the first stage are no numbers, expected none")
    if (options.low, options.high) == (0, 1):
        low, high = float(disparity.min()), float(disparity.max())
    else:
        low, high = (float(v) for v in np.quantile(disparity, (options.low, options.high)))
    if not high > low:
        raise InputError(f"the disparities of the first stage are all {low:g}, expected some that differ")
    return low, high


def draw_noise(options: RefineOptions, frames: int, size: tuple[int, int], latent: tuple[int, int, int]) -> tuple[Any, Any]:
    """(of each frame's pixels as a function of its number, of the first window's latents), all from one seed."""
    keys = np.random.SeedSequence(options.seed).spawn(2)

    def pixels(number: int) -> np.ndarray:
        stream = np.random.default_rng(np.random.SeedSequence(keys[0].entropy, spawn_key=(*keys[0].spawn_key, number)))
        return stream.standard_normal((size[1], size[0], 3), np.float32)

    first = np.random.default_rng(keys[1]).standard_normal((options.window, *latent), np.float32)
    return pixels, first


def refine(
    model: VideoDiffusion,
    frames: Sequence[Any],
    disparity: Any,
    options: RefineOptions,
    *,
    span: tuple[float, float] | None = None,
    noise: tuple[Callable[[int], np.ndarray], np.ndarray] | None = None,
    progress: Progress = lambda *_: None,
) -> Refined:
    """The second stage over a whole video.

    Args:
      frames: T arrays (H, W, 3) in 0..1.
      disparity: T arrays (H, W) of the first stage; not used from noise (`options.first` None).
      span: what of the disparities becomes 0 and 1; by default `value_range` of them.
      noise: see `draw_noise`; by default drawn from the options' seed.
      progress: is told of every chunk and window.

    InputError: a first stage of another length, or without it where one is needed.
    """
    total, config, dtype = len(frames), model.config, model.dtype
    from_noise = options.first is None
    if not from_noise and (disparity is None or len(disparity) != total):
        found = "none" if disparity is None else str(len(disparity))
        raise InputError(f"the first stage has {found} of the video's {total} frames, expected as many")
    height, width = np.shape(frames[0])[:2]
    factor, scaling = config.vae.factor, config.vae.scaling_factor
    latent = (height // factor, width // factor, config.vae.latent_channels)
    pixels, first_noise = noise or draw_noise(options, total, (width, height), latent)
    chunks = [(start, min(start + options.chunk, total)) for start in range(0, total, options.chunk)]

    conditions, embeddings, starts = [], [], []
    low, high = span or ((0.0, 1.0) if from_noise else value_range(np.asarray(disparity), options))
    for start, stop in chunks:
        images = np.stack([np.asarray(frames[k]) for k in range(start, stop)]).astype(dtype) * 2 - 1
        embeddings.append(model.embed(images))
        noisy = images + dtype.type(AUGMENTATION) * np.stack([pixels(k) for k in range(start, stop)]).astype(dtype)
        conditions.append(model.encode(noisy))
        if not from_noise:
            assert disparity is not None
            d = np.stack([np.asarray(disparity[k]) for k in range(start, stop)]).astype(dtype)
            d = np.clip((d - low) / (high - low), 0, 1)
            starts.append(model.encode(np.repeat((2 * d - 1)[..., None], 3, -1).astype(dtype)) * dtype.type(scaling))
        progress("encoded frames", stop, total)
    condition, embedding = np.concatenate(conditions), np.concatenate(embeddings)
    begin = np.concatenate(starts) if starts else None

    sigmas = schedule.sigmas_of(config.schedule, options.steps)
    times, first = schedule.timesteps_of(sigmas), options.first or 0
    last = options.steps if options.passes is None else first + options.passes
    spans = windows.spans_of(total, options.window, options.overlap)
    done: np.ndarray | None = None
    for number, ((start, stop), noise_here) in enumerate(
        zip(spans, windows.noise_of(first_noise.astype(dtype), spans, options.overlap), strict=True)
    ):
        if begin is None:
            x = noise_here * dtype.type(schedule.initial_scale(config.schedule, sigmas))
        else:
            x = begin[start:stop] + dtype.type(sigmas[first]) * noise_here
        if options.share and done is not None:
            shared = done[len(done) - options.overlap :] + dtype.type(sigmas[first]) * noise_here[: options.overlap]
            x = np.concatenate([shared, x[options.overlap :]])
        x = jnp.asarray(x, dtype)
        here, context = jnp.asarray(condition[start:stop], dtype), jnp.asarray(embedding[start:stop], dtype)
        for k in range(first, last):
            v = model.predict(schedule.scale_input(x, sigmas[k]), here, times[k], context)
            x = schedule.euler_step(x, v, sigmas[k], sigmas[k + 1])
        found = np.asarray(x)
        done = found if done is None else windows.blend(done, found, options.overlap)
        progress("windows", number + 1, len(spans))
    assert done is not None
    images = []
    for start, stop in chunks:
        decoded = model.decode(done[start:stop] / dtype.type(scaling))
        images.append(np.clip(decoded / 2 + 0.5, 0, 1).mean(-1))
        progress("decoded frames", stop, total)
    return Refined(np.concatenate(images), done, condition, embedding, begin)
