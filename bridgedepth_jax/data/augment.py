"""Training augmentation: colour, eraser, spatial, crop (spec: data, "Augmentation"). Pure functions of (sample, generator).

All random draws of a sample are made first, in a fixed order; then the geometry is applied, which leaves the crop, and colour
only where it will be seen. Two things differ from "colour first" by less than a grey level: where an image is resized, colour
follows the interpolation; and the mean colours that contrast and eraser need come from every fourth pixel of the whole image.

H, W: the image's size, h, w: the crop's.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from bridgedepth_jax.data.pairs import Sample
from bridgedepth_jax.data.table import Kind
from bridgedepth_jax.errors import InputError

# The original's constants, with which its weights were trained (spec `data.md`, Augmentation).
MAX_DISPARITY = 512.0  # pixels; a dense sample's larger ones are not valid
STRENGTH, SPARSE_STRENGTH = 0.4, 0.3  # factors of brightness and contrast are 1 plus or minus this
HUE, SPARSE_HUE = 0.5 / 3.14, 0.3 / 3.14  # turns, either way; 3.14 as the original has it
ERASED = (50, 100)  # pixels, from and below: sides of the eraser's rectangles
FLIP_PROBABILITY = {"": 0.0, "hf": 0.5, "h": 0.5, "v": 0.1}
SPARSE_BORDER = (20, 50)  # rows at the bottom, columns on both sides by which the draw of a sparse crop is widened
Y_JITTER = 2  # rows, either way

# What a loss may ask for beside views and disparity; all but the clean views are in the sample's files.
EXTRAS: dict[str, type[np.generic]] = {
    "left_clean": np.uint8,
    "right_clean": np.uint8,
    "confidence": np.float32,
    "nonocc": np.bool_,
    "inpaint": np.bool_,
}

PROBE_STRIDE = 4  # of the pixels that mean colours are taken from
GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What differs between experiments, and the two quirks of the original that can be turned off.

    `dense_resize_probability` is 0 as in the original, which resizes a dense sample only if it is smaller than the crop.
    `flip` "h" (swap and mirror the views) needs the right view's disparity: sets without it are refused. "hf" mirrors each
    view, which makes disparities negative, so nothing of a flipped sample stays valid.
    """

    enabled: bool = True  # False: only the crop
    saturation: tuple[float, float] = (0.0, 1.4)
    gamma: tuple[float, float] = (1.0, 1.0)
    spatial_scale: tuple[float, float] = (-0.2, 0.4)  # exponents of 2
    flip: Literal["", "hf", "h", "v"] = ""
    y_jitter: bool = False  # dense only: the right crop moves by -2..2 rows
    dense_resize_probability: float = 0.0
    sparse_resize_probability: float = 0.8
    stretch_probability: float = 0.8
    max_stretch: float = 0.2
    asymmetric_probability: float = 0.2  # dense: other colour draws for the right image
    eraser_probability: float = 0.5

    def __post_init__(self) -> None:
        if self.flip not in ("", "hf", "h", "v"):
            raise InputError(f"flip {self.flip!r}, expected '', 'hf', 'h' or 'v'")
        for name in ("saturation", "gamma", "spatial_scale"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"{name} ({low}, {high}): the lower end comes first")


@dataclasses.dataclass(frozen=True)
class Colour:
    """Draws of the colour jitter; factor 1, hue 0 and gamma 1 change nothing."""

    order: tuple[int, ...]  # of brightness, contrast, saturation, hue
    brightness: float
    contrast: float
    saturation: float
    hue: float  # turns
    gamma: float


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Resize to `size`, then mirror, then crop at (y, x), the right image at (right_y, x)."""

    size: tuple[int, int]  # H, W after the resize
    flip: Literal["", "hf", "h", "v"]
    y: int
    x: int
    right_y: int


Rectangle = tuple[int, int, int, int]  # y0, x0, y1, x1


def augment(
    sample: Sample,
    kind: Kind,
    crop: tuple[int, int],
    config: AugmentConfig,
    rng: np.random.Generator,
    extras: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """left, right (h, w, 3) uint8, disparity (h, w) float32, valid (h, w) bool, and some of `EXTRAS`.

    kind: "dense" recomputes valid as disparity < 512, "masked" is dense with the sample's own mask, "sparse" moves single
    points. ValueError for a flip "h" of a sample without `right_disparity`.
    """
    height, width = sample["left"].shape[:2]
    colours = draw_colours(kind, config, rng) if config.enabled else None
    rectangles = draw_rectangles((height, width), config, rng) if config.enabled else []
    geometry = draw_geometry((height, width), kind, crop, config, rng)

    left, right = (transform_image(sample[side], geometry, crop, side) for side in ("left", "right"))
    more = {name: transform_extra(name, sample, geometry, crop) for name in extras}
    disparity, valid = transform_disparity(sample, kind, geometry, crop)
    if colours is not None:
        probes = [sample[side][::PROBE_STRIDE, ::PROBE_STRIDE] for side in ("left", "right")]
        left, right, mean = recolour(left, right, probes, colours)
        for rectangle in rectangles:
            y0, x0, y1, x1 = transform_rectangle(rectangle, (height, width), geometry, crop)
            right[y0:y1, x0:x1] = mean
    if geometry.flip == "h":
        left, right = right, left
    return {"left": left, "right": right, "disparity": disparity, "valid": valid, **more}


def whole_views(sample: Sample, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """left, right (h, w, 3) uint8: the whole images at `size`, each pixel the mean of what it covers."""
    resize = lambda image: image if image.shape[:2] == size else cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    return {side: np.ascontiguousarray(resize(sample[side])) for side in ("left", "right")}


def draw_colours(kind: Kind, config: AugmentConfig, rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Of the left and the right image; the same object twice where they share their draws."""
    strength, hue = (SPARSE_STRENGTH, SPARSE_HUE) if kind == "sparse" else (STRENGTH, HUE)
    asymmetric = rng.random() < config.asymmetric_probability

    def draw() -> Colour:
        return Colour(
            order=tuple(rng.permutation(4).tolist()),
            brightness=rng.uniform(1 - strength, 1 + strength),
            contrast=rng.uniform(1 - strength, 1 + strength),
            saturation=rng.uniform(*config.saturation),
            hue=rng.uniform(-hue, hue),
            gamma=rng.uniform(*config.gamma),
        )

    first, second = draw(), draw()
    return first, second if asymmetric and kind != "sparse" else first


def draw_rectangles(size: tuple[int, int], config: AugmentConfig, rng: np.random.Generator) -> list[Rectangle]:
    """What the eraser hides of the right image, in its original pixels."""
    if rng.random() >= config.eraser_probability:
        return []
    rectangles = []
    for _ in range(rng.integers(1, 3)):
        y0, x0 = int(rng.integers(size[0])), int(rng.integers(size[1]))
        dy, dx = rng.integers(*ERASED, 2).tolist()
        rectangles.append((y0, x0, min(y0 + dy, size[0]), min(x0 + dx, size[1])))
    return rectangles


def draw_geometry(
    size: tuple[int, int], kind: Kind, crop: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> Geometry:
    """Size after the resize, mirroring and place of the crop (H, W of `crop`), so that the crop lies inside."""
    sparse = kind == "sparse"
    margin = 1 if sparse else 8
    least = max((crop[0] + margin) / size[0], (crop[1] + margin) / size[1])
    scale_y = scale_x = 2 ** rng.uniform(*config.spatial_scale)
    if not sparse and rng.random() < config.stretch_probability:
        scale_y *= 2 ** rng.uniform(-config.max_stretch, config.max_stretch)
        scale_x *= 2 ** rng.uniform(-config.max_stretch, config.max_stretch)
    probability = config.sparse_resize_probability if sparse else config.dense_resize_probability
    wanted = rng.random() < probability and config.enabled
    if wanted or size[0] < crop[0] or size[1] < crop[1]:
        if not config.enabled:
            scale_y = scale_x = least
        size = (round(size[0] * max(scale_y, least)), round(size[1] * max(scale_x, least)))
    flipped = rng.random() < FLIP_PROBABILITY[config.flip] and config.enabled
    space_y, space_x = size[0] - crop[0], size[1] - crop[1]
    if sparse:  # the border is drawn more often, where the points are
        bottom, sides = SPARSE_BORDER
        y = min(int(rng.integers(space_y + bottom)), space_y)
        x = min(max(int(rng.integers(-sides, space_x + sides)), 0), space_x)
    else:
        y, x = int(rng.integers(space_y + 1)), int(rng.integers(space_x + 1))
    jitter = int(rng.integers(-Y_JITTER, Y_JITTER + 1)) if config.y_jitter and not sparse and config.enabled else 0
    return Geometry(size, config.flip if flipped else "", y, x, min(max(y + jitter, 0), space_y))


def transform_image(image: np.ndarray, geometry: Geometry, crop: tuple[int, int], side: str) -> np.ndarray:
    """(H, W, 3) to (h, w, 3), contiguous and never the input's memory."""
    if image.shape[:2] != geometry.size:
        image = cv2.resize(image, geometry.size[::-1], interpolation=cv2.INTER_LINEAR)
    y = geometry.right_y if side == "right" else geometry.y
    return _mirror(image, geometry.flip)[y : y + crop[0], geometry.x : geometry.x + crop[1]].copy()


def transform_extra(name: str, sample: Sample, geometry: Geometry, crop: tuple[int, int]) -> np.ndarray:
    """One of `EXTRAS` of the crop: clean views and confidence interpolated, masks nearest; all rows are the left view's."""
    array = sample[name.removesuffix("_clean")]
    if array.shape[:2] != geometry.size:
        mask = array.dtype == np.bool_
        how = cv2.INTER_NEAREST_EXACT if mask else cv2.INTER_LINEAR
        pixels = array.astype(np.uint8) if mask else array
        array = cv2.resize(pixels, geometry.size[::-1], interpolation=how).astype(array.dtype)
    window = np.s_[geometry.y : geometry.y + crop[0], geometry.x : geometry.x + crop[1]]
    return _mirror(array, geometry.flip)[window].copy()


def transform_disparity(sample: Sample, kind: Kind, geometry: Geometry, crop: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Disparity and valid of the crop."""
    disparity, valid = sample["disparity"], sample["valid"]
    if geometry.flip == "h":
        if "right_disparity" not in sample:
            raise ValueError(f"{sample['name']}: the 'h' flip needs the right view's disparity")
        disparity = sample["right_disparity"]
        valid = disparity > 0
    elif kind == "dense":
        valid = valid | (disparity != 0)
    if disparity.shape != geometry.size:
        resize = _move_points if kind == "sparse" else _resize_dense
        disparity, valid = resize(disparity, valid, geometry.size)
    window = np.s_[geometry.y : geometry.y + crop[0], geometry.x : geometry.x + crop[1]]
    disparity, valid = (_mirror(array, geometry.flip)[window].copy() for array in (disparity, valid))
    if geometry.flip == "hf":
        disparity = -disparity
        valid &= disparity >= 0
    if kind != "sparse":
        valid &= disparity < MAX_DISPARITY
    return disparity, valid


def _mirror(array: np.ndarray, flip: str) -> np.ndarray:
    return {"": array, "hf": array[:, ::-1], "h": array[:, ::-1], "v": array[::-1]}[flip]


def _resize_dense(disparity: np.ndarray, valid: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Interpolates; a pixel that mixes in an unknown one is unknown."""
    scale = size[1] / disparity.shape[1]
    known = cv2.resize(valid.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) > 0.999
    return cv2.resize(disparity * np.float32(scale), size[::-1], interpolation=cv2.INTER_LINEAR), known


def _move_points(disparity: np.ndarray, valid: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Moves each valid point to its rounded new place; no point is interpolated."""
    scale_y, scale_x = size[0] / disparity.shape[0], size[1] / disparity.shape[1]
    y, x = np.nonzero(valid)
    new_y, new_x = np.rint(y * scale_y).astype(np.intp), np.rint(x * scale_x).astype(np.intp)
    inside = (new_y < size[0]) & (new_x < size[1])
    moved, there = np.zeros(size, np.float32), np.zeros(size, bool)
    moved[new_y[inside], new_x[inside]] = disparity[y[inside], x[inside]] * np.float32(scale_x)
    there[new_y[inside], new_x[inside]] = True
    return moved, there


def transform_rectangle(rectangle: Rectangle, size: tuple[int, int], geometry: Geometry, crop: tuple[int, int]) -> Rectangle:
    """Where a rectangle of the original right image lies in its crop (before views are swapped), clipped to it."""
    scale_y, scale_x = geometry.size[0] / size[0], geometry.size[1] / size[1]
    y0, x0, y1, x1 = (round(v * s) for v, s in zip(rectangle, (scale_y, scale_x) * 2, strict=True))
    if geometry.flip in ("hf", "h"):
        x0, x1 = geometry.size[1] - x1, geometry.size[1] - x0
    if geometry.flip == "v":
        y0, y1 = geometry.size[0] - y1, geometry.size[0] - y0
    y0, y1 = (min(max(v - geometry.right_y, 0), crop[0]) for v in (y0, y1))
    x0, x1 = (min(max(v - geometry.x, 0), crop[1]) for v in (x0, x1))
    return y0, x0, y1, x1


def recolour(
    left: np.ndarray, right: np.ndarray, probes: list[np.ndarray], colours: tuple[Colour, Colour]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both images after their jitter, and the mean colour (3,) uint8 of the whole right image after it.

    probes: some pixels of the two whole images. Images that share their draws share the mean of the contrast as well.
    """
    rows, probe_rows = left.shape[0], probes[0].shape[0]
    if colours[0] is colours[1]:
        both, probe = jitter(np.concatenate([left, right]), np.concatenate(probes), colours[0])
        left, right, probe = both[:rows], both[rows:], probe[probe_rows:]
    else:
        left, _ = jitter(left, probes[0], colours[0])
        right, probe = jitter(right, probes[1], colours[1])
    return left, right, np.round(cv2.mean(probe)[:3]).astype(np.uint8)


def jitter(image: np.ndarray, probe: np.ndarray, colour: Colour) -> tuple[np.ndarray, np.ndarray]:
    """Brightness, contrast, saturation and hue in the drawn order, then gamma, of uint8 RGB pixels and of the probe."""
    for number in colour.order:
        if number == 3:
            image, probe = (_shift_hue(pixels, colour.hue) for pixels in (image, probe))
            continue
        if number == 0:
            matrix = _affine(colour.brightness * np.eye(3), 0)
        elif number == 1:
            grey = float(np.round(np.array(cv2.mean(probe)[:3]) @ GREY))
            matrix = _affine(colour.contrast * np.eye(3), (1 - colour.contrast) * grey)
        else:
            matrix = _affine(colour.saturation * np.eye(3) + (1 - colour.saturation) * np.ones((3, 1)) * GREY, 0)
        image, probe = (cv2.transform(pixels, matrix) for pixels in (image, probe))  # rounds and saturates
    if colour.gamma != 1:
        table = np.round(255 * (np.arange(256) / 255) ** colour.gamma).astype(np.uint8)
        image, probe = (cv2.LUT(pixels, table) for pixels in (image, probe))
    return image, probe


def _affine(matrix: np.ndarray, shift: float) -> np.ndarray:
    return np.hstack([matrix, np.full((3, 1), shift)]).astype(np.float32)


def _shift_hue(pixels: np.ndarray, turns: float) -> np.ndarray:
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    # 256 steps are one turn, so wrapping is right. A whole row (h, 0, 0, h, 0, 0, ...) at a time is five times as fast.
    hsv.reshape(hsv.shape[0], -1)[:] += np.tile(np.array([round(turns * 255) % 256, 0, 0], np.uint8), hsv.shape[1])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
