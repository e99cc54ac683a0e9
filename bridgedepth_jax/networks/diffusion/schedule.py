"""Noise levels, and the samplers that walk them down (spec `diffusion.md` section 4).

Everything is a pure function of a table: a[t], the share of signal in the variance at time t, `alphas_cumprod`. The table and
the coefficients of each step are numpy, computed once in float64; the walk is one `lax.scan`, so that fifty steps compile once.

B batch, ... the latent's axes, N steps, M network calls.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from bridgedepth_jax.networks.diffusion.config import ScheduleConfig

Denoiser = Callable[[Array, Array], Array]  # (x, t): the network's output
Noise = Callable[[Array], Array]  # (number of the step): unit normal noise of the latent's shape


def alphas_cumprod(config: ScheduleConfig) -> Float[np.ndarray, "T"]:
    """The table in float64: betas linear in their root; rescaled so that nothing is left at the end, for `zero_snr`."""
    betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.train_steps, dtype=np.float64) ** 2
    table = np.cumprod(1 - betas)
    if config.zero_snr:
        root = np.sqrt(table)
        table = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
    return table


def timesteps(config: ScheduleConfig, steps: int) -> np.ndarray:
    """The times of the network's calls, falling: int, for Euler over `linspace` float. PNDM has the second one twice."""
    total = config.train_steps
    if not 1 <= steps <= total:
        raise ValueError(f"{steps} sampling steps, expected 1 to {total}")
    if config.spacing == "leading":
        times = np.arange(steps)[::-1] * (total // steps) + config.steps_offset
    elif config.spacing == "trailing":
        times = np.round(total - np.arange(steps) * (total / steps)).astype(np.int64) - 1
    else:
        times = np.linspace(0, total - 1, steps)[::-1]
        times = times if config.sampler == "euler" else np.round(times).astype(np.int64)
    if config.sampler == "pndm" and steps > 1:
        times = np.concatenate([times[:2], times[1:]])
    return times


def add_noise(x0: Array, noise: Array, t: Int[Array, "B"], table: np.ndarray | Array) -> Array:
    """What `x0` has become at time t."""
    signal, rest = _roots(t, table, x0)
    return signal * x0 + rest * noise


def target(x0: Array, noise: Array, t: Int[Array, "B"], table: np.ndarray | Array, prediction: str) -> Array:
    """What a network of that kind of prediction should say of `add_noise(x0, noise, t, table)`."""
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return x0
    signal, rest = _roots(t, table, x0)
    return signal * noise - rest * x0


def _roots(t: Array, table: np.ndarray | Array, like: Array) -> tuple[Array, Array]:
    a = jnp.asarray(table, like.dtype)[t].reshape(-1, *(1,) * (like.ndim - 1))
    return jnp.sqrt(a), jnp.sqrt(1 - a)


def sample(
    predict: Denoiser,
    start: Float[Array, "B ..."],
    config: ScheduleConfig,
    steps: int,
    *,
    table: np.ndarray | None = None,
    eta: float = 0.0,
    noise: Noise | None = None,
    trajectory: bool = False,
) -> Array:
    """From unit normal noise to a latent, at least float32; with `trajectory` (M, B, ...), what each call led to.

    `table` is that of the config by default; eta > 0 (DDIM only) adds noise in every step and needs `noise`.
    """
    table = alphas_cumprod(config) if table is None else table.astype(np.float64)
    times = timesteps(config, steps)
    if eta and (config.sampler != "ddim" or noise is None):
        raise ValueError("eta needs the sampler ddim and noise")
    if config.sampler == "ddim":
        coefficients, step = _ddim(config, table, times, steps, eta, noise)
        state: Any = start
    elif config.sampler == "pndm":
        coefficients, step = _pndm(config, table, times, steps)
        state = (start, start, jnp.zeros((3, *start.shape), start.dtype))
    else:
        sigmas = euler_sigmas(config, table, steps)
        coefficients, step = _euler(config, times, sigmas)
        first = sigmas.max()
        state = start * (np.sqrt(first**2 + 1) if config.spacing == "leading" else first).astype(start.dtype)

    def body(state, inputs):
        state, x = step(predict, state, inputs)
        return state, x if trajectory else None

    scanned = {name: jnp.asarray(value.astype(start.dtype)) for name, value in coefficients.items()}
    state, samples = lax.scan(body, state, (jnp.arange(len(times)), scanned))
    if trajectory:
        assert samples is not None
        return samples
    return state[0] if config.sampler == "pndm" else state


def split_prediction(m: Array, x: Array, a: Array, prediction: str) -> tuple[Array, Array]:
    """What a prediction at x, of signal share a, says about the clean latent and about the noise."""
    signal, rest = jnp.sqrt(a), jnp.sqrt(1 - a)
    if prediction == "epsilon":
        return (x - rest * m) / signal, m
    if prediction == "sample":
        return m, (x - signal * m) / rest
    return signal * x - rest * m, signal * m + rest * x


Coefficients = dict[str, np.ndarray]
SamplerStep = Callable[[Denoiser, Any, Any], tuple[Any, Array]]


def _neighbours(config: ScheduleConfig, table: np.ndarray, times: np.ndarray, steps: int) -> Coefficients:
    before = times - config.train_steps // steps
    final = 1.0 if config.set_alpha_to_one else table[0]
    return {"t": times, "a": table[times], "b": np.where(before >= 0, table[before.clip(0)], final)}


def _ddim(
    config: ScheduleConfig, table: np.ndarray, times: np.ndarray, steps: int, eta: float, noise: Noise | None
) -> tuple[Coefficients, SamplerStep]:
    """Denoising diffusion implicit models; eta 1 is the ancestral walk of DDPM."""
    c = _neighbours(config, table, times, steps)
    c["s"] = eta * np.sqrt((1 - c["b"]) / (1 - c["a"]) * (1 - c["a"] / c["b"]))

    def step(predict, x, inputs):
        number, c = inputs
        x0, e = split_prediction(predict(x, c["t"]), x, c["a"], config.prediction)
        x0 = jnp.clip(x0, -1, 1) if config.clip_sample else x0
        x = jnp.sqrt(c["b"]) * x0 + jnp.sqrt(1 - c["b"] - c["s"] ** 2) * e
        x = x + c["s"] * noise(number) if noise is not None and eta else x
        return x, x

    return c, step


def _pndm(config: ScheduleConfig, table: np.ndarray, times: np.ndarray, steps: int) -> tuple[Coefficients, SamplerStep]:
    """Linear multistep over the last four predictions, without Runge-Kutta: the second call repeats the first step."""
    begins = times.copy()
    begins[1:2] = times[0]  # the second call's step begins where the first one's did
    c = _neighbours(config, table, begins, steps) | {"t": times}
    calls = len(times)
    # Weights of the newest prediction and of the three kept before it.
    weights = np.zeros((calls, 4))
    weights[:] = np.array([55, -59, 37, -9]) / 24
    first = [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [1.5, -0.5, 0, 0], [23 / 12, -16 / 12, 5 / 12, 0]]
    weights[:4] = np.array(first)[:calls]
    c["weights"] = weights
    c["second"] = (np.arange(calls) == 1).astype(np.float64)

    def step(predict, state, inputs):
        x, base, kept = state
        _, c = inputs
        a, b, second = c["a"], c["b"], c["second"] > 0
        m = predict(x, c["t"])
        newest = jnp.concatenate([m[None], kept])
        m = jnp.tensordot(c["weights"], newest, 1, precision="highest")
        kept = jnp.where(second, kept, newest[:3])
        base = jnp.where(second, base, x)  # the first step again, from where it began
        if config.prediction == "v_prediction":
            m = jnp.sqrt(a) * m + jnp.sqrt(1 - a) * base
        scale = a * jnp.sqrt(1 - b) + jnp.sqrt(a * (1 - a) * b)
        x = jnp.sqrt(b / a) * base - (b - a) * m / scale
        return (x, base, kept), x

    return c, step


def euler_sigmas(config: ScheduleConfig, table: np.ndarray, steps: int) -> np.ndarray:
    """Noise over signal at each time, and 0 after the last."""
    table = np.maximum(table, 2.0**-24)  # at zero SNR the ratio would be infinite
    sigmas = np.sqrt((1 - table) / table)
    return np.append(np.interp(timesteps(config, steps), np.arange(len(sigmas)), sigmas), 0.0)


def _euler(config: ScheduleConfig, times: np.ndarray, sigmas: np.ndarray) -> tuple[Coefficients, SamplerStep]:
    """Euler's method in the variable of sigma; the network sees the latent scaled to unit variance."""
    c = {"t": times, "sigma": sigmas[:-1], "after": sigmas[1:]}

    def step(predict, x, inputs):
        _, c = inputs
        sigma = c["sigma"]
        square = sigma**2 + 1
        m = predict(x / jnp.sqrt(square), c["t"])
        if config.prediction == "epsilon":
            x0 = x - sigma * m
        elif config.prediction == "v_prediction":
            x0 = x / square - sigma / jnp.sqrt(square) * m
        else:
            x0 = m
        x = x + (x - x0) / sigma * (c["after"] - sigma)
        return x, x

    return c, step
