"""ZeroStereo's own parts against golden numbers of the published code (tolerances: the reference's README)."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.ops.forward_warp import forward_warp
from bridgedepth_jax.parity import Row
from bridgedepth_jax.systems.zerostereo import labels, losses

FOLDER = "zerostereo"  # under the reference
WARP, WARP_FLOAT32 = 1e-9, 0.01  # grey levels
CONFIDENCE = 1e-6
LOSS, LOSS_FLOAT32 = 1e-10, 1e-5  # relative
GRADIENT, GRADIENT_FLOAT32 = 1e-9, 1e-4  # of its maximum
# Grey levels. The published map squares before it centres: in float64 that alone is noise of 1e-10; float32: 3.5e-5.
PHOTOMETRIC, PHOTOMETRIC_FLOAT32 = 1e-9, 1e-4
MU = 0.1
Arrays = dict[str, np.ndarray]
Json = dict[str, Any]


def check_warp(case: str, golden: Arrays, _: Json, *, float64: bool) -> Iterator[Row]:
    """Right views and both masks."""
    dtype = np.float64 if float64 else np.float32
    for name in [key.removesuffix(":disparity") for key in golden if key.endswith(":disparity")]:
        found = forward_warp(golden["image"], golden[f"{name}:disparity"].astype(dtype))
        limit = WARP if float64 else WARP_FLOAT32
        # A location within 1e-5 of a whole number may fall on its other side in float32.
        exact = np.arange(golden["image"].shape[1]) - golden[f"{name}:disparity"].astype(np.float64)
        fragile = np.abs(exact - np.round(exact))
        fragile = (fragile > 0) & (fragile < 1e-5) & (not float64)
        rows = ~fragile.any(1)
        difference = np.abs(found.right.astype(np.float64) - golden[f"{name}:right"])
        yield Row(case, f"{name}, right, grey levels", float(difference[rows].max(initial=0)), limit)
        for mask in ("nonocc", "inpaint"):
            wrong = (getattr(found, mask) != golden[f"{name}:{mask}"])[rows]
            yield Row(case, f"{name}, {mask}, pixels", float(wrong.sum()), 0)


def check_sharpen(case: str, golden: Arrays, _: Json, *, float64: bool) -> Iterator[Row]:
    """Dilation, gradient, steep pixels, and what fills them outside ties."""
    dilated = labels.dilate(golden["disparity"])
    yield Row(case, "dilated, px", float(np.abs(dilated - golden["dilated"]).max()), 0)
    slope = labels.gradient(dilated)
    yield Row(case, "gradient", float(np.abs(slope - golden["gradient"]).max()), 1e-9)
    yield Row(case, "steep, pixels", float(((slope > labels.STEEP) != golden["steep"]).sum()), 0)
    filled = labels.sharpen(golden["disparity"])
    yield Row(case, "filled, px", float(np.abs(filled - golden["filled"])[~golden["tie"]].max()), 0)


def check_confidence(case: str, golden: Arrays, values: Json, *, float64: bool) -> Iterator[Row]:
    """Normalised depth, confidence, and the scales of adaptive disparity selection."""
    found = labels.normalise(golden["depth"])
    yield Row(case, "normalised", float(np.abs(found - golden["normalised"]).max()), CONFIDENCE)
    trust = labels.confidence(golden["depth"], golden["depth_flipped_back"])
    yield Row(case, "confidence", float(np.abs(trust - golden["confidence"]).max()), CONFIDENCE)
    if "ads" in values:
        scales = [labels.scale_of(*pair) for pair in values["ads"]["u"]]
        yield Row(case, "scales of ADS", float(np.abs(np.subtract(scales, values["ads"]["s"])).max()), 1e-12)


def check_loss(case: str, golden: Arrays, values: Json, *, float64: bool) -> Iterator[Row]:
    """Both terms, their sum over predictions with its gradient, the smooth L1 form, the map and its mask."""
    dtype = jnp.float64 if float64 else jnp.float32
    names = ("left", "right", "disparity", "confidence", "predictions")
    left, right, disparity, trust, predictions = (jnp.asarray(golden[name], dtype) for name in names)
    seen = jax.jit(losses.matched)(disparity, jnp.asarray(golden["nonocc"]), jnp.asarray(golden["inpaint"]))
    yield Row(case, "matched, pixels", float((np.asarray(seen) != golden["matched"]).sum()), 0)
    unlike = np.asarray(jax.jit(losses.photometric_map)(left, right, predictions[-1]), np.float64)
    limit = PHOTOMETRIC if float64 else PHOTOMETRIC_FLOAT32
    yield Row(case, "photometric map, grey levels", float(np.abs(unlike - golden["photometric_map"]).max()), limit)
    weights = jnp.asarray(losses.sequence_weights(len(predictions)), dtype)
    smooth = lambda e: jnp.where(jnp.abs(e) < 1, 0.5 * e * e, jnp.abs(e) - 0.5)

    @jax.jit
    def total_of(predictions, largest):
        labelled = (disparity > 0) & (disparity < largest)
        found = losses.terms(predictions, disparity, trust, left, right, labelled, seen)
        return jnp.sum(weights * found.loss(MU)), found

    @jax.jit
    def initial_of(prediction, largest):
        labelled = (disparity > 0) & (disparity < largest)
        return losses.terms(prediction, disparity, trust, left, right, labelled, seen, distance=smooth).loss(MU)[0]

    limit, slope = (LOSS, GRADIENT) if float64 else (LOSS_FLOAT32, GRADIENT_FLOAT32)
    for key in [key.removeprefix("gradient_") for key in golden if key.startswith("gradient_")]:
        expected, largest = values[f"loss_{key}_float64"], float(key.removeprefix("max"))
        (total, found), gradient = jax.value_and_grad(total_of, has_aux=True)(predictions, largest)
        yield Row(case, f"{key}, total, relative", abs(float(total) / expected["total"] - 1), limit)
        for name in ("disparity", "photometric"):
            apart = np.abs(np.asarray(getattr(found, name), np.float64) / np.asarray(expected[name]) - 1)
            yield Row(case, f"{key}, {name}, relative", float(apart.max()), limit)
        initial = float(initial_of(predictions[:1], largest))
        yield Row(case, f"{key}, smooth L1, relative", abs(initial / expected["initial_smooth_l1"] - 1), limit)
        apart = np.abs(np.asarray(gradient, np.float64) - golden[f"gradient_{key}"]).max()
        apart = float(apart / np.abs(golden[f"gradient_{key}"]).max())
        yield Row(case, f"{key}, gradient, of its maximum", apart, slope)


KINDS: dict[str, Callable[..., Iterator[Row]]] = {
    "warp": check_warp,
    "sharpen": check_sharpen,
    "confidence": check_confidence,
    "loss": check_loss,
}


def compare(reference: Path, golden: Path | None = None, *, kinds: Sequence[str] = (), float64: bool = False) -> Iterator[Row]:
    """All comparisons with the goldens in `golden` (REFERENCE/zerostereo), of some kinds or all.

    A file's kind is what its name begins with. With float64, everything is, under jax_enable_x64.
    """
    folder = golden or reference / FOLDER
    values = next((path for path in (folder / "golden.json", reference / FOLDER / "golden.json") if path.is_file()), None)
    numbers = json.loads(values.read_text()) if values else {}
    for path in sorted(folder.glob("*.npz")):
        kind = path.stem.split("_")[0]
        if kind in (kinds or KINDS):
            with np.load(path) as arrays:
                yield from KINDS[kind](path.stem, dict(arrays), numbers, float64=float64)
