"""From a PyTorch file to a checkpoint of ours and back, and the ImageNet weights that training may start from."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bridgedepth_jax.convert.pth import Config, read_pth, write_pth
from bridgedepth_jax.convert.rules import buffers, convert_state, restore_state
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.config import MonoConfig
from bridgedepth_jax.store.checkpoint import Checkpoint, expected_shapes, flatten, unflatten
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig

CONVERTER = "bridgedepth_jax.convert 1"
# Of weights with this ViT inside, through Depth Anything V2.
LICENCES = {"vits": "Apache-2.0", "vitb": "CC-BY-NC-4.0", "vitl": "CC-BY-NC-4.0", "vitg": "CC-BY-NC-4.0"}
LATER_STAGES = re.compile(r"^(features\.[67]|classifier|norm|head)\.")  # of torchvision's classifiers: not used
BACKBONE = "stereo_encoder/backbone/"


def convert_file(
    kind: str, path: str | os.PathLike, *, config: ModelConfig | None = None, origin: Mapping[str, str] | None = None
) -> Checkpoint:
    """Reads a .pth file of kind "bridgedepth" or "depth-anything".

    `config` is needed, and allowed, only for a BridgeDepth file that holds none. `origin` is added to the provenance.
    Raises InputError for a file that is damaged, is of another network or asks for code.
    """
    path = Path(path)
    digest = sha256_of(path)
    content = read_pth(path)
    checkpoint_config: ModelConfig | MonoConfig
    if kind == "depth-anything":
        state = _state_dict(path, content)
        checkpoint_config = vit = _mono_config(path, state)
    else:
        checkpoint_config = _model_config(path, content, config)
        vit = checkpoint_config.mono
        state = _state_dict(path, content)
    del content
    expected = _expected(path, kind, checkpoint_config)
    constants = buffers(checkpoint_config, expected) if isinstance(checkpoint_config, ModelConfig) else {}
    leaves = convert_state(state, expected, constants=constants, source=str(path))
    provenance = {
        "source": path.name,
        "sha256": digest,
        "licence": LICENCES.get(vit.name, "unknown"),
        "converter": CONVERTER,
        **(origin or {}),
    }
    return Checkpoint(kind, unflatten(leaves), checkpoint_config, provenance)


def write_original(path: str | os.PathLike, checkpoint: Checkpoint) -> None:
    """Writes what the original loads: {"model", "model_config"}, or for Depth Anything V2 the state dict alone."""
    leaves = flatten(checkpoint.params)
    if isinstance(checkpoint.config, MonoConfig):
        write_pth(path, restore_state(leaves))
        return
    try:
        tree = checkpoint.config.to_original()
    except ValueError as error:
        raise InputError(f"{path}: cannot be written, {error}") from error
    state = restore_state(leaves, buffers(checkpoint.config, leaves))
    write_pth(path, {"model": state, "model_config": Config({node: Config(keys) for node, keys in tree.items()})})


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
    state = _state_dict(Path(path), read_pth(path))
    return unflatten(convert_state(state, expected, constants=constants, ignored=LATER_STAGES, source=str(path)))


def sha256_of(path: Path) -> str:
    """Digest of a file, in hexadecimal. Raises InputError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}), expected a .pth file") from error


def _state_dict(path: Path, content: Any) -> dict[str, Any]:
    state = content.pop("model") if isinstance(content, dict) and isinstance(content.get("model"), dict) else content
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise InputError(f'{path}: holds no state dict, expected one, or {{"model": state dict, ...}}')
    return state


def _model_config(path: Path, content: Any, config: ModelConfig | None) -> ModelConfig:
    tree = content.get("model_config") if isinstance(content, dict) else None
    if tree is None:
        if config is None:
            raise InputError(f"{path}: holds no model config, say with --variant which network it is")
        return config
    if config is not None:
        raise InputError(f"{path}: holds its model config, --variant is not expected")
    try:  # through the dictionary of ours, which checks the type of each field
        return ModelConfig.from_dict(ModelConfig.from_original(tree).to_dict())
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{path}: its model config is not one of this network: {error}") from error


def _mono_config(path: Path, state: Mapping[str, Any]) -> MonoConfig:
    configs = {config.dim: config for config in map(MonoConfig.named, LICENCES)}
    token = state.get("pretrained.cls_token")
    config = configs.get(token.shape[-1]) if isinstance(token, np.ndarray) and token.ndim else None
    if config is None:
        raise InputError(f"{path}: no Depth Anything V2 weights, expected pretrained.cls_token of width {sorted(configs)}")
    return config


def _expected(path: Path, kind: str, config: ModelConfig | MonoConfig) -> dict[str, tuple[int, ...]]:
    try:
        return expected_shapes(kind, config)
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: no network can be made of its model config: {reason}") from error
