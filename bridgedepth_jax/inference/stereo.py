"""Two photographs in, disparity out: the public API around the network.

Letters: B batch, H W size of the images.
"""

import dataclasses
import functools
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.convert.published import OF_PAIRS, load
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.inference.compiled import DTYPES, Compiled, Devices
from bridgedepth_jax.inference.cost import Cost
from bridgedepth_jax.inference.swapped import looks_swapped
from bridgedepth_jax.inference.tiles import HOST, match_tiled, plan
from bridgedepth_jax.system import DEFAULT, find_system

HALF = ("bfloat16", "float16")
DEFAULT_MODEL = Path(__file__).parents[1] / "weights" / "nano"  # what `Predictor.load()` loads


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the network says about a pair, at the size of the input: (H, W), or (B, H, W) for a batch.

    disparity: float32, pixels of the input image; the match of left (y, x) is right (y, x - disparity).
    confidence: float32, 0..1, the probability of the chosen candidate.
    occluded: bool, or None without the consistency check: left pixels that the right image does not see.
    """

    disparity: np.ndarray
    confidence: np.ndarray
    occluded: np.ndarray | None = None

    def pair(self, i: int) -> Self:
        """The prediction of one pair of a batch."""
        occluded = None if self.occluded is None else self.occluded[i]
        return type(self)(self.disparity[i], self.confidence[i], occluded)


class Predictor:
    """The network with its weights on the device, ready for images.

    Args:
      config: what the network is made of.
      params: its parameters, nested dict of arrays; they are copied to the devices once, as float32.
      dtype: "float32", "bfloat16" or "float16", the computation; None takes the config's. For the last two the activations are
        measured first, on a rendered pair.
      devices: where it runs: None the first device, "all", a platform ("cpu", "gpu", "tpu": all its devices), a number of
        devices, or a sequence of `jax.Device`. Over several devices the batch is split.
      batch: pairs of one pass. A larger batch runs in several passes, a smaller one is filled up by repeating its last pair,
        so one compilation serves all. None: a batch runs as it is given, on CPUs one pair per device and pass: there
        larger ones are no faster, take more memory, and would give each batch size its own rounding.
      check_order: warn (UserWarning) when left and right look swapped; costs a few milliseconds a pair.
      system: whose network it is, the `kind` of its checkpoint.
      bucket: images are padded to multiples of this, by default those that the network asks for, which is exact. More, such
        as 64 or 128, means fewer compilations for images of many sizes and slightly other disparities.

    It pickles, for worker processes: with its weights, without its devices, and comes back on the first device.

    The first call of each padded size and batch compiles. Compilations are kept on disk, in the folder `xla` of
    $BRIDGEDEPTH_CACHE (~/.cache/bridgedepth_jax), unless JAX has a cache of its own configured.

    Raises InputError: unknown dtype or devices, half precision that would overflow (the message names the first layer), a
    bucket that does not fit the network.
    """

    def __init__(
        self,
        config: Any,
        params: Mapping[str, Any],
        *,
        dtype: str | None = None,
        devices: Devices = None,
        batch: int | None = None,
        check_order: bool = True,
        system: str = DEFAULT,
        bucket: int | None = None,
    ) -> None:
        if dtype is not None and dtype not in DTYPES:
            raise InputError(f"dtype {dtype!r}, expected one of {list(DTYPES)}")
        found = find_system(system)
        if found.estimate is None or found.monocular:
            raise InputError(f"{system} sees one image, expected a system for pairs; bridgedepth depth is for one image")
        if dtype is not None and not hasattr(config, "dtype"):
            raise InputError(f"dtype {dtype!r}: {system} computes in float32 alone")
        self.config = config if dtype is None else dataclasses.replace(config, dtype=dtype)
        if dtype in HALF and found.holds is not None:
            found.holds(config, params, dtype)
        self.check_order, self.system = check_order, system
        self.minimum = found.minimum  # pixels, of each side as the network sees it
        self.reach = None if found.reach is None else found.reach(self.config)  # pixels, largest disparity that it looks for
        estimate = found.estimate(self.config)

        def forward(params: Any, left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
            found = estimate(params, left, right)
            confidence = jnp.full_like(found.disparity, jnp.nan) if found.confidence is None else found.confidence
            return found.disparity.astype(jnp.float32), confidence.astype(jnp.float32)

        self._run = Compiled(forward, params, devices=devices, batch=batch, multiple=found.multiple, bucket=bucket)
        self.devices, self.batch, self.bucket = self._run.devices, self._run.batch, self._run.bucket

    def __repr__(self) -> str:
        count = sum(leaf.size for leaf in jax.tree.leaves(self._run.params()))
        where = ", ".join(f"{device.platform}:{device.id}" for device in self.devices)
        dtype = getattr(self.config, "dtype", "float32")
        return f"Predictor({self.system}, {count:,} parameters, {dtype}, on {where}, batch={self.batch}, bucket={self.bucket})"

    def __reduce__(self) -> tuple[Any, ...]:
        options = dict(batch=self.batch, check_order=self.check_order, system=self.system, bucket=self.bucket)
        return functools.partial(type(self), **options), (self.config, self._run.params())

    @classmethod
    def load(cls, checkpoint: str | os.PathLike | None = None, **options: Any) -> Self:
        """From a checkpoint folder, published weights, or the default model that comes with the package.

        Args:
          checkpoint: a folder written by `bridgedepth convert`, or a published name (see `bridgedepth_jax.convert.published`):
            fetched and converted into the cache the first time. None is the default model.
          options: as for `Predictor`.

        Raises InputError: no such checkpoint, a damaged one, or one of another network.
        """
        if checkpoint is None:
            if not DEFAULT_MODEL.is_dir():
                raise InputError("no checkpoint given, and this version comes without a default model: name one")
            checkpoint = DEFAULT_MODEL
        loaded = load(checkpoint, OF_PAIRS)
        return cls(loaded.config, loaded.params, system=loaded.kind, **options)

    def __call__(
        self,
        left: np.ndarray,
        right: np.ndarray,
        *,
        scale: float = 1.0,
        check_consistency: bool = False,
        threshold: float = 1.0,
        tiles: tuple[int, int] | None = None,
    ) -> Prediction:
        """Disparity of a rectified pair, or of a batch of pairs of one size.

        Args:
          left, right: (H, W, 3) or (B, H, W, 3) RGB, uint8 or float in 0..255. Also (H, W) and one channel (grey), two
            channels (grey, alpha) and four (RGB, alpha); alpha is dropped.
          scale: the network sees images resized by this factor; the result is at the input size, in its pixels.
          check_consistency: run the network on the mirrored, swapped pair too, and fill `occluded`.
          threshold: pixels (as the network sees them) by which the disparities of left and right may differ.
          tiles: (height, width) of overlapping tiles in which the network sees the images, after a coarse pass over the
            whole: memory is that of a tile, see `tiles.py`. None: the image as a whole.

        Returns:
          `Prediction` with (H, W), or (B, H, W) where a batch was given.

        Raises InputError (a ValueError): sizes that differ, sides below `minimum` pixels, other shapes, types or values.
        """
        left, right = as_rgb(left, "left"), as_rgb(right, "right")
        if left.shape != right.shape:
            raise InputError(f"left has shape {left.shape} and right {right.shape}, expected the same size")
        single = left.ndim == 3
        if single:
            left, right = left[None], right[None]
        height, width = left.shape[1:3]
        size = scaled_size(width, height, scale, self.minimum)
        seen_left, seen_right = (resize_images(images, size) for images in (left, right))
        disparity, confidence = self._match(seen_left, seen_right, tiles)
        occluded = None
        if check_consistency:
            mirrored, _ = self._match(seen_right[:, :, ::-1], seen_left[:, :, ::-1], tiles)
            occluded = find_occluded(disparity, mirrored[:, :, ::-1], threshold)
        if size != (width, height):
            back = functools.partial(_resize_each, size=(width, height), interpolation=cv2.INTER_LINEAR)
            disparity, confidence = back(disparity) * np.float32(width / size[0]), back(confidence)
            if occluded is not None:
                nearest = _resize_each(occluded.astype(np.uint8), (width, height), cv2.INTER_NEAREST_EXACT)
                occluded = nearest.astype(bool)
        if self.check_order:
            swapped = [i for i in range(len(left)) if looks_swapped(left[i], right[i], disparity[i])]
            if swapped:
                which = "" if single else f" (pairs {swapped} of the batch)"
                warnings.warn(f"left and right look swapped{which}: the other order explains the images better", stacklevel=2)
        whole = Prediction(disparity, confidence, occluded)
        return whole.pair(0) if single else whole

    def _match(self, left: np.ndarray, right: np.ndarray, tiles: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
        """Disparity and confidence (B, H, W) of images as the network sees them."""
        if tiles is None:
            disparity, confidence = self._run(left, right)
            return disparity, confidence

        def match(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            disparity, confidence = self._run(left, right)
            return disparity, confidence

        group = self._run.rows(1)
        pairs = [match_tiled(*pair, match, tiles, self.reach, group) for pair in zip(left, right, strict=True)]
        return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])

    def cost(self, height: int, width: int, *, batch: int = 1, tiles: tuple[int, int] | None = None) -> Cost:
        """What pairs of that size, as the network sees them, take of a device. Compiles the programs; a call then does not."""
        if tiles is None:
            return self._run.cost(height, width, images=2, batch=batch)
        planned = plan(height, width, tiles, self.reach)
        tile = self._run.cost(*planned.size, images=2)
        if planned.coarse is None:
            return tile
        coarse = self._run.cost(*planned.coarse, images=2)
        memory = max(coarse.memory, tile.memory + HOST * height * width)
        return Cost(memory, coarse.work + planned.count * tile.work, planned.count)


def as_rgb(image: np.ndarray, name: str) -> np.ndarray:
    """Grey, grey and alpha, RGB or RGBA, one image or a batch -> (H, W, 3) or (B, H, W, 3), uint8 or float32 in 0..255.

    Raises InputError: other shapes, other types, values outside 0..255 or that look like 0..1.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim not in (3, 4) or image.shape[-1] not in (1, 2, 3, 4):
        raise InputError(f"{name} has shape {image.shape}, expected (H, W), (H, W, channels) or (B, H, W, channels)")
    if image.size == 0:
        raise InputError(f"{name} has shape {image.shape}, an empty image")
    if image.dtype != np.uint8:
        if not np.issubdtype(image.dtype, np.floating):
            raise InputError(f"{name} has dtype {image.dtype}, expected uint8, or float with values in 0..255")
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 255):  # also when either is not a number
            raise InputError(f"{name} has values {low:g}..{high:g}, expected 0..255")
        if 0 < high <= 1:
            raise InputError(f"{name} has values up to {high:g}, expected 0..255: multiply images in 0..1 by 255")
        image = image.astype(np.float32, copy=False)
    if image.shape[-1] <= 2:
        return np.repeat(image[..., :1], 3, axis=-1)
    return image[..., :3]


def scaled_size(width: int, height: int, scale: float, minimum: int = 1) -> tuple[int, int]:
    """(width, height) that the network sees. InputError for a scale that is no positive number, or sides below `minimum`."""
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"scale {scale}, expected a positive number")
    size = round(width * scale), round(height * scale)
    if min(size) < minimum:
        seen = "" if size == (width, height) else f", {size[0]}x{size[1]} at scale {scale:g}"
        raise InputError(f"images of {width}x{height} pixels{seen}, expected at least {minimum}x{minimum}")
    return size


def resize_images(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(B, H, W, 3) resized to (width, height): area averages where it gets smaller, cubic where larger."""
    if images.shape[1:3] == size[::-1]:
        return images
    smaller = size[0] < images.shape[2]
    resized = _resize_each(images.astype(np.float32), size, cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return np.clip(resized, 0, 255)


def find_occluded(left: np.ndarray, right: np.ndarray, threshold: float) -> np.ndarray:
    """The left-right check.

    Args:
      left, right: (B, H, W) disparities of the left and of the right image: left (y, x) is right (y, x - left), and right
        (y, x) is left (y, x + right).
      threshold: pixels.

    Returns:
      (B, H, W) bool: the match is outside the right image, or has a disparity that differs by more than the threshold.
    """
    width = left.shape[2]
    match = np.rint(np.arange(width) - left).astype(np.int64)
    there = np.take_along_axis(right, np.clip(match, 0, width - 1), axis=2)
    return (match < 0) | (match >= width) | (np.abs(left - there) > threshold)


def _resize_each(images: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    return np.stack([cv2.resize(np.ascontiguousarray(image), size, interpolation=interpolation) for image in images])
