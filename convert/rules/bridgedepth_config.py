"""The original BridgeDepth's config language: its model tree, its options of training, its YAML files.

The model has four nodes, BACKBONE / DPN (disparity proposals) / NMP (neural message passing) / BRIDGEDEPTH; DATASETS,
DATALOADER, SOLVER and TEST say how it is trained and tested. An option is named as in `SOLVER.BASE_LR`.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ml_collections import ConfigDict

from bridgedepth_jax.build import plain
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.config import VITS, MonoConfig
from bridgedepth_jax.store.checkpoint import flatten
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig


class Only:
    """A key of the original that this network has in one value alone: no published weights use another."""

    def __init__(self, value: Any) -> None:
        self.value = value


# The original's model keys, in its order, and where in `ModelConfig` their values are.
OURS = ("dtype", "precision", "remat", "remat_policy")  # of which the original knows nothing
MODEL: dict[str, dict[str, str | Only]] = {
    "BACKBONE": {
        "MODEL_TYPE": "backbone.model_type",
        "NORM_FN": "backbone.norm_fn",
        "OUT_CHANNELS": "backbone.out_channels",
        "WEIGHT_URL": "backbone.weight_url",
        "DROP_PATH": "backbone.drop_path",
    },
    "DPN": {
        "MAX_DISP": "dpn.max_disp",
        "COST_GROUP": "dpn.cost_groups",
        "NUM_PROPOSALS": "dpn.num_proposals",
        "CONTEXT_DIM": "dpn.context_dim",
    },
    "NMP": {
        "PROP_EMBED_DIM": "nmp.prop_dim",
        "INFER_EMBED_DIM": "nmp.dim",
        "MLP_RATIO": "nmp.mlp_ratio",
        "SPLIT_SIZE": Only(1),
        "WINDOW_SIZE": "nmp.window",
        "REFINE_WINDOW_SIZE": "nmp.refine_window",
        "PROP_N_HEADS": "nmp.prop_heads",
        "INFER_N_HEADS": "nmp.heads",
        "NUM_PROP_LAYERS": "nmp.prop_layers",
        "NUM_INFER_LAYERS": "nmp.infer_layers",
        "NUM_REFINE_LAYERS": "nmp.refine_layers",
        "RETURN_INTERMEDIATE": "nmp.return_intermediate",
        "ATTN_DROP": Only(0.0),
        "PROJ_DROP": Only(0.0),
        "DROP_PATH": Only(0.0),
        "DROPOUT": Only(0.0),
    },
    "BRIDGEDEPTH": {
        "ENCODER_VIT": "mono.name",
        "RECURRENT_LOSS_GAMMA": "recurrent_loss_gamma",
        "RECURRENT_LOSS_WEIGHT": "recurrent_loss_weight",
    },
}
# Its other options, and where in a config of ours their values go; "" has no counterpart here and may have any value.
OPTIONS = {
    "SEED": "seed",
    "CUDNN_BENCHMARK": "",
    "DATASETS.TRAIN": "",  # with MUL, see `_train_sets`
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


def to_original(config: ModelConfig) -> dict[str, dict[str, Any]]:
    """The original's model tree. Raises ValueError where it has no word for a field that differs from its constant."""
    if config.mono.name not in VITS:
        raise ValueError(f"the original's config cannot express mono.name {config.mono.name!r}, only {sorted(VITS)}")
    fields = flatten(plain(config))
    tree = {
        node: {key: row.value if isinstance(row, Only) else fields[row.replace(".", "/")] for key, row in keys.items()}
        for node, keys in MODEL.items()
    }
    ratio = tree["NMP"]["MLP_RATIO"]
    tree["NMP"]["MLP_RATIO"] = int(ratio) if ratio == int(ratio) else ratio  # the original has an int there
    back = from_original(tree)
    mine = flatten(plain(config.replace(**{name: getattr(back, name) for name in OURS})))
    theirs = flatten(plain(back))
    if different := sorted(name.replace("/", ".") for name in mine if mine[name] != theirs[name]):
        raise ValueError(f"the original's config cannot express these values: {', '.join(different)}")
    return tree


def from_original(tree: Any) -> ModelConfig:
    """From the original's model tree. Missing keys take its defaults; unknown ones, wrong types and values raise ValueError."""
    if not isinstance(tree, Mapping) or not all(isinstance(keys, Mapping) for keys in tree.values()):
        raise ValueError(f"{tree!r:.80} as a model config, expected {{{', '.join(MODEL)}}}, each with its keys")
    ours: dict[str, Any] = {}
    for node, keys in tree.items():
        if node not in MODEL:
            raise ValueError(f"unknown node {node!r} in a model config, expected {list(MODEL)}")
        for key, value in keys.items():
            row = MODEL[node].get(key)
            if row is None:
                raise ValueError(f"unknown key {node}.{key} in a model config")
            if not isinstance(row, Only):
                parent, _, name = row.rpartition(".")
                (ours.setdefault(parent, {}) if parent else ours)[name] = value
            elif value != row.value:
                raise ValueError(f"{node}.{key} = {value!r} is not supported, expected {row.value!r}")
    vit = ours.get("mono", {}).get("name", "vitl")
    return ModelConfig.from_dict({**ours, "mono": plain(MonoConfig.named(vit))})


def apply_options(options: Mapping[str, Any], model: ModelConfig) -> tuple[ModelConfig, dict[str, Any]]:
    """What options of the original, by names such as `SOLVER.BASE_LR`, say here: (`model` changed, {place in a config: value}).

    Values may be words for literals, as the original reads them. Raises InputError for an unknown option or a wrong model.
    """
    values = {name: _plain(value) for name, value in options.items()}
    changes: dict[str, dict[str, Any]] = {}
    for name in list(values):
        node, _, key = name.partition(".")
        if node in MODEL:
            changes.setdefault(node, {})[key] = values.pop(name)
    if unknown := sorted(values.keys() - OPTIONS.keys()):
        raise InputError(f"unknown key {unknown[0]}")
    if changes:
        try:
            merged = {node: keys | changes.get(node, {}) for node, keys in to_original(model).items()}
            merged["BACKBONE"]["WEIGHT_URL"] = ""  # weights of the encoder are given as a file, not by address
            changed = from_original(merged)
        except ValueError as error:
            raise InputError(str(error)) from error
        model = changed.replace(**{name: getattr(model, name) for name in OURS})
    return model, {OPTIONS[name]: value for name, value in values.items() if OPTIONS[name]}


def override_by_original(config: ConfigDict, path: str | Path) -> None:
    """Applies a YAML file of the original, read safely. InputError names a key that is unknown."""
    ours: Any = config
    try:
        tree = yaml.safe_load(Path(path).read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"--original-yaml {path}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise InputError(f"--original-yaml {path}: expected a mapping at the top")
    options: dict[str, Any] = {}
    for node, value in tree.items():
        options |= {f"{node}.{key}": _plain(i) for key, i in value.items()} if isinstance(value, dict) else {str(node): value}
    try:
        model, values = apply_options(options, ModelConfig.from_dict(ours.model.to_dict()))
        train = _train_sets(options, ours.data.train)
    except ValueError as error:
        raise InputError(f"--original-yaml {path}: {error}") from error
    ours.model = ConfigDict(model.to_dict())
    with config.ignore_type():  # types are checked where the experiment is built
        for place, value in (*values.items(), ("data.train", train)):
            *sections, key = place.split(".")
            node = ours
            for section in sections:
                node = node[section]
            node[key] = value


def _train_sets(options: Mapping[str, Any], default: Any) -> tuple[tuple[Any, Any], ...]:
    """(name, repeats) of each data set."""
    names = options.get("DATASETS.TRAIN", [name for name, _ in default])
    repeats = options.get("DATASETS.MUL", [-1] * len(names))
    names, repeats = ([item] if isinstance(item, (str, int)) else list(item) for item in (names, repeats))
    if len(names) != len(repeats):
        raise InputError(f"DATASETS.TRAIN has {len(names)} names, DATASETS.MUL {len(repeats)}")
    return tuple(zip(names, repeats, strict=True))


def _plain(value: Any) -> Any:
    """Lists as tuples; words that are Python literals as their values (YAML takes 5e-4 for a word)."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    try:
        return _plain(ast.literal_eval(value)) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value
