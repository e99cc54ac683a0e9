"""Clips: one scene of planes seen by a moving camera, some of its things moving too (spec `video.md` section 6).

V views, H W pixels. A layer is a plane n.X = 1 in the camera of view 0 (X right, Y down, Z forward, metres). A camera that sees
X' = R X + t sees the plane n' = R n / (1 + t.R n) through the homography K (R + t n^T) K^-1 of view 0's pixels, and 1/Z' =
n'.K^-1 x'. A thing's own rigid motion is applied before the camera's. The larger 1/Z' wins at every pixel.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import cv2
import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from bridgedepth_jax.data.procedural.config import SyntheticConfig
from bridgedepth_jax.data.procedural.fields import Rng
from bridgedepth_jax.data.procedural.render import (
    MASK_SCALE,
    Box,
    Canvas,
    Layer,
    View,
    composite,
    level_at,
    to_level,
    warp_level,
)
from bridgedepth_jax.data.procedural.scene import render
from bridgedepth_jax.data.procedural.textures import TextureBank, find_photos
from bridgedepth_jax.errors import InputError

MARGIN = 0.25  # of the sides, drawn around view 0
STRIP = 16  # rows that are drawn from one level of a texture
CLOSEST = 0.02  # of view 0's focal length: what is nearer to a camera is not drawn
RELATIVE_SLACK = 0.02  # of depth, between a pixel and what is seen where it goes


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Ranges are (low, high) of a uniform draw."""

    scene: SyntheticConfig = dataclasses.field(
        default_factory=lambda: dataclasses.replace(
            SyntheticConfig().clean(),
            shadows=0.0,
            layouts=(("room", 0.35), ("street", 0.2), ("tabletop", 0.25), ("flying", 0.2)),
        )
    )
    focal: tuple[float, float] = (0.8, 1.4)  # of the width
    nearest: tuple[float, float] = (0.8, 3.0)  # metres, of the nearest thing
    turn: float = 10.0  # degrees, the most that a camera turns away from its first view
    shift: float = 0.3  # of the nearest depth, the most that it moves away
    knots: int = 5  # of the spline of a camera's path
    moving: float = 1 / 3  # share of clips with things that move
    things: tuple[int, int] = (1, 3)  # that move
    travel: float = 0.4  # of a thing's depth, the most that it moves
    baseline: float = 0.1  # metres, of stereo clips
    still: bool = False  # the camera does not move
    haze: float = 0.0  # share of clips in haze, by which one view tells what is far
    haze_reach: tuple[float, float] = (5.0, 10.0)  # metres at which a third of a colour is left
    haze_colour: tuple[float, float] = (120.0, 250.0)  # grey level, of which each channel differs by up to 30


class Plane3(NamedTuple):
    """A layer in space."""

    layer: Layer
    normal: Float[np.ndarray, "3"]  # n.X = 1 in view 0
    motion: Float[np.ndarray, "V 4 4"] | None  # of the thing, in view 0's camera


class Haze(NamedTuple):
    """A veil: of a surface's colour exp(-Z / reach) is left."""

    colour: Float[np.ndarray, "3"]
    reach: float  # metres


class Opened(NamedTuple):
    """What the views of a clip are drawn from."""

    camera: Float[np.ndarray, "3 3"]
    planes: list[Plane3]
    poses: Float[np.ndarray, "V 4 4"]  # camera to world
    haze: Haze | None


class Recorder(Canvas):
    """A canvas that keeps what is painted instead of painting it."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__(height, width)
        self.layers: list[Layer] = []

    def paint(self, layer: Layer) -> None:
        self.layers.append(dataclasses.replace(layer, relief=None, gloss=None, opacity=1.0))


class SyntheticClips:
    """Clips rendered on demand; clip `index` is a function of the arguments and the index alone.

    A clip is a dict: image uint8 (V, H, W, 3) RGB; depth float32 (V, H, W) metres; K float64 (3, 3); pose float64 (V, 4, 4),
    camera to world, the world being view 0's camera; moving bool (V, H, W); with `stereo` also right uint8 (V, H, W, 3) and
    baseline (metres); name. InputError: sizes below 32 or no view.
    """

    def __init__(
        self,
        height: int,
        width: int,
        views: int,
        *,
        seed: int = 0,
        size: int = 1_000_000,
        stereo: bool = False,
        photos: str | Path | bool | None = None,
        config: ClipConfig | None = None,
    ) -> None:
        if height < 32 or width < 32 or views < 1 or seed < 0:
            raise InputError(f"clips: {views} views of {height} x {width}, seed {seed}; expected at least 1 of 32 x 32, seed 0")
        self.height, self.width, self.views, self.seed, self.size, self.stereo = height, width, views, seed, size, stereo
        self.config = config or ClipConfig()
        self.bank = TextureBank(seed, self.config.scene, find_photos(photos))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        opened = self.open(index)
        camera, path = opened.camera, opened.poses
        offsets = [np.zeros(3)] + ([np.array([-self.config.baseline, 0.0, 0.0])] if self.stereo else [])
        sides: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = [[] for _ in offsets]
        for v in range(self.views):
            for side, offset in zip(sides, offsets, strict=True):
                to_camera = np.linalg.inv(path[v])
                to_camera[:3, 3] += offset
                side.append(draw(opened, to_camera, v, self.height, self.width))
        image, depth, moving = (np.stack(part) for part in zip(*sides[0], strict=True))
        clip = {"image": image, "depth": depth, "moving": moving, "K": camera, "pose": path}
        if self.stereo:
            clip |= {"right": np.stack([part[0] for part in sides[1]]), "baseline": self.config.baseline}
        return clip | {"name": f"clip/{self.seed}/{index.__index__():08d}"}

    def open(self, index: SupportsIndex) -> Opened:
        """A clip of which `draw` makes single views."""
        index = index.__index__()
        if not 0 <= index < self.size:
            raise IndexError(f"clips: clip {index} of {self.size}")
        rng = np.random.default_rng((self.seed, 4, index))
        camera, planes, near = self._scene(rng, index)
        return Opened(camera, planes, camera_path(rng, self.views, near, self.config), self._haze(index))

    def _haze(self, index: int) -> Haze | None:
        """Its own draws: a clip is the same with and without but for the veil."""
        rng, config = np.random.default_rng((self.seed, 5, index)), self.config
        if rng.random() >= config.haze:
            return None
        colour = rng.uniform(*config.haze_colour) + rng.uniform(-30, 30, 3)
        return Haze(np.clip(colour, 0, 255), float(rng.uniform(*config.haze_reach)))

    def _scene(self, rng: Rng, index: int) -> tuple[np.ndarray, list[Plane3], float]:
        """(K, layers in space, depth of the nearest), from a scene drawn on a canvas with a margin."""
        config = self.config
        height, width = (int(side * (1 + 2 * MARGIN)) for side in (self.height, self.width))
        left, top = (width - self.width) // 2, (height - self.height) // 2
        canvas, limit = Recorder(height, width), 0.25 * width
        render(np.random.default_rng((self.seed, 2, index)), canvas, limit, self.bank, config.scene)
        focal = self.width * rng.uniform(*config.focal)
        camera = np.array([[focal, 0, self.width / 2], [0, focal, self.height / 2], [0, 0, 1.0]])
        layers = [layer for layer in canvas.layers if _largest(layer, width, height) > 0]
        largest = max(_largest(layer, width, height) for layer in layers)
        near = float(rng.uniform(*config.nearest))
        metres = largest * near  # focal length times baseline: disparity to 1 / depth
        behind = Layer((0.0, 0.0, 0.02 * largest), [self.bank.surface(rng, 512)], np.eye(3), (0, 0, width, height))
        planes = []
        for layer in (behind, *layers):
            planes.append(
                Plane3(_moved(layer, left, top, width, height), _normal(layer.plane, camera, metres, left, top), None)
            )
        if rng.random() < config.moving:
            count = int(rng.integers(config.things[0], config.things[1] + 1))
            for _ in range(count):
                planes.append(self._thing(rng, camera, near))
        return camera, planes, near

    def _thing(self, rng: Rng, camera: np.ndarray, near: float) -> Plane3:
        """A thing that moves through the clip: a textured outline in a plane of its own."""
        from bridgedepth_jax.data.procedural import shapes

        config, focal = self.config, camera[0, 0]
        depth = near * rng.uniform(1.0, 1.6)
        size = [int(side * rng.uniform(0.15, 0.4)) + 8 for side in (self.height, self.width)]
        x, y = rng.uniform(0.2, 0.8) * self.width, rng.uniform(0.3, 0.8) * self.height
        box = (int(x - size[1] / 2), int(y - size[0] / 2), int(x + size[1] / 2) + 1, int(y + size[0] / 2) + 1)
        outline = shapes.SOLID[int(rng.integers(len(shapes.SOLID)))]
        mask = outline(rng, box[3] - box[1], box[2] - box[0])
        texture = self.bank.surface(rng, 128)
        scale = np.array([[127 / (box[2] - box[0]), 0, 0], [0, 127 / (box[3] - box[1]), 0], [0, 0, 1.0]])
        place = scale @ np.array([[1, 0, -box[0]], [0, 1, -box[1]], [0, 0, 1.0]])
        layer = Layer((0.0, 0.0, 1.0), [texture], place, box, mask)
        centre = np.array([(x - camera[0, 2]) / focal, (y - camera[1, 2]) / focal, 1.0]) * depth
        turned = np.array([rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3), 1.0])
        path = spline(rng, self.views, config.knots, config.travel * depth * np.array([1, 0.4, 0.4]))
        turns = spline(rng, self.views, config.knots, np.full(3, 0.3))
        motion = np.tile(np.eye(4), (self.views, 1, 1))
        for v in range(self.views):
            rotation = cv2.Rodrigues(turns[v])[0]
            motion[v, :3, :3], motion[v, :3, 3] = rotation, centre - rotation @ centre + path[v]
        return Plane3(layer, turned / (turned @ centre), motion)


def _largest(layer: Layer, width: int, height: int) -> float:
    """Disparity of a layer where it is nearest inside the canvas."""
    x0, y0, x1, y1 = layer.box
    a, b, c = layer.plane
    return max(a * x + b * y + c for x in (max(x0, 0), min(x1, width)) for y in (max(y0, 0), min(y1, height)))


def _normal(plane: tuple[float, float, float], camera: np.ndarray, metres: float, left: int, top: int) -> np.ndarray:
    a, b, c = plane
    c = c + a * left + b * top  # of view 0's own pixels
    focal, cx, cy = camera[0, 0], camera[0, 2], camera[1, 2]
    return np.array([a * focal, b * focal, a * cx + b * cy + c]) / metres


def _moved(layer: Layer, left: int, top: int, width: int, height: int) -> Layer:
    """A layer of the canvas in view 0's pixels; sides of a whole box that reach the canvas' edge have no end."""
    x0, y0, x1, y1 = layer.box
    box = (x0 - left, y0 - top, x1 - left, y1 - top)
    if layer.mask is None:
        endless = 10**6
        box = (
            -endless if x0 <= 0 else box[0],
            -endless if y0 <= 0 else box[1],
            endless if x1 >= width else box[2],
            endless if y1 >= height else box[3],
        )
    shift = np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]])
    return dataclasses.replace(layer, box=box, to_texture=layer.to_texture @ shift)


def spline(rng: Rng, views: int, knots: int, most: Float[np.ndarray, "3"]) -> Float[np.ndarray, "V 3"]:
    """A smooth path from 0 that stays within `most` of it."""
    if views == 1:
        return np.zeros((1, 3))
    count = max(2, min(knots, views))
    points = rng.uniform(-0.7, 0.7, (count, 3))
    points[0] = 0
    path = CubicSpline(np.linspace(0, views - 1, count), points)(np.arange(views))
    return np.clip(path, -1, 1) * most


def camera_path(rng: Rng, views: int, near: float, config: ClipConfig) -> Float[np.ndarray, "V 4 4"]:
    """Poses, camera to world; the first is the identity."""
    turns = spline(rng, views, config.knots, np.deg2rad(config.turn) * np.array([0.6, 1, 0.3]))
    places = spline(rng, views, config.knots, config.shift * near * np.array([1, 0.5, 0.7]))
    poses = np.tile(np.eye(4), (views, 1, 1))
    for v in range(0 if config.still else views):
        poses[v, :3, :3], poses[v, :3, 3] = cv2.Rodrigues(turns[v])[0], places[v]
    return poses


def draw(
    clip: Opened, to_camera: Float[np.ndarray, "4 4"], view: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image, depth, moving) of one view."""
    canvas = View(np.zeros((height, width, 3), np.uint8), np.full((height, width), -np.inf, np.float32))
    moving = np.zeros((height, width), bool)
    for plane in clip.planes:
        motion = to_camera if plane.motion is None else to_camera @ plane.motion[view]
        before = canvas.disparity.copy() if plane.motion is not None else None
        changed = _draw_one(canvas, plane, clip.camera, motion)
        if changed is not None:
            box, covered = changed
            where = slice(box[1], box[3]), slice(box[0], box[2])
            if before is not None:
                moving[where] |= canvas.disparity[where] != before[where]
            else:
                moving[where] &= ~covered
    with np.errstate(divide="ignore"):
        depth = 1 / canvas.disparity
    image = canvas.image
    if clip.haze is not None:
        own = np.exp(-depth / np.float32(clip.haze.reach))[..., None]
        image = np.rint(image * own + clip.haze.colour.astype(np.float32) * (1 - own)).astype(np.uint8)
    return image, depth, moving


def _draw_one(view: View, plane: Plane3, camera: np.ndarray, motion: np.ndarray) -> tuple[Box, np.ndarray] | None:
    """Paints a layer; gives the box and where its inverse depth is now the view's. None: nothing of it is seen."""
    rotation, shift = motion[:3, :3], motion[:3, 3]
    turned = rotation @ plane.normal
    scale = 1 + turned @ shift
    if scale <= 1e-6:  # the camera has passed through the plane
        return None
    inverse = np.linalg.inv(camera)
    forward = camera @ (rotation + np.outer(shift, plane.normal)) @ inverse
    back = np.linalg.inv(forward)
    row = (turned / scale) @ inverse
    box = _box_of(plane.layer.box, forward, view.disparity.shape)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    x, y = np.arange(x0, x1)[None], np.arange(y0, y1)[:, None]
    near = row[0] * x + row[1] * y + row[2]  # 1 / Z'
    ahead = back[2, 0] * x + back[2, 1] * y + back[2, 2]  # Z / Z'
    good = (near > 1e-9) & (near < 1 / (CLOSEST * camera[0, 0] / 100)) & (ahead > 1e-6)
    if plane.layer.mask is None:
        source_x = (back[0, 0] * x + back[0, 1] * y + back[0, 2]) / np.where(good, ahead, 1)
        source_y = (back[1, 0] * x + back[1, 1] * y + back[1, 2]) / np.where(good, ahead, 1)
        bx0, by0, bx1, by1 = plane.layer.box
        good &= (source_x >= bx0 - 0.5) & (source_x < bx1 - 0.5) & (source_y >= by0 - 0.5) & (source_y < by1 - 0.5)
    if not good.any():
        return None
    colour = _texture(plane.layer, plane.layer.to_texture @ back, box, good)
    mask = np.where(good, np.uint8(255), np.uint8(0))
    if plane.layer.mask is not None:
        s, (bx, by) = MASK_SCALE, plane.layer.box[:2]
        to_mask = np.array([[s, 0, (0.5 - bx) * s - 0.5], [0, s, (0.5 - by) * s - 0.5], [0, 0, 1.0]])
        mask = cv2.bitwise_and(mask, warp_level(plane.layer.mask, to_mask @ back, box))
    near = np.where(good, near, -np.inf).astype(np.float32)
    composite(view, box, colour, mask, near, 1.0)
    return box, view.disparity[y0:y1, x0:x1] == near


def _box_of(box: Box, forward: np.ndarray, shape: tuple[int, ...]) -> Box | None:
    """Pixels of the view that a box of view 0 may cover."""
    height, width = shape
    x0, y0, x1, y1 = box
    corners = forward @ np.array([[x, y, 1.0] for x in (x0 - 1, x1 + 1) for y in (y0 - 1, y1 + 1)]).T
    if corners[2].min() <= 1e-6:
        return 0, 0, width, height
    xs, ys = corners[:2] / corners[2]
    found = max(int(xs.min()) - 1, 0), max(int(ys.min()) - 1, 0), min(int(xs.max()) + 2, width), min(int(ys.max()) + 2, height)
    return found if found[0] < found[2] and found[1] < found[3] else None


def _texture(layer: Layer, h: np.ndarray, box: Box, good: np.ndarray) -> np.ndarray:
    """Colours over a box, each strip of rows from the level of a texture that suits the middle of what is seen there."""
    x0, y0, x1, y1 = box
    h = h / np.abs(h).max()
    colour = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
    for top in range(0, y1 - y0, STRIP):
        rows, columns = np.nonzero(good[top : top + STRIP])
        if not len(rows):
            continue
        bottom = min(top + STRIP, y1 - y0)
        level = level_at(layer.texture, h.tolist(), x0 + float(columns.mean()), y0 + top + float(rows.mean()))
        part = (x0, y0 + top, x1, y0 + bottom)
        colour[top:bottom] = warp_level(layer.texture[level], to_level(level) @ h, part, cv2.BORDER_REFLECT_101)
    return colour


def reproject(
    depth: Float[np.ndarray, "V H W"], camera: np.ndarray, pose: Float[np.ndarray, "V 4 4"], one: int, two: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of view `one` in view `two`: (their depth there, the depth seen there, where both are the same surface)."""
    height, width = depth.shape[1:]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(camera).T
    points = rays * depth[one][..., None]
    move = np.linalg.inv(pose[two]) @ pose[one]
    there = points @ move[:3, :3].T + move[:3, 3]
    pixels = there @ camera.T
    expected = there[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = pixels[..., 0] / expected, pixels[..., 1] / expected
    inside = (expected > 0) & (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    u, v = (np.where(inside, part, 0).astype(np.float32) for part in (u, v))
    # Inverse depth is linear in pixels on a plane: interpolated so, it is exact inside a surface.
    seen = 1 / cv2.remap((1 / depth[two]).astype(np.float32), u, v, cv2.INTER_LINEAR)
    return expected, seen, inside & (np.abs(seen / np.where(inside, expected, 1) - 1) < RELATIVE_SLACK)
