"""Reading experiments: `configs/*.py`, overrides of the command line, and the original's YAML files."""

import ast
import difflib
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from ml_collections import ConfigDict

from bridgedepth_jax import configs
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.system import DEFAULT, find_system
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig


def read_config(spec: str) -> ConfigDict:
    """`NAME` or `NAME:ARGUMENT`, or a file: what its `get_config()` or `get_config("ARGUMENT")` returns."""
    name, colon, argument = spec.partition(":")
    file = configs.find(name)
    try:
        config = runpy.run_path(str(file))["get_config"](*[argument] if colon else [])
    except InputError:
        raise
    except Exception as error:  # anything can go wrong in the user's file
        raise InputError(f"--config {spec}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config {spec}: get_config() gave {type(config).__name__}, expected ml_collections.ConfigDict")
    return config


def override(config: ConfigDict, options: Sequence[str]) -> None:
    """Applies `--config.a.b=value`; values are Python literals, or words where a word is expected."""
    for option in options:
        name, equals, text = option.partition("=")
        prefix, _, path = name.partition(".")
        if prefix != "--config" or not path or not equals:
            raise InputError(f"unknown option {option}, expected --config.KEY=VALUE or one of --help")
        path = find_system(str(config.get("system", DEFAULT))).moved.get(path, path)
        *parents, key = path.split(".")
        node: Any = config
        for parent in parents:
            node = _child(node, parent, path)
        _child(node, key, path)
        if isinstance(node[key], ConfigDict):
            raise InputError(f"--config.{path} is a section, expected one of its keys {', '.join(sorted(node[key]))}")
        with config.ignore_type():  # types are checked where the experiment is built
            node[key] = text if isinstance(node[key], str) else _literal(text)


def _child(node: Any, key: str, path: str) -> Any:
    if isinstance(node, ConfigDict) and key in node:
        return node[key]
    keys = sorted(node) if isinstance(node, ConfigDict) else []
    near = difflib.get_close_matches(key, keys, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(keys)}"
    raise InputError(f"unknown key --config.{path}: no {key!r} there, {hint}")


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# The original's keys outside the model, and where their values go; "" has no counterpart here and may have any value.
_ORIGINAL = {
    "SEED": "seed",
    "CUDNN_BENCHMARK": "",
    "DATASETS.TRAIN": "",  # with MUL, see below
    "DATASETS.MUL": "",
    "DATASETS.TEST": "eval.datasets",
    "DATASETS.CROP_SIZE": "data.crop",
    "DATASETS.SATURATION_RANGE": "data.augment.saturation",
    "DATASETS.SPATIAL_SCALE": "data.augment.spatial_scale",
    "DATASETS.IMG_GAMMA": "data.augment.gamma",
    "DATASETS.DO_FLIP": "data.augment.flip",
    "DATASETS.YJITTER": "data.augment.y_jitter",
    "DATALOADER.NUM_WORKERS": "data.workers",
    "SOLVER.MAX_ITER": "solver.max_iter",
    "SOLVER.BASE_LR": "solver.base_lr",
    "SOLVER.BASE_LR_END": "",
    "SOLVER.WEIGHT_DECAY": "solver.weight_decay",
    "SOLVER.WEIGHT_DECAY_NORM": "solver.weight_decay_norm",
    "SOLVER.BACKBONE_WEIGHT_DECAY": "task.backbone_weight_decay",
    "SOLVER.GRAD_CLIP": "solver.grad_clip",
    "SOLVER.IMS_PER_BATCH": "solver.batch_size",
    "SOLVER.LOSS_TYPE": "task.loss_type",
    "SOLVER.LOSS_WEIGHTS": "task.loss_weights",
    "SOLVER.MAX_DISP": "task.max_disp",
    "SOLVER.CHECKPOINT_PERIOD": "run.milestone_every",
    "SOLVER.LATEST_CHECKPOINT_PERIOD": "run.latest_every",
    "SOLVER.RESUME": "init",
    "SOLVER.NO_RESUME_OPTIMIZER": "solver.no_resume_optimizer",
    "SOLVER.STRICT_RESUME": "solver.strict_resume",
    "TEST.EVAL_PERIOD": "eval.every",
    "TEST.EVAL_MAX_DISP": "",  # ours are the protocols of the data sets
    "TEST.EVAL_THRESH": "",
    "TEST.EVAL_ONLY_VALID": "",
    "TEST.EVAL_PROP": "",
}
_MODEL = ("BACKBONE", "DPN", "NMP", "BRIDGEDEPTH")


def override_by_original(config: ConfigDict, path: str | Path) -> None:
    """Applies a YAML file of the original, read safely. InputError names a key that is unknown."""
    try:
        tree = yaml.safe_load(Path(path).read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"--original-yaml {path}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise InputError(f"--original-yaml {path}: expected a mapping at the top")
    model = {node: tree.pop(node) for node in _MODEL if node in tree}
    flat = {}
    for node, value in tree.items():
        flat |= {f"{node}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {node: value}
    if unknown := sorted(flat.keys() - _ORIGINAL.keys()):
        raise InputError(f"--original-yaml {path}: unknown key {unknown[0]}")
    try:
        config.model = ConfigDict(_merged_model(config, model).to_dict())
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"--original-yaml {path}: {error}") from error
    with config.ignore_type():
        for name, value in flat.items():
            if target := _ORIGINAL[name]:
                parent, _, key = target.rpartition(".")
                _node(config, parent)[key] = _plain(value)
    _train_sets(config, flat, path)


def _merged_model(config: Any, model: dict[str, Any]) -> ModelConfig:
    """The default model with the file's keys; weights of the encoder are given to bridgedepth train, not by address."""
    original = ModelConfig.from_dict(config.model.to_dict()).to_original()
    for node, keys in model.items():
        original[node] |= keys
    original["BACKBONE"]["WEIGHT_URL"] = ""
    return ModelConfig.from_original(original)


def _train_sets(config: Any, flat: dict[str, Any], path: str | Path) -> None:
    names = flat.get("DATASETS.TRAIN", [name for name, _ in config.data.train])
    repeats = flat.get("DATASETS.MUL", [-1] * len(names))
    names, repeats = ([item] if isinstance(item, (str, int)) else list(item) for item in (names, repeats))
    if len(names) != len(repeats):
        raise InputError(f"--original-yaml {path}: DATASETS.TRAIN has {len(names)} names, DATASETS.MUL {len(repeats)}")
    with config.ignore_type():
        config.data.train = tuple(zip(names, repeats, strict=True))


def _node(config: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        config = config[name]
    return config


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    return value
