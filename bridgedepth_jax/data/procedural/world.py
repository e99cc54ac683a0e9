"""The shared draws of one scene and its geometry.

The camera is at the origin, x right, y down, z forward, in units of the baseline: a point seen at the left pixel (x, y)
with disparity d is (x - cx, y - cy, f) / d. So a plane is an affine disparity, and the ground is k (y - cy).
"""

import dataclasses
import math

import numpy as np

from bridgedepth_jax.data.procedural.config import SyntheticConfig
from bridgedepth_jax.data.procedural.fields import Rng
from bridgedepth_jax.data.procedural.render import Box, Canvas, Layer, Plane
from bridgedepth_jax.data.procedural.textures import TextureBank


@dataclasses.dataclass
class World:
    """The draws shared by everything in one scene; disparities in pixels."""

    rng: Rng
    config: SyntheticConfig
    bank: TextureBank
    canvas: Canvas
    limit: float  # no disparity above
    near: float
    far: float
    focal: float
    cx: float
    cy: float  # row of the horizon
    slope: float = 0.0  # ground disparity per row below the horizon
    light: tuple[float, float] = (0.0, 0.0)

    @property
    def height(self) -> int:
        return self.canvas.height

    @property
    def width(self) -> int:
        return self.canvas.width

    def everywhere(self) -> Box:
        """Left pixels that either view can show."""
        return 0, 0, self.width + int(self.limit) + 2, self.height

    def depth(self) -> float:
        """A disparity between far and near, evenly in log or in pixels."""
        if self.rng.random() < 0.5:
            return float(np.exp(self.rng.uniform(np.log(max(self.far, 0.5)), np.log(self.near))))
        return float(self.rng.uniform(self.far, self.near))


def paint(world: World, layer: Layer | None) -> None:
    if layer is not None and shown(world, layer.plane, layer.box):
        world.canvas.paint(layer)


def shown(world: World, plane: Plane, box: Box) -> bool:
    """Whether a box of the left view is large enough to paint and at least partly inside either view."""
    x0, y0, x1, y1 = box
    disparity = max(plane[0] * x0, plane[0] * x1) + max(plane[1] * y0, plane[1] * y1) + plane[2]
    inside = x1 > 0 and y1 > 0 and y0 < world.height and x0 - disparity < world.width
    return inside and x1 - x0 >= 4 and y1 - y0 >= 4


def tilted(world: World, d: float, x: float, y: float, most: float) -> Plane:
    """A plane of disparity d at the left pixel (x, y), whose relative slope is that of a surface tilted at random."""
    rng = world.rng
    strength = rng.uniform(*world.config.tilt) * d / world.width * 4 * (rng.random() < 0.75)
    strength = min(strength, most)
    turn = rng.uniform(0, 2 * np.pi)
    a, b = strength * np.cos(turn), strength * np.sin(turn)
    return float(a), float(b), float(d - a * x - b * y)


def within(world: World, plane: Plane, box: Box) -> Plane:
    """The plane, flattened about the box's centre as far as needed to stay within 0..limit over the box."""
    a, b, c = plane
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    d = min(max(a * x + b * y + c, 0.0), world.limit * 0.98)
    swing = abs(a) * (box[2] - box[0]) / 2 + abs(b) * (box[3] - box[1]) / 2
    room = min(d, world.limit * 0.985 - d)
    shrink = min(1.0, room / swing) if swing > 0 else 1.0
    a, b = a * shrink, b * shrink
    return a, b, d - a * x - b * y


def on_plane(world: World, plane: Plane, x: float, y: float, size: int, angle: float | None = None) -> np.ndarray:
    """Homography from left pixels to texels for a texture lying in a plane, anchored where it is seen at (x, y).

    Texel coordinates are those of the point along two unit vectors in the plane, the first of them level, then turned.
    """
    rng, f, cx, cy = world.rng, world.focal, world.cx, world.cy
    a, b, c = plane
    if angle is None:
        angle = rng.uniform(0, 2 * math.pi) if rng.random() < 0.5 else 0.0
    nz = (c + a * cx + b * cy) / f  # the plane's normal is (a, b, nz)
    length = math.sqrt(a * a + b * b + nz * nz) + 1e-12
    nx, ny, nz = a / length, b / length, nz / length
    level = math.hypot(nx, nz)
    ax, az = (nz / level, -nx / level) if level > 1e-6 else (1.0, 0.0)
    along, across = (ax, 0.0, az), (ny * az, nz * ax - nx * az, -ny * ax)
    density = max(a * x + b * y + c, 0.05) * rng.uniform(*world.config.texel)
    cos, sin = density * math.cos(angle), density * math.sin(angle)
    q = a * x + b * y + c
    rows = []
    for p, r in ((cos, sin), (-sin, cos)):
        e = [p * along[i] + r * across[i] for i in range(3)]
        row = [e[0], e[1], e[2] * f - e[0] * cx - e[1] * cy]
        shift = rng.uniform(0.2, 0.8) * size - (row[0] * x + row[1] * y + row[2]) / q
        rows.append([row[i] + shift * plane[i] for i in range(3)])
    return np.array([*rows, plane]) / (max(abs(a), abs(b), abs(c)) + 1e-12)


def bounds(x: float, y: float, width: float, height: float) -> Box:
    return int(x - width / 2), int(y - height / 2), int(x + width / 2) + 1, int(y + height / 2) + 1


def stretched(size: int, box: Box) -> np.ndarray:
    """Homography that spreads a square texture over a box."""
    x, y = (size - 1) / max(box[2] - box[0] - 1, 1), (size - 1) / max(box[3] - box[1] - 1, 1)
    return np.array([[x, 0, -box[0] * x], [0, y, -box[1] * y], [0, 0, 1]])
