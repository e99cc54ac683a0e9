"""Layouts: what stands where. Each draws a world for one sample and paints it on a canvas.

The camera is at the origin, x right, y down, z forward, in units of the baseline: a point seen at the left pixel (x, y)
with disparity d is (x - cx, y - cy, f) / d. So a plane is an affine disparity, and a ground plane k (y - cy).
"""

import dataclasses

import cv2
import numpy as np

from bridgedepth_jax.data.synthetic import fields, shapes
from bridgedepth_jax.data.synthetic.config import SyntheticConfig
from bridgedepth_jax.data.synthetic.fields import Rng, smooth_noise
from bridgedepth_jax.data.synthetic.render import Box, Canvas, Layer, Plane, warp_texture
from bridgedepth_jax.data.synthetic.textures import TextureBank
from bridgedepth_jax.data.synthetic.warp import random_disparity, warp_photo


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


def render(rng: Rng, canvas: Canvas, limit: float, bank: TextureBank, config: SyntheticConfig) -> None:
    """Draws a layout and paints it. All painted disparities lie in 0..limit."""
    low, high = np.log(config.near[0]), np.log(config.near[1])
    near = float(np.exp(rng.uniform(low, high))) * limit if rng.random() < 0.7 else rng.uniform(*config.near) * limit
    near = max(near, min(2.0, 0.9 * limit))
    world = World(
        rng=rng,
        config=config,
        bank=bank,
        canvas=canvas,
        limit=limit,
        near=near,
        far=near * rng.uniform(*config.far),
        focal=canvas.width * rng.uniform(*config.focal),
        cx=canvas.width * rng.uniform(0.2, 0.8),
        cy=canvas.height * (rng.uniform(0.2, 0.6) if rng.random() < 0.7 else rng.uniform(-0.6, 0.9)),
        light=(rng.uniform(-0.7, 0.7), rng.uniform(-0.8, 0.2)),
    )
    names = [name for name, _ in config.layouts]
    weights = np.array([weight for _, weight in config.layouts], float)
    LAYOUTS[names[int(rng.choice(len(names), p=weights / weights.sum()))]](world)
    if rng.random() < config.shadows:
        _shade(world, _soft_shadow(world))
    if rng.random() < config.highlights:
        _highlight(world)
    if rng.random() < config.transparent:
        _pane(world)
    if rng.random() < config.haze:
        _veil(world)


# Layouts


def room(world: World) -> None:
    """Floor, back wall, perhaps side walls and a ceiling; things on the floor and on the walls."""
    rng = world.rng
    _ground(world)
    back = world.far
    yaw = rng.normal(0, 0.08) * back / world.width * 2 if rng.random() < 0.5 else 0.0
    layers = [_wall(world, (yaw, 0.0, max(back - yaw * world.cx, 0.3)))]
    for side in (-1, 1):
        if rng.random() < 0.5:
            reach = rng.uniform(0.25, 0.75) * world.width  # of the corner from cx
            lean = rng.uniform(0.4, 1) * (0.9 * world.near - back) / max(world.width * (0.5 + 0.3), 1)
            layers.append(_wall(world, (side * lean, 0.0, back - lean * (reach * 0.5 + side * world.cx))))
    if rng.random() < 0.35:
        ceiling = -world.slope * rng.uniform(0.3, 0.8)
        layers.append(_wall(world, (0.0, ceiling, -ceiling * world.cy * rng.uniform(0.7, 1.0))))
    layers.append(_floor(world))
    for layer in layers:
        _paint(world, layer)
    for _ in range(int(rng.integers(0, 5))):  # pictures, shelves, doors: just before the wall
        _paint(world, _panel(world, back * rng.uniform(1.0, 1.08)))
    _standing(world, _count(world))


def street(world: World) -> None:
    """Road to the horizon, sky, rows of houses and trees, posts and vehicles."""
    rng = world.rng
    world.far = rng.uniform(0, 0.04) * world.near
    _ground(world)
    sky = _plain(world, (0.0, 0.0, float(rng.uniform(0, 0.6))), _sky(world))
    _paint(world, sky)
    for _ in range(int(rng.integers(1, 4))):  # skyline
        d = rng.uniform(0.02, 0.15) * world.near
        _paint(
            world,
            _upright(
                world, d, rng.uniform(0, world.width), world.width * rng.uniform(0.3, 1.2), world.height * rng.uniform(0.1, 0.4)
            ),
        )
    for side in (-1, 1):
        if rng.random() < 0.7:
            offset = rng.uniform(0.02, 0.2) * world.width
            lean = rng.uniform(0.5, 1.1) * world.near / world.width
            plane = (side * lean, 0.0, -lean * (offset + side * world.cx))
            family = rng.choice((fields.facade, fields.bricks, fields.foliage, None))
            top = world.cy - rng.uniform(0.1, 1) * world.height
            _paint(world, _wall(world, plane, family=family, top=top))
    _paint(world, _floor(world, fields.road if rng.random() < 0.6 else None))
    _standing(world, _count(world), vehicles=0.35)


def tabletop(world: World) -> None:
    """A patterned, often curved backdrop close behind the things, perhaps a table."""
    rng = world.rng
    world.far = world.near * rng.uniform(0.25, 0.75)
    world.cy = world.height * rng.uniform(-1.5, 0.3)
    world.slope = (world.near - 0.0) / max(world.height - world.cy, 1)
    plane = _tilted(world, world.far, world.cx, world.height / 2, 0.12)
    backdrop = _plain(world, plane, world.bank.surface(rng, 512))
    if rng.random() < 0.6:
        _bend(world, backdrop, rng.uniform(0.02, 0.25) * world.far)
    _paint(world, backdrop)
    if rng.random() < 0.6:
        _paint(world, _floor(world))
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.5:
            _plant(world, world.depth())
    _standing(world, _count(world))


def flying(world: World) -> None:
    """Anything anywhere."""
    rng = world.rng
    backdrop = _plain(world, _tilted(world, world.far, world.cx, world.height / 2, 0.25), world.bank.surface(rng, 512))
    if rng.random() < 0.3:
        _bend(world, backdrop, rng.uniform(0.02, 0.3) * world.far)
    _paint(world, backdrop)
    if rng.random() < 0.3:
        _ground(world)
        _paint(world, _floor(world))
    depths = sorted(world.depth() for _ in range(int(_count(world) * 1.4)))
    for d in depths:
        x, y = rng.uniform(-0.05, 1.05) * world.width + d / 2, rng.uniform(0, 1) * world.height
        if rng.random() < 0.2:
            _box(world, d, x, y, rng.uniform(0, 6.3), rng.uniform(-0.8, 0.8))
        else:
            _paint(world, _free(world, d, x, y))


def photo(world: World) -> None:
    """One photograph with a smooth random disparity; sometimes a few things in front."""
    rng, canvas = world.rng, world.canvas
    width = world.everywhere()[2]
    picture = world.bank.any_photo(rng, world.height, width)
    disparity = random_disparity(rng, picture, world.far, world.near)
    image, filled = warp_photo(picture, disparity)
    canvas.left.image[:] = picture[:, : world.width]
    canvas.right.image[:] = image[:, : world.width]
    canvas.left.disparity[:] = disparity[:, : world.width]
    canvas.right.disparity[:] = filled[:, : world.width]
    if rng.random() < 0.5:
        for d in sorted(world.depth() for _ in range(int(rng.integers(1, 7)))):
            _paint(world, _free(world, d, rng.uniform(0, 1) * world.width + d / 2, rng.uniform(0, 1) * world.height))


LAYOUTS = {"room": room, "street": street, "tabletop": tabletop, "flying": flying, "photo": photo}


# Surfaces


def _paint(world: World, layer: Layer | None) -> None:
    if layer is not None and _shown(world, layer.plane, layer.box):
        world.canvas.paint(layer)


def _shown(world: World, plane: Plane, box: Box) -> bool:
    """Whether a box of the left view is large enough to paint and at least partly inside either view."""
    x0, y0, x1, y1 = box
    disparity = max(plane[0] * x0, plane[0] * x1) + max(plane[1] * y0, plane[1] * y1) + plane[2]
    inside = x1 > 0 and y1 > 0 and y0 < world.height and x0 - disparity < world.width
    return inside and x1 - x0 >= 4 and y1 - y0 >= 4


def _count(world: World) -> int:
    low, high = world.config.objects
    return int(world.rng.integers(low, high + 1)) * (2 if world.rng.random() < world.config.clutter else 1)


def _ground(world: World) -> None:
    """Sets the slope of the ground: `near` at the lowest row or a little below the picture."""
    world.slope = world.near * world.rng.uniform(0.6, 1.0) / max(world.height - world.cy, 1)


def _tilted(world: World, d: float, x: float, y: float, most: float) -> Plane:
    """A plane of disparity d at the left pixel (x, y), whose relative slope is that of a surface tilted at random."""
    rng = world.rng
    strength = rng.uniform(*world.config.tilt) * d / world.width * 4 * (rng.random() < 0.75)
    strength = min(strength, most)
    turn = rng.uniform(0, 2 * np.pi)
    a, b = strength * np.cos(turn), strength * np.sin(turn)
    return float(a), float(b), float(d - a * x - b * y)


def _within(world: World, plane: Plane, box: Box) -> Plane:
    """The plane, flattened about the box's centre as far as needed to stay within 0..limit over the box."""
    a, b, c = plane
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    d = min(max(a * x + b * y + c, 0.0), world.limit * 0.98)
    swing = abs(a) * (box[2] - box[0]) / 2 + abs(b) * (box[3] - box[1]) / 2
    room = min(d, world.limit * 0.985 - d)
    shrink = min(1.0, room / swing) if swing > 0 else 1.0
    a, b = a * shrink, b * shrink
    return a, b, d - a * x - b * y


def _on_plane(world: World, plane: Plane, x: float, y: float, size: int, angle: float | None = None) -> np.ndarray:
    """Homography from left pixels to texels for a texture lying in a plane, anchored where it is seen at (x, y)."""
    rng, f, cx, cy = world.rng, world.focal, world.cx, world.cy
    a, b, c = plane
    along, across = _axes(a, b, (c + a * cx + b * cy) / f)
    angle = rng.choice((0.0, rng.uniform(0, 2 * np.pi))) if angle is None else angle
    d = max(a * x + b * y + c, 0.05)
    density = d * rng.uniform(*world.config.texel)
    cos, sin = density * np.cos(angle), density * np.sin(angle)
    first, second = along * cos + across * sin, across * cos - along * sin
    h = np.array([[e[0], e[1], e[2] * f - e[0] * cx - e[1] * cy] for e in (first, second)] + [plane])
    u, v, q = h @ (x, y, 1.0)
    offset = rng.uniform(0.2, 0.8, 2) * size
    h[0] += (offset[0] - u / q) * h[2]
    h[1] += (offset[1] - v / q) * h[2]
    return h / (np.abs(h[2]).max() + 1e-12)


def _axes(nx: float, ny: float, nz: float) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors that span the plane of a normal: the first level, the second down the plane."""
    length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
    nx, ny, nz = nx / length, ny / length, nz / length
    flat = np.hypot(nx, nz)
    ax, az = (nz / flat, -nx / flat) if flat > 1e-6 else (1.0, 0.0)
    return np.array([ax, 0.0, az]), np.array([ny * az, nz * ax - nx * az, -ny * ax])


def _plain(world: World, plane: Plane, texture: np.ndarray) -> Layer:
    """A surface that fills the picture."""
    box = world.everywhere()
    plane = _within(world, plane, box)
    texture = _lit(world, texture, 0.5)
    d = plane[0] * world.cx + plane[1] * world.height / 2 + plane[2]
    if d < 1.5 or max(abs(plane[0]), abs(plane[1])) * world.width < 0.02 * d:
        h = _stretch(world, texture, box)
    else:
        h = _on_plane(world, plane, world.width / 2, world.height / 2, texture.shape[0])
    return Layer(plane, [texture], h, box)


def _stretch(world: World, texture: np.ndarray, box: Box) -> np.ndarray:
    """A flat similarity: any rotation by a quarter, texels per pixel from the config."""
    s = world.rng.uniform(*world.config.texel)
    return np.array([[s, 0, world.rng.uniform(0, texture.shape[1] * 0.3) - box[0] * s], [0, s, -box[1] * s], [0, 0, 1.0]])


def _bend(world: World, layer: Layer, most: float) -> None:
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


def _lit(world: World, texture: np.ndarray, strength: float) -> np.ndarray:
    """A texture under soft uneven light."""
    rng = world.rng
    if rng.random() < 0.35:
        return texture
    n = 5
    light = rng.random((n, n), np.float32)
    y, x = np.mgrid[:n, :n] / (n - 1) - 0.5
    light = 1 - strength * rng.uniform(0.2, 1) * np.clip(
        0.5 * light + rng.normal(0, 0.6) * x + rng.normal(0.2, 0.6) * y + 0.2, 0, 1
    )
    light = cv2.resize((light * 255).astype(np.uint8), texture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(texture, cv2.merge([light] * 3), scale=1 / 255)


def _wall(world: World, plane: Plane, family=None, top: float = -1e9) -> Layer:
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
    texture = _lit(world, world.bank.surface(world.rng, 512, family=family), 0.4)
    # Where it is nearest decides the density.
    x = x1 if a > 0 else x0
    y = y1 if b > 0 else y0
    h = _on_plane(world, plane, float(np.clip(x, 0, world.width)), float(y), 512, 0.0)
    return Layer(plane, [texture], h, box)


def _floor(world: World, family=None) -> Layer:
    """The ground, from just below the horizon down."""
    k = world.slope
    box = world.everywhere()
    top = max(box[1], int(world.cy + max(1.0, 0.02 / max(k, 1e-6))) + 1)
    k = min(k, 0.98 * world.limit / max(world.height - world.cy, 1))
    plane = (0.0, k, -k * world.cy)
    texture = _lit(world, world.bank.surface(world.rng, 512, family=family), 0.4)
    h = _on_plane(world, plane, world.width / 2, world.height - 1, 512, 0.0 if family else None)
    box = (box[0], min(top, box[3]), box[2], box[3])
    return Layer(plane, [texture], h, box)


def _sky(world: World) -> np.ndarray:
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


# Things


def _standing(world: World, count: int, vehicles: float = 0.0) -> None:
    """Things with their feet on the ground (or hanging at random where there is none), far to near."""
    rng = world.rng
    lowest = max(world.far, 0.02 * world.near, 0.3)
    depths = np.exp(rng.uniform(np.log(lowest), np.log(max(world.near, lowest * 1.1)), count))
    places = []
    for d in np.sort(depths).tolist():
        x = rng.uniform(-0.05, 1.05) * world.width + d / 2
        foot = world.cy + d / world.slope if world.slope else rng.uniform(0.4, 1) * world.height
        scale = d * rng.uniform(0.3, 2.0) if rng.random() < 0.4 else world.height * 10 ** rng.uniform(-1.2, -0.1)
        height = float(np.clip(scale, 6, 0.9 * world.height))
        if rng.random() < 0.1:
            foot -= height * rng.uniform(0, 1)
        places.append((d, x, foot, height))
    if world.slope and rng.random() < world.config.shadows:
        _shade(world, _contact_shadows(world, places))
    for d, x, foot, height in places:
        draw = rng.random()
        if draw < vehicles:
            _vehicle(world, d, x, foot)
        elif draw < vehicles + 0.25:
            _box(world, d, x, foot - height / 2, rng.uniform(0, 6.3), 0.0, height)
        elif draw < vehicles + 0.35:
            _plant(world, d, x, foot, height)
        else:
            width = height * 10 ** rng.uniform(-0.6, 0.4)
            _paint(world, _upright(world, d, x, width, height, foot))


def _bounds(x: float, y: float, width: float, height: float) -> Box:
    return int(x - width / 2), int(y - height / 2), int(x + width / 2) + 1, int(y + height / 2) + 1


def _upright(world: World, d: float, x: float, width: float, height: float, foot: float | None = None) -> Layer | None:
    """A flat or rounded thing facing the camera more or less, upright."""
    rng = world.rng
    foot = world.cy + (d / world.slope if world.slope else 0.0) if foot is None else foot
    box = _bounds(x, foot - height / 2, min(width, 1.5 * world.width), height)
    a = rng.normal(0, 0.15) * d / world.width * 2
    plane = (a, 0.0, d - a * x)
    return _thing(world, plane, box)


def _free(world: World, d: float, x: float, y: float) -> Layer | None:
    rng = world.rng
    size = world.height * 10 ** rng.uniform(-1.2, -0.1)
    aspect = 10 ** rng.uniform(-0.35, 0.45)
    return _thing(world, _tilted(world, d, x, y, 0.4), _bounds(x, y, size * aspect, size / aspect))


def _thing(world: World, plane: Plane, box: Box) -> Layer | None:
    """A surface with a random outline; some are rounded."""
    rng = world.rng
    height, width = box[3] - box[1], box[2] - box[0]
    plane = _within(world, plane, box)
    if height > 4 * world.height or width > 4 * world.width or not _shown(world, plane, box):
        return None
    thin = rng.random() < world.config.thin
    outline = (shapes.THIN if thin else shapes.SOLID)[int(rng.integers(len(shapes.THIN if thin else shapes.SOLID)))]
    mask = outline(rng, height, width)
    size = _texture_size(box)
    if outline is shapes.foliage:
        texture = world.bank.surface(rng, size, family=fields.foliage)
    elif thin:
        texture = _lit(world, np.full((64, 64, 3), fields.natural_colour(rng), np.uint8), 0.6)
        texture = texture if rng.random() < 0.6 else world.bank.surface(rng, size)
    else:
        texture = _lit(world, world.bank.surface(rng, size), 0.6)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    layer = Layer(plane, [texture], _on_plane(world, plane, x, y, size), box, mask)
    if thin and texture.shape[0] == 64:
        layer.to_texture = np.array(
            [[60 / width, 0, 2 - box[0] * 60 / width], [0, 60 / height, 2 - box[1] * 60 / height], [0, 0, 1]]
        )
    elif not thin and min(height, width) >= 12 and rng.random() < 0.45:
        _round(world, layer)
    return layer


def _texture_size(box: Box) -> int:
    longest = max(box[2] - box[0], box[3] - box[1])
    return 256 if longest > 110 else 128 if longest > 50 else 64


def _round(world: World, layer: Layer) -> None:
    """Makes a thing bulge: a ball, a cylinder or a hump, with the shading that belongs to it."""
    rng = world.rng
    x0, y0, x1, y1 = layer.box
    height, width = y1 - y0, x1 - x0
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    kind = rng.integers(3)
    radius = x**2 + 0 * y if kind == 0 else 0 * x + y**2 if kind == 1 else x**2 + y**2
    swell = np.clip(1 - radius, 0, None)
    profile = swell ** rng.uniform(0.6, 1.0)
    steepest = float(np.abs(np.diff(profile, axis=1)).max()) + 1e-6
    d = layer.centre_disparity()
    a, b, _ = layer.plane
    top = max(a * px + b * py + layer.plane[2] for px in (x0, x1) for py in (y0, y1))
    amount = min(0.4 / steepest, d * rng.uniform(0.02, 0.3), 0.985 * world.limit - top)
    if amount <= 0:
        return
    layer.relief = np.ascontiguousarray(profile * np.float32(amount))
    normal = np.sqrt(swell + 0.02)
    lx, ly = world.light
    light = np.clip(0.45 + 0.5 * normal + 0.4 * (lx * x * (kind != 1) + ly * y * (kind != 0)), 0.15, 1.1)
    # The shading belongs to the box: the texture is drawn once over it and shaded there.
    n = 256
    scale = np.array([[(width - 1) / (n - 1), 0, x0], [0, (height - 1) / (n - 1), y0], [0, 0, 1]])
    flat = warp_texture(layer.texture, layer.to_texture @ scale, (0, 0, n, n))
    shade = cv2.resize((light * 230).astype(np.uint8), (n, n), interpolation=cv2.INTER_LINEAR)
    flat = cv2.multiply(flat, cv2.merge([shade] * 3), scale=1 / 230)
    layer.texture, layer.to_texture = [flat], np.linalg.inv(scale)


def _panel(world: World, d: float) -> Layer:
    rng = world.rng
    width, height = world.width * rng.uniform(0.05, 0.5), world.height * rng.uniform(0.1, 0.6)
    x, y = rng.uniform(0, 1) * world.width + d / 2, rng.uniform(0, 0.7) * world.height
    box = _bounds(x, y, width, height)
    plane = _within(world, (0.0, 0.0, d), box)
    mask = (shapes.rectangle if rng.random() < 0.7 else shapes.frame)(rng, box[3] - box[1], box[2] - box[0])
    texture = world.bank.surface(rng, 256)
    return Layer(plane, [texture], _on_plane(world, plane, x, y, 256, 0.0), box, mask)


def _plant(world: World, d: float, x: float | None = None, foot: float | None = None, size: float | None = None) -> None:
    """Many tapering leaves from one foot, each in a plane of its own."""
    rng = world.rng
    size = world.height * rng.uniform(0.4, 1.2) if size is None else size
    x = rng.uniform(0, 1) * world.width + d / 2 if x is None else x
    foot = world.height * rng.uniform(0.6, 1.1) if foot is None else foot
    colour = fields.natural_colour(rng)
    texture = world.bank.surface(rng, 128) if rng.random() < 0.5 else np.full((64, 64, 3), colour, np.uint8)
    leaves = []
    for _ in range(int(rng.integers(2, 7))):  # bunches that share a plane
        height, width = size * rng.uniform(0.5, 1), size * rng.uniform(0.5, 1.6)
        box = _bounds(x, foot - height / 2, width, height)
        a, b = (rng.normal(0, 0.2, 2) * d / world.width * 2).tolist()
        plane = _within(world, (a, b, d - a * x - b * foot), box)
        height, width = box[3] - box[1], box[2] - box[0]
        if not _shown(world, plane, box):
            continue
        mask = shapes.blades(rng, height, width, int(rng.integers(1, 5)))
        lit = _lit(world, texture, 0.7)
        n = lit.shape[0]
        h = np.array([[n / width, 0, -box[0] * n / width], [0, n / height, -box[1] * n / height], [0, 0, 1]])
        leaves.append(Layer(plane, [lit], h, box, mask))
    for layer in sorted(leaves, key=Layer.centre_disparity):
        _paint(world, layer)


_FACES = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))


def _box(world: World, d: float, x: float, y: float, yaw: float, pitch: float, size: float | None = None) -> None:
    """A cuboid whose centre is seen at (x, y) with disparity d; its front faces are painted."""
    rng, f = world.rng, world.focal
    size = world.height * 10 ** rng.uniform(-1.0, -0.35) if size is None else 0.7 * size
    half = np.array([10 ** rng.uniform(-0.3, 0.2), 1.0, 10 ** rng.uniform(-0.3, 0.2)]) * size / 2 / d
    corners = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]) * half
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tip = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    centre = np.array([x - world.cx, y - world.cy, f]) / d
    _cuboid(world, corners @ (tip @ turn).T + centre, world.bank.surface(rng, 256 if size > 70 else 128))


def _cuboid(world: World, points: np.ndarray, texture: np.ndarray) -> None:
    """points: the (8, 3) corners in baselines, in the order of _FACES."""
    rng, f = world.rng, world.focal
    if points[:, 2].min() < f / (0.97 * world.limit):
        return
    seen = np.stack([f * points[:, 0] / points[:, 2] + world.cx, f * points[:, 1] / points[:, 2] + world.cy], 1)
    same = rng.random() < 0.6
    middle = points.mean(0)
    for face in _FACES:
        p = points[list(face)]
        normal = _cross((p[1] - p[0]).tolist(), (p[2] - p[0]).tolist())
        normal *= np.sign(normal @ (p[0] - middle))
        if normal @ p[0] >= 0:  # turned away
            continue
        outline = seen[list(face)]
        low, high = np.floor(outline.min(0)).astype(int) - 1, np.ceil(outline.max(0)).astype(int) + 2
        if (high - low).max() > 3 * world.width or (high - low).min() < 3:
            continue
        # normal . (x - cx, y - cy, f) / d = normal . p
        a, b, c = normal * (1, 1, f) / (normal @ p[0])
        plane = (float(a), float(b), float(c - a * world.cx - b * world.cy))
        if abs(a) > 0.75:
            continue
        mask = shapes.fill(high[1] - low[1], high[0] - low[0], [outline - low])
        facing = -normal / np.linalg.norm(normal)
        shade = np.clip(0.75 + 0.35 * (facing @ (world.light[0], world.light[1], 0.3)), 0.35, 1.0)
        image = texture if same else world.bank.surface(rng, texture.shape[0])
        image = cv2.convertScaleAbs(_lit(world, image, 0.3), alpha=float(shade))
        n = image.shape[0]
        span = rng.uniform(0.4, 1.0) * n
        target = np.array([[0, 0], [span, 0], [span, span], [0, span]], np.float32)
        h = cv2.getPerspectiveTransform(outline.astype(np.float32), target)
        box = int(low[0]), int(low[1]), int(high[0]), int(high[1])
        _paint(world, Layer(plane, [image], h, box, mask))


def _cross(a: list[float], b: list[float]) -> np.ndarray:
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _vehicle(world: World, d: float, x: float, foot: float) -> None:
    """A body and a cabin of shiny flat colour, dark windows and wheels."""
    rng, f = world.rng, world.focal
    size = max(d / world.near * rng.uniform(0.3, 0.7) * world.height, 5.0)
    yaw = rng.choice((0.0, np.pi / 2, rng.uniform(0, 6.3)))
    colour = np.full((64, 64, 3), fields.natural_colour(rng), np.uint8)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    unit = size / d / 2
    corners = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
    for length, tall, rise, tint in ((2.2, 0.42, 0.5, colour), (1.2, 0.33, 1.2, np.full((64, 64, 3), 45, np.uint8))):
        points = corners * (np.array([length, tall, 0.85]) * unit) - (0, rise * unit, 0)
        centre = np.array([x - world.cx, foot - world.cy, f]) / d
        _cuboid(world, points @ turn.T + centre, tint)


# Light


def _contact_shadows(world: World, places) -> np.ndarray:
    """uint8 over left pixels / 4: dark patches where things (disparity, x, foot row, height) stand on the ground."""
    rng = world.rng
    shade = np.full((world.height // 4, world.everywhere()[2] // 4), 255, np.uint8)
    dark, slant, flat = rng.uniform(70, 180), world.light[0] * 0.3, rng.uniform(0.03, 0.12)
    for _, x, foot, height in places:
        centre = (x + slant * height) / 4, foot / 4
        axes = height * rng.uniform(0.3, 0.9) / 4, max(1.0, height * flat / 2)
        cv2.ellipse(shade, (centre, axes, 0), dark, -1, cv2.LINE_AA)
    return cv2.blur(shade, (5, 5))


def _soft_shadow(world: World) -> np.ndarray:
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


def _shade(world: World, field: np.ndarray) -> None:
    """Multiplies both views by a light field that lies on the surfaces painted so far."""
    columns = np.broadcast_to(np.arange(world.width, dtype=np.float32)[None], (world.height, world.width))
    for view, x in ((world.canvas.left, columns), (world.canvas.right, columns + world.canvas.right.disparity)):
        light = _lookup(field, x, world.height)
        view.image[:] = cv2.multiply(view.image, cv2.merge([light] * 3), scale=1 / 255)


def _highlight(world: World) -> None:
    """Bright spots that sit at another depth than the surface they are seen on."""
    rng = world.rng
    field = np.zeros((world.height // 4, world.everywhere()[2] // 4), np.uint8)
    for _ in range(int(rng.integers(1, 9))):
        centre = tuple(int(v) for v in rng.uniform(0, 1, 2) * field.shape[::-1])
        axes = tuple(int(v) for v in 10 ** rng.uniform(-2.3, -1.2, 2) * field.shape[1] + 1)
        cv2.ellipse(field, centre, axes, rng.uniform(0, 180), 0, 360, int(rng.uniform(30, 200)), -1, cv2.LINE_AA)
    field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.7, 3))
    columns = np.broadcast_to(np.arange(world.width, dtype=np.float32)[None], (world.height, world.width))
    shift = np.float32(rng.uniform(-1, 1) * world.config.highlight_shift)
    for view, x in ((world.canvas.left, columns), (world.canvas.right, columns + world.canvas.right.disparity + shift)):
        light = _lookup(field, x, world.height)
        view.image[:] = cv2.add(view.image, cv2.merge([light] * 3))


def _pane(world: World) -> None:
    """Glass: a half-transparent surface; what is seen through it has no single disparity."""
    rng = world.rng
    d = world.near * rng.uniform(0.5, 1)
    box = _bounds(
        rng.uniform(0, 1) * world.width,
        rng.uniform(0, 1) * world.height,
        world.width * rng.uniform(0.1, 0.5),
        world.height * 0.5,
    )
    plane = _within(world, (0.0, 0.0, d), box)
    mask = shapes.rectangle(rng, box[3] - box[1], box[2] - box[0])
    texture = world.bank.surface(rng, 256)
    h = _on_plane(world, plane, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 256)
    _paint(world, Layer(plane, [texture], h, box, mask, opacity=float(rng.uniform(0.15, 0.5))))


def _veil(world: World) -> None:
    """Haze: colours fade towards a light grey with distance."""
    rng = world.rng
    veil = (*(rng.uniform(160, 240) * rng.uniform(0.95, 1.0, 3)).tolist(), 0.0)
    depth = rng.uniform(0.02, 0.2) * world.near
    for view in (world.canvas.left, world.canvas.right):
        clear = 1 - 0.6 * np.exp(-view.disparity / np.float32(depth))
        weight = cv2.merge([clear] * 3)
        mixed = cv2.multiply(cv2.subtract(view.image, veil, dtype=cv2.CV_32F), weight)
        view.image[:] = cv2.add(mixed, veil, dtype=cv2.CV_8U)
