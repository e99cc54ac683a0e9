"""Shadows, highlights and haze, laid over what has been painted."""

import cv2
import numpy as np

from bridgedepth_jax.data.procedural.fields import smooth_noise
from bridgedepth_jax.data.procedural.world import World


def contact_shadows(world: World, places) -> np.ndarray:
    """uint8 over left pixels / 4: dark patches where things (disparity, x, foot row, height) stand on the ground."""
    rng = world.rng
    shade = np.full((world.height // 4, world.everywhere()[2] // 4), 255, np.uint8)
    dark, slant, flat = rng.uniform(70, 180), world.light[0] * 0.3, rng.uniform(0.03, 0.12)
    for _, x, foot, height in places:
        centre = (x + slant * height) / 4, foot / 4
        axes = height * rng.uniform(0.3, 0.9) / 4, max(1.0, height * flat / 2)
        cv2.ellipse(shade, (centre, axes, 0), dark, -1, cv2.LINE_AA)
    return cv2.blur(shade, (5, 5))


def soft_shadow(world: World) -> np.ndarray:
    """uint8 over left pixels / 4: light that varies softly or with cast outlines."""
    rng = world.rng
    height, width = world.height // 4, world.everywhere()[2] // 4
    if rng.random() < 0.5:
        field = smooth_noise(rng, height, width, rng.uniform(1.5, 5))
        return (255 * (1 - rng.uniform(0.15, 0.6) * np.clip(field, 0, 1))).astype(np.uint8)
    field = smooth_noise(rng, height, width, rng.uniform(2, 10)) > rng.uniform(0.5, 0.75)
    shade = np.where(field, np.uint8(rng.uniform(90, 200)), np.uint8(255))
    return cv2.GaussianBlur(shade, (0, 0), rng.uniform(0.6, 4))


def _lookup(field: np.ndarray, x: np.ndarray, height: int) -> np.ndarray:
    rows = np.repeat(((np.arange(height, dtype=np.float32) + 0.5) / 4 - 0.5)[:, None], x.shape[1], 1)
    return cv2.remap(field, (x + 0.5) / 4 - 0.5, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def shade(world: World, field: np.ndarray) -> None:
    """Multiplies both views by a light field that lies on the surfaces painted so far."""
    columns = np.broadcast_to(np.arange(world.width, dtype=np.float32)[None], (world.height, world.width))
    for view, x in ((world.canvas.left, columns), (world.canvas.right, columns + world.canvas.right.disparity)):
        light = _lookup(field, x, world.height)
        view.image[:] = cv2.multiply(view.image, cv2.merge([light] * 3), scale=1 / 255)


def highlight(world: World) -> None:
    """Bright spots that sit at another depth than the surface they are seen on."""
    rng = world.rng
    field = np.zeros((world.height // 4, world.everywhere()[2] // 4), np.uint8)
    for _ in range(int(rng.integers(1, 9))):
        centre = tuple(int(v) for v in rng.uniform(0, 1, 2) * field.shape[::-1])
        axes = tuple(int(v) for v in 10 ** rng.uniform(-2.5, -1.5, 2) * field.shape[1] + 1)
        cv2.ellipse(field, centre, axes, rng.uniform(0, 180), 0, 360, int(rng.uniform(30, 200)), -1, cv2.LINE_AA)
    field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.7, 3))
    columns = np.broadcast_to(np.arange(world.width, dtype=np.float32)[None], (world.height, world.width))
    shift = np.float32(rng.uniform(-1, 1) * world.config.highlight_shift)
    for view, x in ((world.canvas.left, columns), (world.canvas.right, columns + world.canvas.right.disparity + shift)):
        light = _lookup(field, x, world.height)
        view.image[:] = cv2.add(view.image, cv2.merge([light] * 3))


def veil(world: World) -> None:
    """Haze: colours fade towards a light grey with distance."""
    rng = world.rng
    colour = np.array([*(rng.uniform(160, 240) * rng.uniform(0.95, 1.0, 3)), 0.0])
    depth = rng.uniform(*world.config.haze_depth) * world.near
    for view in (world.canvas.left, world.canvas.right):
        clear = 1 - world.config.haze_most * np.exp(-view.disparity / np.float32(depth))
        weight = cv2.merge([clear] * 3)
        mixed = cv2.multiply(cv2.subtract(view.image, colour, dtype=cv2.CV_32F), weight)
        view.image[:] = cv2.add(mixed, colour, dtype=cv2.CV_8U)
