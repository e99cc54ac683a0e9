"""What the shared networks are made of: frozen, hashable dataclasses, the published sizes as constructors."""

import dataclasses
from typing import Any, Literal, Self, get_args

from bridgedepth_jax.layers import Remat

Dtype = Literal["float32", "bfloat16", "float16", "float64"]
Precision = Literal["highest", "high", "default"]


@dataclasses.dataclass(frozen=True)
class MonoConfig:
    """Depth Anything V2: a DINOv2 ViT and its DPT head (spec `architecture.md` section 2)."""

    name: str = "vitl"  # the original's ENCODER_VIT; any other name for an own size
    dim: int = 1024
    depth: int = 24
    heads: int = 16
    taps: tuple[int, int, int, int] = (4, 11, 17, 23)  # 0-based blocks whose outputs the DPT head reads
    mlp: Literal["gelu", "swiglu"] = "gelu"
    mlp_ratio: float = 4.0
    patch: int = 14
    pos_grid: int = 37  # side of the stored position embedding: 518 / 14
    features: int = 256  # width of the DPT fusion
    out_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"mono.dim {self.dim} is not a multiple of mono.heads {self.heads}")
        if list(self.taps) != sorted(set(self.taps)) or not 0 <= self.taps[0] <= self.taps[-1] < self.depth:
            raise ValueError(f"mono.taps {self.taps} must be four rising block numbers below mono.depth {self.depth}")

    @classmethod
    def named(cls, name: str) -> Self:
        """vits, vitb, vitl or vitg as in Depth Anything V2."""
        try:
            return cls(name, **VITS[name])
        except KeyError:
            raise ValueError(f"unknown ViT {name!r}, expected one of {sorted(VITS)}") from None


VITS: dict[str, dict[str, Any]] = {
    "vits": dict(dim=384, depth=12, heads=6, taps=(2, 5, 8, 11), features=64, out_channels=(48, 96, 192, 384)),
    "vitb": dict(dim=768, depth=12, heads=12, taps=(2, 5, 8, 11), features=128, out_channels=(96, 192, 384, 768)),
    "vitl": dict(dim=1024, depth=24, heads=16, taps=(4, 11, 17, 23), features=256, out_channels=(256, 512, 1024, 1024)),
    "vitg": dict(dim=1536, depth=40, heads=24, taps=(9, 19, 29, 39), features=384, out_channels=(1536,) * 4, mlp="swiglu"),
}


DepthHead = Literal["relative", "metric", "scale"]


@dataclasses.dataclass(frozen=True)
class DepthConfig(MonoConfig):
    """Depth Anything V2 as a network of its own (spec `mono-training.md` section 4).

    head: `relative` inverse depth, up to scale and shift; `metric`, metres by a sigmoid times `max_depth` (DAv2-metric);
    `scale`, metres of a relative network whose scale and shift a small head predicts for the image.
    """

    head: DepthHead = "relative"
    min_depth: float = 0.001  # metres; of `scale`, and what a metric loss counts
    max_depth: float | None = None  # metres; not in the original's files: the converter is told
    dtype: Dtype = "float32"
    remat: bool = False  # training: blocks are computed again in the backward pass
    remat_policy: Remat = "nothing"  # what is kept of them, with remat

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remat_policy not in get_args(Remat):
            raise ValueError(f"remat_policy {self.remat_policy!r}, expected one of {list(get_args(Remat))}")
        if self.head not in ("relative", "metric", "scale"):
            raise ValueError(f"head {self.head!r}, expected relative, metric or scale")
        if self.head == "relative" and self.max_depth is not None:
            raise ValueError(f"max_depth {self.max_depth} of a relative head, expected None")
        if self.head != "relative" and self.max_depth is None:
            raise ValueError(f"a {self.head} head without max_depth, expected metres (20 indoors, 80 outdoors)")
        if self.max_depth is not None and not 0 < self.min_depth < self.max_depth:
            raise ValueError(f"min_depth {self.min_depth} and max_depth {self.max_depth}, expected 0 < min_depth < max_depth")

    @property
    def kept(self) -> Remat | None:
        """What is kept of a block; None: all."""
        return self.remat_policy if self.remat else None

    @property
    def metric(self) -> bool:
        """Whether the network gives metres."""
        return self.head != "relative"


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """The stereo encoder (spec `architecture.md` section 3)."""

    model_type: Literal["resnet", "convnext", "swin"] = "resnet"
    norm_fn: str = "instance"
    out_channels: int = 256
    weight_url: str = ""  # kept for the round trip; ImageNet weights are given to bridgedepth train
    drop_path: float = 0.0
    dims: tuple[int, ...] = ()  # stage widths; empty: resnet (64, 96, 128), convnext and swin (96, 192, 384)
    depths: tuple[int, ...] = ()  # blocks a stage; empty: resnet (2, 2, 2), convnext (3, 3, 9), swin (2, 2, 6)
    heads: tuple[int, ...] = (3, 6, 12)  # swin
    window: int = 7  # swin

    def __post_init__(self) -> None:
        if self.model_type not in _STAGES:
            raise ValueError(f"unknown backbone.model_type {self.model_type!r}, expected one of {sorted(_STAGES)}")
        if self.norm_fn != "instance":
            raise ValueError(
                f"backbone.norm_fn {self.norm_fn!r} is not supported, expected 'instance': no published weights use another"
            )
        dims, depths = _STAGES[self.model_type]
        object.__setattr__(self, "dims", tuple(self.dims or dims))
        object.__setattr__(self, "depths", tuple(self.depths or depths))
        if len(self.dims) != 3 or len(self.depths) != 3:
            raise ValueError(f"backbone dims {self.dims} and depths {self.depths} must name three stages")


_STAGES = {
    "resnet": ((64, 96, 128), (2, 2, 2)),
    "convnext": ((96, 192, 384), (3, 3, 9)),
    "swin": ((96, 192, 384), (2, 2, 6)),
}
