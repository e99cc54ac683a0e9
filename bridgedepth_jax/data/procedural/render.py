"""Layers painted into the left and the right view of a rectified pair, with exact disparity.

A surface is a function of LEFT pixel coordinates: its disparity d(x, y), its texture coordinate and its mask. The right
view is the same surface at x_left, the solution of x_left - d(x_left, y) = x_right: closed for planes
(d = a x + b y + c), by fixed-point iteration for planes with a smooth relief. Both views therefore sample one texture at
exact sub-pixel positions. Where layers overlap the larger disparity wins at every pixel.
"""

import dataclasses
import math

import cv2
import numpy as np

MASK_SCALE = 2  # mask samples per pixel
_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_LEVELS = 5
_BLUR = 0.4  # 0: as sharp as can be, with some aliasing; 1: none
_STRIP = 4  # a texture's level may change every so many pixels
_RELIEF_STEP = 4  # the fixed point is iterated on every fourth pixel, then once on all

Box = tuple[int, int, int, int]  # x0, y0, x1, y1
Plane = tuple[float, float, float]  # a, b, c of d = a x + b y + c
Pyramid = list[np.ndarray]  # uint8 (h, w, 3), halved from level to level; grows when a coarser level is first needed


@dataclasses.dataclass
class Layer:
    """One textured surface.

    plane: disparity over left pixels.
    texture: colours, finest level first.
    to_texture: (3, 3) homography from left pixels to texels of the finest level.
    box: left pixels the surface may cover; may reach outside the image.
    mask: uint8 coverage over `box`, MASK_SCALE samples a pixel; None covers the whole box, whose sides must then
        be upright in the right view too (b = 0) or lie beyond the image.
    relief: float32 (box height, box width) pixels of disparity on top of the plane, smooth, |slope| well below 1.
    opacity: below 1 the surface lets the background through: its pixels are not valid and keep no single disparity.
    """

    plane: Plane
    texture: Pyramid
    to_texture: np.ndarray
    box: Box
    mask: np.ndarray | None = None
    relief: np.ndarray | None = None
    opacity: float = 1.0
    gloss: "Gloss | None" = None

    def centre_disparity(self) -> float:
        x0, y0, x1, y1 = self.box
        return self.plane[0] * (x0 + x1) / 2 + self.plane[1] * (y0 + y1) / 2 + self.plane[2]


@dataclasses.dataclass
class Gloss:
    """A reflection: a texture over left pixels, its share of the colour, and how many pixels it lies behind the surface."""

    texture: Pyramid
    to_texture: np.ndarray
    strength: float
    behind: float


@dataclasses.dataclass
class View:
    """What has been painted so far: image uint8 (H, W, 3); disparity float32 (H, W), -inf where nothing is."""

    image: np.ndarray
    disparity: np.ndarray


class Canvas:
    """Both views of a pair of `height` x `width`, and where the left one has no single disparity."""

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width
        self.left, self.right = (
            View(np.zeros((height, width, 3), np.uint8), np.full((height, width), -np.inf, np.float32)) for _ in range(2)
        )
        self.blended = np.zeros((height, width), bool)

    def paint(self, layer: Layer) -> None:
        x0, y0, x1, y1 = layer.box
        top, bottom = max(y0, 0), min(y1, self.height)
        corners = [_evaluate(layer.plane, x, y) for x in (x0, x1 - 1) for y in (y0, y1 - 1)]
        spread = 0.0 if layer.relief is None else float(np.abs(layer.relief).max())
        left = max(x0, 0), top, min(x1, self.width), bottom
        reach = [x - d for x, d in zip((x0, x0, x1 - 1, x1 - 1), corners, strict=True)]
        right = max(int(min(reach) - spread) - 1, 0), top, min(int(max(reach) + spread) + 2, self.width), bottom
        if layer.mask is None:
            right = max(int(np.ceil(max(reach[:2]))), 0), top, min(int(np.floor(min(reach[2:]))) + 1, self.width), bottom
        if left[0] < left[2] and top < bottom:
            covered = composite(self.left, left, *_sample_left(layer, left), layer.opacity)
            if layer.opacity < 1:
                self.blended[left[1] : left[3], left[0] : left[2]] |= covered
        if right[0] < right[2] and top < bottom:
            composite(self.right, right, *_sample_right(layer, right), layer.opacity)

    def visible(self) -> np.ndarray:
        """bool (H, W): the left pixel's match is inside the right image and nothing nearer covers it there."""
        columns = np.arange(self.width, dtype=np.float32)[None]
        match = columns - self.left.disparity
        inside = (match >= 0) & (match <= self.width - 1)
        rows = np.broadcast_to(np.arange(self.height, dtype=np.float32)[:, None], match.shape)
        low = np.clip(np.floor(match), 0, self.width - 1)
        high = np.minimum(low + 1, self.width - 1)
        rows = np.ascontiguousarray(rows)
        nearest = cv2.INTER_NEAREST
        seen = [cv2.remap(self.right.disparity, x, rows, nearest) for x in (low, high)]
        own = self.left.disparity
        slack = 0.5 + 0.02 * own
        hidden = (seen[0] > own + slack) | (seen[1] > own + slack)
        return inside & ~hidden


def _evaluate(plane: Plane, x, y):
    return plane[0] * x + plane[1] * y + plane[2]


def _plane_grid(plane: Plane, box: Box) -> np.ndarray:
    x0, y0, x1, y1 = box
    columns = np.arange(x0, x1, dtype=np.float32) * plane[0] + plane[2]
    rows = np.arange(y0, y1, dtype=np.float32) * plane[1]
    return columns[None] + rows[:, None]


def _to_mask(layer: Layer) -> np.ndarray:
    """Left pixels to mask samples."""
    s, (x0, y0) = MASK_SCALE, layer.box[:2]
    return np.array([[s, 0, (0.5 - x0) * s - 0.5], [0, s, (0.5 - y0) * s - 0.5], [0, 0, 1]], np.float64)


def _sample_left(layer: Layer, box: Box):
    """Colour, coverage (or None) and disparity over a box of the left view."""
    disparity = _plane_grid(layer.plane, box)
    if layer.relief is not None:
        x0, y0 = layer.box[:2]
        disparity += layer.relief[box[1] - y0 : box[3] - y0, box[0] - x0 : box[2] - x0]
    colour = warp_texture(layer.texture, layer.to_texture, box)
    if layer.gloss:
        colour = _reflecting(layer.gloss, colour, layer.gloss.to_texture, box)
    if layer.mask is None:
        return colour, None, disparity
    x0, y0 = layer.box[:2]
    part = layer.mask[
        (box[1] - y0) * MASK_SCALE : (box[3] - y0) * MASK_SCALE, (box[0] - x0) * MASK_SCALE : (box[2] - x0) * MASK_SCALE
    ]
    return colour, cv2.resize(part, (box[2] - box[0], box[3] - box[1]), interpolation=cv2.INTER_AREA), disparity


def _sample_right(layer: Layer, box: Box):
    """The same over a box of the right view."""
    a, b, c = layer.plane
    if layer.relief is None:
        scale = 1 / (1 - a)
        to_left = np.array([[scale, b * scale, c * scale], [0, 1, 0], [0, 0, 1]])
        disparity = _plane_grid((a * scale, b * scale, c * scale), box)
        colour = warp_texture(layer.texture, layer.to_texture @ to_left, box)
        if layer.gloss:
            behind = np.array([[1, 0, -layer.gloss.behind], [0, 1, 0], [0, 0, 1]])
            colour = _reflecting(layer.gloss, colour, layer.gloss.to_texture @ behind @ to_left, box)
        return colour, None if layer.mask is None else warp_level(layer.mask, _to_mask(layer) @ to_left, box), disparity
    disparity, x, y = _solve_relief(layer, box)
    colour = _remap_texture(layer, x, y)
    mask = None
    if layer.mask is not None:
        m = _to_mask(layer)
        mask = cv2.remap(
            layer.mask, x * MASK_SCALE + np.float32(m[0, 2]), y * MASK_SCALE + np.float32(m[1, 2]), cv2.INTER_LINEAR
        )
    return colour, mask, disparity


def _reflecting(gloss: Gloss, colour: np.ndarray, to_texture: np.ndarray, box: Box) -> np.ndarray:
    reflection = warp_texture(gloss.texture, to_texture, box)
    return cv2.addWeighted(colour, 1 - gloss.strength, reflection, gloss.strength, 0)


def _solve_relief(layer: Layer, box: Box):
    """Disparity and left pixel coordinates (x, y) of every pixel of a box of the right view, for a layer with relief.

    The relief between left pixels is its bilinear interpolation, and its edge value outside the layer's box.
    """
    a, b, c = layer.plane
    x0, y0 = layer.box[:2]

    relief = layer.relief
    assert relief is not None

    def refine(disparity, columns, rows, times):
        base = b * rows + c
        relative = rows - y0
        for _ in range(times):
            x = columns + disparity
            extra = cv2.remap(relief, x - x0, relative, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            disparity = a * x + base + extra
        return disparity

    height, width = box[3] - box[1], box[2] - box[0]
    coarse = max(2, -(-width // _RELIEF_STEP)), max(2, -(-height // _RELIEF_STEP))
    grid = [
        (np.arange(n, dtype=np.float32) + 0.5) * (size / n) - 0.5 + start
        for n, size, start in ((coarse[0], width, box[0]), (coarse[1], height, box[1]))
    ]
    columns, rows = np.meshgrid(*grid)
    start = np.full(columns.shape, layer.centre_disparity(), np.float32)
    disparity = cv2.resize(refine(start, columns, rows, 8), (width, height), interpolation=cv2.INTER_LINEAR)
    columns, rows = np.meshgrid(np.arange(box[0], box[2], dtype=np.float32), np.arange(box[1], box[3], dtype=np.float32))
    disparity = refine(disparity, columns, rows, 2)
    return disparity, columns + disparity, rows


def _remap_texture(layer: Layer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    middle = (x[0, 0] + x[-1, -1]) / 2, (y[0, 0] + y[-1, -1]) / 2
    level = level_at(layer.texture, layer.to_texture.tolist(), *map(float, middle))
    h = (to_level(level) @ layer.to_texture).astype(np.float32)
    u, v = (h[i, 0] * x + h[i, 1] * y + h[i, 2] for i in range(2))
    if h[2, 0] or h[2, 1]:
        q = 1 / (h[2, 0] * x + h[2, 1] * y + h[2, 2])
        u, v = u * q, v * q
    return cv2.remap(layer.texture[level], u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def to_level(level: int) -> np.ndarray:
    """Texels of the finest level to those of another."""
    s = 0.5**level
    return np.array([[s, 0, 0.5 * s - 0.5], [0, s, 0.5 * s - 0.5], [0, 0, 1]])


def _density(h: list[list[float]], x, y):
    """Texels per pixel at left pixels (x, y), squared: between that of the longer direction and that of the area."""
    (h00, h01, h02), (h10, h11, h12), (h20, h21, h22) = h
    q = 1 / (h20 * x + h21 * y + h22)
    u, v = (h00 * x + h01 * y + h02) * q, (h10 * x + h11 * y + h12) * q
    ux, uy, vx, vy = (h00 - u * h20) * q, (h01 - u * h21) * q, (h10 - v * h20) * q, (h11 - v * h21) * q
    longest = ux * ux + uy * uy + vx * vx + vy * vy
    return (longest * abs(ux * vy - uy * vx)) ** 0.5 + 1e-12


def level_at(texture: Pyramid, h: list[list[float]], x: float, y: float) -> int:
    """The pyramid level to sample at a left pixel; added to the texture if missing."""
    return _grown(texture, int(0.5 * math.log2(_density(h, x, y)) + _BLUR))


def _grown(texture: Pyramid, level: int) -> int:
    """The level nearest to `level` that the texture has once coarser ones have been added."""
    level = max(0, min(level, _LEVELS, min(texture[0].shape[:2]).bit_length() - 4))
    while len(texture) <= level:
        height, width = texture[-1].shape[:2]
        texture.append(cv2.resize(texture[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return level


def warp_texture(texture: Pyramid, h: np.ndarray, box: Box) -> np.ndarray:
    """Colours (box height, box width, 3) of a texture under a homography from pixels to texels, minified without aliasing.

    A box whose texel density varies (a road) is drawn in strips across the steeper direction, each from one level.
    """
    x0, y0, x1, y1 = box
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    rows = h.tolist()
    swing = abs(rows[2][0]) * (x1 - x0) + abs(rows[2][1]) * (y1 - y0)
    if swing < 0.2 * abs(rows[2][0] * x + rows[2][1] * y + rows[2][2]):
        level = level_at(texture, rows, x, y)
        return warp_level(texture[level], to_level(level) @ h if level else h, box, cv2.BORDER_REFLECT_101)
    by_rows = abs(rows[2][1]) * (y1 - y0) >= abs(rows[2][0]) * (x1 - x0)
    start, end = (y0, y1) if by_rows else (x0, x1)
    at = np.arange(start, end, _STRIP) + 0.5
    levels = 0.5 * np.log2(_density(rows, *((x, at) if by_rows else (at, y)))) + _BLUR
    levels = np.clip(levels, 0, _grown(texture, int(max(levels[0], levels[-1])))).astype(int)
    cuts = (np.flatnonzero(np.diff(levels)) + 1).tolist()
    edges = [start, *(start + _STRIP * k for k in cuts), end]
    parts = []
    for low, high, k in zip(edges, edges[1:], (0, *cuts), strict=False):
        part = (x0, low, x1, high) if by_rows else (low, y0, high, y1)
        parts.append(warp_level(texture[levels[k]], to_level(int(levels[k])) @ h, part, cv2.BORDER_REFLECT_101))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, 0 if by_rows else 1)


def warp_level(source: np.ndarray, h: np.ndarray, box: Box, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """A box of pixels of an image that `h` maps them into."""
    x0, y0, x1, y1 = box
    h = h.copy()
    h[:, 2] += h[:, 0] * x0 + h[:, 1] * y0
    return cv2.warpPerspective(source, h, (x1 - x0, y1 - y0), flags=_FLAGS, borderMode=border)


def composite(view: View, box: Box, colour: np.ndarray, mask: np.ndarray | None, disparity: np.ndarray, opacity: float):
    """Paints over what is farther; returns bool where. Pixels at least half covered take the new disparity."""
    where = slice(box[1], box[3]), slice(box[0], box[2])
    image, depth = view.image[where], view.disparity[where]
    nearer = disparity > depth
    if opacity < 1:
        covered = nearer if mask is None else nearer & (mask >= 128)
        blend = cv2.addWeighted(colour, opacity, image, 1 - opacity, 0)
        np.copyto(image, blend, where=covered[..., None])
        return covered
    if mask is None:
        np.copyto(depth, disparity, where=nearer)
        cv2.copyTo(colour, nearer.view(np.uint8), image)
        return nearer
    mask = cv2.bitwise_and(mask, mask, mask=nearer.view(np.uint8))
    np.copyto(depth, disparity, where=mask >= 128)
    cv2.copyTo(colour, (mask == 255).view(np.uint8), image)
    edge = np.flatnonzero((mask + np.uint8(1)) > 1).astype(np.int32)  # neither 0 nor 255
    rows = edge // np.int32(mask.shape[1])
    columns = edge - rows * np.int32(mask.shape[1])
    weight = mask[rows, columns, None].astype(np.float32) * np.float32(1 / 255)
    under = image[rows, columns].astype(np.float32)
    image[rows, columns] = (under + (colour[rows, columns] - under) * weight + 0.5).astype(np.uint8)
    return nearer
