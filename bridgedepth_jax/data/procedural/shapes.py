"""Outlines: each is `outline(rng, height, width)` -> uint8 coverage, drawn at MASK_SCALE samples a pixel with soft edges."""

import cv2
import numpy as np

from bridgedepth_jax.data.procedural.fields import Rng, smooth_noise
from bridgedepth_jax.data.procedural.render import MASK_SCALE

_SHIFT = 4  # fractional bits of drawn coordinates


def _blank(height: int, width: int) -> np.ndarray:
    return np.zeros((height * MASK_SCALE, width * MASK_SCALE), np.uint8)


def fill(height: int, width: int, polygons) -> np.ndarray:
    """Filled polygons given in pixels of the box."""
    mask = _blank(height, width)
    for points in polygons:
        corners = np.round(np.asarray(points) * (MASK_SCALE << _SHIFT)).astype(np.int32)
        cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, _SHIFT)
    return mask


def strokes(mask: np.ndarray, lines, thickness: float) -> None:
    """Draws polylines (pixels of the box) of a thickness in pixels into a mask."""
    width = max(1, round(thickness * MASK_SCALE))
    for points in lines:
        corners = np.round(np.asarray(points) * (MASK_SCALE << _SHIFT)).astype(np.int32)
        cv2.polylines(mask, [corners], False, 255, width, cv2.LINE_AA, _SHIFT)


def ellipse(rng: Rng, height: int, width: int) -> np.ndarray:
    mask = _blank(height, width)
    centre = (mask.shape[1] / 2, mask.shape[0] / 2)
    cv2.ellipse(mask, (centre, (mask.shape[1] - 3, mask.shape[0] - 3), 0), 255, -1, cv2.LINE_AA)
    return mask


def rectangle(rng: Rng, height: int, width: int) -> np.ndarray:
    mask = _blank(height, width)
    mask[2:-2, 2:-2] = 255
    return mask


def polygon(rng: Rng, height: int, width: int) -> np.ndarray:
    count = int(rng.integers(3, 11))
    turns = np.sort(rng.uniform(0, 2 * np.pi, count)) if rng.random() < 0.6 else np.arange(count) * 2 * np.pi / count
    radii = rng.uniform(0.35, 1, count) if rng.random() < 0.5 else np.ones(count)
    points = np.stack([np.cos(turns), np.sin(turns)], 1) * radii[:, None] * 0.48 + 0.5
    return fill(height, width, [points * (width, height)])


def blob(rng: Rng, height: int, width: int) -> np.ndarray:
    """A closed smooth outline."""
    turns = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    radius = np.ones(90)
    for order in range(1, 7):
        radius += rng.normal(0, 0.3 / order) * np.cos(order * turns + rng.uniform(0, 6))
    points = np.stack([np.cos(turns), np.sin(turns)], 1) * np.clip(radius, 0.25, None)[:, None]
    low, high = points.min(0), points.max(0)
    return fill(height, width, [(0.01 + 0.98 * (points - low) / (high - low)) * (width, height)])


def _threshold(field: np.ndarray, level: float, height: int, width: int) -> np.ndarray:
    """Coverage where a field exceeds a level, edges about one sample wide."""
    gradient = np.abs(np.diff(field, axis=1)).mean() + 1e-4
    return (np.clip((field - level) / (2 * gradient) + 0.5, 0, 1) * 255).astype(np.uint8)


def islands(rng: Rng, height: int, width: int) -> np.ndarray:
    """Ragged patches of noise, cut off towards the border of the box."""
    h, w = height * MASK_SCALE, width * MASK_SCALE
    field = smooth_noise(rng, h, w, rng.uniform(3, 14)) + 0.5 * smooth_noise(rng, h, w, rng.uniform(14, 40))
    return cv2.min(_threshold(field, rng.uniform(0.65, 0.95), height, width), ellipse(rng, height, width))


def foliage(rng: Rng, height: int, width: int) -> np.ndarray:
    """A bush or crown: many leaves around clusters, with gaps."""
    mask = _blank(height, width)
    size = rng.uniform(0.03, 0.09) * min(mask.shape) + 3
    count = int(min(500, rng.uniform(0.7, 1.8) * mask.size / (size * size * 1.5)))
    turns, radii = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count)) * rng.uniform(0.75, 1, count)
    bumps = 0.8 + 0.2 * np.cos(rng.integers(2, 6) * turns + rng.uniform(0, 6))
    x = (0.5 + 0.47 * radii * bumps * np.cos(turns)) * mask.shape[1]
    y = (0.5 + 0.47 * radii * bumps * np.sin(turns)) * mask.shape[0]
    axes = size * rng.uniform(0.5, 1.5, (count, 2)) * (1, rng.uniform(0.25, 0.8))
    angles = rng.uniform(0, 180, count)
    for i in range(count):
        cv2.ellipse(mask, ((x[i], y[i]), (2 * axes[i, 0], 2 * axes[i, 1]), angles[i]), 255, -1, cv2.LINE_AA)
    return mask


def _thickness(rng: Rng, size: float) -> float:
    return float(np.clip(size * 10 ** rng.uniform(-2.2, -1.1), 0.75, 14))


def bars(rng: Rng, height: int, width: int) -> np.ndarray:
    """Parallel bars, upright mostly: a fence, a railing, blinds."""
    mask = _blank(height, width)
    thick = _thickness(rng, min(height, width))
    upright = rng.random() < 0.7
    length = width if upright else height
    pitch = max(thick * rng.uniform(2, 7), 4)
    lean = rng.uniform(-0.15, 0.15) * length if rng.random() < 0.4 else 0
    at = np.arange(thick, length - thick, pitch)
    ends = [((p, 0), (p + lean, height)) if upright else ((0, p), (width, p + lean)) for p in at]
    strokes(mask, ends, thick)
    for p in rng.uniform(0.03, 0.97, int(rng.integers(0, 4))):
        line = ((0, p * height), (width, p * height)) if upright else ((p * width, 0), (p * width, height))
        strokes(mask, [line], thick * rng.uniform(0.8, 2))
    return mask


def grid(rng: Rng, height: int, width: int) -> np.ndarray:
    """A lattice, straight or diagonal."""
    mask = _blank(height, width)
    thick = float(np.clip(_thickness(rng, min(height, width)), 0.75, 4))
    pitch = max(thick * rng.uniform(4, 14), 6)
    reach = height + width
    slope = rng.choice((0.0, 1.0, rng.uniform(0.2, 1.5)), p=(0.5, 0.3, 0.2))
    at = np.arange(-reach, reach, pitch)
    strokes(mask, [((p, 0), (p + slope * height, height)) for p in at], thick)
    strokes(mask, [((0, p), (width, p - slope * width)) for p in at], thick)
    return mask


def wires(rng: Rng, height: int, width: int) -> np.ndarray:
    """A few long curves: cables, stems."""
    mask = _blank(height, width)
    t = np.linspace(0, 1, 24)
    for _ in range(int(rng.integers(1, 7))):
        points = rng.uniform(0, 1, (4, 2)) * (width, height)
        weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
        strokes(mask, [weights @ points], _thickness(rng, min(height, width)))
    return mask


def ring(rng: Rng, height: int, width: int) -> np.ndarray:
    """A wheel: rim, hub, spokes."""
    mask = _blank(height, width)
    thick = _thickness(rng, min(height, width)) * rng.uniform(1, 2.5)
    turns = np.linspace(0, 2 * np.pi, 60)
    rim = np.stack([np.cos(turns), np.sin(turns)], 1) * (width / 2 - thick, height / 2 - thick) + (width / 2, height / 2)
    strokes(mask, [rim], thick)
    count = int(rng.integers(0, 15))
    for angle in np.arange(count) * 2 * np.pi / max(count, 1) + rng.uniform(0, 3):
        end = (width / 2 + (width / 2 - thick) * np.cos(angle), height / 2 + (height / 2 - thick) * np.sin(angle))
        strokes(mask, [((width / 2, height / 2), end)], thick * 0.4)
    return mask


def frame(rng: Rng, height: int, width: int) -> np.ndarray:
    """Furniture from the side: legs, a seat, a lattice back; or a window frame."""
    mask = _blank(height, width)
    thick = _thickness(rng, min(height, width)) * 1.5
    seat, back = rng.uniform(0.35, 0.65) * height, rng.uniform(0, 0.4) * width
    left, right = thick, width - thick
    if rng.random() < 0.5:
        strokes(mask, [((left, thick), (right, thick), (right, height - thick), (left, height - thick), (left, thick))], thick)
        cross = [((p * width, 0), (p * width, height)) for p in rng.uniform(0.1, 0.9, int(rng.integers(0, 4)))]
        cross += [((0, p * height), (width, p * height)) for p in rng.uniform(0.1, 0.9, int(rng.integers(0, 4)))]
        strokes(mask, cross, thick * rng.uniform(0.4, 1))
        return mask
    strokes(mask, [((left, 0), (left, height)), ((right, seat), (right, height)), ((left, seat), (right, seat))], thick)
    strokes(mask, [((left + back, seat), (left + back, height)), ((right - back, seat), (right - back, height))], thick * 0.7)
    strokes(mask, [((left, y * seat), (left + back, y * seat)) for y in np.linspace(0.1, 0.9, 4)], thick * 0.6)
    return mask


def shelf(rng: Rng, height: int, width: int, rows: int) -> np.ndarray:
    """Two posts and the boards between them."""
    mask = _blank(height, width)
    thick = max(1.0, height * rng.uniform(0.008, 0.03))
    strokes(mask, [((thick, 0), (thick, height)), ((width - thick, 0), (width - thick, height))], thick)
    levels = height - thick / 2 - np.arange(rows + 1) * (height - thick) / rows
    strokes(mask, [((0, y), (width, y)) for y in levels], thick)
    return mask


def branches(rng: Rng, height: int, width: int) -> np.ndarray:
    """A bare tree."""
    mask = _blank(height, width)
    pending = [(np.array([width / 2, height - 1.0]), -np.pi / 2, height * rng.uniform(0.25, 0.4), width * 0.05 + 1)]
    drawn = 0
    while pending and drawn < 120:
        start, heading, length, thick = pending.pop(0)
        end = start + length * np.array([np.cos(heading), np.sin(heading)])
        strokes(mask, [(start, end)], thick)
        drawn += 1
        if length > 4:
            for _ in range(int(rng.integers(2, 4))):
                pending.append((end, heading + rng.normal(0, 0.5), length * rng.uniform(0.55, 0.85), max(thick * 0.65, 0.75)))
    return mask


def letters(rng: Rng, height: int, width: int) -> np.ndarray:
    mask = _blank(height, width)
    word = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUXYZ2345689&?"), int(rng.integers(1, 5))))
    scale = min(mask.shape[0] / 30, mask.shape[1] / (20 * len(word)))
    place = (2, int(mask.shape[0] * 0.85))
    cv2.putText(mask, word, place, int(rng.integers(8)), scale, 255, max(2, int(scale * rng.uniform(1, 5))), cv2.LINE_AA)
    return mask


def figure(rng: Rng, height: int, width: int) -> np.ndarray:
    """An upright body: head, trunk, legs, arms."""
    mask = _blank(height, width)
    centre = width / 2 + rng.uniform(-0.05, 0.05) * width
    trunk = [(centre, height * 0.22), (centre, height * 0.5)]
    strokes(mask, [trunk], width * rng.uniform(0.25, 0.4))
    for side in (-1, 1):
        foot = (centre + side * rng.uniform(0.05, 0.3) * width, height * 0.97)
        hand = (centre + side * rng.uniform(0.15, 0.45) * width, height * rng.uniform(0.3, 0.6))
        strokes(mask, [(trunk[1], foot)], width * 0.15)
        strokes(mask, [(trunk[0], hand)], width * 0.11)
    radius = 0.075 * height * MASK_SCALE
    cv2.circle(mask, (int(centre * MASK_SCALE), int(0.1 * height * MASK_SCALE)), int(radius), 255, -1, cv2.LINE_AA)
    return mask


def blades(rng: Rng, height: int, width: int, count: int) -> np.ndarray:
    """Tapering leaves from the middle of the bottom to random places at the top or sides."""
    return fill(height, width, [_blade(rng, height, width) for _ in range(count)])


def _blade(rng: Rng, height: int, width: int) -> np.ndarray:
    t = np.linspace(0, 1, 20)[:, None]
    foot = np.array([width / 2, height - 1.0])
    tip = np.array([rng.uniform(0.02, 0.98) * width, rng.uniform(0.01, 0.6) * height])
    bend = (foot + tip) / 2 + rng.normal(0, 0.15, 2) * (width, height) + (0, -0.1 * height)
    spine = (1 - t) ** 2 * foot + 2 * t * (1 - t) * bend + t**2 * tip
    along = 2 * (1 - t) * (bend - foot) + 2 * t * (tip - bend)
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / (np.sqrt((along**2).sum(1, keepdims=True)) + 1e-6)
    thick = rng.uniform(0.02, 0.07) * (height + width) / 2 + 1
    half = thick * (1 - t) ** rng.uniform(0.5, 0.9) * (0.6 + 0.8 * np.sin(np.pi * (t * 0.8 + 0.1)))
    return np.concatenate([spine + half * normal, (spine - half * normal)[::-1]])


SOLID = (ellipse, rectangle, rectangle, polygon, polygon, blob, blob, islands, figure)
THIN = (bars, bars, grid, wires, wires, ring, frame, frame, branches, letters, foliage, foliage)
