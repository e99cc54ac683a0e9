"""Folders in the diffusers layout to checkpoints and back (spec `diffusion.md` sections 1, 3, 5, 6).

Every module of these networks is a Linear, a convolution or a norm, so the number of axes of a `weight` says which. Tensors
are views of memory maps all the way to the store. The text encoder becomes the constant `empty_prompt`. What a file said beside
its tensors (the config files, dtypes) is kept in the provenance, so that a folder written back is equal to the bit.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bridgedepth_jax.convert.engine import check_fit
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing
from bridgedepth_jax.networks.diffusion.autoencoder import AutoencoderKL
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, ScheduleConfig, UNetConfig
from bridgedepth_jax.networks.diffusion.text import empty_prompt
from bridgedepth_jax.networks.diffusion.unet import UNet2DConditionModel
from bridgedepth_jax.store.checkpoint import Checkpoint, flatten, load_checkpoint, save_checkpoint, unflatten
from bridgedepth_jax.store.hub import fetch
from bridgedepth_jax.store.safetensors import DTYPES, NAMES, SafeTensors, write_safetensors
from bridgedepth_jax.system import find_system
from bridgedepth_jax.systems.zerostereo.config import StereoGenConfig

# Axes of a `weight` in a file, by their number, and the leaf it becomes.
LAYOUTS = {1: ("scale", (0,)), 2: ("kernel", (1, 0)), 4: ("kernel", (2, 3, 1, 0)), 5: ("kernel", (2, 3, 4, 1, 0))}
# The autoencoder's attention in files from before diffusers 0.17.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(r"(mid_block\.attentions\.\d+)\.(query|key|value|proj_attn)\.")


@functools.cache
def expected_shapes(config: UNetConfig | AutoencoderConfig) -> dict[str, tuple[int, ...]]:
    """Path and shape of each parameter of the network that `config` describes. Traces it, computes nothing."""
    key = jax.random.key(0)
    side = 2 ** (len(config.block_out_channels) - 1)
    if isinstance(config, UNetConfig):
        inputs = [
            jax.ShapeDtypeStruct(shape, np.float32)
            for shape in ((1, side, side, config.in_channels), (1,), (1, 2, config.cross_attention_dim))
        ]
        tree = jax.eval_shape(UNet2DConditionModel(config).init, key, *inputs)
    else:
        image = jax.ShapeDtypeStruct((1, side, side, config.in_channels), np.float32)
        tree = jax.eval_shape(AutoencoderKL(config).init, key, image)
    return {path: leaf.shape for path, leaf in flatten(tree["params"]).items()}


def path_of(name: str, axes: int) -> str:
    """`down_blocks.0.resnets.1.conv1.weight` -> `down_blocks_0/resnets_1/conv1/kernel`; `axes` of the tensor."""
    name = _OLD.sub(lambda match: f"{match[1]}.{OLD_ATTENTION[match[2]]}.", name)
    *modules, leaf = re.sub(r"\.([0-9]+)(?=\.|$)", r"_\1", name).split(".")
    if name.endswith("_embedding.weight") and axes == 2:  # a table, no layer
        return "/".join([*modules, "embedding"])
    return "/".join([*modules, LAYOUTS[axes][0] if leaf == "weight" and axes in LAYOUTS else leaf])


def name_of(path: str) -> str:
    """Inverse of `path_of`, in the new spelling."""
    *modules, leaf = path.split("/")
    modules = [m if m in ("linear_1", "linear_2") else re.sub(r"_([0-9]+)$", r".\1", m) for m in modules]
    return ".".join([*modules, {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(leaf, leaf)])


def to_ours(value: np.ndarray, path: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """A view of a file's tensor in our layout; None if it does not fit. Linear layers may be stored as 1x1 convolutions."""
    if value.ndim == 4 and len(shape) == 2 and value.shape[2:] == (1, 1):
        value = value[:, :, 0, 0]
    if path.endswith("/kernel") and value.ndim in LAYOUTS:
        value = value.transpose(LAYOUTS[value.ndim][1])
    return value if value.shape == shape else None


def to_diffusers(value: np.ndarray, path: str) -> np.ndarray:
    """Inverse of `to_ours`."""
    if not path.endswith("/kernel"):
        return value
    return value.transpose(np.argsort(LAYOUTS[value.ndim][1]))


def read_state(state: Mapping[str, np.ndarray], config: UNetConfig | AutoencoderConfig, source: str) -> dict[str, Any]:
    """Tensors by diffusers' names to a nested dict of parameters, in the dtypes they have; views where possible.

    InputError with both lists: tensors that no parameter takes, parameters that no tensor fills.
    """
    return fit_state(state, expected_shapes(config), source)


def fit_state(state: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], source: str) -> dict[str, Any]:
    """The same for parameters of which path and shape are known."""
    leaves: dict[str, np.ndarray] = {}
    unused, wrong = [], []
    for name in state:
        value = state[name]
        # An attention layer in the old spelling may be a 1x1 convolution, of which the layer makes a Linear.
        path = path_of(name, value.ndim)
        found = to_ours(value, path, expected[path]) if path in expected else None
        if path not in expected or path in leaves:
            unused.append(name)
        elif found is None:
            wrong.append(f"{name} has shape {value.shape}, expected {file_shape(path, expected[path])}")
        else:
            leaves[path] = found
    named = {text.split(" ")[0] for text in wrong}
    missing = [name for name in map(name_of, sorted(set(expected) - set(leaves))) if name not in named]
    check_fit(source, missing, unused, wrong)
    return unflatten(leaves)


def file_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in a file of a parameter of ours."""
    return tuple(shape[i] for i in np.argsort(LAYOUTS[len(shape)][1])) if path.endswith("/kernel") else shape


NETWORKS = {"unet": UNetConfig, "vae": AutoencoderConfig}
CONFIGS = {"unet": "unet/config.json", "vae": "vae/config.json", "schedule": "scheduler/scheduler_config.json"}
WEIGHTS = "diffusion_pytorch_model"
BASE_LICENCE = "CreativeML Open RAIL++-M"  # of Stable Diffusion 2 and what is made from it
LICENCES = {"Windsrain/ZeroStereo": f"MIT as stated, on a base under {BASE_LICENCE}"}


def convert_folder(folder: Path, *, variant: str = "", origin: Mapping[str, str] | None = None) -> Checkpoint:
    """Reads a diffusers folder of an inpainting network: unet/, vae/, text_encoder/, scheduler/.

    variant: "fp16" for files like `diffusion_pytorch_model.fp16.safetensors`; by default the plain ones, or whichever is there.
    `origin` is added to the provenance. InputError names the file and what is wrong with it.
    """
    texts = {name: read_text(folder / path) for name, path in CONFIGS.items()}
    parsed = {name: read_json(texts[name], folder / CONFIGS[name]) for name in CONFIGS}
    configs = {name: cls.from_diffusers(parsed[name], str(folder / CONFIGS[name])) for name, cls in NETWORKS.items()}
    schedule = ScheduleConfig.from_diffusers(parsed["schedule"], str(folder / CONFIGS["schedule"]))
    try:
        config = StereoGenConfig(configs["unet"], configs["vae"], schedule)
    except ValueError as error:
        raise InputError(f"{folder / CONFIGS['unet']}: {error}") from error
    params: dict[str, Any] = {}
    dtypes, digests = {}, {}
    for name, network in configs.items():
        tensors = SafeTensors(weights_file(folder / name, WEIGHTS, variant))
        wrong = [key for key in tensors if tensors[key].dtype.kind != "f" and tensors[key].dtype.name != "bfloat16"]
        if wrong:
            raise InputError(f"{tensors.path}: {wrong[0]} has dtype {tensors[wrong[0]].dtype}, expected floating point")
        params[name] = read_state(tensors, network, str(tensors.path))
        kinds = {key: NAMES[tensors[key].dtype] for key in tensors}
        most = max(sorted(set(kinds.values())), key=list(kinds.values()).count)
        dtypes[name] = {"": most} | {path_of(k, tensors[k].ndim): v for k, v in kinds.items() if v != most}
        digests[f"{name}/{tensors.path.name}"] = digest_of(tensors.path)
    text_config = folder / "text_encoder" / "config.json"
    text = SafeTensors(weights_file(folder / "text_encoder", "model", variant))
    digests[f"text_encoder/{text.path.name}"] = digest_of(text.path)
    prompt = _empty_prompt(text, read_json(read_text(text_config), text_config))
    if prompt.shape[1] != config.unet.cross_attention_dim:
        config = dataclasses.replace(config, context_dim=prompt.shape[1])
    index = folder / "model_index.json"
    files = {path: texts[name] for name, path in CONFIGS.items()}
    files |= {index.name: read_text(index)} if index.is_file() else {}
    known = configs["unet"] == UNetConfig() and configs["vae"] == AutoencoderConfig()
    provenance = {
        "source": folder.resolve().name,
        "sha256": hashlib.sha256("".join(digests.values()).encode()).hexdigest(),
        "files_sha256": digests,
        "licence": LICENCES.get((origin or {}).get("repository", ""), BASE_LICENCE if known else "unknown"),
        "diffusers": {"files": files, "dtypes": dtypes},
        **(origin or {}),
    }
    return Checkpoint("zerostereo", {**params, "empty_prompt": prompt.astype(np.float32)}, config, provenance)


def write_folder(out: Path, checkpoint: Checkpoint, *, dtype: str | None = None) -> None:
    """Writes unet/, vae/ and scheduler/ (and model_index.json, if there was one) of a checkpoint as a diffusers folder.

    dtype: a name of safetensors (F32, F16, BF16) for every tensor; by default each as it was read, else as it is stored.
    InputError: another kind of checkpoint, or one without an autoencoder.
    """
    config = checkpoint.config
    if not isinstance(config, StereoGenConfig) or config.vae is None:
        raise InputError(f"{out}: a checkpoint of kind {checkpoint.kind!r} without an autoencoder has no diffusers layout")
    kept = checkpoint.provenance.get("diffusers", {"files": {}, "dtypes": {}})
    parts = {
        "unet": (config.unet, UNetConfig),
        "vae": (config.vae, AutoencoderConfig),
        "schedule": (config.schedule, ScheduleConfig),
    }
    with replacing(out) as temporary:
        temporary.mkdir()
        if "model_index.json" in kept["files"]:
            (temporary / "model_index.json").write_text(kept["files"]["model_index.json"])
        for name, (part, cls) in parts.items():
            text = kept["files"].get(CONFIGS[name])
            plain = dataclasses.replace(part, dtype="float32") if hasattr(part, "dtype") else part
            if text is None or cls.from_diffusers(json.loads(text), CONFIGS[name]) != plain:
                text = json.dumps(part.to_diffusers(), indent=2, sort_keys=True) + "\n"
            target = temporary / CONFIGS[name]
            target.parent.mkdir()
            target.write_text(text)
        for name in NETWORKS:
            leaves = flatten(checkpoint.params[name])
            paths = {name_of(path): path for path in leaves}
            given = kept["dtypes"].get(name, {})
            kind = lambda path, given=given: DTYPES[dtype or given.get(path) or given.get("", "F32")]
            order = sorted(paths)
            shapes = {key: (kind(paths[key]), file_shape(paths[key], leaves[paths[key]].shape)) for key in order}
            tensors = (to_diffusers(leaves[paths[key]], paths[key]) for key in order)
            write_safetensors(temporary / name / f"{WEIGHTS}.safetensors", shapes, tensors, {"format": "pt"})


def add_commands(commands: Any) -> None:
    """The rows of `python -m convert` that belong to this file."""
    sub = commands.add_parser("diffusers", help="a diffusers folder of an inpainting network to a checkpoint folder")
    names = ", ".join(name for name, row in find_system("zerostereo").published.items() if row.files)
    about = f"folder with unet/, vae/, text_encoder/, scheduler/, or a published name: {names}"
    sub.add_argument("source", metavar="FOLDER", type=Path, help=about)
    sub.add_argument("out", metavar="OUT", type=Path, help="checkpoint folder to write")
    sub.add_argument("--variant", default="", help="of the weights' files: fp16; default: the plain ones, or what is there")
    sub.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="stored parameters")
    sub.add_argument("--revision", help="of a published name: branch, tag or commit in its repository")
    sub.add_argument("--accept-new", action="store_true", help="published files may differ from those fetched before")
    sub.add_argument("--overwrite", action="store_true", help="replace OUT")
    sub = commands.add_parser("to-diffusers", help="a checkpoint folder of an inpainting network to a diffusers folder")
    sub.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="checkpoint folder")
    sub.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    sub.add_argument("--dtype", choices=["F32", "BF16", "F16"], help="of every tensor; default: each as it was read")
    sub.add_argument("--overwrite", action="store_true", help="replace OUT")


def _convert(args: Any) -> None:
    source, origin, rows = args.source, {}, find_system("zerostereo").published
    if not source.exists() and str(source) in rows:
        source, origin = fetch(str(source), rows[str(source)], revision=args.revision, accept_new=args.accept_new)
    elif args.revision or args.accept_new:
        raise InputError(f"--revision and --accept-new are for published names, {str(source)!r} is none")
    checkpoint = convert_folder(source, variant=args.variant, origin=origin)
    save_checkpoint(args.out, checkpoint, dtype=args.dtype)
    count = sum(leaf.size for leaf in flatten(checkpoint.params).values())
    print(f"sha256      {checkpoint.provenance['sha256']}  {checkpoint.provenance['source']}")
    print(f"licence     {checkpoint.provenance['licence']}")
    print(f"parameters  {count:,}, stored as {args.dtype}")


def _restore(args: Any) -> None:
    checkpoint = load_checkpoint(args.checkpoint, dtype=None)
    write_folder(args.out, checkpoint, dtype=args.dtype)
    print(f"licence     {checkpoint.provenance.get('licence')}")


COMMANDS = {"diffusers": _convert, "to-diffusers": _restore}


def _empty_prompt(text: SafeTensors, config: Mapping[str, Any]) -> np.ndarray:
    try:
        return empty_prompt(text.__getitem__, config, str(text.path.parent / "config.json"))
    except KeyError as error:
        raise InputError(f"{text.path}: {error} is missing") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{text.path}: its tensors do not fit its config ({error})") from error


def weights_file(folder: Path, stem: str, variant: str) -> Path:
    """The safetensors file of a network. InputError: there is none."""
    names = [f"{stem}.{variant}.safetensors"] if variant else [f"{stem}.safetensors", f"{stem}.fp16.safetensors"]
    found = [path for name in names if (path := folder / name).is_file()]
    if not found:
        raise InputError(f"{folder}: no {' or '.join(names)}, expected the diffusers layout with safetensors")
    return found[0]


def read_text(path: Path) -> str:
    """InputError: no file that can be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read, expected a folder in the diffusers layout") from error


def read_json(text: str, path: Path) -> dict[str, Any]:
    """A mapping; `path` is for the InputError."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: {type(value).__name__}, expected a mapping")
    return value


def digest_of(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
