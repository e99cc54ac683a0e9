"""Euler's method for video diffusion: continuous times, Karras' noise levels (spec `video.md` section 3).

Everything is numpy in float64, a table of noise levels; one step is a pure function. Karras et al., arXiv 2206.00364.
"""

import numpy as np
from jaxtyping import Array, Float

from bridgedepth_jax.networks.video.config import VideoScheduleConfig

Latent = Array | np.ndarray
LEAST_SIGNAL = 2.0**-24  # share of signal at the last noise level, where there would be none


def noise_table(config: VideoScheduleConfig) -> Float[np.ndarray, "N"]:
    """Noise over signal at each time of training."""
    ends = config.beta_start, config.beta_end
    if config.beta_schedule == "linear":
        betas = np.linspace(*ends, config.train_steps)
    else:
        betas = np.linspace(ends[0] ** 0.5, ends[1] ** 0.5, config.train_steps) ** 2
    signal = np.cumprod(1 - betas)
    if config.zero_snr:
        root = np.sqrt(signal)
        signal = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
        signal[-1] = LEAST_SIGNAL
    return np.sqrt((1 - signal) / signal)


def sigmas_of(config: VideoScheduleConfig, steps: int) -> Float[np.ndarray, "S"]:
    """Noise levels of `steps` steps, falling, and 0 after the last. ValueError: a number of steps that cannot be."""
    total = config.train_steps
    if not 1 <= steps <= total:
        raise ValueError(f"{steps} sampling steps, expected 1 to {total}")
    if config.karras:
        low, high = config.sigma_min ** (1 / config.rho), config.sigma_max ** (1 / config.rho)
        sigmas = (high + np.linspace(0, 1, steps) * (low - high)) ** config.rho
        return np.append(sigmas, 0.0)
    if config.spacing == "leading":
        times = np.arange(steps)[::-1] * (total // steps) + config.steps_offset
    elif config.spacing == "trailing":
        times = np.round(total - np.arange(steps) * (total / steps)) - 1
    else:
        times = np.linspace(0, total - 1, steps)[::-1]
    table = noise_table(config)
    return np.append(np.interp(times, np.arange(total), table), 0.0)


def timesteps_of(sigmas: Float[np.ndarray, "S"]) -> Float[np.ndarray, "M"]:
    """What the network is told of each noise level but the last 0."""
    return 0.25 * np.log(sigmas[:-1])


def initial_scale(config: VideoScheduleConfig, sigmas: Float[np.ndarray, "S"]) -> float:
    """Deviation of the noise from which sampling begins."""
    largest = float(sigmas.max())
    return largest if config.spacing in ("trailing", "linspace") else float(np.sqrt(largest**2 + 1))


def scale_input(x: Latent, sigma: float) -> Latent:
    """A noisy latent as the network sees it."""
    return x * float(1 / np.sqrt(sigma**2 + 1))


def denoised(x: Latent, v: Latent, sigma: float) -> Latent:
    """What a v-prediction at a noise level says about the clean latent."""
    return x * float(1 / (sigma**2 + 1)) - v * float(sigma / np.sqrt(sigma**2 + 1))


def euler_step(x: Latent, v: Latent, sigma: float, after: float) -> Latent:
    """From noise level `sigma` to `after`."""
    return x + (x - denoised(x, v, sigma)) * float((after - sigma) / sigma)
