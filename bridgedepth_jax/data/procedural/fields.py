"""Families of generated patterns: each is `family(rng, n)` -> uint8 (n, n) or, where it has colours of its own, (n, n, 3).

Grey patterns get a fresh palette at every use; `FAMILIES` is the table to extend.
"""

import colorsys
import string

import cv2
import numpy as np

Rng = np.random.Generator


def smooth_noise(rng: Rng, height: int, width: int, cells: float) -> np.ndarray:
    """float32 (height, width) in about 0..1: value noise with `cells` cells along the longer side."""
    step = max(height, width) / cells
    if step > 24:  # smooth enough to draw small and enlarge
        small = smooth_noise(rng, height // 4 + 1, width // 4 + 1, cells)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    grid = rng.random((int(height / step) + 3, int(width / step) + 3), np.float32)
    scale = np.array([[1 / step, 0, 0.5 + rng.random()], [0, 1 / step, 0.5 + rng.random()]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(grid, scale, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def fractal(rng: Rng, n: int, base: float, octaves: int, persistence: float) -> np.ndarray:
    """float32 (n, n) in 0..1: value noise of doubling frequency and falling amplitude."""
    total = np.zeros((n, n), np.float32)
    for octave in range(octaves):
        cells = base * 2**octave
        if cells > n / 2:
            break
        total += persistence**octave * smooth_noise(rng, n, n, cells)
    return normalised(total)


def normalised(field: np.ndarray) -> np.ndarray:
    low, high = np.percentile(field[::4, ::4], (0.5, 99.5))
    return np.clip((field - low) / max(high - low, 1e-6), 0, 1)


def _grey(field: np.ndarray) -> np.ndarray:
    return (np.clip(field, 0, 1) * 255).astype(np.uint8)


def _axes(rng: Rng, n: int, warp: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates, rotated by a random angle and bent by up to `warp` pixels."""
    y, x = np.mgrid[:n, :n].astype(np.float32)
    angle = rng.choice((0.0, np.pi / 2, rng.uniform(0, np.pi)), p=(0.35, 0.25, 0.4))
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if warp:
        u = u + warp * (smooth_noise(rng, n, n, rng.uniform(2, 8)) - 0.5)
        v = v + warp * (smooth_noise(rng, n, n, rng.uniform(2, 8)) - 0.5)
    return u.astype(np.float32), v.astype(np.float32)


def clouds(rng: Rng, n: int) -> np.ndarray:
    return _grey(fractal(rng, n, rng.uniform(1.5, 5), int(rng.integers(2, 5)), rng.uniform(0.3, 0.55)))


def rough(rng: Rng, n: int) -> np.ndarray:
    return _grey(fractal(rng, n, rng.uniform(2, 16), 8, rng.uniform(0.55, 0.95)))


def grain(rng: Rng, n: int) -> np.ndarray:
    noise = rng.random((n, n), np.float32)
    return _grey(normalised(cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.7, 3.5))))


def streaks(rng: Rng, n: int) -> np.ndarray:
    noise = rng.random((n, n), np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=rng.uniform(6, 40), sigmaY=rng.uniform(0.7, 2))
    noise = normalised(noise)
    return _grey(noise.T if rng.random() < 0.5 else noise)


def _nearest_points(rng: Rng, n: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest of `count` random points and its number."""
    ground = np.full((n, n), 255, np.uint8)
    spots = rng.integers(0, n, (count, 2))
    ground[spots[:, 0], spots[:, 1]] = 0
    return cv2.distanceTransformWithLabels(ground, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)


def cells(rng: Rng, n: int) -> np.ndarray:
    distance, label = _nearest_points(rng, n, int(10 ** rng.uniform(1.5, 3.3)))
    shade = rng.random(label.max() + 1, np.float32)[label]
    kind = rng.integers(3)
    if kind == 0:
        return _grey(shade)
    relief = np.clip(distance / (np.percentile(distance[::4, ::4], 95) + 1e-3), 0, 1)
    return _grey(0.6 * (1 - relief) + 0.4 * shade if kind == 1 else (0.3 + 0.7 * shade) * (1 - relief**2))


def mosaic(rng: Rng, n: int) -> np.ndarray:
    """Irregular stones with joints."""
    _, label = _nearest_points(rng, n, int(10 ** rng.uniform(1.6, 2.8)))
    stone = rng.uniform(0.35, 1, label.max() + 1).astype(np.float32)[label]
    joints = cv2.morphologyEx(label.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    stone[joints] = rng.uniform(0, 0.3)
    return _grey(stone * (0.7 + 0.3 * fractal(rng, n, 16, 5, 0.8)))


def wood(rng: Rng, n: int) -> np.ndarray:
    u, v = _axes(rng, n, rng.uniform(5, 60))
    rings = np.sin(u * rng.uniform(0.05, 0.4) + 3 * smooth_noise(rng, n, n, 3))
    fibre = cv2.GaussianBlur(rng.random((n, n), np.float32), (0, 0), sigmaX=1, sigmaY=9)
    plank = int(rng.integers(30, 120))
    board = rng.random(1024, np.float32)[(np.abs(u) // plank).astype(int) % 1024] if rng.random() < 0.5 else 0.5
    edge = (np.abs(u) % plank < 1.6) * 0.5 if isinstance(board, np.ndarray) else 0
    return _grey(0.35 + 0.18 * rings + 0.35 * (normalised(fibre) - 0.5) + 0.4 * (board - 0.5) - edge + 0 * v)


def marble(rng: Rng, n: int) -> np.ndarray:
    u, _ = _axes(rng, n)
    phase = u * rng.uniform(0.01, 0.08) + rng.uniform(3, 10) * fractal(rng, n, rng.uniform(2, 5), 6, 0.55)
    return _grey(np.abs(np.sin(phase)) ** rng.uniform(0.3, 1.5))


def stripes(rng: Rng, n: int) -> np.ndarray:
    u, _ = _axes(rng, n, rng.choice((0.0, rng.uniform(5, 40))))
    period = 10 ** rng.uniform(0.75, 1.9)
    phase = u / period % 1
    profile = rng.random(int(rng.integers(2, 7)), np.float32)
    return _grey(cv2.GaussianBlur(profile[(phase * len(profile)).astype(int) % len(profile)], (0, 0), 0.7))


def checks(rng: Rng, n: int) -> np.ndarray:
    u, v = _axes(rng, n, rng.choice((0.0, rng.uniform(5, 30))))
    p, q = 10 ** rng.uniform(0.8, 1.9, 2) if rng.random() < 0.5 else [10 ** rng.uniform(0.8, 1.9)] * 2
    i, j = np.floor(u / p).astype(int), np.floor(v / q).astype(int)
    random = rng.random((16, 16), np.float32)
    field = ((i + j) % 2).astype(np.float32) if rng.random() < 0.5 else random[i % 16, j % 16]
    return _grey(cv2.GaussianBlur(field, (0, 0), 0.7))


def bricks(rng: Rng, n: int) -> np.ndarray:
    u, v = _axes(rng, n, rng.choice((0.0, 3.0)))
    height = 10 ** rng.uniform(1.0, 1.7)
    width, joint = height * rng.uniform(1, 3.5), rng.uniform(1, 3)
    row = np.floor(v / height).astype(int)
    shifted = u + (row % 2) * width * rng.choice((0.0, 0.5))
    column = np.floor(shifted / width).astype(int)
    shade = rng.uniform(0.4, 0.9, (37, 41)).astype(np.float32)[row % 37, column % 41]
    mortar = (v - row * height < joint) | (shifted - column * width < joint)
    shade = np.where(mortar, rng.uniform(0, 1), shade).astype(np.float32)
    return _grey(cv2.GaussianBlur(shade, (0, 0), 0.7) * (0.7 + 0.3 * fractal(rng, n, 16, 5, 0.9)))


def weave(rng: Rng, n: int) -> np.ndarray:
    u, v = _axes(rng, n, rng.uniform(0, 20))
    period = rng.uniform(3.5, 12)
    thread = np.sin(2 * np.pi * u / period) * np.sin(2 * np.pi * v / period)
    return _grey(0.5 + 0.3 * thread + 0.3 * (fractal(rng, n, 8, 6, 0.8) - 0.5))


def wallpaper(rng: Rng, n: int) -> np.ndarray:
    """A coloured motif repeated on a lattice, like printed cloth."""
    tile = int(rng.integers(24, 110))
    motif = dead_leaves(rng, max(tile, 32), int(rng.integers(4, 30)))[:tile, :tile]
    ground = np.full_like(motif, rng.integers(60, 250, 3))
    shape = np.zeros((tile, tile), np.uint8)
    for _ in range(int(rng.integers(1, 5))):
        centre = rng.uniform(0.2, 0.8, 2) * tile
        size = rng.uniform(0.1, 0.35, 2) * tile
        cv2.ellipse(shape, (tuple(centre), tuple(2 * size), rng.uniform(0, 180)), 255, -1, cv2.LINE_AA)
    motif = np.where(shape[..., None] > 127, motif, ground)
    times = -(-n // tile) + 1
    rows = [np.tile(motif if i % 2 == 0 else np.roll(motif, tile // 2, 1), (1, times, 1)) for i in range(times)]
    return np.ascontiguousarray(np.concatenate(rows)[:n, :n])


def natural_colour(rng: Rng) -> np.ndarray:
    """float32 (3,) 0..255 RGB: mostly muted, sometimes vivid, like the things in photographs."""
    hue = rng.uniform(0, 180) if rng.random() < 0.5 else rng.normal(18, 12) % 180
    saturation = 255 * (rng.beta(1.2, 4) if rng.random() < 0.75 else rng.beta(4, 2))
    value = 255 * min(max(rng.beta(1.8, 1.5), 0.05), 0.97)
    return np.array(colorsys.hsv_to_rgb(hue / 180, saturation / 255, value), np.float32)


def dead_leaves(rng: Rng, n: int, count: int | None = None) -> np.ndarray:
    """Overlapping shapes of all sizes: the simplest picture with the statistics of natural images."""
    palette = [natural_colour(rng) for _ in range(int(rng.integers(3, 14)))]
    image = np.full((n, n, 3), palette[0], np.uint8)
    count = int(10 ** rng.uniform(1.8, 3.2)) if count is None else count
    smallest = rng.uniform(0.008, 0.03)
    sizes = n * smallest * rng.pareto(1.2, count).clip(0, 12) + n * smallest
    centres = rng.uniform(-0.05, 1.05, (count, 2)) * n
    kind = rng.integers(4, size=count) if rng.random() < 0.6 else np.full(count, rng.integers(4))
    angles = rng.uniform(0, np.pi, count) if rng.random() < 0.6 else np.zeros(count)
    for i in np.argsort(-sizes, kind="stable"):
        colour = palette[int(rng.integers(len(palette)))] * rng.uniform(0.7, 1.25)
        shape = int(kind[i]), centres[i], float(sizes[i]), float(angles[i])
        _leaf(rng, image, *shape, tuple(map(float, colour.clip(0, 255))))
    return image


def _leaf(rng: Rng, image: np.ndarray, kind: int, centre, size: float, angle: float, colour) -> None:
    aspect = rng.uniform(0.25, 1)
    if kind == 0:
        cv2.ellipse(image, (tuple(centre), (2 * size, 2 * size * aspect), np.degrees(angle)), colour, -1, cv2.LINE_AA)
        return
    if kind == 1:
        corners = np.array([[-1, -aspect], [1, -aspect], [1, aspect], [-1, aspect]]) * size
    elif kind == 2:
        turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        corners = np.stack([np.cos(turns), np.sin(turns)], 1) * size
    else:
        corners = np.array([[-1, 0], [-0.2, -0.3 * aspect], [1, 0], [-0.2, 0.3 * aspect]]) * size
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.round((corners @ turn.T + centre) * 16).astype(np.int32)
    cv2.fillPoly(image, [points], colour, cv2.LINE_AA, 4)


def text(rng: Rng, n: int) -> np.ndarray:
    image = np.full((n, n), (235, 20, int(rng.integers(256)))[int(rng.integers(3))], np.uint8)
    y = 0.0
    while y < n + 20:
        scale = rng.choice((0.35, 0.5, 0.8, 1.4, 2.6), p=(0.25, 0.3, 0.2, 0.15, 0.1)) * rng.uniform(0.8, 1.2)
        line = "".join(rng.choice(list(string.ascii_letters + string.digits + "     .,-"), int(rng.integers(4, 60))))
        y += 30 * scale * rng.uniform(1, 1.6) + 4
        ink = int(rng.integers(0, 90)) if image[0, 0] > 127 else int(rng.integers(160, 255))
        place = int(rng.uniform(-0.05, 0.5) * n), int(y)
        cv2.putText(image, line, place, int(rng.integers(8)), scale, ink, int(rng.integers(1, 4) * max(1, scale)), cv2.LINE_AA)
    return image


def facade(rng: Rng, n: int) -> np.ndarray:
    """Rows of alike windows, or shelves, or panels."""
    image = np.full((n, n, 3), natural_colour(rng), np.uint8)
    image = cv2.addWeighted(image, 0.85, cv2.cvtColor(rough(rng, n), cv2.COLOR_GRAY2RGB), 0.15, 0)
    pitch = rng.integers(24, 110, 2)
    size = pitch * rng.uniform(0.35, 0.9, 2)
    frame, pane = natural_colour(rng), natural_colour(rng)
    varied = rng.random() < 0.5
    for y in range(int(rng.integers(0, 20)), n, int(pitch[1])):
        for x in range(int(rng.integers(0, 4)), n, int(pitch[0])):
            fill = natural_colour(rng) if varied else pane * rng.uniform(0.8, 1.15)
            corner = int(x + size[0]), int(y + size[1])
            cv2.rectangle(image, (x, y), corner, tuple(map(float, fill.clip(0, 255))), -1)
            cv2.rectangle(image, (x, y), corner, tuple(map(float, frame)), int(rng.integers(1, 4)), cv2.LINE_AA)
            if not varied:
                middle = int(x + size[0] / 2)
                cv2.line(image, (middle, y), (middle, corner[1]), tuple(map(float, frame)), 1, cv2.LINE_AA)
    return image


def scribble(rng: Rng, n: int) -> np.ndarray:
    """Twigs, grass, scratches: many thin strokes."""
    image = np.full((n, n), int(rng.integers(20, 200)), np.uint8)
    count = int(10 ** rng.uniform(1.5, 3))
    length, heading, spread = rng.uniform(10, 120), rng.uniform(0, np.pi), rng.choice((0.2, 3.0))
    starts = rng.uniform(-20, n + 20, (count, 2))
    turns = heading + spread * rng.uniform(-0.5, 0.5, count)
    ends = starts + np.stack([np.cos(turns), np.sin(turns)], 1) * length * rng.uniform(0.3, 1, (count, 1))
    thick = int(rng.integers(1, 4))
    for start, end in zip(starts, ends, strict=True):
        cv2.line(image, tuple(map(int, start)), tuple(map(int, end)), int(rng.integers(256)), thick, cv2.LINE_AA)
    return image


def road(rng: Rng, n: int) -> np.ndarray:
    """Asphalt or paving; lines run along the second axis."""
    ground = 70 + rng.uniform(-20, 70) + 45 * (fractal(rng, n, 32, 6, 0.95) - 0.5) + 40 * (fractal(rng, n, 2, 3, 0.5) - 0.5)
    image = np.repeat(ground[..., None], 3, 2) * rng.uniform(0.95, 1.05, 3)
    for _ in range(int(rng.integers(0, 4))):
        x, width, bright = rng.integers(0, n), rng.integers(4, 14), rng.uniform(150, 250)
        dash = np.arange(n) % 128 < (128 if rng.random() < 0.4 else rng.integers(30, 90))
        image[dash, x : x + width] += 0.7 * (bright - image[dash, x : x + width])
    image = image.clip(0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 8))):
        points = np.cumsum(rng.normal(0, 14, (12, 2)), 0) + rng.uniform(0, n, 2)
        cv2.polylines(image, [points.astype(np.int32)], False, (30, 30, 30), 1, cv2.LINE_AA)
    return image


def foliage(rng: Rng, n: int) -> np.ndarray:
    """Leaves over leaves, bright on dark."""
    image = np.full((n, n, 3), (15, 25, 12), np.uint8)
    hue, smallest = rng.uniform(20, 75), rng.uniform(3, 12)
    count = int(min(3000, 1.6 * (n / smallest) ** 2 / 3))
    light = fractal(rng, n, 6, 3, 0.6)
    centres = rng.uniform(0, n, (count, 2))
    hsv = np.stack([rng.normal(hue, 7, count).clip(0, 179), rng.uniform(60, 200, count), rng.uniform(40, 230, count)], 1)
    hsv[:, 2] *= 0.35 + 0.65 * light[centres[:, 1].astype(int), centres[:, 0].astype(int)]
    hsv = hsv[np.argsort(hsv[:, 2] + rng.normal(0, 40, count), kind="stable")]
    colours = cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0]
    for i in range(count):
        _leaf(
            rng,
            image,
            3 if i % 3 else 0,
            centres[i],
            smallest * rng.uniform(0.6, 1.6),
            rng.uniform(0, 6),
            tuple(map(int, colours[i])),
        )
    return image


FAMILIES = (
    clouds, rough, rough, grain, streaks, cells, mosaic, wood, marble, stripes, checks, bricks, weave, wallpaper, wallpaper,
    dead_leaves, dead_leaves, dead_leaves, dead_leaves, text, facade, scribble, foliage, road,
)  # fmt: skip
FINE = (rough, grain, streaks, weave)  # for detail on other patterns
