"""Rules of BridgeDepth: a file is {"model": state dict, "model_config": the original's config object}, or a bare state dict.

Also torchvision's ImageNet weights, which a convnext or swin encoder may start from.
"""

import functools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bridgedepth_jax.convert.engine import CONV, CONV1D, LINEAR, NORM, SAME, Rules, convert_state, table
from bridgedepth_jax.convert.pickled import Class
from bridgedepth_jax.convert.pth import Instance, read_pth, state_dict
from bridgedepth_jax.convert.rules.bridgedepth_config import from_original, to_original
from bridgedepth_jax.convert.rules.depth_anything import LICENCES
from bridgedepth_jax.convert.rules.networks import FEATURES, VIT_DPT, VIT_DPT_ORDER
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.ops.image import MEAN, STD
from bridgedepth_jax.ops.windows import relative_index
from bridgedepth_jax.store.checkpoint import expected_shapes, unflatten
from bridgedepth_jax.systems.bridgedepth.config import VARIANTS, ModelConfig

# dpn: disparity proposals; nmp: neural message passing; gw: the group-wise correlation's features, concatconv: those that
# candidates are concatenated from; get_v: the values of the message passing.
OWN = table(
    ("relative_position_enc_table", SAME),
    (r"(norm_y|norms\.@)\.weight", NORM),
    (r"dpn\.mlp\.@\.weight", CONV1D),
    (r"(depth_feature_down|concatconv\.@|gw\.@|dpn\.proj\.@|get_v|downsample\.0)\.weight", CONV),
    (r"(projq|projkv|q|k|v|prior_proj|infer_score_head)\.weight", LINEAR),
    (r"(corr_encoder\.@|head\.layers\.@|mono_output\.layers\.@)\.weight", LINEAR),
)
ORDER = f"""
    mean std device_indicator_tensor layer_scale
    relative_position_enc_table relative_position_bias_table relative_position_index
    mono depth_feature_down stereo_encoder concatconv gw ffn dpn backbone
    align_0 align_1 infer_head infer_score_head refine_head mono_output
    layer1 layer2 layer3 downsample features norms corr_encoder block reduction self_nmp layers
    {VIT_DPT_ORDER}
    nmp readout update prior_proj propagation prop_head
"""
ORDER_OF = (
    (re.compile(r"backbone\.(layer[1-3]\.[0-9]+\.)?$"), "mean std conv1 layer1 layer2 layer3 conv2 downsample features norms"),
    (re.compile(r"(readout|update)\.$"), "attn norm1 norm2 mlp norm_y"),
    (re.compile(r"propagation\.$"), "corr_encoder proj layers norm"),
    (re.compile(r"propagation\.layers\.[0-9]+\.nmp\.$"), "q k v norm1 proj attns mlp norm2"),
)
LATER_STAGES = re.compile(r"^(features\.[67]|classifier|norm|head)\.")  # of torchvision's classifiers: not used
BACKBONE = "stereo_encoder/backbone/"
CONFIG = Class("bridgedepth.config.config", "CfgNode")  # a dict that also has the flags of yacs's class
SIZES = [(encoder, vit) for encoder in ("resnet", "convnext", "swin") for vit in ("vits", "vitb", "vitl", "vitg")]


def buffers(config: ModelConfig, paths: Iterable[str]) -> dict[str, np.ndarray]:
    """The original's buffers (constants in its state dict) of a network with the parameters `paths`, by their names."""
    nmp, column = config.nmp, (1, 3, 1, 1)
    found: dict[str, np.ndarray] = {"mean": MEAN.reshape(column), "std": STD.reshape(column)}
    found["stereo_encoder.device_indicator_tensor"] = np.zeros(0, np.float32)
    if config.backbone.model_type != "resnet":
        found |= {f"stereo_encoder.backbone.{name}": found[name] for name in ("mean", "std")}
    fine, coarse = nmp.refine_window, nmp.refine_window // 2
    windows = {
        "align_0.": (nmp.window, nmp.window),
        "align_1.attn": (fine, fine),
        "align_1.readout": (fine, coarse),
        "align_1.update": (coarse, fine),
        "stereo_encoder.": (config.backbone.window,) * 2,
    }
    for path in paths:
        parent, _, leaf = RULES.name(path).rpartition(".")
        if leaf in ("relative_position_enc_table", "relative_position_bias_table"):
            module = re.sub(r"layers\.[0-9]+\.", "", parent)
            (sizes,) = (sizes for prefix, sizes in windows.items() if module.startswith(prefix))
            index = relative_index(*sizes)
            found[f"{parent}.relative_position_index"] = index.reshape(-1) if leaf.endswith("bias_table") else index
    return found


def config_of(content: Any, state: Mapping[str, Any], config: ModelConfig | None) -> ModelConfig:
    """The config in a file, or the one given where it has none. Raises ValueError for none, two, or a wrong one."""
    tree = content.get("model_config") if isinstance(content, dict) else None
    if tree is None:
        if config is None:
            raise ValueError("holds no model config, say with --variant which network it is")
        return config
    if config is not None:
        raise ValueError("holds its model config, --variant is not expected")
    try:
        return from_original(tree)
    except ValueError as error:
        raise ValueError(f"its model config is not one of this network: {error}") from error


def content(config: ModelConfig, state: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the original loads. Raises ValueError for a config that it has no words for."""
    return {"model": state, "model_config": as_original(to_original(config))}


def as_original(tree: Mapping[str, Mapping[str, Any]]) -> Instance:
    """A config of the original as objects of its class."""
    return _node({name: _node(keys) for name, keys in tree.items()})


def _node(items: Mapping[str, Any]) -> Instance:
    flags = {"__immutable__": False, "__deprecated_keys__": set(), "__renamed_keys__": {}, "__new_allowed__": False}
    return Instance(items, of=CONFIG, state=flags)


def read_imagenet_backbone(path: str | os.PathLike, config: ModelConfig) -> dict[str, Any]:
    """Start of a `convnext` or `swin` encoder: the `features_*` subtree of params["stereo_encoder"]["backbone"].

    `path` is torchvision's .pth file of ConvNeXt-Tiny or Swin-T; its last stage and classifier are ignored. Raises
    InputError for a file that does not fit the encoder of `config`.
    """
    if config.backbone.model_type == "resnet":
        raise InputError(f"{path}: ImageNet weights are for the encoders convnext and swin, this config has resnet")
    shapes = expected_shapes("bridgedepth", config)
    expected = {name.removeprefix(BACKBONE): shape for name, shape in shapes.items() if name.startswith(f"{BACKBONE}features_")}
    prefix = BACKBONE.replace("/", ".")
    constants = {name.removeprefix(prefix): value for name, value in buffers(config, shapes).items() if name.startswith(prefix)}
    state = state_dict(Path(path), read_pth(path))
    return unflatten(convert_state(RULES, state, expected, constants=constants, ignored=LATER_STAGES, source=str(path)))


RULES = Rules(
    layouts=(*OWN, *FEATURES, *VIT_DPT),
    order=ORDER,
    order_of=ORDER_OF,
    plain=frozenset({"align_0", "align_1"}),
    buffers=buffers,
    config_of=config_of,
    licence=lambda config: LICENCES.get(config.mono.name, "unknown"),
    content=content,
    classes=(CONFIG,),
    variants={name: functools.partial(ModelConfig.variant, name) for name in VARIANTS}
    | {f"{encoder}_{vit}": functools.partial(ModelConfig.size, encoder, vit) for encoder, vit in SIZES},
)
