"""What the network is made of: frozen, hashable dataclasses and the published variants.

Every width, depth, window, head and layer count of the network is a field here. Defaults are the original's, of widths that
it hard-codes too. `dpn` are its disparity proposals, `nmp` its neural message passing; how it names each field is in
`bridgedepth_jax/convert/rules/bridgedepth_config.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self, get_args

from bridgedepth_jax.build import build
from bridgedepth_jax.layers import Remat
from bridgedepth_jax.networks.config import BackboneConfig, Dtype, MonoConfig, Precision

MULTIPLE = 16  # of the sides of what the network computes on (spec section 1)
MINIMUM = 32  # pixels, of each side of an image
VARIANTS = ("sf", "l_sf", "kitti", "eth3d_pretrain", "eth3d", "middlebury_pretrain", "middlebury", "rvc_pretrain", "rvc")


@dataclasses.dataclass(frozen=True)
class ProposalConfig:
    """Disparity proposals at 1/8 resolution (spec section 4)."""

    max_disp: int = 320  # full-resolution pixels; a multiple of 8
    cost_groups: int = 4
    num_proposals: int = 2
    context_dim: int = 64
    mlp_dims: tuple[int, int] = (8, 16)  # the 1-d convolutions over disparity
    lookup_radius: int = 4
    seed_dim: int = 64  # correlation features and prior of a seed, each
    lookup_dim: int = 128

    def __post_init__(self) -> None:
        if self.max_disp % 8 or self.max_disp < 8:
            raise ValueError(f"dpn.max_disp {self.max_disp} is not a positive multiple of 8")
        if not 1 <= self.num_proposals <= self.levels:
            raise ValueError(f"dpn.num_proposals {self.num_proposals} is not within 1..{self.levels}")

    @property
    def levels(self) -> int:
        return self.max_disp // 8


@dataclasses.dataclass(frozen=True)
class NMPConfig:
    """Neural message passing: propagation, and both alignment stages (spec sections 4 to 6)."""

    prop_dim: int = 128
    dim: int = 128  # C of the specification
    mlp_ratio: float = 4.0
    window: int = 6
    refine_window: int = 4
    prop_heads: int = 4
    heads: int = 4
    prop_layers: int = 5
    infer_layers: int = 5
    refine_layers: int = 5
    return_intermediate: bool = True  # kept for the round trip: training always has all layers, inference the last
    concat_dim: int = 64  # `concatconv`
    concat_hidden: int = 128  # hidden width of `concatconv` and `gw`
    correlation_dim: int = 256  # `gw`
    correlation_groups: int = 32

    def __post_init__(self) -> None:
        if self.prop_dim % self.prop_heads or self.prop_heads % 2:
            raise ValueError(f"nmp.prop_heads {self.prop_heads} must be even and divide nmp.prop_dim {self.prop_dim}")
        if self.dim % self.heads:
            raise ValueError(f"nmp.heads {self.heads} does not divide nmp.dim {self.dim}")
        if self.correlation_dim % self.correlation_groups:
            raise ValueError(f"{self.correlation_groups} correlation groups do not divide {self.correlation_dim} channels")
        if self.window % 2 or self.refine_window % 2:
            raise ValueError(f"nmp.window {self.window} and nmp.refine_window {self.refine_window} must be even")


@dataclasses.dataclass(frozen=True)
class SGMConfig:
    """Classical evidence (`sgm.py`), which no published variant has: semi-global matching as further candidates."""

    candidates: int = 0  # beside the network's own; 0: none of it
    columns: int = 4  # pixels of a matched cell, which has 4 rows; 2: twice as fine where it matters, along the rows
    dropped: float = 0.1  # share of the training samples that do without
    radius: int = 2  # of the census window, cells
    threshold: float = 1.0  # grey levels below which two pixels count as equal
    small_step: float = 0.5  # price of a change by one level; a cost is within 0..2
    large_step: float = 2.0  # of any larger one

    def __post_init__(self) -> None:
        if not 0 <= self.candidates <= 4:
            raise ValueError(f"sgm.candidates {self.candidates} is not within 0..4")
        if self.columns not in (2, 4):
            raise ValueError(f"sgm.columns {self.columns}, expected 2 or 4")
        if not 0 <= self.dropped < 1:
            raise ValueError(f"sgm.dropped {self.dropped} is not within 0..1")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The whole network. Hashable, so it can be static under `jax.jit`."""

    mono: MonoConfig = dataclasses.field(default_factory=lambda: MonoConfig.named("vitl"))
    backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    dpn: ProposalConfig = ProposalConfig()
    nmp: NMPConfig = NMPConfig()
    sgm: SGMConfig = SGMConfig()
    bounded_prior: bool = False  # monocular features and states normalised over channels wherever stereo tokens meet them
    upsampling: int = 0  # width of the convex upsampling of the refined disparity (`upsampling.py`); 0: values per cell alone
    fusion: int = 0  # width of the last choice between the network's and the classical disparities (`fusion.py`); 0: none
    fusion_reach: tuple[int, ...] = ()  # 1/4 pixels: the network's disparities so far to four sides can be chosen too
    learned_confidence: bool = False  # with upsampling: a pixel's probability to be within 2 px, not the candidates'
    temperature: float = 1.0  # of the confidence: its logits are divided by it
    recurrent_loss_gamma: float = 0.8
    recurrent_loss_weight: float = 1.0
    dtype: Dtype = "float32"  # computation of ViT, DPT, encoders and attention; everything delicate stays float32
    precision: Precision = "highest"  # of matrix products: "highest" is true float32 everywhere, the others allow less
    remat: bool = False  # training: recompute block activations in the backward pass
    remat_policy: Remat = "nothing"  # what is kept of them, with remat

    def __post_init__(self) -> None:
        for name, kind in (("dtype", Dtype), ("precision", Precision), ("remat_policy", Remat)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"model.{name} {getattr(self, name)!r}, expected one of {list(get_args(kind))}")
        if self.learned_confidence and not self.upsampling:
            raise ValueError("model.learned_confidence is part of the upsampling: expected model.upsampling above 0")
        if self.fusion and not (self.upsampling and self.sgm.candidates):
            raise ValueError("model.fusion chooses between upsampled and classical disparities: expected model.upsampling and"
                             " model.sgm.candidates above 0")  # fmt: skip
        if self.fusion_reach and not (self.fusion and min(self.fusion_reach) > 0):
            raise ValueError(f"model.fusion_reach {self.fusion_reach}, expected distances above 0, and model.fusion above 0")
        if not self.temperature > 0:
            raise ValueError(f"model.temperature {self.temperature}, expected more than 0")

    @property
    def kept(self) -> Remat | None:
        """What training keeps of a block until the backward pass; None: all."""
        return self.remat_policy if self.remat else None

    @classmethod
    def variant(cls, name: str) -> Self:
        """A published variant, by the name of its config: sf, l_sf, kitti, ..., rvc (all with ViT-L)."""
        if name not in VARIANTS:
            raise ValueError(f"unknown variant {name!r}, expected one of {list(VARIANTS)}")
        if name == "sf":
            return cls.size("resnet", "vitl")
        return cls.size("convnext", "vitl", drop_path=0.2 if name == "l_sf" else 0.3)

    @classmethod
    def nano(cls) -> Self:
        """The published parts in 1.7 M parameters: narrow, two layers each, and a ViT of its own."""
        mono = MonoConfig("nano", 96, 4, 3, (0, 1, 2, 3), pos_grid=16, features=32, out_channels=(24, 32, 48, 64))
        backbone = BackboneConfig("resnet", out_channels=64, dims=(32, 48, 64), depths=(1, 1, 2))
        dpn = ProposalConfig(max_disp=256, context_dim=32, seed_dim=32, lookup_dim=48)
        stages: dict[str, Any] = dict(
            prop_dim=48, dim=48, mlp_ratio=2.0, prop_heads=2, heads=2, prop_layers=2, infer_layers=2, refine_layers=2
        )
        nmp = NMPConfig(**stages, concat_dim=64, concat_hidden=64, correlation_dim=64, correlation_groups=16)
        return cls(mono, backbone, dpn, nmp, recurrent_loss_weight=0.3)

    @classmethod
    def nano_sharp(cls) -> Self:
        """The default model, 1.8 M parameters: nano with what no published variant has."""
        return cls.nano().replace(
            bounded_prior=True, upsampling=64, fusion=64, learned_confidence=True, sgm=SGMConfig(candidates=1, columns=2)
        )

    @classmethod
    def size(cls, encoder: str, vit: str, *, drop_path: float = 0.0) -> Self:
        """A stereo encoder (resnet, convnext, swin) with a ViT (vits, vitb, vitl, vitg), everything else as published."""
        backbone = BackboneConfig(encoder, out_channels=256 if encoder == "resnet" else 128, drop_path=drop_path)  # type: ignore[arg-type]
        return cls(mono=MonoConfig.named(vit), backbone=backbone)

    @property
    def exact_phases(self) -> bool:
        """Whether disparities keep their digits up to the fourier features. Not where float32 has to round as the original."""
        return self.bounded_prior

    def replace(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; also of its JSON. An unknown or wrongly typed field raises ValueError."""
        return build(cls, tree, "model")
