"""One photograph in, depth out: Depth Anything V2 and what is made like it, relative or metric, or another network of one view.

Letters: B batch, H W size of the images, h w of what the network sees.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.build import build, plain
from bridgedepth_jax.convert.published import ONE_VIEW, load
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.inference.compiled import DTYPES, Compiled, Devices
from bridgedepth_jax.inference.stereo import as_rgb, resize_images
from bridgedepth_jax.networks.config import DepthConfig, MonoConfig
from bridgedepth_jax.networks.depth_anything import depth_of
from bridgedepth_jax.ops.resize import resize_map
from bridgedepth_jax.system import find_system

SHORTER_SIDE = 518  # pixels, what Depth Anything V2 was trained on


class DepthPredictor:
    """A network of one view with its weights on the device, ready for images. `metric` says whether it gives metres.

    Args:
      config, params: the network and its parameters, copied to the device once, as float32.
      dtype: "float32" or "bfloat16", the computation.
      devices: as for `Predictor`.
      system: whose network it is, the `kind` of its checkpoint. Depth Anything V2 and what is made like it see images at about
        any size; others (singlenet) at the size that they were trained at, and give a disparity in pixels of the image.

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
        system: str = "depth-anything",
    ) -> None:
        if dtype not in (None, *DTYPES):
            raise InputError(f"dtype {dtype!r}, expected one of {list(DTYPES)}")
        self._any_size = isinstance(config, MonoConfig)
        if self._any_size:  # the branch of another network is relative
            own = config if isinstance(config, DepthConfig) else build(DepthConfig, plain(config), "config")
            if dtype is not None:
                own = dataclasses.replace(own, dtype=dtype)  # type: ignore[arg-type]
            self.metric, forward = own.metric, depth_of(own)
            self.config: Any = own
        else:
            found = find_system(system)
            if found.depth is None:
                raise InputError(f"{system} sees pairs, expected a network of one view, as depth-anything")
            if dtype == "bfloat16":
                raise InputError(f"dtype {dtype!r}: {system} computes in float32 alone")
            self.config, self.metric, forward = config, False, found.depth(config)
        self._run = Compiled(lambda params, image: (_forward(forward, params, image),), params, devices=devices)

    @classmethod
    def load(cls, checkpoint: str | os.PathLike, **options: Any) -> Self:
        """From a folder of `bridgedepth convert` or of training, or a published name: depth_anything_v2_vits, bridge_mde, or
        one of metres, depth_anything_v2_metric_hypersim_vits, ...

        Raises InputError: no such checkpoint, a damaged one, or one of another network.
        """
        loaded = load(checkpoint, ONE_VIEW)
        return cls(loaded.config, loaded.params, system=loaded.kind, **options)

    def __call__(self, image: np.ndarray, *, size: int | None = None) -> np.ndarray:
        """Metres of a metric network; else inverse depth: larger is nearer, up to an unknown scale and shift; of singlenet
        pixels of disparity.

        Args:
          image: (H, W, 3) or (B, H, W, 3) RGB, uint8 or float in 0..255; also grey, and with alpha, as for `Predictor`.
          size: pixels of the shorter side as Depth Anything V2 sees it, see `network_size`; None is `SHORTER_SIDE`.

        Returns:
          float32 (H, W) or (B, H, W), at least 0.

        Raises InputError (a ValueError): other shapes, types or values; a size for a network that has its own.
        """
        image = as_rgb(image, "image")
        height, width = image.shape[-3:-1]
        found = self.raw(image, size=size)
        scale = np.float32(1 if self._any_size else width / found.shape[2])  # of disparities in pixels
        depth = np.stack([scale * resize_map(one, height, width, align_corners=self._any_size) for one in found])
        return depth.reshape(image.shape[:-1])

    def raw(self, image: np.ndarray, *, size: int | None = None) -> np.ndarray:
        """The same before it is resized: (B, h, w), as the network sees it; disparities in its own pixels."""
        image = as_rgb(image, "image")
        height, width = image.shape[-3:-1]
        batch = image.reshape(-1, height, width, 3)
        if self._any_size:
            seen = network_size(width, height, SHORTER_SIDE if size is None else size, self.config.patch)
            resized = np.stack([cv2.resize(one.astype(np.float32), seen, interpolation=cv2.INTER_CUBIC) for one in batch])
        elif size is not None:
            raise InputError(
                f"size {size}: this network sees {'x'.join(map(str, self.config.size))}, as it was trained; expected none"
            )
        else:
            resized = resize_images(batch, self.config.size[::-1])
        return self._run(resized)[0]


class Single(NamedTuple):
    """A network of one view: (H, W, 3) uint8 to a map at its own size, metres or inverse depth up to scale and shift."""

    predict: Callable[[np.ndarray], np.ndarray]
    metric: bool
    config: Any


def load_single(checkpoint: str | os.PathLike, *, dtype: str | None = None) -> Single:
    """Any system's network of one view, to evaluate. InputError: a checkpoint of another one, a damaged one."""
    predictor = DepthPredictor.load(checkpoint, dtype=dtype)
    return Single(lambda image: predictor.raw(image)[0], predictor.metric, predictor.config)


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


def _forward(forward: Callable[..., jax.Array], params: Mapping[str, Any], image: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        return forward(params, image).astype(jnp.float32)
