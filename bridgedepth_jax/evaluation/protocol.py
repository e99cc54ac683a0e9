"""What is measured where: the protocol of a data set, and the pixels of an image that each of its masks holds.

Every image is measured over seven masks: `paper`, the data set's own protocol exactly as published, and all, non-occluded and
occluded pixels, each below the protocol's maximum disparity and without a maximum. Letters: H W image.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from bridgedepth_jax.data.pairs import Sample
from bridgedepth_jax.errors import InputError

MASKS = ("paper", *(f"{region}/{limit}" for limit in ("below", "unlimited") for region in ("all", "noc", "occ")))


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How the paper measures a data set: bad-t thresholds (pixels), maximum disparity (pixels, None: without), and whether
    only the reader's valid pixels count or all that have ground truth (`only_valid` False, Middlebury: occluded ones too)."""

    name: str
    thresholds: tuple[float, ...] = (1.0, 2.0, 3.0)
    max_disp: float | None = None
    only_valid: bool = True

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """From a row of a config's `eval.datasets`. An unknown or wrongly typed field raises InputError."""
        fields = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(row) - fields)
        if unknown or not isinstance(row.get("name"), str):
            raise InputError(f"eval.datasets row {dict(row)}: expected a name and any of {sorted(fields - {'name'})}")
        values = dict(row)
        if "thresholds" in values:
            values["thresholds"] = tuple(float(t) for t in values["thresholds"])
        return cls(**values)

    def describe(self) -> str:
        """In words, for tables."""
        limit = "no maximum" if self.max_disp is None else f"gt < {self.max_disp:g} px"
        return f"{'valid' if self.only_valid else 'all'} pixels, {limit}"


_DEFAULTS = (
    Protocol("things", (1.0, 3.0), 192),
    *(Protocol(f"kitti_{year}_{split}", (3.0,)) for year in (2012, 2015) for split in ("train", "val", "trainval")),
    Protocol("eth3d", (1.0,)),
    *(Protocol(f"middlebury_{size}", (2.0,), 1000, False) for size in "FHQ"),
)


def default_protocol(name: str) -> Protocol:
    """The paper's protocol where it has one for this data set, else all valid pixels with bad-1, 2 and 3."""
    return next((row for row in _DEFAULTS if row.name == name), Protocol(name))


def pixel_masks(sample: Sample, protocol: Protocol) -> np.ndarray:
    """(H, W) uint8: bit i is set where the pixel belongs to MASKS[i]."""
    gt, valid, nonocc = sample["disparity"], sample["valid"], sample.get("nonocc")
    has_gt = np.isfinite(gt)
    valid = valid & has_gt
    known = valid
    if nonocc is not None or not protocol.only_valid:  # readers keep the disparity of pixels outside `valid`, 0 = unknown
        known = valid | (has_gt & (gt > 0))
    below = gt < (np.inf if protocol.max_disp is None else protocol.max_disp)
    masks = {"paper": (valid if protocol.only_valid else known) & below, "all/unlimited": known, "all/below": known & below}
    if nonocc is not None:
        for region, pixels in (("noc", known & nonocc), ("occ", known & ~nonocc)):
            masks |= {f"{region}/unlimited": pixels, f"{region}/below": pixels & below}
    bits = np.zeros(gt.shape, np.uint8)
    for bit, name in enumerate(MASKS):
        if name in masks:
            bits |= masks[name].astype(np.uint8) << bit
    return bits
