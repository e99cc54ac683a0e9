"""Names and layouts of parameters: the original's state dict and ours, both ways.

A name maps by rule: list items merge into the name before them and the leaf is named after what it does
(`blocks.0.norm1.weight` is `blocks_0/norm1/scale`). The layout of a `weight` depends on its module, which the tables
below tell by name. `convert_state` and `restore_state` account for each tensor and each parameter or raise.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.ops.image import MEAN, STD
from bridgedepth_jax.ops.windows import relative_index
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig


class Layout(NamedTuple):
    """How a tensor of the original becomes our leaf: a new name for it and a permutation of its axes."""

    leaf: str | None  # None: the name stays
    axes: tuple[int, ...] | None  # None: any number of axes, in their order


SAME = Layout(None, None)
NORM = Layout("scale", (0,))
LINEAR = Layout("kernel", (1, 0))  # (out, in) -> (in, out)
CONV1D = Layout("kernel", (2, 1, 0))  # (out, in, k) -> (k, in, out)
CONV = Layout("kernel", (2, 3, 1, 0))  # (out, in, kh, kw) -> (kh, kw, in, out), depthwise too
CONV_TRANSPOSED = Layout("kernel", (2, 3, 0, 1))  # (in, out, kh, kw) -> (kh, kw, in, out)
COLUMN = Layout(None, (0, 1, 2))  # (C, 1, 1) -> (C,): see `_to_ours`

# The first row whose pattern is found at the end of the name decides. `@` stands for the number of a list item.
_TABLE = [
    ("layer_scale", COLUMN),
    ("bias|gamma|cls_token|pos_embed|mask_token|relative_position_(enc|bias)_table", SAME),
    (r"(norm|norm1|norm2|norm_y|norms\.@|features\.0\.[12]|features\.[246]\.0|block\.2)\.weight", NORM),
    (r"resize_layers\.[01]\.weight", CONV_TRANSPOSED),
    (r"dpn\.mlp\.@\.weight", CONV1D),
    (
        r"(patch_embed\.proj|projects\.@|resize_layers\.3|layer[1-4]_rn|out_conv|conv[12]|output_conv1|output_conv2\.@)\.weight",
        CONV,
    ),
    (r"(depth_feature_down|concatconv\.@|gw\.@|dpn\.proj\.@|get_v|features\.@\.@|block\.0|downsample\.0)\.weight", CONV),
    (r"(qkv|proj|projq|projkv|q|k|v|fc1|fc2|w12|w3|prior_proj|infer_score_head|reduction)\.weight", LINEAR),
    (r"(corr_encoder\.@|head\.layers\.@|mono_output\.layers\.@|block\.[35]|mlp\.[03])\.weight", LINEAR),
]
LAYOUTS = [(re.compile(rf"(^|[._])({pattern.replace('@', '[0-9]+')})$"), layout) for pattern, layout in _TABLE]

# Order in which the original registers the children of a module, where it has several; list items go by number.
ORDER = """
    mean std device_indicator_tensor cls_token pos_embed mask_token layer_scale
    relative_position_enc_table relative_position_bias_table relative_position_index gamma weight bias
    mono pretrained depth_head depth_feature_down stereo_encoder concatconv gw ffn dpn backbone
    align_0 align_1 infer_head infer_score_head refine_head mono_output
    conv1 layer1 layer2 layer3 conv2 downsample features norms
    patch_embed blocks projects resize_layers scratch layer1_rn layer2_rn layer3_rn layer4_rn
    refinenet1 refinenet2 refinenet3 refinenet4 out_conv resConfUnit1 resConfUnit2 output_conv1 output_conv2
    corr_encoder block reduction self_nmp norm1 attn nmp readout update q k v qkv projq projkv ls1 norm2 mlp fc1 fc2 w12 w3 ls2
    proj prior_proj layers norm propagation prop_head
"""
# Where a module has an order of its own: the path to it, and its children.
ORDER_OF = [
    (re.compile(r"(readout|update)\.$"), "attn norm1 norm2 mlp norm_y"),
    (re.compile(r"propagation\.layers\.[0-9]+\.nmp\.$"), "q k v norm1 proj attns mlp norm2"),
]


def layout_of(name: str) -> Layout | None:
    """Layout of a tensor of the original by its name, or None for a name that no rule knows."""
    return next((layout for pattern, layout in LAYOUTS if pattern.search(name)), None)


def path_of(name: str, layout: Layout) -> str:
    """`blocks.0.norm1.weight` -> `blocks_0/norm1/scale`."""
    *modules, leaf = re.sub(r"\.([0-9]+)(?=\.|$)", r"_\1", name).split(".")
    return "/".join([*modules, layout.leaf or leaf])


def name_of(path: str) -> str:
    """Inverse of `path_of`."""
    *modules, leaf = path.split("/")
    modules = [m if m in ("align_0", "align_1") else re.sub(r"_([0-9]+)(?=_[0-9]|$)", r".\1", m) for m in modules]
    return ".".join([*modules, {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)])


def order_key(name: str) -> list[int]:
    """Sorts names as the original's state dict lists them."""
    key = []
    parent = ""
    for part in name.split("."):
        order = next((order for where, order in ORDER_OF if where.search(parent)), ORDER).split()
        key.append(int(part) if part.isdigit() else order.index(part) if part in order else len(order))
        parent += f"{part}."
    return key


def _to_ours(value: np.ndarray, layout: Layout) -> np.ndarray:
    if layout is COLUMN:
        return value.reshape(len(value))
    return value if layout.axes is None else np.ascontiguousarray(value.transpose(layout.axes))


def _to_original(value: np.ndarray, layout: Layout) -> np.ndarray:
    if layout is COLUMN:
        return value.reshape(-1, 1, 1)
    return value if layout.axes is None else np.ascontiguousarray(value.transpose(np.argsort(layout.axes)))


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
        parent, _, leaf = name_of(path).rpartition(".")
        if leaf in ("relative_position_enc_table", "relative_position_bias_table"):
            module = re.sub(r"layers\.[0-9]+\.", "", parent)
            (sizes,) = (sizes for prefix, sizes in windows.items() if module.startswith(prefix))
            index = relative_index(*sizes)
            found[f"{parent}.relative_position_index"] = index.reshape(-1) if leaf.endswith("bias_table") else index
    return found


def convert_state(
    state: dict[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    *,
    constants: Mapping[str, np.ndarray] | None = None,
    ignored: re.Pattern[str] | None = None,
    source: str,
) -> dict[str, np.ndarray]:
    """State dict of the original to {path: parameter}, float32; empties `state` on the way to save memory.

    `expected` has name and shape of each parameter of ours; `constants` are the buffers, which must be equal where
    `state` has them; names that match `ignored` are dropped. Raises InputError with what is missing and what is left.
    """
    leaves: dict[str, np.ndarray] = {}
    unused, wrong = [], []
    fixed = constants or {}
    for name in list(state):
        value = state.pop(name)
        if not isinstance(value, np.ndarray):
            raise InputError(f"{source}: {name:.80} is {type(value).__name__}, expected a tensor")
        if ignored and ignored.search(name):
            continue
        if name in fixed:
            if not np.array_equal(value, fixed[name]):
                wrong.append(f"{name} (a constant of the network) differs from what the config says")
            continue
        layout = layout_of(name)
        path = path_of(name, layout) if layout else ""
        if layout is None or path not in expected:
            unused.append(name)
        elif _original_shape(expected[path], layout) != value.shape:
            wrong.append(f"{name} has shape {value.shape}, expected {_original_shape(expected[path], layout)}")
        elif value.dtype.kind != "f" and value.dtype.name != "bfloat16":
            wrong.append(f"{name} has dtype {value.dtype}, expected floating point")
        else:
            leaves[path] = _to_ours(value.astype(np.float32, copy=False), layout)
    missing = [name_of(path) for path in sorted(set(expected) - set(leaves))]
    missing = [name for name in missing if not any(text.startswith(f"{name} ") for text in wrong)]
    problems = [("missing", missing), ("not part of this network", unused), ("wrong", wrong)]
    if missing or unused or wrong:
        texts = [f"{len(names)} {what}: {', '.join(names)}" for what, names in problems if names]
        raise InputError(f"{source}: its tensors do not fit the network; {'; '.join(texts)}")
    return leaves


def _original_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    if layout is COLUMN:
        return (*shape, 1, 1)
    return shape if layout.axes is None else tuple(shape[i] for i in np.argsort(layout.axes))


def restore_state(leaves: Mapping[str, np.ndarray], constants: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Inverse of `convert_state`: the original's state dict, in its order, buffers included."""
    state = {}
    for path, value in leaves.items():
        name = name_of(path)
        layout = layout_of(name)
        if layout is None or path_of(name, layout) != path:
            raise ValueError(f"no rule gives the original's name of parameter {path}")
        state[name] = _to_original(value, layout)
    state |= constants or {}
    return {name: state[name] for name in sorted(state, key=order_key)}
