"""What surfaces look like: a bank of generated patterns and photographs, dressed anew at every use.

The bank is a pure function of (seed, number), filled on demand and kept, so a sample does not depend on what was
rendered before it. A use draws a crop, a palette, a second pattern of detail, marks and soft shading.
"""

import importlib.util
from pathlib import Path

import cv2
import numpy as np

from bridgedepth_jax.data.procedural import fields
from bridgedepth_jax.data.procedural.config import SyntheticConfig
from bridgedepth_jax.data.procedural.fields import Rng, natural_colour
from bridgedepth_jax.errors import InputError

SIZE = 512  # of a bank texture, texels
_READY = 256
_PHOTO_SIZE = 1024  # longer sides are reduced to it
# The photographs and scans of the scikit-image wheel; its stereo pair is real test data and must never be here.
WHEEL_PHOTOS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def find_photos(photos: str | Path | bool | None) -> tuple[Path, ...]:
    """Files to use as photographs: None: those of an installed scikit-image; False: none; else all images of a folder."""
    if photos is False:
        return ()
    if photos is None or photos is True:
        package = importlib.util.find_spec("skimage")
        if package is None or not package.submodule_search_locations:
            return ()
        folder = Path(package.submodule_search_locations[0]) / "data"
        return tuple(folder / name for name in WHEEL_PHOTOS if (folder / name).is_file())
    folder = Path(photos)
    if not folder.is_dir():
        raise InputError(f"photos: {folder} is not a folder; expected one with images, or nothing for the built-in ones")
    files = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES))
    if not files:
        raise InputError(f"photos: no image in {folder}; expected {', '.join(sorted(_SUFFIXES))}")
    return files


class TextureBank:
    """Patterns number 0 .. config.textures - 1 and the photographs, made when first asked for."""

    def __init__(self, seed: int, config: SyntheticConfig, photos: tuple[Path, ...]):
        self.seed, self.config, self.photos = seed, config, photos
        self._patterns: dict[int, np.ndarray] = {}
        self._pictures: dict[int, np.ndarray] = {}
        self._ready: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_patterns": {}, "_pictures": {}, "_ready": {}}

    def pattern(self, number: int) -> np.ndarray:
        """uint8 (SIZE, SIZE) or (SIZE, SIZE, 3)."""
        if number not in self._patterns:
            rng = np.random.default_rng((self.seed, 1, number))
            family = fields.FAMILIES[number % len(fields.FAMILIES)]
            self._patterns[number] = family(rng, SIZE)
        return self._patterns[number]

    def photo(self, number: int) -> np.ndarray:
        """uint8 (h, w, 3) RGB, at most 1024 on a side."""
        if number not in self._pictures:
            path = self.photos[number]
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                raise InputError(f"photos: {path} cannot be read as an image")
            scale = _PHOTO_SIZE / max(image.shape[:2])
            if scale < 1:
                image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            self._pictures[number] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return self._pictures[number]

    def any_photo(self, rng: Rng, height: int, width: int) -> np.ndarray:
        """A random crop of a random photograph (or pattern), mirrored at random, uint8 (height, width, 3)."""
        if self.photos:
            image = self.photo(int(rng.integers(len(self.photos))))
        else:
            image = _colour(rng, self.pattern(int(rng.integers(self.config.textures))))
        largest = min(image.shape[0] / height, image.shape[1] / width)
        scale = largest * rng.uniform(0.55, 1)
        crop = crop_of(rng, image, max(2, int(height * scale)), max(2, int(width * scale)))
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        how = cv2.INTER_AREA if scale > 1.5 else cv2.INTER_LINEAR if scale > 1 else cv2.INTER_CUBIC
        return cv2.resize(crop, (width, height), interpolation=how)

    def surface(self, rng: Rng, size: int = 256, *, family=None) -> np.ndarray:
        """A dressed texture, uint8 (size, size, 3): made for this use, or part of a ready one at another brightness."""
        if size > _READY or family is not None or (size == _READY and rng.random() < self.config.fresh):
            return self._dressed(rng, size, family)
        number = int(rng.integers(self.config.ready_textures))
        if number not in self._ready:
            self._ready[number] = self._dressed(np.random.default_rng((self.seed, 4, number)), _READY, None)
        crop = crop_of(rng, self._ready[number], size, size)
        return cv2.convertScaleAbs(crop, alpha=rng.uniform(0.7, 1.3))

    def _dressed(self, rng: Rng, size: int, family) -> np.ndarray:
        config = self.config
        if family is not None:
            image = _colour(rng, self._crop(rng, size, (family,)))
        elif rng.random() < config.flat:
            image = np.full((size, size, 3), natural_colour(rng), np.uint8)
            if rng.random() < 0.7:
                image = self._detailed(rng, image, rng.uniform(0.01, 0.06))
        elif self.photos and rng.random() < config.photo_share:
            image = recolour(rng, self.any_photo(rng, size, size))
        else:
            image = _colour(rng, self._crop(rng, size))
            if rng.random() < 0.35:
                image = self._detailed(rng, image, rng.uniform(0.1, 0.5))
        if rng.random() < 0.25:
            self._mark(rng, image)
        if rng.random() < config.detail:
            image = self._detailed(rng, image, 10 ** rng.uniform(-1.7, -0.7), fields.FINE)
        return image

    def _detailed(self, rng: Rng, image: np.ndarray, strength: float, families=None) -> np.ndarray:
        """The image with a grey pattern added."""
        detail = cv2.cvtColor(self._crop(rng, image.shape[0], families, grey=True), cv2.COLOR_GRAY2RGB)
        return cv2.addWeighted(image, 1, detail, strength, -128 * strength)

    def _crop(self, rng: Rng, size: int, families=None, grey: bool = False) -> np.ndarray:
        """A part of a pattern, of any family or of the given ones."""
        count = self.config.textures
        number = int(rng.integers(count))
        if families is not None:
            family = families[int(rng.integers(len(families)))]
            number = number // len(fields.FAMILIES) * len(fields.FAMILIES) + fields.FAMILIES.index(family)
        image = self.pattern(number)
        if grey and image.ndim == 3:
            image = np.ascontiguousarray(image[..., 1])
        zoom = int(rng.choice((1, 1, 1, 2)))
        crop = crop_of(rng, image, max(8, size // zoom), max(8, size // zoom))
        crop = np.rot90(crop, int(rng.integers(4))) if families is None else crop
        if crop.shape[:2] != (size, size):
            crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC)
        return np.ascontiguousarray(crop)

    def _mark(self, rng: Rng, image: np.ndarray) -> None:
        """A few large shapes, letters or lines on top."""
        n = image.shape[0]
        for _ in range(int(rng.integers(1, 6))):
            colour = tuple(map(float, natural_colour(rng)))
            a, b = rng.integers(0, n, 2), rng.integers(0, n, 2)
            kind = rng.integers(4)
            if kind == 0:
                cv2.line(image, tuple(map(int, a)), tuple(map(int, b)), colour, int(rng.integers(1, 8)), cv2.LINE_AA)
            elif kind == 1:
                radii = tuple(map(float, rng.uniform(0.04, 0.5, 2) * n))
                cv2.ellipse(image, (tuple(map(float, a)), radii, rng.uniform(0, 180)), colour, -1, cv2.LINE_AA)
            elif kind == 2:
                word = "".join(rng.choice(list("ABCDEFGHIKLMNOPRSTUVXYZ0123456789"), int(rng.integers(1, 9))))
                size = rng.uniform(0.5, 4)
                cv2.putText(
                    image,
                    word,
                    tuple(map(int, a - (n // 3, 0))),
                    int(rng.integers(8)),
                    size,
                    colour,
                    int(1 + size),
                    cv2.LINE_AA,
                )
            else:
                cv2.rectangle(image, tuple(map(int, a)), tuple(map(int, b)), colour, int(rng.choice((-1, 2, 5))))


def crop_of(rng: Rng, image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A random part of an image of at most the given size."""
    y = int(rng.integers(0, max(image.shape[0] - height, 0) + 1))
    x = int(rng.integers(0, max(image.shape[1] - width, 0) + 1))
    return image[y : y + height, x : x + width]


def palette(rng: Rng) -> np.ndarray:
    """uint8 (256, 1, 3): a ramp through two to five colours, related ones mostly."""
    stops = int(rng.integers(2, 6))
    base = natural_colour(rng)
    if rng.random() < 0.7:
        contrast = rng.uniform(0.08, 0.95)
        levels = np.linspace(1 - contrast, 1 + contrast, stops)[:, None] * rng.choice((1, 1, 1, -1)) % 2
        colours = base * levels + rng.normal(0, 10, (stops, 3))
    else:
        colours = np.stack([natural_colour(rng) for _ in range(stops)])
    at = np.linspace(0, 255, stops)
    ramp = np.stack([np.interp(np.arange(256), at, colours[:, i]) for i in range(3)], 1)
    return ramp.clip(0, 255).astype(np.uint8)[:, None]


def _colour(rng: Rng, pattern: np.ndarray) -> np.ndarray:
    if pattern.ndim == 3:
        return recolour(rng, pattern)
    return cv2.applyColorMap(pattern, palette(rng))


def recolour(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Gain per channel, contrast and now and then swapped channels."""
    if rng.random() < 0.25:
        image = image[..., rng.permutation(3)]
    gain = rng.uniform(0.6, 1.3) * rng.uniform(0.85, 1.15, 3)
    lift = rng.uniform(-20, 40)
    table = np.arange(256)[:, None] * gain + lift
    return cv2.LUT(np.ascontiguousarray(image), table.clip(0, 255).astype(np.uint8)[None].reshape(256, 1, 3))
