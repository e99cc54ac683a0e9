"""Objects: flat and rounded outlines, boxes, plants, vehicles, poles, trees, piles, panes.

Where a function takes d, x, foot, height: disparity, left column of the middle, row of the feet, height in pixels.
"""

from collections.abc import Callable

import cv2
import numpy as np

from bridgedepth_jax.data.procedural import fields, shapes
from bridgedepth_jax.data.procedural.light import contact_shadows, shade
from bridgedepth_jax.data.procedural.render import Box, Layer, Plane, warp_texture
from bridgedepth_jax.data.procedural.surfaces import lit, reflection
from bridgedepth_jax.data.procedural.world import World, bounds, on_plane, paint, shown, stretched, tilted, within

_FACES = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))
_CORNERS = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], float)


def standing(world: World, count: int, kinds: dict[str, float]) -> None:
    """Things with their feet on the ground (or hanging at random where there is none), far to near.

    kinds: weights of the names in STANDING.
    """
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
        shade(world, contact_shadows(world, places))
    names, weights = list(kinds), np.array(list(kinds.values()))
    drawn = rng.choice(len(names), count, p=weights / weights.sum())
    for kind, place in zip(drawn, places, strict=True):
        STANDING[names[kind]](world, *place)


# One surface


def upright(world: World, d: float, x: float, foot: float, height: float, width: float | None = None) -> None:
    """A flat or rounded thing, turned about the vertical only."""
    rng = world.rng
    width = height * 10 ** rng.uniform(-0.6, 0.4) if width is None else width
    box = bounds(x, foot - height / 2, min(width, 1.5 * world.width), height)
    a = rng.normal(0, 0.15) * d / world.width * 2
    paint(world, thing(world, (a, 0.0, d - a * x), box))


def free(world: World, d: float, x: float, y: float, size: float | None = None) -> None:
    """A thing of any or the given size in pixels, tilted at random."""
    rng = world.rng
    size = world.height * 10 ** rng.uniform(-1.2, -0.1) if size is None else size
    aspect = 10 ** rng.uniform(-0.35, 0.45)
    paint(world, thing(world, tilted(world, d, x, y, 0.4), bounds(x, y, size * aspect, size / aspect)))


def screen(world: World, d: float) -> None:
    """A thin structure before the whole scene: a fence, wires, twigs."""
    rng = world.rng
    box = (-8, -8, world.width + int(d) + 8, world.height + 8)
    outline = (shapes.bars, shapes.grid, shapes.wires, shapes.branches)[int(rng.integers(4))]
    paint(world, thing(world, tilted(world, d, world.cx, world.height / 2, 0.1), box, outline))


def thing(world: World, plane: Plane, box: Box, outline: Callable | None = None) -> Layer | None:
    """A surface with the given or a random outline; some are rounded, some reflect."""
    rng = world.rng
    height, width = box[3] - box[1], box[2] - box[0]
    plane = within(world, plane, box)
    if height > 4 * world.height or width > 4 * world.width or not shown(world, plane, box):
        return None
    if outline is None:
        family = shapes.THIN if rng.random() < world.config.thin else shapes.SOLID
        outline = family[int(rng.integers(len(family)))]
    mask = outline(rng, height, width)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    size = texture_size(box)
    if outline in shapes.THIN and outline is not shapes.foliage and rng.random() < 0.6:
        texture = lit(world, np.full((64, 64, 3), fields.natural_colour(rng), np.uint8), 0.6)
        return Layer(plane, [texture], stretched(64, box), box, mask)
    family = fields.foliage if outline is shapes.foliage else None
    texture = lit(world, world.bank.surface(rng, size, family=family), 0.6)
    layer = Layer(plane, [texture], on_plane(world, plane, x, y, size), box, mask)
    if outline in shapes.SOLID:
        if min(height, width) >= 12 and rng.random() < 0.45:
            bulge(world, layer)
        elif rng.random() < world.config.gloss:
            layer.gloss = reflection(world, box, layer.centre_disparity())
    return layer


def texture_size(box: Box) -> int:
    longest = max(box[2] - box[0], box[3] - box[1])
    return 256 if longest > 110 else 128 if longest > 50 else 64


def bulge(world: World, layer: Layer) -> None:
    """Makes a thing a ball, a cylinder or a hump, with the shading that belongs to it."""
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
    a, b, c = layer.plane
    top = max(a * px + b * py + c for px in (x0, x1) for py in (y0, y1))
    amount = min(0.4 / steepest, layer.centre_disparity() * rng.uniform(0.02, 0.3), 0.985 * world.limit - top)
    if amount <= 0:
        return
    layer.relief = np.ascontiguousarray(profile * np.float32(amount))
    normal = np.sqrt(swell + 0.02)
    lx, ly = world.light
    light = np.clip(0.45 + 0.5 * normal + 0.4 * (lx * x * (kind != 1) + ly * y * (kind != 0)), 0.15, 1.1)
    # The shading belongs to the box: the texture is drawn once over it and shaded there.
    n = texture_size(layer.box)
    scale = np.array([[(width - 1) / (n - 1), 0, x0], [0, (height - 1) / (n - 1), y0], [0, 0, 1]])
    flat = warp_texture(layer.texture, layer.to_texture @ scale, (0, 0, n, n))
    baked = cv2.resize((light * 230).astype(np.uint8), (n, n), interpolation=cv2.INTER_LINEAR)
    layer.texture = [cv2.multiply(flat, cv2.merge([baked] * 3), scale=1 / 230)]
    layer.to_texture = np.linalg.inv(scale)


def panel(world: World, d: float) -> None:
    """A picture, a door, a window frame: parallel to the image."""
    rng = world.rng
    width, height = world.width * rng.uniform(0.05, 0.5), world.height * rng.uniform(0.1, 0.6)
    x, y = rng.uniform(0, 1) * world.width + d / 2, rng.uniform(0, 0.7) * world.height
    box = bounds(x, y, width, height)
    plane = within(world, (0.0, 0.0, d), box)
    mask = (shapes.rectangle if rng.random() < 0.7 else shapes.frame)(rng, box[3] - box[1], box[2] - box[0])
    paint(world, Layer(plane, [world.bank.surface(rng, 256)], on_plane(world, plane, x, y, 256, 0.0), box, mask))


def pane(world: World) -> None:
    """Glass: a half-transparent surface; what is seen through it has no single disparity."""
    rng = world.rng
    x, y = rng.uniform(0, 1, 2) * (world.width, world.height)
    box = bounds(x, y, world.width * rng.uniform(0.1, 0.5), world.height * rng.uniform(0.2, 0.8))
    plane = within(world, (0.0, 0.0, world.near * rng.uniform(0.5, 1)), box)
    mask = shapes.rectangle(rng, box[3] - box[1], box[2] - box[0])
    h = on_plane(world, plane, x, y, 256)
    paint(world, Layer(plane, [world.bank.surface(rng, 256)], h, box, mask, opacity=float(rng.uniform(0.15, 0.5))))


# Several surfaces


def plant(world: World, d: float, x: float, foot: float, height: float) -> None:
    """Many tapering leaves from one foot, in several planes."""
    rng = world.rng
    colour = np.full((64, 64, 3), fields.natural_colour(rng), np.uint8)
    texture = world.bank.surface(rng, 128) if rng.random() < 0.5 else colour
    leaves = []
    for _ in range(int(rng.integers(2, 7))):
        box = bounds(x, foot - height / 2, height * rng.uniform(0.5, 1.6), height * rng.uniform(0.5, 1))
        a, b = (rng.normal(0, 0.2, 2) * d / world.width * 2).tolist()
        plane = within(world, (a, b, d - a * x - b * foot), box)
        if shown(world, plane, box):
            mask = shapes.blades(rng, box[3] - box[1], box[2] - box[0], int(rng.integers(1, 5)))
            image = lit(world, texture, 0.7)
            leaves.append(Layer(plane, [image], stretched(image.shape[0], box), box, mask))
    for layer in sorted(leaves, key=Layer.centre_disparity):
        paint(world, layer)


def pole(world: World, d: float, x: float, foot: float, height: float) -> None:
    """A post, often taller than what stands around it; with a sign or a lamp now and then."""
    rng = world.rng
    height = max(height, world.height * rng.uniform(0.2, 0.9))
    width = max(height * 10 ** rng.uniform(-2.2, -1.2), 0.8)
    _post(world, d, x, foot, height, width, fields.natural_colour(rng))
    if rng.random() < 0.45:
        size = height * rng.uniform(0.06, 0.2)
        outline = (shapes.rectangle, shapes.ellipse, shapes.polygon)[int(rng.integers(3))]
        box = bounds(x, foot - height * rng.uniform(0.75, 1), size * rng.uniform(0.6, 2), size)
        paint(world, thing(world, (0.0, 0.0, min(d * 1.02, 0.98 * world.limit)), box, outline))


def _post(world: World, d: float, x: float, foot: float, height: float, width: float, colour: np.ndarray) -> None:
    """An upright bar `width` pixels wide (fractions count), rounded by its shading."""
    rng = world.rng
    box = bounds(x, foot - height / 2, width + 4, height)
    plane = within(world, (0.0, 0.0, d), box)
    left = x - width / 2 - box[0]
    outline = [(left, 0), (left + width, 0), (left + width, box[3] - box[1]), (left, box[3] - box[1])]
    mask = shapes.fill(box[3] - box[1], box[2] - box[0], [outline])
    across = np.linspace(-1, 1, 64)
    light = np.clip(0.95 - 0.5 * (across - world.light[0]) ** 2, 0.2, 1)
    texture = np.repeat((light[None, :, None] * colour).astype(np.uint8), 64, 0)
    if rng.random() < 0.4:
        bands = cv2.resize(
            rng.integers(60, 255, (int(rng.integers(2, 12)), 1), np.uint8), (64, 64), interpolation=cv2.INTER_NEAREST
        )
        texture = cv2.multiply(texture, cv2.merge([bands] * 3), scale=1 / 255)
    paint(world, Layer(plane, [texture], stretched(64, box), box, mask))


def tree(world: World, d: float, x: float, foot: float, height: float) -> None:
    """A trunk under clumps of leaves at slightly different depths."""
    rng = world.rng
    height = max(height, world.height * rng.uniform(0.15, 0.8))
    _post(world, d, x, foot, height * 0.6, max(height * rng.uniform(0.02, 0.07), 1.0), np.array([70.0, 55, 40]))
    if rng.random() < 0.15:
        box = bounds(x, foot - height / 2, height * 0.8, height)
        paint(world, thing(world, (0.0, 0.0, d), box, shapes.branches))
        return
    clumps = int(rng.integers(1, 4))
    depths = np.sort(np.minimum(d * rng.uniform(0.94, 1.06, clumps), 0.98 * world.limit))
    for near in depths.tolist():
        size = height * rng.uniform(0.35, 0.8)
        box = bounds(
            x + rng.normal(0, 0.15) * height, foot - height * rng.uniform(0.55, 0.85), size * rng.uniform(0.8, 1.4), size
        )
        paint(world, thing(world, (0.0, 0.0, near), box, shapes.foliage))


def pile(world: World, d: float, x: float, foot: float, height: float) -> None:
    """Shelves or a heap: many small things close together, with small steps of disparity."""
    rng = world.rng
    height = max(height, 0.2 * world.height)
    width = height * rng.uniform(0.7, 2)
    rows = int(rng.integers(1, 5))
    pitch = height / rows
    items = []
    for row in range(rows):
        at = x - width / 2
        while at < x + width / 2 and len(items) < 12:
            tall = pitch * rng.uniform(0.4, 0.95)
            wide = tall * 10 ** rng.uniform(-0.7, 0.4)
            near = min(d * rng.uniform(1.0, 1.12), 0.97 * world.limit)
            items.append((near, bounds(at + wide / 2, foot - row * pitch - tall / 2, wide, tall)))
            at += wide * rng.uniform(0.9, 1.4)
    if rng.random() < 0.6:  # boards of the shelf, behind the things or before them
        box = bounds(x, foot - height / 2, width, height)
        boards = shapes.shelf(rng, box[3] - box[1], box[2] - box[0], rows)
        plane = within(world, (0.0, 0.0, min(d * rng.uniform(0.99, 1.1), 0.97 * world.limit)), box)
        if shown(world, plane, box):
            image = lit(world, world.bank.surface(rng, 128), 0.5)
            paint(world, Layer(plane, [image], stretched(128, box), box, boards))
    for near, box in sorted(items):
        outline = (shapes.rectangle, shapes.rectangle, shapes.rectangle, shapes.ellipse, shapes.blob)[int(rng.integers(5))]
        paint(world, thing(world, (0.0, 0.0, near), box, outline))


def box(world: World, d: float, x: float, foot: float, height: float) -> None:
    """A box standing level."""
    cuboid_at(world, d, x, foot - 0.35 * height, 0.7 * height, world.rng.uniform(0, 6.3), 0.0)


def cuboid_at(world: World, d: float, x: float, y: float, size: float, yaw: float, pitch: float) -> None:
    """A cuboid whose centre is seen at (x, y) with disparity d, about `size` pixels high."""
    rng, f = world.rng, world.focal
    half = np.array([10 ** rng.uniform(-0.3, 0.2), 1.0, 10 ** rng.uniform(-0.3, 0.2)]) * size / 2 / d
    tip = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    centre = np.array([x - world.cx, y - world.cy, f]) / d
    texture = world.bank.surface(rng, 256 if size > 70 else 128)
    cuboid(world, (_CORNERS * half) @ (tip @ _turn(yaw)).T + centre, texture)


def vehicle(world: World, d: float, x: float, foot: float, height: float) -> None:
    """A body and a cabin of flat colour on wheels."""
    rng, f = world.rng, world.focal
    size = max(d / world.near * rng.uniform(0.3, 0.7) * world.height, 5.0)
    yaw = float(rng.choice((0.0, np.pi / 2, rng.uniform(0, 6.3))))
    body = np.full((64, 64, 3), fields.natural_colour(rng), np.uint8)
    cabin = np.full((64, 64, 3), rng.uniform(20, 70), np.uint8)
    unit = size / d / 2
    centre = np.array([x - world.cx, foot - world.cy, f]) / d
    for length, tall, rise, texture in ((2.2, 0.42, 0.6, body), (1.2, 0.33, 1.3, cabin)):
        points = _CORNERS * (np.array([length, tall, 0.85]) * unit) - (0, rise * unit, 0)
        cuboid(world, points @ _turn(yaw).T + centre, texture, glossy=rng.random() < 0.4)


def _turn(yaw: float) -> np.ndarray:
    return np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])


def cuboid(world: World, points: np.ndarray, texture: np.ndarray, glossy: bool = False) -> None:
    """Paints the faces turned to the camera. points: (8, 3) corners in baselines, in the order of _CORNERS."""
    rng, f = world.rng, world.focal
    if points[:, 2].min() < f / (0.97 * world.limit):
        return
    glossy = (glossy or rng.random() < world.config.gloss) and world.config.gloss > 0
    seen = points[:, :2] * (f / points[:, 2:]) + (world.cx, world.cy)
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
        area = int(low[0]), int(low[1]), int(high[0]), int(high[1])
        # normal . (x - cx, y - cy, f) / d = normal . p
        a, b, c = (normal * (1, 1, f) / (normal @ p[0])).tolist()
        plane = (a, b, c - a * world.cx - b * world.cy)
        if (high - low).max() > 3 * world.width or max(abs(a), abs(b)) > 0.6 or not shown(world, plane, area):
            continue
        mask = shapes.fill(area[3] - area[1], area[2] - area[0], [outline - low])
        facing = -normal / np.sqrt(normal @ normal)
        brightness = float(np.clip(0.75 + 0.35 * (facing @ (world.light[0], world.light[1], 0.3)), 0.35, 1.0))
        image = texture if same else world.bank.surface(rng, texture.shape[0])
        image = cv2.convertScaleAbs(lit(world, image, 0.3), alpha=brightness)
        span = rng.uniform(0.4, 1.0) * image.shape[0]
        target = np.array([[0, 0], [span, 0], [span, span], [0, span]], np.float32)
        layer = Layer(plane, [image], cv2.getPerspectiveTransform(outline.astype(np.float32), target), area, mask)
        if glossy:
            layer.gloss = reflection(world, area, layer.centre_disparity())
        paint(world, layer)


def _cross(a: list[float], b: list[float]) -> np.ndarray:
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


STANDING = {"thing": upright, "box": box, "plant": plant, "pole": pole, "tree": tree, "pile": pile, "vehicle": vehicle}
