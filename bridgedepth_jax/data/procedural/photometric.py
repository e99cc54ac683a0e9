"""What a pair of cameras does to a scene: lens, exposure and colour, sensor, compression, imperfect rectification."""

import math

import cv2
import numpy as np

from bridgedepth_jax.data.procedural.config import SyntheticConfig
from bridgedepth_jax.data.procedural.fields import Rng

_NOISE = np.random.default_rng(20250).standard_normal(1 << 20, dtype=np.float32)  # every sample reads other parts of it


def degrade(rng: Rng, left: np.ndarray, right: np.ndarray, config: SyntheticConfig) -> tuple[np.ndarray, np.ndarray]:
    """Both views (uint8 (H, W, 3)) as two real cameras would deliver them. The left one keeps its geometry."""
    views = [left, right]
    if rng.random() < config.misaligned:
        views[1] = _misalign(rng, right, config)
    views = _blurred(rng, views, config)
    views = _exposed(rng, views, config)
    if rng.random() < config.noise:
        read, shot = rng.uniform(*config.read_noise), rng.uniform(*config.shot_noise)
        smooth = rng.random() < 0.3
        views = [_noisy(rng, view, read, shot, smooth) for view in views]
    if rng.random() < config.sharpen:
        strength = rng.uniform(*config.sharpening)
        soft = [cv2.GaussianBlur(view, (0, 0), 1.0) for view in views]
        views = [cv2.addWeighted(view, 1 + strength, low, -strength, 0) for view, low in zip(views, soft, strict=True)]
    if rng.random() < config.jpeg:
        quality = int(rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1))
        views = [_compressed(view, quality) for view in views]
    return views[0], views[1]


def _misalign(rng: Rng, image: np.ndarray, config: SyntheticConfig) -> np.ndarray:
    """Rows shifted by a fraction of a pixel, linearly along x; columns keep their place."""
    height, width = image.shape[:2]
    shift = rng.uniform(-1, 1) * config.misalignment
    slope = rng.uniform(-1, 1) * config.misalignment_tilt / (width / 2)
    matrix = np.array([[1, 0, 0], [slope, 1, shift - slope * width / 2]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _blurred(rng: Rng, views: list[np.ndarray], config: SyntheticConfig) -> list[np.ndarray]:
    sigmas = np.full(2, rng.uniform(*config.blur) if rng.random() < 0.7 else 0.0)
    if rng.random() < config.asymmetry:
        sigmas[rng.integers(2)] += rng.uniform(0, config.view_blur)
    if rng.random() < config.motion:
        kernel = _motion_kernel(rng.uniform(*config.motion_length), rng.uniform(0, np.pi))
        views = [cv2.filter2D(view, -1, kernel, borderType=cv2.BORDER_REPLICATE) for view in views]
    return [cv2.GaussianBlur(view, (0, 0), s) if s > 0.3 else view for view, s in zip(views, sigmas, strict=True)]


def _motion_kernel(length: float, angle: float) -> np.ndarray:
    """A straight stroke of a length in pixels, sum one."""
    half = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    ends = [tuple(int(v) for v in np.round((half + s * reach) * 16)) for s in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_8, 4)
    return kernel / kernel.sum()


def _exposed(rng: Rng, views: list[np.ndarray], config: SyntheticConfig) -> list[np.ndarray]:
    """Exposure, white balance, tone curve and vignetting: shared, and a difference between the views."""
    mean = (float(np.mean(cv2.mean(views[0])[:3])) + 1.0) / 256
    wanted = rng.uniform(*config.level) / 256
    # Part of the way to the wanted level by a factor, the rest by the tone curve, which does not clip.
    factor = np.clip((wanted / mean) ** rng.uniform(0.2, 0.7), *config.level_gain)
    curve = np.clip(math.log(wanted) / math.log(min(mean * factor, 0.97)), *config.level_curve)
    gain = factor * (1 + config.tint * rng.uniform(-1, 1, 3))
    gamma = curve * rng.uniform(*config.gamma)
    corner = rng.uniform(*config.vignette) * (rng.random() < 0.4)
    different = float(rng.random() < config.asymmetry) * (3 if rng.random() < config.asymmetric_light else 1)
    out = []
    for view in views:
        own = gain * (
            1 + different * (config.view_exposure * rng.uniform(-0.5, 0.5) + config.view_tint * rng.uniform(-0.5, 0.5, 3))
        )
        exponent = gamma * (1 + different * config.view_gamma * rng.uniform(-0.5, 0.5))
        fall = corner * (1 + 0.2 * min(different, 1) * rng.uniform(-1, 1))
        table = 255 * np.clip(np.linspace(0, 1, 256)[:, None] * own, 0, None) ** exponent
        table = np.minimum(table, 235 + (table - 235) * 0.4) if rng.random() < 0.5 and exponent != 1 else table
        neutral = exponent == 1 and np.all(own == 1)
        lut = table.clip(0, 255).round().astype(np.uint8).reshape(256, 1, 3)
        view = view if neutral else cv2.LUT(view, lut)
        out.append(_vignetted(view, fall) if fall > 0.01 else view)
    return out


def _vignetted(image: np.ndarray, corner: float) -> np.ndarray:
    height, width = image.shape[:2]
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    loss = (255 * (1 - corner * 0.5 * (x[None] ** 2 + y[:, None] ** 2))).astype(np.uint8)
    return cv2.multiply(image, cv2.merge([loss] * 3), scale=1 / 255)


def _noisy(rng: Rng, image: np.ndarray, read: float, shot: float, smooth: bool) -> np.ndarray:
    start = int(rng.integers(0, max(1, _NOISE.size - image.size)))
    noise = np.resize(_NOISE[start:], image.size) if image.size > _NOISE.size - start else _NOISE[start : start + image.size]
    noise = noise.reshape(image.shape)
    if smooth:  # demosaicing and denoising leave correlated noise
        noise = cv2.GaussianBlur(noise, (3, 3), 0.7) * np.float32(1.8)
    deviation = np.sqrt(read**2 + shot**2 * np.arange(256)).astype(np.float32)
    noise = cv2.multiply(noise, cv2.LUT(image, deviation))
    return cv2.add(image, noise, dtype=cv2.CV_8U)


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.cvtColor(np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
