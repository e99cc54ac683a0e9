"""Walls, floors, skies and backdrops, and the soft light baked into them."""

import cv2
import numpy as np

from bridgedepth_jax.data.procedural.fields import smooth_noise
from bridgedepth_jax.data.procedural.render import Box, Gloss, Layer, Plane
from bridgedepth_jax.data.procedural.world import World, on_plane, stretched, within

_ACROSS = np.repeat(np.linspace(-0.5, 0.5, 5)[None], 5, 0)


def lit(world: World, texture: np.ndarray, strength: float) -> np.ndarray:
    """A texture under soft uneven light."""
    rng = world.rng
    if rng.random() < 0.35:
        return texture
    slope = _ACROSS * rng.normal(0, 0.6) + _ACROSS.T * rng.normal(0.2, 0.6)
    light = 1 - strength * rng.uniform(0.2, 1) * (0.5 * rng.random(slope.shape) + slope + 0.2).clip(0, 1)
    light = cv2.resize((light * 255).astype(np.uint8), texture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(texture, cv2.merge([light] * 3), scale=1 / 255)


def reflection(world: World, box: Box, d: float) -> Gloss:
    """A blurred picture of the surroundings, farther than the surface of disparity d that shows it."""
    rng = world.rng
    texture = cv2.blur(world.bank.surface(rng, 64), (5, 5))
    return Gloss([texture], stretched(64, box), rng.uniform(*world.config.gloss_strength), d * rng.uniform(0.1, 0.6))


def plain(world: World, plane: Plane, texture: np.ndarray) -> Layer:
    """A surface that fills the picture."""
    box = world.everywhere()
    plane = within(world, plane, box)
    texture = lit(world, texture, 0.5)
    d = plane[0] * world.cx + plane[1] * world.height / 2 + plane[2]
    if d < 1.5 or max(abs(plane[0]), abs(plane[1])) * world.width < 0.02 * d:
        h = _stretch(world, texture, box)
    else:
        h = on_plane(world, plane, world.width / 2, world.height / 2, texture.shape[0])
    return Layer(plane, [texture], h, box)


def _stretch(world: World, texture: np.ndarray, box: Box) -> np.ndarray:
    """A flat similarity: any rotation by a quarter, texels per pixel from the config."""
    s = world.rng.uniform(*world.config.texel)
    return np.array([[s, 0, world.rng.uniform(0, texture.shape[1] * 0.3) - box[0] * s], [0, s, -box[1] * s], [0, 0, 1.0]])


def bend(world: World, layer: Layer, most: float) -> None:
    """Adds smooth relief: |slope| < 0.35, disparity within 0..limit."""
    rng = world.rng
    x0, y0, x1, y1 = layer.box
    height, width = y1 - y0, x1 - x0
    relief = smooth_noise(rng, height, width, rng.uniform(2, 7)) - np.float32(0.5)
    if rng.random() < 0.4:  # folds
        relief = np.repeat(relief[height // 2 : height // 2 + 1], height, 0)
    steepest = float(np.abs(np.diff(relief, axis=1)).max()) + 1e-6
    relief *= min(most, 0.35 / steepest)
    corners = [layer.plane[0] * x + layer.plane[1] * y + layer.plane[2] for x in (x0, x1) for y in (y0, y1)]
    room = min(min(corners), world.limit * 0.99 - max(corners))
    peak = float(np.abs(relief).max()) + 1e-6
    layer.relief = np.ascontiguousarray(relief * np.float32(max(0.0, min(1.0, 0.98 * room / peak))))


def wall(world: World, plane: Plane, family=None, top: float = -1e9) -> Layer:
    """An upright plane, kept where its disparity is within 0..limit, from the row `top` down."""
    a, b, c = plane
    x0, y0, x1, y1 = world.everywhere()
    y0 = int(np.clip(top, y0, y1))
    if abs(a) > 1e-9:
        ends = sorted(((0.02 - c - b * y0) / a, (world.limit * 0.98 - c - b * y0) / a))
        x0, x1 = max(x0, int(np.ceil(ends[0]))), min(x1, int(ends[1]))
    if abs(b) > 1e-9:
        ends = sorted(((0.02 - c) / b, (world.limit * 0.98 - c) / b))
        y0, y1 = max(y0, int(np.ceil(ends[0]))), min(y1, int(ends[1]))
    box = x0, y0, max(x1, x0), max(y1, y0)
    texture = lit(world, world.bank.surface(world.rng, 512, family=family), 0.4)
    # Where it is nearest decides the density.
    x = x1 if a > 0 else x0
    y = y1 if b > 0 else y0
    h = on_plane(world, plane, float(np.clip(x, 0, world.width)), float(y), 512, 0.0)
    return Layer(plane, [texture], h, box)


def floor(world: World, family=None) -> Layer:
    """The ground, from just below the horizon down."""
    k = world.slope
    box = world.everywhere()
    top = max(box[1], int(world.cy + max(1.0, 0.02 / max(k, 1e-6))) + 1)
    k = min(k, 0.98 * world.limit / max(world.height - world.cy, 1))
    plane = (0.0, k, -k * world.cy)
    texture = lit(world, world.bank.surface(world.rng, 512, family=family), 0.4)
    h = on_plane(world, plane, world.width / 2, world.height - 1, 512, 0.0 if family else None)
    box = (box[0], min(top, box[3]), box[2], box[3])
    layer = Layer(plane, [texture], h, box)
    if world.rng.random() < world.config.gloss / 2:
        layer.gloss = reflection(world, box, k * (world.height - world.cy) / 2)
    return layer


def sky(world: World) -> np.ndarray:
    rng = world.rng
    top = np.array([rng.uniform(60, 190), rng.uniform(120, 205), rng.uniform(190, 250)])
    top = top if rng.random() < 0.6 else np.full(3, rng.uniform(150, 250))
    low = top + (255 - top) * rng.uniform(0.2, 0.9)
    ramp = np.linspace(top, low, 512).astype(np.float32)[:, None]
    image = np.repeat(ramp, 512, 1)
    if rng.random() < 0.6:
        cloud = np.clip(smooth_noise(rng, 512, 512, 4) + 0.4 * smooth_noise(rng, 512, 512, 15) - rng.uniform(0.6, 1), 0, 0.6)
        image += (250 - image) * cloud[..., None]
    return image.clip(0, 255).astype(np.uint8)
