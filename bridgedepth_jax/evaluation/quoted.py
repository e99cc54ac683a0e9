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


# Depth, by the protocols of `evaluation/depth.py`: tables 1 to 6 of "Revealing the Reciprocal Relations between Self-Supervised
# Stereo and Monocular Depth Estimation" (ICCV 2021).
_DEPTH = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")


def _depth(protocol: str, model: str, words: str, *values: float) -> Quoted:
    return Quoted(protocol, model, dict(zip(_DEPTH, values, strict=True)), words, "t")


QUOTED_DEPTH = (
    _depth("kitti_2015_depth", "StereoNet", "table 1", 0.052, 0.558, 3.733, 0.123, 0.961, 0.984, 0.992),
    _depth("kitti_2015_depth", "Fusion", "table 1", 0.049, 0.456, 3.478, 0.112, 0.964, 0.987, 0.994),
    _depth("kitti_2015_depth", "StereoNet-D", "table 1", 0.048, 0.482, 3.393, 0.105, 0.969, 0.989, 0.994),
    _depth("kitti_2015_depth", "SingleNet", "table 1", 0.083, 0.688, 4.464, 0.154, 0.904, 0.972, 0.990),
    _depth("kitti_2015_depth", "UnOS, stereo only", "table 1", 0.060, 0.833, 4.187, 0.135, 0.955, 0.981, 0.990),
    _depth("kitti_2015_depth", "UnOS, full", "table 1", 0.049, 0.515, 3.404, 0.121, 0.965, 0.984, 0.992),
    _depth(
        "kitti_2015_depth",
        "StereoNet, pyramid encoder",
        "table 3; prints RMSE 30.822",
        0.054,
        0.629,
        3.822,
        0.127,
        0.959,
        0.983,
        0.991,
    ),
    _depth("kitti_2015_depth", "SingleNet, alpha 1", "table 5", 0.086, 0.724, 4.577, 0.161, 0.898, 0.967, 0.986),
    _depth("kitti_2015_depth", "SingleNet, alpha 0.1", "table 5", 0.086, 0.708, 4.509, 0.159, 0.898, 0.968, 0.987),
    _depth("kitti_2015_depth", "Fusion, alpha 1", "table 6", 0.052, 0.559, 3.737, 0.123, 0.961, 0.984, 0.992),
    _depth("kitti_2015_depth", "Fusion, alpha 0.1", "table 6", 0.050, 0.484, 3.531, 0.115, 0.964, 0.987, 0.994),
    _depth("eigen", "SingleNet", "table 2", 0.095, 0.697, 4.435, 0.186, 0.891, 0.962, 0.981),
    _depth("eigen", "SingleNet, post-processed", "table 2", 0.094, 0.681, 4.392, 0.185, 0.892, 0.962, 0.981),
    _depth("eigen", "SingleNet, self-supervised", "table 4", 0.102, 0.817, 4.678, 0.196, 0.881, 0.957, 0.979),
    _depth("eigen", "SingleNet, semi-global matching as teacher", "table 4", 0.100, 0.834, 4.576, 0.186, 0.889, 0.962, 0.981),
    _depth("eigen", "Depth Hints, post-processed", "table 2", 0.096, 0.710, 4.393, 0.185, 0.890, 0.962, 0.981),
    _depth("eigen", "monodepth2, stereo", "table 2", 0.107, 0.849, 4.764, 0.201, 0.874, 0.953, 0.977),
)


def quoted_depth(protocol: str) -> list[Quoted]:
    """The published rows of a depth protocol."""
    return [row for row in QUOTED_DEPTH if row.dataset == protocol]


def quoted(dataset: str) -> list[Quoted]:
    """The published rows of a data set."""
    return [row for row in QUOTED if row.dataset == dataset]
