"""One photograph in, inverse depth out: Depth Anything V2 on its own with its usual protocol, or another monocular system.

Letters: B batch, H W size of the images.
"""

import os
from collections.abc import Mapping
from typing import Any, Self

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.convert.published import resolve
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.inference.compiled import DTYPES, Compiled, Devices
from bridgedepth_jax.inference.stereo import as_rgb, resize_images
from bridgedepth_jax.networks.config import MonoConfig
from bridgedepth_jax.networks.depth_anything import DepthAnything
from bridgedepth_jax.ops.image import normalize
from bridgedepth_jax.ops.resize import bilinear_taps
from bridgedepth_jax.store.checkpoint import load_checkpoint
from bridgedepth_jax.system import find_system

RELATIVE = "depth-anything"  # the system whose answers have no unit
SHORTER_SIDE = 518  # pixels, what Depth Anything V2 was trained on


class DepthPredictor:
    """A monocular network with its weights on the device, ready for images.

    Args:
      config, params: the network and its parameters, copied to the device once, as float32.
      dtype: "float32" or "bfloat16", the computation.
      devices: as for `Predictor`.
      system: whose network it is, the `kind` of its checkpoint. Depth Anything V2 gives relative inverse depth; others
        (singlenet) see images at the size that they were trained at, and give a disparity in pixels of the image.

    Each resized size compiles once; compilations are kept on disk as by `Predictor`.

    Raises InputError: unknown dtype or devices, a system for pairs.
    """

    def __init__(
        self,
        config: Any,
        params: Mapping[str, Any],
        *,
        dtype: str | None = None,
        devices: Devices = None,
        system: str = RELATIVE,
    ) -> None:
        if dtype not in (None, *DTYPES):
            raise InputError(f"dtype {dtype!r}, expected one of {list(DTYPES)}")
        self.config, self._relative = config, system == RELATIVE
        if self._relative:
            network = DepthAnything(config, jnp.dtype(dtype or "float32"))
            self._run = Compiled(lambda params, image: (_forward(network, params, image),), params, devices=devices)
            return
        found = find_system(system)
        if found.estimate is None or not found.monocular:
            raise InputError(f"{system} sees pairs, expected a network of one image, as depth-anything")
        if dtype == "bfloat16":
            raise InputError(f"dtype {dtype!r}: {system} computes in float32 alone")
        estimate = found.estimate(config)
        self._run = Compiled(lambda params, image: (estimate(params, image, image).disparity,), params, devices=devices)

    @classmethod
    def load(cls, checkpoint: str | os.PathLike, **options: Any) -> Self:
        """From a folder written by `bridgedepth convert` or a training run, or a published name (depth_anything_v2_vits, ...).

        Raises InputError: no such checkpoint, a damaged one, or one of another network.
        """
        loaded = load_checkpoint(resolve(checkpoint))
        if not isinstance(loaded.config, MonoConfig) and not find_system(loaded.kind).monocular:
            raise InputError(f"checkpoint {checkpoint} holds {loaded.kind}, expected depth-anything or singlenet")
        return cls(loaded.config, loaded.params, system=loaded.kind, **options)

    def __call__(self, image: np.ndarray, *, size: int | None = None) -> np.ndarray:
        """Inverse depth: larger is nearer, up to an unknown scale and shift; of singlenet pixels of disparity.

        Args:
          image: (H, W, 3) or (B, H, W, 3) RGB, uint8 or float in 0..255; also grey, and with alpha, as for `Predictor`.
          size: pixels of the shorter side as Depth Anything V2 sees it, see `network_size`; None is `SHORTER_SIDE`.

        Returns:
          float32 (H, W) or (B, H, W), at least 0.

        Raises InputError (a ValueError): other shapes, types or values; a size for a network that has its own.
        """
        image = as_rgb(image, "image")
        height, width = image.shape[-3:-1]
        batch = image.reshape(-1, height, width, 3)
        if not self._relative:
            return self._disparity(batch, size).reshape(image.shape[:-1])
        seen_width, seen_height = network_size(width, height, SHORTER_SIDE if size is None else size, self.config.patch)
        resized = np.stack(
            [cv2.resize(one.astype(np.float32), (seen_width, seen_height), interpolation=cv2.INTER_CUBIC) for one in batch]
        )
        (depth,) = self._run(resized)
        depth = np.stack([_resize(one, height, width, align_corners=True) for one in depth])
        return depth.reshape(image.shape[:-1])

    def _disparity(self, batch: np.ndarray, size: int | None) -> np.ndarray:
        height, width = self.config.size
        if size is not None:
            raise InputError(f"size {size}: this network sees {height}x{width}, as it was trained; expected none")
        resized = resize_images(batch, (width, height))
        (found,) = self._run(resized)
        scale = np.float32(batch.shape[2] / width)
        return np.stack([scale * _resize(one, *batch.shape[1:3], align_corners=False) for one in found])


def network_size(width: int, height: int, size: int = SHORTER_SIDE, multiple: int = 14) -> tuple[int, int]:
    """(width, height) that the network sees: shorter side `size`, same shape as nearly as multiples of `multiple` allow.

    Raises InputError: a size below one multiple.
    """
    if size < multiple:
        raise InputError(f"size {size}, expected at least {multiple}")
    scale = size / min(width, height)
    least = -(-size // multiple) * multiple
    seen_width, seen_height = (max(least, round(side * scale / multiple) * multiple) for side in (width, height))
    return seen_width, seen_height


def _forward(network: DepthAnything, params: Mapping[str, Any], image: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        depth = network.apply({"params": params}, normalize(image))
    assert isinstance(depth, jax.Array)
    return depth.astype(jnp.float32)


def _resize(depth: np.ndarray, height: int, width: int, *, align_corners: bool) -> np.ndarray:
    """Bilinear, (h, w) -> (height, width)."""
    rows = bilinear_taps(depth.shape[0], height, align_corners=align_corners)
    columns = bilinear_taps(depth.shape[1], width, align_corners=align_corners)
    tall = (depth[rows.indices] * rows.weights[..., None]).sum(1)
    return (tall[:, columns.indices] * columns.weights).sum(2).astype(np.float32)
