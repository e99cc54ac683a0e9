"""What fills the holes of a warped view (spec `zerostereo.md` sections 3 and 7).

A row of `FILLERS` takes the warped view, its mask and what else there is, and gives uint8; `open_filler` makes a `Filler` of it
or of a checkpoint. H, W the image's sides.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

RADIUS = 3  # of OpenCV's methods, pixels


class Scene(NamedTuple):
    """A view with holes, and what a filler may look at."""

    right: Float[np.ndarray, "H W 3"]  # 0..255, 0 in holes
    hole: Bool[np.ndarray, "H W"]
    left: UInt8[np.ndarray, "H W 3"]
    other: Callable[[], UInt8[np.ndarray, "h w 3"]]  # another photograph of the set
    rng: np.random.Generator | None = None  # a random stream of this photograph's own, for diffusion


def rounded(image: Float[np.ndarray, "*S"]) -> UInt8[np.ndarray, "*S"]:
    """Grey levels as whole numbers, half to even."""
    return np.round(image).clip(0, 255).astype(np.uint8)


def none(scene: Scene) -> UInt8[np.ndarray, "H W 3"]:
    """Holes stay black."""
    return rounded(scene.right)


def background(scene: Scene) -> UInt8[np.ndarray, "H W 3"]:
    """Another photograph, resized, each channel moved to the left image's mean and deviation (MfS)."""
    height, width = scene.hole.shape
    picture = cv2.resize(scene.other(), (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float64)
    left = scene.left.astype(np.float64)
    spread = picture.std((0, 1))
    picture = (picture - picture.mean((0, 1))) / np.where(spread > 0, spread, 1) * left.std((0, 1)) + left.mean((0, 1))
    return rounded(np.where(scene.hole[..., None], picture, scene.right))


def row(scene: Scene) -> UInt8[np.ndarray, "H W 3"]:
    """The next real pixel to the right, the far side of an edge; none there: to the left; an empty row stays black."""
    width = scene.hole.shape[1]
    column = np.broadcast_to(np.arange(width), scene.hole.shape)
    after = np.minimum.accumulate(np.where(scene.hole, width, column)[:, ::-1], 1)[:, ::-1]
    before = np.maximum.accumulate(np.where(scene.hole, -1, column), 1)
    source = np.where(after < width, after, before.clip(0))
    return rounded(np.take_along_axis(scene.right, source[..., None], 1))


def _opencv(method: int) -> Callable[[Scene], np.ndarray]:
    def fill(scene: Scene) -> UInt8[np.ndarray, "H W 3"]:
        filled = cv2.inpaint(rounded(scene.right), scene.hole.astype(np.uint8), RADIUS, method)
        return np.where(scene.hole[..., None], filled, rounded(scene.right))

    return fill


FILLERS: dict[str, Callable[[Scene], np.ndarray]] = {
    "none": none,
    "background": background,
    "row": row,
    "telea": _opencv(cv2.INPAINT_TELEA),
    "ns": _opencv(cv2.INPAINT_NS),
}


class Filler(NamedTuple):
    """Fills scenes of one padded size, `batch` at a time at most."""

    fill: Callable[[Sequence[Scene]], list[np.ndarray]]  # (H, W, 3) uint8 each
    batch: int = 1
    factor: int = 1  # sides are padded to multiples of it


def open_filler(option: str, steps: int, batch: int = 1) -> tuple[Filler, dict[str, Any]]:
    """The filler that `--inpaint` names, or diffusion in so many steps, and what a recipe says about it.

    batch: scenes that diffusion samples together; another batch gives other last bits, so it is in the recipe.

    InputError: neither a row of `FILLERS` nor a checkpoint of kind zerostereo.
    """
    if option in FILLERS:
        return Filler(lambda scenes: [FILLERS[option](scene) for scene in scenes]), {}
    from pathlib import Path

    from bridgedepth_jax.errors import InputError
    from bridgedepth_jax.store.checkpoint import load_checkpoint

    if not Path(option).exists():
        raise InputError(f"--inpaint {option}, expected one of {', '.join(FILLERS)} or the folder of a checkpoint")
    checkpoint = load_checkpoint(option)
    if checkpoint.kind != "zerostereo":
        raise InputError(f"--inpaint {option}: a checkpoint of kind {checkpoint.kind!r}, expected 'zerostereo'")
    about = {name: checkpoint.provenance.get(name) for name in ("sha256", "licence")}
    said = {"steps": steps, "inpaint_model": about} | ({"batch": batch} if batch > 1 else {})
    return diffusion(checkpoint.config, checkpoint.params, steps, batch), said


def diffusion(config: Any, params: Any, steps: int, batch: int = 1) -> Filler:
    """Sampling of an inpainting network, `StereoGenConfig` and its weights; compiled once for a padded size.

    Batches go to this process's devices in turn. Each has `batch` rows, the last one repeated where scenes are fewer: what a
    scene becomes depends neither on its place nor on the others.
    """
    import jax
    import jax.numpy as jnp

    from bridgedepth_jax.networks.diffusion.inpainting import Basis, crop_edges, make_inpainter, pad_edges
    from bridgedepth_jax.systems.zerostereo.config import InpaintingTask
    from bridgedepth_jax.systems.zerostereo.system import check, codec_of

    check(config, InpaintingTask())
    codec = codec_of(config)
    devices = jax.local_devices()
    inpaint = make_inpainter(config.unet, codec, config.schedule, steps, basis=Basis(config.residual))
    copies = [jax.device_put(params, device) for device in devices]
    turn = itertools.count()

    def inputs(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert scene.rng is not None
        sides = (-(-side // codec.factor) for side in scene.hole.shape)
        start = scene.rng.standard_normal((*sides, codec.channels)).astype(np.float32)
        arrays = ((scene.right / 127.5 - 1).astype(np.float32), scene.hole.astype(np.float32))
        image, mask = (np.asarray(pad_edges(jnp.asarray(array)[None], codec.factor))[0] for array in arrays)
        return image, mask, start

    def fill(scenes: Sequence[Scene]) -> list[np.ndarray]:
        number = next(turn) % len(devices)
        weights = copies[number]
        rows = [inputs(scene) for scene in scenes]
        rows += rows[-1:] * (batch - len(rows))
        image, mask, start = (jax.device_put(np.stack(arrays), devices[number]) for arrays in zip(*rows, strict=True))
        found = inpaint(weights, image, mask, weights["empty_prompt"][None], start).image
        filled = []
        for scene, new in zip(scenes, np.asarray(found), strict=False):
            hole = scene.hole[..., None]
            filled.append(np.where(hole, crop_edges(new[None], scene.hole.shape, codec.factor)[0], rounded(scene.right)))
        return filled

    return Filler(fill, batch, codec.factor)


def hole_psnr(image: UInt8[np.ndarray, "H W 3"], truth: UInt8[np.ndarray, "H W 3"], hole: Bool[np.ndarray, "H W"]) -> float:
    """PSNR in dB over the pixels of `hole`, at most 100."""
    error = (image.astype(np.float64) - truth.astype(np.float64))[hole]
    return float(10 * np.log10(255**2 / max(np.mean(np.square(error)), 255**2 * 1e-10)))
