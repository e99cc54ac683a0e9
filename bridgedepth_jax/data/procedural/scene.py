"""Layouts: what stands where. Each draws a world for one sample and paints it."""

import numpy as np

from bridgedepth_jax.data.procedural import fields
from bridgedepth_jax.data.procedural.config import SyntheticConfig
from bridgedepth_jax.data.procedural.fields import Rng
from bridgedepth_jax.data.procedural.light import highlight, shade, soft_shadow, veil
from bridgedepth_jax.data.procedural.render import Canvas
from bridgedepth_jax.data.procedural.surfaces import bend, floor, plain, sky, wall
from bridgedepth_jax.data.procedural.textures import TextureBank
from bridgedepth_jax.data.procedural.things import cuboid_at, free, pane, panel, plant, screen, standing, upright
from bridgedepth_jax.data.procedural.warp import random_disparity, warp_photo
from bridgedepth_jax.data.procedural.world import World, paint, tilted


def render(rng: Rng, canvas: Canvas, limit: float, bank: TextureBank, config: SyntheticConfig) -> None:
    """Draws a layout and paints it. All painted disparities lie in 0..limit."""
    low, high = np.log(config.near[0]), np.log(config.near[1])
    near = (
        float(np.exp(rng.uniform(low, high))) * limit if rng.random() < 1 - config.even else rng.uniform(*config.near) * limit
    )
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
    layout = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    LAYOUTS[layout](world)
    if layout in ("room", "street", "tabletop"):
        _scatter(world)
    if rng.random() < config.screen:
        screen(world, world.near)
    if rng.random() < config.shadows:
        shade(world, soft_shadow(world))
    if rng.random() < config.highlights:
        highlight(world)
    if rng.random() < config.transparent:
        pane(world)
    if rng.random() < config.haze:
        veil(world)


def room(world: World) -> None:
    """Floor, back wall, perhaps side walls and a ceiling; things on the floor and on the walls."""
    rng = world.rng
    _ground(world)
    back = world.far
    yaw = rng.normal(0, 0.08) * back / world.width * 2 if rng.random() < 0.5 else 0.0
    paint(world, plain(world, (yaw, 0.0, back - yaw * world.cx), world.bank.surface(rng, 512)))
    for side in (-1, 1):
        if rng.random() < 0.5:
            reach = rng.uniform(0.1, 0.4) * world.width  # of the corner from cx
            lean = rng.uniform(0.5, 1.2) * (0.9 * world.near - back) / world.width
            paint(world, wall(world, (side * lean, 0.0, back - lean * (reach + side * world.cx))))
    if rng.random() < 0.35:
        ceiling = -world.slope * rng.uniform(0.3, 0.8)
        paint(world, wall(world, (0.0, ceiling, -ceiling * world.cy * rng.uniform(0.7, 1.0))))
    paint(world, floor(world))
    for _ in range(int(rng.integers(0, 5))):  # pictures, doors, windows: just before the wall
        panel(world, back * rng.uniform(1.0, 1.08))
    standing(world, _count(world), dict(thing=0.45, box=0.22, plant=0.08, pole=0.05, pile=0.13))


def street(world: World) -> None:
    """Road to the horizon, sky, rows of houses and trees, posts and vehicles."""
    rng = world.rng
    world.far = rng.uniform(0, 0.04) * world.near
    _ground(world)
    paint(world, plain(world, (0.0, 0.0, float(rng.uniform(0, 0.6))), sky(world)))
    for _ in range(int(rng.integers(1, 4))):  # skyline
        d = rng.uniform(0.02, 0.15) * world.near
        width, height = world.width * rng.uniform(0.3, 1.2), world.height * rng.uniform(0.1, 0.4)
        upright(world, d, rng.uniform(0, world.width), world.cy + d / world.slope, height, width)
    families = (fields.facade, fields.bricks, fields.foliage, None)
    for side in (-1, 1):
        if rng.random() < 0.7:
            offset = rng.uniform(0.02, 0.2) * world.width
            lean = rng.uniform(0.5, 1.1) * world.near / world.width
            plane = (side * lean, 0.0, -lean * (offset + side * world.cx))
            top = world.cy - rng.uniform(0.1, 1) * world.height
            paint(world, wall(world, plane, families[int(rng.integers(4))], top))
    paint(world, floor(world, fields.road if rng.random() < 0.6 else None))
    standing(world, _count(world), dict(thing=0.2, box=0.1, plant=0.04, pole=0.24, tree=0.17, vehicle=0.25))


def tabletop(world: World) -> None:
    """A patterned, often curved backdrop close behind the things, perhaps a table."""
    rng = world.rng
    world.far = world.near * rng.uniform(0.25, 0.75)
    world.cy = world.height * rng.uniform(-1.5, 0.3)
    world.slope = world.near / max(world.height - world.cy, 1)
    plane = tilted(world, world.far, world.cx, world.height / 2, 0.12)
    backdrop = plain(world, plane, world.bank.surface(rng, 512))
    if rng.random() < 0.6:
        bend(world, backdrop, rng.uniform(0.02, 0.25) * world.far)
    paint(world, backdrop)
    if rng.random() < 0.6:
        paint(world, floor(world))
    for _ in range(int(rng.choice((0, 1, 2), p=(0.5, 0.4, 0.1)))):
        x, foot = rng.uniform(0, 1) * world.width, rng.uniform(0.6, 1.1) * world.height
        plant(world, world.depth(), x, foot, world.height * rng.uniform(0.4, 1.2))
    standing(world, _count(world), dict(thing=0.45, box=0.25, plant=0.12, pole=0.03, pile=0.1))


def flying(world: World) -> None:
    """Anything anywhere."""
    rng = world.rng
    backdrop = plain(world, tilted(world, world.far, world.cx, world.height / 2, 0.25), world.bank.surface(rng, 512))
    if rng.random() < 0.3:
        bend(world, backdrop, rng.uniform(0.02, 0.3) * world.far)
    paint(world, backdrop)
    if rng.random() < 0.3:
        _ground(world)
        paint(world, floor(world))
    for d in sorted(world.depth() for _ in range(int(_count(world) * 1.5))):
        x, y = rng.uniform(-0.05, 1.05) * world.width + d / 2, rng.uniform(0, 1) * world.height
        if rng.random() < 0.2:
            cuboid_at(world, d, x, y, world.height * 10 ** rng.uniform(-1.0, -0.3), rng.uniform(0, 6.3), rng.uniform(-0.8, 0.8))
        else:
            free(world, d, x, y)


def photo(world: World) -> None:
    """One photograph with a smooth random disparity; often a few things in front."""
    rng, canvas = world.rng, world.canvas
    width = world.everywhere()[2]
    picture = world.bank.any_photo(rng, world.height, width)
    disparity = random_disparity(rng, picture, world.far, world.near)
    image, filled = warp_photo(picture, disparity)
    canvas.left.image[:] = picture[:, : world.width]
    canvas.right.image[:] = image[:, : world.width]
    canvas.left.disparity[:] = disparity[:, : world.width]
    canvas.right.disparity[:] = filled[:, : world.width]
    if rng.random() < 0.6:
        for d in sorted(world.depth() for _ in range(int(rng.integers(1, 12)))):
            free(world, d, rng.uniform(0, 1) * world.width + d / 2, rng.uniform(0, 1) * world.height)


def _scatter(world: World) -> None:
    """Things without a foot: some just before the farthest surface, some anywhere in the air."""
    rng, config = world.rng, world.config
    depths = []
    if config.background[1]:
        far = max(world.far, 0.02 * world.near)
        depths += (far * rng.uniform(1.02, 1.6, int(rng.integers(config.background[0], config.background[1] + 1)))).tolist()
    if config.floating[1]:
        depths += [world.depth() for _ in range(int(rng.integers(config.floating[0], config.floating[1] + 1)))]
    for d in sorted(depths):
        x, y = rng.uniform(-0.05, 1.05) * world.width + d / 2, rng.uniform(0, 1) * world.height
        size = world.height * 10 ** rng.uniform(*config.floating_size)
        if rng.random() < 0.15:
            cuboid_at(world, d, x, y, size, rng.uniform(0, 6.3), rng.uniform(-0.8, 0.8))
        else:
            free(world, d, x, y, size)


def _count(world: World) -> int:
    low, high = world.config.objects
    return int(world.rng.integers(low, high + 1)) * (2 if world.rng.random() < world.config.clutter else 1)


def _ground(world: World) -> None:
    """Sets the slope of the ground: `near` at the lowest row or a little below the picture."""
    world.slope = world.near * world.rng.uniform(0.6, 1.0) / max(world.height - world.cy, 1)


LAYOUTS = {"room": room, "street": street, "tabletop": tabletop, "flying": flying, "photo": photo}
