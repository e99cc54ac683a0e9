"""Numbers that others published, to stand beside ours in tables, always marked as quoted.

A row is one model on one data set of ours. `source` says how it is known: "t" was read off the table of the BridgeDepth paper
(arXiv 2508.04611, ICCV 2025), "n" comes from other papers that quote or measure it again, so a protocol may differ in detail.
Only numbers that a data set with public ground truth can be compared with are here.
"""

import dataclasses
from typing import Literal

MEANING = {"t": "quoted from the paper's own table", "n": "quoted from other papers that cite or re-measure it"}


@dataclasses.dataclass(frozen=True)
class Quoted:
    """A published result: `metrics` in our names and units, mean over images."""

    dataset: str
    model: str
    metrics: dict[str, float]
    protocol: str
    source: Literal["t", "n"] = "n"


_ZERO_SHOT = "zero-shot, trained on Scene Flow"
_SETS = {
    "kitti_2012_trainval": ("d1", "training set, D1"),
    "kitti_2015_trainval": ("d1", "training set, D1"),
    "middlebury_F": ("bad-2", "training F, bad-2"),
    "middlebury_H": ("bad-2", "training H, bad-2"),
    "middlebury_Q": ("bad-2", "training Q, bad-2"),
    "eth3d": ("bad-1", "training set, bad-1"),
}


def _zero_shot(model: str, **values: float) -> list[Quoted]:
    names = dict(
        k12="kitti_2012_trainval", k15="kitti_2015_trainval", f="middlebury_F", h="middlebury_H", q="middlebury_Q", e="eth3d"
    )
    rows = []
    for key, value in values.items():
        metric, words = _SETS[names[key]]
        rows.append(Quoted(names[key], model, {metric: value}, f"{words}, {_ZERO_SHOT}"))
    return rows


QUOTED = (
    Quoted("things", "BridgeDepth sf", {"epe": 0.37, "bad-1": 3.67}, "FlyingThings3D test, finalpass, < 192 px"),
    Quoted("things", "BridgeDepth l_sf (probably)", {"epe": 0.32, "bad-1": 3.25}, "FlyingThings3D test, finalpass, < 192 px"),
    *_zero_shot("BridgeDepth sf", k12=3.6, k15=4.5, q=4.3, e=1.3),
    *_zero_shot("RAFT-Stereo", k12=4.35, k15=5.74, f=18.3, h=12.6, q=9.4, e=3.28),
    *_zero_shot("NMRF", k12=4.23, k15=5.52, q=7.49, e=3.80),
    *_zero_shot("DEFOM-Stereo L", k12=3.76, k15=4.99, q=5.65, e=2.35),
    *_zero_shot("FoundationStereo (Scene Flow only)", k12=3.2, k15=4.9, q=5.5, e=1.8),
)


def quoted(dataset: str) -> list[Quoted]:
    """The published rows of a data set."""
    return [row for row in QUOTED if row.dataset == dataset]
