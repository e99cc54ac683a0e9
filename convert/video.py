"""Folders of video diffusion in the diffusers layout to checkpoints and back (spec `video.md` section 4.4).

U-Net: tencent/DepthCrafter; autoencoder, image encoder and schedule: stabilityai/stable-video-diffusion-img2vid-xt. The U-Net
may lie in a folder of its own. What a file said beside its tensors is kept in the provenance, so that a folder written back is
equal to the bit. Tensors are views of memory maps all the way to the store.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bridgedepth_jax.convert.diffusion import (
    WEIGHTS,
    digest_of,
    file_shape,
    fit_state,
    name_of,
    path_of,
    read_json,
    read_text,
    to_diffusers,
    weights_file,
)
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing
from bridgedepth_jax.networks.video.config import (
    ImageEncoderConfig,
    VideoAutoencoderConfig,
    VideoScheduleConfig,
    VideoUNetConfig,
)
from bridgedepth_jax.store.checkpoint import Checkpoint, flatten, load_checkpoint, save_checkpoint
from bridgedepth_jax.store.safetensors import DTYPES, NAMES, SafeTensors, write_safetensors
from bridgedepth_jax.systems.stereodiff.config import VideoDiffusionConfig

Part = VideoUNetConfig | VideoAutoencoderConfig | ImageEncoderConfig
NETWORKS: dict[str, type[Part]] = {
    "unet": VideoUNetConfig,
    "vae": VideoAutoencoderConfig,
    "image_encoder": ImageEncoderConfig,
}
STEMS = {"unet": WEIGHTS, "vae": WEIGHTS, "image_encoder": "model"}
SCHEDULE = "scheduler/scheduler_config.json"
UNUSED = frozenset({"vision_model.embeddings.position_ids"})  # a buffer in old files
LICENCE = "DepthCrafter: academic use only; Stable Video Diffusion: Stability AI Community License"


@functools.cache
def expected_of(config: Part) -> dict[str, tuple[int, ...]]:
    """Path and shape of each parameter of one network. Traces it, computes nothing."""
    from bridgedepth_jax.networks.video.autoencoder import AutoencoderKLTemporalDecoder
    from bridgedepth_jax.networks.video.clip import FrameEncoder
    from bridgedepth_jax.networks.video.unet import UNetSpatioTemporalConditionModel

    shape = lambda *sides: jax.ShapeDtypeStruct(sides, np.float32)
    if isinstance(config, VideoUNetConfig):
        side = config.multiple
        network: Any = UNetSpatioTemporalConditionModel(config)
        inputs = [
            shape(1, 1, side, side, config.in_channels),
            shape(1),
            shape(1, 1, config.cross_attention_dim),
            shape(1, config.time_ids),
        ]
    elif isinstance(config, VideoAutoencoderConfig):
        network, inputs = AutoencoderKLTemporalDecoder(config), [shape(1, config.factor, config.factor, config.in_channels)]
    else:
        network, inputs = FrameEncoder(config), [shape(1, config.image_size, config.image_size, 3)]
    tree = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    return {path: leaf.shape for path, leaf in flatten(tree["params"]).items()}


def read_network(state: Mapping[str, np.ndarray], config: Part, source: str) -> dict[str, Any]:
    """Tensors by their names in a file to a nested dict of parameters; views where possible. InputError as `fit_state`."""
    return fit_state({name: state[name] for name in state if name not in UNUSED}, expected_of(config), source)


def convert_folder(folder: Path, *, unet: Path | None = None, variant: str = "") -> Checkpoint:
    """Reads unet/, vae/, image_encoder/ and scheduler/ of a folder; the U-Net of the folder `unet` where that is given.

    variant: "fp16" for files like `model.fp16.safetensors`; by default the plain ones, or whichever is there. InputError names
    the file and what is wrong with it.
    """
    places = {name: folder / name for name in NETWORKS}
    if unet is not None:
        places["unet"] = unet
    texts = {name: read_text(places[name] / "config.json") for name in NETWORKS} | {"schedule": read_text(folder / SCHEDULE)}
    files = {name: places[name] / "config.json" for name in NETWORKS} | {"schedule": folder / SCHEDULE}
    parsed = {name: read_json(texts[name], files[name]) for name in texts}
    configs = {name: cls.from_diffusers(parsed[name], str(files[name])) for name, cls in NETWORKS.items()}
    schedule = VideoScheduleConfig.from_diffusers(parsed["schedule"], str(files["schedule"]))
    try:
        config = VideoDiffusionConfig(**configs, schedule=schedule)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"{files['unet']}: {error}") from error
    params: dict[str, Any] = {}
    dtypes, digests = {}, {}
    for name, network in configs.items():
        tensors = SafeTensors(weights_file(places[name], STEMS[name], variant))
        kept = {key: tensors[key] for key in tensors if key not in UNUSED}
        wrong = [key for key, value in kept.items() if value.dtype.kind != "f" and value.dtype.name != "bfloat16"]
        if wrong:
            raise InputError(f"{tensors.path}: {wrong[0]} has dtype {tensors[wrong[0]].dtype}, expected floating point")
        params[name] = read_network(kept, network, str(tensors.path))
        kinds = {key: NAMES[value.dtype] for key, value in kept.items()}
        most = max(sorted(set(kinds.values())), key=list(kinds.values()).count)
        dtypes[name] = {"": most} | {path_of(k, kept[k].ndim): v for k, v in kinds.items() if v != most}
        digests[f"{name}/{tensors.path.name}"] = digest_of(tensors.path)
    provenance = {
        "source": folder.resolve().name,
        "sha256": hashlib.sha256("".join(digests.values()).encode()).hexdigest(),
        "files_sha256": digests,
        "licence": LICENCE if config == VideoDiffusionConfig() else "unknown",
        "diffusers": {"files": texts, "dtypes": dtypes},
    }
    return Checkpoint("depthcrafter", params, config, provenance)


def write_folder(out: Path, checkpoint: Checkpoint) -> None:
    """Writes unet/, vae/, image_encoder/ and scheduler/, each tensor in the dtype it was read in, else as it is stored."""
    config = checkpoint.config
    if not isinstance(config, VideoDiffusionConfig):
        raise InputError(f"{out}: a checkpoint of kind {checkpoint.kind!r} has no folder of video diffusion")
    kept = checkpoint.provenance.get("diffusers", {"files": {}, "dtypes": {}})
    with replacing(out) as temporary:
        temporary.mkdir()
        schedule = kept["files"].get("schedule") or json.dumps(config.schedule.to_diffusers(), indent=2) + "\n"
        (temporary / SCHEDULE).parent.mkdir()
        (temporary / SCHEDULE).write_text(schedule)
        for name, cls in NETWORKS.items():
            part: Part = dataclasses.replace(getattr(config, name), dtype="float32")
            text = kept["files"].get(name)
            if text is None or cls.from_diffusers(json.loads(text), name) != part:
                text = json.dumps(part.to_diffusers(), indent=2, sort_keys=True) + "\n"
            (temporary / name).mkdir()
            (temporary / name / "config.json").write_text(text)
            leaves = flatten(checkpoint.params[name])
            paths = {name_of(path): path for path in leaves}
            given = kept["dtypes"].get(name, {})
            kind = lambda path, given=given: DTYPES[given.get(path) or given.get("", "F32")]
            order = sorted(paths)
            shapes = {key: (kind(paths[key]), file_shape(paths[key], leaves[paths[key]].shape)) for key in order}
            tensors = (to_diffusers(leaves[paths[key]], paths[key]) for key in order)
            write_safetensors(temporary / name / f"{STEMS[name]}.safetensors", shapes, tensors, {"format": "pt"})


def add_commands(commands: Any) -> None:
    """The rows of `bridgedepth convert` that belong to this file."""
    sub = commands.add_parser("depthcrafter", help="folders of a video diffusion model to a checkpoint folder")
    sub.add_argument("source", metavar="FOLDER", type=Path, help="folder with vae/, image_encoder/, scheduler/ and unet/")
    sub.add_argument("out", metavar="OUT", type=Path, help="checkpoint folder to write")
    sub.add_argument(
        "--unet", metavar="FOLDER2", type=Path, help="where config.json and weights of the U-Net are, if elsewhere"
    )
    sub.add_argument("--variant", default="", help="of the weights' files: fp16; default: the plain ones, or what is there")
    sub.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="stored parameters")
    sub.add_argument("--overwrite", action="store_true", help="replace OUT")
    sub = commands.add_parser("to-depthcrafter", help="a checkpoint folder of a video diffusion model to a diffusers folder")
    sub.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="checkpoint folder")
    sub.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    sub.add_argument("--overwrite", action="store_true", help="replace OUT")


def _convert(args: Any) -> None:
    checkpoint = convert_folder(args.source, unet=args.unet, variant=args.variant)
    save_checkpoint(args.out, checkpoint, dtype=args.dtype)
    count = sum(leaf.size for leaf in flatten(checkpoint.params).values())
    print(f"sha256      {checkpoint.provenance['sha256']}  {checkpoint.provenance['source']}")
    print(f"licence     {checkpoint.provenance['licence']}")
    print(f"parameters  {count:,}, stored as {args.dtype}")


def _restore(args: Any) -> None:
    checkpoint = load_checkpoint(args.checkpoint, dtype=None)
    write_folder(args.out, checkpoint)
    print(f"licence     {checkpoint.provenance.get('licence')}")


COMMANDS = {"depthcrafter": _convert, "to-depthcrafter": _restore}
