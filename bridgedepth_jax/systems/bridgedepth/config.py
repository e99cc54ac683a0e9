"""What the network is made of: frozen, hashable dataclasses, the published variants, and the original's config tree.

Every width, depth, window, head and layer count of the network is a field here. The original's tree has four nodes,
BACKBONE / DPN / NMP / BRIDGEDEPTH; fields that it lacks (widths it hard-codes) have its values as defaults.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self, get_args

from bridgedepth_jax.networks.config import VITS, BackboneConfig, Dtype, MonoConfig, Precision

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
            raise ValueError(f"DPN.MAX_DISP {self.max_disp} is not a positive multiple of 8")
        if not 1 <= self.num_proposals <= self.levels:
            raise ValueError(f"DPN.NUM_PROPOSALS {self.num_proposals} is not within 1..{self.levels}")

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
            raise ValueError(f"NMP.PROP_N_HEADS {self.prop_heads} must be even and divide PROP_EMBED_DIM {self.prop_dim}")
        if self.dim % self.heads:
            raise ValueError(f"NMP.INFER_N_HEADS {self.heads} does not divide NMP.INFER_EMBED_DIM {self.dim}")
        if self.correlation_dim % self.correlation_groups:
            raise ValueError(f"{self.correlation_groups} correlation groups do not divide {self.correlation_dim} channels")
        if self.window % 2 or self.refine_window % 2:
            raise ValueError(f"NMP.WINDOW_SIZE {self.window} and REFINE_WINDOW_SIZE {self.refine_window} must be even")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The whole network. Hashable, so it can be static under `jax.jit`."""

    mono: MonoConfig = dataclasses.field(default_factory=lambda: MonoConfig.named("vitl"))
    backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    dpn: ProposalConfig = ProposalConfig()
    nmp: NMPConfig = NMPConfig()
    recurrent_loss_gamma: float = 0.8
    recurrent_loss_weight: float = 1.0
    dtype: Dtype = "float32"  # computation of ViT, DPT, encoders and attention; everything delicate stays float32
    precision: Precision = "highest"  # of matrix products: "highest" is true float32 everywhere, the others allow less
    remat: bool = False  # training: recompute block activations in the backward pass

    def __post_init__(self) -> None:
        for name, kind in (("dtype", Dtype), ("precision", Precision)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"model.{name} {getattr(self, name)!r}, expected one of {list(get_args(kind))}")

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
        """The default model, 1.7 M parameters: the same parts, narrow, two layers each, and a ViT of its own."""
        mono = MonoConfig("nano", 96, 4, 3, (0, 1, 2, 3), pos_grid=16, features=32, out_channels=(24, 32, 48, 64))
        backbone = BackboneConfig("resnet", out_channels=64, dims=(32, 48, 64), depths=(1, 1, 2))
        dpn = ProposalConfig(max_disp=256, context_dim=32, seed_dim=32, lookup_dim=48)
        stages: dict[str, Any] = dict(
            prop_dim=48, dim=48, mlp_ratio=2.0, prop_heads=2, heads=2, prop_layers=2, infer_layers=2, refine_layers=2
        )
        nmp = NMPConfig(**stages, concat_dim=64, concat_hidden=64, correlation_dim=64, correlation_groups=16)
        return cls(mono, backbone, dpn, nmp, recurrent_loss_weight=0.3)

    @classmethod
    def size(cls, encoder: str, vit: str, *, drop_path: float = 0.0) -> Self:
        """A stereo encoder (resnet, convnext, swin) with a ViT (vits, vitb, vitl, vitg), everything else as published."""
        backbone = BackboneConfig(encoder, out_channels=256 if encoder == "resnet" else 128, drop_path=drop_path)  # type: ignore[arg-type]
        return cls(mono=MonoConfig.named(vit), backbone=backbone)

    def replace(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; also of its JSON. An unknown or wrongly typed field raises ValueError."""
        return _build(cls, tree, "model")

    def to_original(self) -> dict[str, dict[str, Any]]:
        """The original's tree. Raises ValueError where it has no word for a field that differs from its constant."""
        if self.mono.name not in VITS:
            raise ValueError(f"the original's config cannot express mono.name {self.mono.name!r}, only {sorted(VITS)}")
        tree: dict[str, dict[str, Any]] = {}
        for (node, key), path in _ORIGINAL.items():
            tree.setdefault(node, {})[key] = _get(self, path)
        for (node, key), value in _FIXED.items():
            tree[node][key] = value
        back = type(self).from_original(tree)
        mine = self.replace(dtype=back.dtype, precision=back.precision, remat=back.remat)
        if back != mine:
            different = sorted(k for k, v in _flatten(mine.to_dict()).items() if v != _flatten(back.to_dict()).get(k))
            raise ValueError(f"the original's config cannot express these values: {', '.join(different)}")
        return {node: {key: tree[node][key] for key in keys} for node, keys in _KEY_ORDER.items()}

    @classmethod
    def from_original(cls, tree: Mapping[str, Mapping[str, Any]]) -> Self:
        """From the original's BACKBONE / DPN / NMP / BRIDGEDEPTH tree; missing keys take its defaults, unknown ones raise."""
        config = cls()
        values: dict[str, Any] = {}
        for node, keys in tree.items():
            if node not in _KEY_ORDER:
                raise ValueError(f"unknown node {node!r} in a model config, expected {list(_KEY_ORDER)}")
            for key, value in keys.items():
                if (node, key) in _FIXED:
                    if value != _FIXED[node, key]:
                        raise ValueError(f"{node}.{key} = {value!r} is not supported, expected {_FIXED[node, key]!r}")
                elif (node, key) in _ORIGINAL:
                    values[_ORIGINAL[node, key]] = value
                else:
                    raise ValueError(f"unknown key {node}.{key} in a model config")
        model_type = values.get("backbone.model_type", "resnet")
        fields: dict[str, dict[str, Any]] = {"backbone": {"model_type": model_type}, "dpn": {}, "nmp": {}, "": {}}
        for path, value in values.items():
            parent, _, name = path.rpartition(".")
            if path != "mono.name":
                fields[parent][name] = value
        return cls(
            mono=MonoConfig.named(values.get("mono.name", config.mono.name)),
            backbone=BackboneConfig(**fields["backbone"]),
            dpn=ProposalConfig(**fields["dpn"]),
            nmp=NMPConfig(**fields["nmp"]),
            **fields[""],
        )


_ORIGINAL = {
    ("BACKBONE", "MODEL_TYPE"): "backbone.model_type",
    ("BACKBONE", "NORM_FN"): "backbone.norm_fn",
    ("BACKBONE", "OUT_CHANNELS"): "backbone.out_channels",
    ("BACKBONE", "WEIGHT_URL"): "backbone.weight_url",
    ("BACKBONE", "DROP_PATH"): "backbone.drop_path",
    ("DPN", "MAX_DISP"): "dpn.max_disp",
    ("DPN", "COST_GROUP"): "dpn.cost_groups",
    ("DPN", "NUM_PROPOSALS"): "dpn.num_proposals",
    ("DPN", "CONTEXT_DIM"): "dpn.context_dim",
    ("NMP", "PROP_EMBED_DIM"): "nmp.prop_dim",
    ("NMP", "INFER_EMBED_DIM"): "nmp.dim",
    ("NMP", "MLP_RATIO"): "nmp.mlp_ratio",
    ("NMP", "WINDOW_SIZE"): "nmp.window",
    ("NMP", "REFINE_WINDOW_SIZE"): "nmp.refine_window",
    ("NMP", "PROP_N_HEADS"): "nmp.prop_heads",
    ("NMP", "INFER_N_HEADS"): "nmp.heads",
    ("NMP", "NUM_PROP_LAYERS"): "nmp.prop_layers",
    ("NMP", "NUM_INFER_LAYERS"): "nmp.infer_layers",
    ("NMP", "NUM_REFINE_LAYERS"): "nmp.refine_layers",
    ("NMP", "RETURN_INTERMEDIATE"): "nmp.return_intermediate",
    ("BRIDGEDEPTH", "ENCODER_VIT"): "mono.name",
    ("BRIDGEDEPTH", "RECURRENT_LOSS_GAMMA"): "recurrent_loss_gamma",
    ("BRIDGEDEPTH", "RECURRENT_LOSS_WEIGHT"): "recurrent_loss_weight",
}
# Keys of the original that this network has in one value only: no published weights use another.
_FIXED = {
    ("NMP", "SPLIT_SIZE"): 1,
    ("NMP", "ATTN_DROP"): 0.0,
    ("NMP", "PROJ_DROP"): 0.0,
    ("NMP", "DROP_PATH"): 0.0,
    ("NMP", "DROPOUT"): 0.0,
}
_KEY_ORDER = {
    "BACKBONE": ["MODEL_TYPE", "NORM_FN", "OUT_CHANNELS", "WEIGHT_URL", "DROP_PATH"],
    "DPN": ["MAX_DISP", "COST_GROUP", "NUM_PROPOSALS", "CONTEXT_DIM"],
    "NMP": [
        "PROP_EMBED_DIM", "INFER_EMBED_DIM", "MLP_RATIO", "SPLIT_SIZE", "WINDOW_SIZE", "REFINE_WINDOW_SIZE", "PROP_N_HEADS",
        "INFER_N_HEADS", "NUM_PROP_LAYERS", "NUM_INFER_LAYERS", "NUM_REFINE_LAYERS", "RETURN_INTERMEDIATE", "ATTN_DROP",
        "PROJ_DROP", "DROP_PATH", "DROPOUT",
    ],
    "BRIDGEDEPTH": ["ENCODER_VIT", "RECURRENT_LOSS_GAMMA", "RECURRENT_LOSS_WEIGHT"],
}  # fmt: skip


def _get(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = getattr(config, name)
    return config


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _build(cls: Any, tree: Any, where: str) -> Any:
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where}: {tree!r} is not a mapping")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(tree) - set(fields))
    if unknown:
        raise ValueError(f"{where}: unknown fields {unknown}, expected {sorted(fields)}")
    values = {}
    for name, value in tree.items():
        kind = fields[name].type
        if dataclasses.is_dataclass(kind):
            values[name] = _build(kind, value, f"{where}.{name}")
            continue
        default = getattr(cls, name, None)
        if isinstance(default, tuple):
            if not isinstance(value, (list, tuple)) or not all(isinstance(v, int) for v in value):
                raise ValueError(f"{where}.{name} = {value!r}, expected a list of integers")
            value = tuple(value)
        elif kind is float:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{where}.{name} = {value!r}, expected a number")
        elif default is not None and type(value) is not type(default):
            raise ValueError(f"{where}.{name} = {value!r}, expected {type(default).__name__}")
        values[name] = value
    return cls(**values)
