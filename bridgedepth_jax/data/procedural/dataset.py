"""The data set: index to sample."""

from pathlib import Path
from typing import SupportsIndex

import cv2
import numpy as np
from einops import rearrange

from bridgedepth_jax.data.pairs import Sample
from bridgedepth_jax.data.procedural.config import SyntheticConfig
from bridgedepth_jax.data.procedural.photometric import degrade
from bridgedepth_jax.data.procedural.render import Canvas
from bridgedepth_jax.data.procedural.scene import render
from bridgedepth_jax.data.procedural.textures import TextureBank, find_photos
from bridgedepth_jax.errors import InputError

FINER = 2  # how many times as large a fine scene is painted
BLOCKS = "(h i) (w j) -> h w (i j)"
SAME = 1.0  # painted pixels: disparities of one reduced pixel that belong to one surface


class SyntheticStereo:
    """Stereo pairs rendered on demand; sample `index` is a function of the arguments and the index alone.

    height, width: image size in pixels, at least 32.
    max_disparity: no disparity of a sample exceeds it (pixels).
    size: number of samples, what `len` gives.
    photos: None: the photographs of the scikit-image wheel where it is installed; False: none; else a folder of images.

    A sample is a dict: left, right uint8 (H, W, 3) RGB; disparity float32 (H, W), finite, of the left view (the match of
    (x, y) is (x - disparity, y)); valid bool (H, W), False where the surface has no single disparity (see-through);
    nonocc bool (H, W), the left pixel is seen in the right view too; name. Occluded pixels are valid, as in Scene Flow.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        max_disparity: float = 192.0,
        seed: int = 0,
        size: int = 1_000_000,
        photos: str | Path | bool | None = None,
        config: SyntheticConfig | None = None,
    ):
        if height < 32 or width < 32:
            raise InputError(f"synthetic: image size {height} x {width}; expected at least 32 x 32")
        if not max_disparity >= 1:
            raise InputError(f"synthetic: max_disparity {max_disparity}; expected at least 1")
        if seed < 0:
            raise InputError(f"synthetic: seed {seed}; expected 0 or more")
        self.height, self.width, self.max_disparity = height, width, float(max_disparity)
        self.seed, self.size = seed, size
        self.config = config or SyntheticConfig()
        self.bank = TextureBank(seed, self.config, find_photos(photos))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: SupportsIndex) -> Sample:
        index = index.__index__()
        if not 0 <= index < self.size:
            raise IndexError(f"synthetic: sample {index} of {self.size}")
        side = FINER if np.random.default_rng((self.seed, 4, index)).random() < self.config.fine else 1
        canvas = Canvas(side * self.height, side * self.width)
        render(np.random.default_rng((self.seed, 2, index)), canvas, self.max_disparity, self.bank, self.config)
        visible = canvas.visible()
        left, right, disparity = canvas.left.image, canvas.right.image, canvas.left.disparity
        # A face seen at a grazing angle can leave the range in the pixels of its edge.
        valid = ~canvas.blended & (disparity >= 0) & (disparity <= self.max_disparity)
        disparity = disparity.clip(0, self.max_disparity)
        if side > 1:
            size = self.width, self.height
            left, right = (cv2.resize(view, size, interpolation=cv2.INTER_AREA) for view in (left, right))
            disparity = reduced(disparity, side)
            valid, visible = (np.all(rearrange(x, BLOCKS, i=side, j=side), axis=-1) for x in (valid, visible))
        photometric = np.random.default_rng((self.seed, 3, index))
        left, right = degrade(photometric, left, right, self.config)
        return {
            "left": left,
            "right": right,
            "disparity": disparity,
            "valid": valid,
            "nonocc": visible,
            "name": f"synthetic/{self.seed}/{index:08d}",
        }


def reduced(disparity: np.ndarray, side: int) -> np.ndarray:
    """Of an image `side` times smaller, in its own pixels: the mean of the surface that covers most of each pixel, of two that
    cover halves the farther."""
    blocks = rearrange(disparity, BLOCKS, i=side, j=side)
    middle = np.sort(blocks, -1)[..., (side**2 - 1) // 2, None]
    same = np.abs(blocks - middle) <= SAME
    return (np.where(same, blocks, 0).sum(-1) / same.sum(-1) / side).astype(np.float32)
