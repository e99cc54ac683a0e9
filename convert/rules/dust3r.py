"""Rules of DUSt3R, MonST3R and MASt3R: a .pth is {"args": argparse.Namespace, "model": state dict}, or model.safetensors with a
config.json beside it (spec `video.md` section 1.3).

`args.model` is a call in a string that the original evaluates. Here it is data: a fixed name with a fixed set of keywords and
literal values, read from its syntax tree; anything else is refused by name.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bridgedepth_jax.convert.engine import CONV, CONV_TRANSPOSED, LINEAR, NORM, SAME, Rules, table
from bridgedepth_jax.convert.pickled import Class
from bridgedepth_jax.convert.pth import Instance
from bridgedepth_jax.networks.croco.config import PairConfig

LICENCE = "CC-BY-NC-SA-4.0"
ARGUMENTS = Class("argparse", "Namespace", attributes=True)
LONGEST = 4000  # characters of a model string
HEAD_WIDTH = 64  # channels of an attention head, for files that do not say how many there are
MODELS = ("AsymmetricCroCo3DStereo", "AsymmetricMASt3R")
SIZES = ("enc_embed_dim", "enc_depth", "enc_num_heads", "dec_embed_dim", "dec_depth", "dec_num_heads")
PATCH = "patch_size"  # left out where it is the originals' own
INFINITY = ("-inf", "inf", -math.inf, math.inf)
# Keywords that are no fields of ours, and their values that are this network; None: any literal, it changes nothing here.
FIXED: dict[str, tuple[Any, ...] | None] = {
    "pos_embed": ("RoPE100",),
    "patch_embed_cls": ("PatchEmbedDust3R", "ManyAR_PatchEmbed"),  # which differ in how portrait images are batched
    "output_mode": ("pts3d", "pts3d+desc24"),
    "depth_mode": tuple(("exp", low, high) for low in INFINITY for high in INFINITY),
    "conf_mode": tuple(("exp", low, high) for low in (1, 1.0) for high in INFINITY),
    "mlp_ratio": (4, 4.0),
    "landscape_only": None,
    "freeze": None,
    "two_confs": None,
    "desc_mode": None,
    "desc_conf_mode": None,
}
SECOND_DECODER = re.compile(r"^dec_blocks\.")
# Descriptors of MASt3R, which nothing here asks for.
DESCRIPTORS = re.compile(r"^downstream_head[12]\.head_local_features\.")
ORDER = """
    mask_token patch_embed enc_blocks enc_norm decoder_embed dec_blocks dec_norm dec_blocks2 downstream_head1 downstream_head2
    norm1 attn cross_attn norm2 norm3 mlp norm_y qkv projq projk projv fc1 fc2
    dpt scratch head act_postprocess layer1_rn layer2_rn layer3_rn layer4_rn layer_rn
    refinenet1 refinenet2 refinenet3 refinenet4 out_conv resConfUnit1 resConfUnit2 conv1 conv2 proj weight bias
"""


def parse_model(text: Any) -> dict[str, Any]:
    """The keywords of a model string. ValueError, naming it, for whatever is not a literal of a keyword that is known."""
    if not isinstance(text, str) or len(text) > LONGEST:
        raise ValueError(f"args.model is {type(text).__name__}, expected a call in at most {LONGEST} characters")
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"args.model {text!r:.60} is no expression") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"args.model {text!r:.60} is {_kind(call)}, expected a call of {' or '.join(MODELS)}")
    if call.func.id not in MODELS:
        raise ValueError(f"args.model calls {call.func.id!r:.60}, expected {' or '.join(MODELS)}")
    if call.args:
        raise ValueError(f"args.model has {_kind(call.args[0])} without a keyword, expected keywords alone")
    found: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in found:
            raise ValueError(
                f"args.model has {'**' if keyword.arg is None else keyword.arg + ' twice'}, expected each keyword once"
            )
        found[keyword.arg] = _literal(keyword.value, keyword.arg)
    return found


def _literal(node: ast.expr, name: str) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (str, int, float, bool, type(None)):
        return node.value
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_literal(item, name) for item in node.elts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand, name)
        if type(value) in (int, float):
            return -value
    raise ValueError(f"args.model has {_kind(node)} as {name:.40}, expected a literal")


def _kind(node: ast.AST) -> str:
    words = {ast.Call: "a call", ast.Attribute: "an attribute", ast.Subscript: "a subscript", ast.Lambda: "a lambda"}
    return words.get(type(node), f"a {type(node).__name__}")  # type: ignore[arg-type]


def config_of(content: Any, state: dict[str, Any], config: PairConfig | None) -> PairConfig:
    """The one given, or what the file says of it, and its tensors of the heads' widths.

    A file of CroCo has one decoder: the second one begins as its copy, which is added to `state`. Raises ValueError.
    """
    if not any(name.startswith("dec_blocks2.") for name in state):
        state |= {
            SECOND_DECODER.sub("dec_blocks2.", name): value for name, value in state.items() if SECOND_DECODER.match(name)
        }
    if config is not None:
        return config
    args = content.get("args") if isinstance(content, Mapping) else None
    said: dict[str, Any] = {}
    if isinstance(args, Mapping):
        said = parse_model(args.get("model"))
    elif isinstance(content, Mapping) and isinstance(content.get("config"), Mapping):
        said = dict(content["config"])
    fields = {name: said[name] for name in ("head_type", "img_size", PATCH, *SIZES) if name in said}
    if fields.get("head_type") == "catmlp+dpt":  # MASt3R: the same dense head beside descriptors
        fields["head_type"] = "dpt"
    for name, value in said.items():
        if name in fields or (name in FIXED and FIXED[name] is None):
            continue
        value = tuple(value) if isinstance(value, list) else value
        allowed = FIXED.get(name)
        if allowed is None:
            raise ValueError(f"the model has {name:.40} {value!r:.60}, which is not known")
        if value not in allowed:
            raise ValueError(f"the model has {name} {value!r:.60}, expected {allowed[0]!r}")
    for name in (PATCH, *SIZES):
        if name in fields and (type(fields[name]) is not int or not 0 < fields[name] < 2**16):
            raise ValueError(f"the model has {name} {fields[name]!r:.60}, expected a positive number")
    if PATCH in fields:
        fields["patch"] = fields.pop(PATCH)
    if "img_size" in fields:
        size = fields["img_size"]
        size = (size, size) if type(size) is int else size
        if not isinstance(size, (tuple, list)) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
            raise ValueError(f"the model has img_size {size!r:.60}, expected two numbers of pixels")
        fields["img_size"] = tuple(size)
    if not said:
        fields |= sizes_of(state)
    return PairConfig(**fields, **head_widths(state))


def sizes_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of both transformers by the tensors alone; heads are 64 channels wide."""
    found: dict[str, Any] = {"head_type": "linear" if "downstream_head1.proj.weight" in state else "dpt"}
    for name, blocks in (("enc", "enc_blocks"), ("dec", "dec_blocks")):
        norm = state.get(f"{blocks}.0.norm1.weight")
        if not isinstance(norm, np.ndarray):
            raise ValueError(f"it has no {blocks}.0.norm1.weight")
        numbers = {int(m[1]) for key in state if (m := re.match(rf"{blocks}\.(\d{{1,4}})\.", key))}
        dim = norm.shape[0]
        found |= {f"{name}_embed_dim": dim, f"{name}_depth": len(numbers), f"{name}_num_heads": max(1, dim // HEAD_WIDTH)}
    return found


def head_widths(state: Mapping[str, Any]) -> dict[str, Any]:
    """Widths of the dense heads, which no model string names; those of a file without dense heads are the defaults."""
    shape = lambda name: getattr(state.get(f"downstream_head1.dpt.{name}"), "shape", None)
    found: dict[str, Any] = {}
    first, last = shape("head.0.weight"), shape("head.4.weight")
    levels = [shape(f"scratch.layer{i}_rn.weight") or shape(f"scratch.layer_rn.{i - 1}.weight") for i in (1, 2, 3, 4)]
    if first and len(first) == 4:
        found["feature_dim"] = first[1]
    if last and len(last) == 4:
        found["last_dim"] = last[1]
    if all(level and len(level) == 4 for level in levels):
        found["layer_dims"] = tuple(level[1] for level in levels if level)
    return found


def model_string(config: PairConfig) -> str:
    """The inverse of `parse_model`."""
    values = {"head_type": config.head_type, "img_size": config.img_size, **{name: getattr(config, name) for name in SIZES}}
    values |= {} if config.patch == PairConfig.patch else {PATCH: config.patch}
    texts = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return (
        f"{MODELS[0]}(pos_embed='RoPE100', patch_embed_cls='PatchEmbedDust3R', output_mode='pts3d', "
        f"depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), {texts})"
    )


def config_json(config: PairConfig) -> dict[str, Any]:
    """The config.json beside a model.safetensors."""
    return {
        "pos_embed": "RoPE100",
        "patch_embed_cls": "PatchEmbedDust3R",
        "output_mode": "pts3d",
        "depth_mode": ["exp", -math.inf, math.inf],
        "conf_mode": ["exp", 1, math.inf],
        "head_type": config.head_type,
        "img_size": list(config.img_size),
        **{name: getattr(config, name) for name in SIZES},
        **({} if config.patch == PairConfig.patch else {PATCH: config.patch}),
    }


def content(config: PairConfig, state: dict[str, Any]) -> dict[str, Any]:
    """What DUSt3R's loader expects."""
    args = Instance({}, of=ARGUMENTS, state={"model": model_string(config)})
    return {"args": args, "model": state}


VARIANTS: Mapping[str, Callable[[], PairConfig]] = {
    "dust3r_512": PairConfig,
    "dust3r_512_linear": lambda: PairConfig("linear"),
    "dust3r_224": PairConfig.small,
}
RULES = Rules(
    layouts=table(
        ("bias", SAME),
        ("mask_token", SAME),
        (r"(enc_norm|dec_norm|norm_y|norm[123])\.weight", NORM),
        (r"act_postprocess\.[01]\.1\.weight", CONV_TRANSPOSED),
        (r"(patch_embed\.proj|act_postprocess\.@\.@|layer@_rn|layer_rn\.@|out_conv|conv[12]|head\.@)\.weight", CONV),
        (r"(qkv|proj|projq|projk|projv|fc1|fc2|decoder_embed|embed)\.weight", LINEAR),
    ),
    config_of=config_of,
    licence=lambda config: LICENCE,
    content=content,
    config_json=config_json,
    order=ORDER,
    aliases=tuple(
        (re.compile(rf"(downstream_head[12]\.dpt\.scratch)\.layer{i}_rn\.weight$"), rf"\1.layer_rn.{i - 1}.weight")
        for i in (1, 2, 3, 4)
    ),
    ignored=DESCRIPTORS,
    classes=(ARGUMENTS,),
    variants=VARIANTS,
)
