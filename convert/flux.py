"""A folder of FLUX.1-Depth-dev in the diffusers layout to a checkpoint (spec `mono-training.md` section 7).

    FOLDER/transformer/   config.json, *.safetensors with their index
    FOLDER/vae/           config.json, diffusion_pytorch_model.safetensors
    FOLDER/scheduler/     scheduler_config.json

Tensors are views of memory maps, in the dtype they have (bfloat16), all the way to the store. The text encoders are not read:
what they say of the empty prompt is a constant in a file of its own. These weights are gated, and not for commerce.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bridgedepth_jax.convert import diffusion
from bridgedepth_jax.convert.engine import check_fit, original_shape
from bridgedepth_jax.convert.rules.bridge_mde import FLUX
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, FlowConfig, FluxConfig
from bridgedepth_jax.store.checkpoint import Checkpoint, flatten, save_checkpoint, unflatten
from bridgedepth_jax.store.safetensors import SafeTensors
from bridgedepth_jax.system import find_system
from bridgedepth_jax.systems.bridge_mde.generator.config import GeneratorConfig
from bridgedepth_jax.systems.bridge_mde.manifests import flux_shapes

STEM = "diffusion_pytorch_model"
INDEX = f"{STEM}.safetensors.index.json"
PROMPT = ("prompt_embeds", "pooled_prompt_embeds")


class Sharded(Mapping[str, np.ndarray]):
    """Tensors of one file or of several with an index, each a view of its file. InputError: a file or tensor is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._where: dict[str, SafeTensors] = {}
        if not (folder / INDEX).is_file():
            single = folder / f"{STEM}.safetensors"
            if not single.is_file():
                raise InputError(f"{folder}: neither {INDEX} nor {single.name}, expected the diffusers layout")
            tensors = SafeTensors(single)
            self._where = dict.fromkeys(tensors, tensors)
            self.files = [single]
            return
        table = diffusion.read_json(diffusion.read_text(folder / INDEX), folder / INDEX).get("weight_map")
        if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
            raise InputError(f"{folder / INDEX}: no weight_map, expected tensors and the files they are in")
        self.files = [folder / name for name in sorted(set(table.values()))]
        for path in self.files:
            if not path.is_file():
                raise InputError(f"{path}: missing, {INDEX} names {len(self.files)} files")
        opened = {path.name: SafeTensors(path) for path in self.files}
        for name, file in table.items():
            if name not in opened[file]:
                raise InputError(f"{folder / file}: has no tensor {name}, which {INDEX} places there")
            self._where[name] = opened[file]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._where[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def read_transformer(tensors: Mapping[str, np.ndarray], config: FluxConfig, source: str) -> dict[str, Any]:
    """Parameters as views, in the dtypes they have. InputError with what is missing, what is left and what is wrong."""
    expected = flux_shapes(config)
    leaves, unused, wrong = {}, [], []
    for name in tensors:
        value, layout, path = tensors[name], FLUX.layout(name), FLUX.path(name)
        if layout is None or path not in expected:
            unused.append(name)
        elif original_shape(expected[path], layout) != value.shape:
            wrong.append(f"{name} has shape {value.shape}, expected {original_shape(expected[path], layout)}")
        else:
            leaves[path] = value if layout.axes is None else value.transpose(layout.axes)
    named = {text.split(" ")[0] for text in wrong}
    missing = [name for path in sorted(set(expected) - set(leaves)) if (name := FLUX.name(path)) not in named]
    check_fit(source, missing, unused, wrong)
    return unflatten(leaves)


def read_prompt(option: str, config: FluxConfig, tokens: int) -> dict[str, np.ndarray]:
    """The constant embeddings of the empty prompt: an .npz with both, or zeros where that is asked for."""
    shapes = {PROMPT[0]: (tokens, config.joint_attention_dim), PROMPT[1]: (config.pooled_projection_dim,)}
    if option == "zeros":
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    try:
        with np.load(option, allow_pickle=False) as arrays:
            found = {name: np.asarray(arrays[name], np.float32) for name in PROMPT}
    except (OSError, ValueError, KeyError, EOFError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(
            f"--prompt-embeds {option}: {reason}; expected an .npz with {' and '.join(PROMPT)}, or zeros"
        ) from error
    for name, value in found.items():
        squeezed = value[0] if value.ndim == len(shapes[name]) + 1 and len(value) == 1 else value
        if squeezed.ndim != len(shapes[name]) or squeezed.shape[-1] != shapes[name][-1]:
            raise InputError(f"--prompt-embeds {option}: {name} has shape {value.shape}, expected {shapes[name]}")
        found[name] = squeezed
    return found


def convert_flux(folder: Path, prompt: str) -> Checkpoint:
    """The folder as a checkpoint of kind `flux-depth`. InputError names the file and what is wrong with it."""
    paths = {"transformer": "transformer/config.json", "vae": "vae/config.json", "flow": "scheduler/scheduler_config.json"}
    classes = {"transformer": FluxConfig, "vae": AutoencoderConfig, "flow": FlowConfig}
    texts = {name: diffusion.read_text(folder / path) for name, path in paths.items()}
    configs = {
        name: classes[name].from_diffusers(diffusion.read_json(text, folder / paths[name]), str(folder / paths[name]))
        for name, text in texts.items()
    }
    prompts = read_prompt(prompt, configs["transformer"], GeneratorConfig.text_tokens)
    try:
        config = GeneratorConfig(**configs, text_tokens=len(prompts[PROMPT[0]]))  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"{folder / paths['vae']}: {error}") from error
    transformer, vae = Sharded(folder / "transformer"), Sharded(folder / "vae")
    for tensors in (transformer, vae):
        for name in tensors:
            if tensors[name].dtype.kind != "f" and tensors[name].dtype.name != "bfloat16":
                raise InputError(f"{tensors.folder}: {name} has dtype {tensors[name].dtype}, expected floating point")
    params = {
        "transformer": read_transformer(transformer, config.transformer, str(folder / "transformer")),
        "vae": diffusion.read_state(vae, config.vae, str(folder / "vae")),
        **prompts,
    }
    digests = {path.relative_to(folder).as_posix(): diffusion.digest_of(path) for path in (*transformer.files, *vae.files)}
    provenance = {
        "source": folder.resolve().name,
        "files_sha256": digests,
        "licence": FLUX.licence(None),
        "prompt": "zeros" if prompt == "zeros" else Path(prompt).name,
    }
    return Checkpoint("flux-depth", params, config, provenance)


def add_commands(commands: Any) -> None:
    """The rows of `bridgedepth convert` that belong to this file."""
    sub = commands.add_parser("flux-depth", help="a diffusers folder of FLUX.1-Depth-dev to a checkpoint folder")
    sub.add_argument("source", metavar="FOLDER", type=Path, help="folder with transformer/, vae/, scheduler/")
    sub.add_argument("out", metavar="OUT", type=Path, help="checkpoint folder to write")
    words = "what the text encoders say of the empty prompt: an .npz with prompt_embeds and pooled_prompt_embeds, or zeros"
    sub.add_argument("--prompt-embeds", required=True, metavar="FILE.npz", help=words)
    sub.add_argument("--overwrite", action="store_true", help="replace OUT")


def _convert(args: Any) -> None:
    checkpoint = convert_flux(args.source, args.prompt_embeds)
    save_checkpoint(args.out, checkpoint)
    count = sum(leaf.size for leaf in flatten(checkpoint.params).values())
    print(f"licence     {checkpoint.provenance['licence']}")
    print(f"parameters  {count:,}, stored as they were read")


COMMANDS = {"flux-depth": _convert}


def bytes_a_device(config: GeneratorConfig, devices: int) -> dict[str, int]:
    """What full fine-tuning holds on each of `devices` fsdp devices, by `eval_shape`: master, moments, gradient, bf16 copy."""
    import functools

    import jax

    from bridgedepth_jax.sharding import SMALL

    tree = jax.eval_shape(functools.partial(find_system("flux-depth").init, config), jax.random.key(0))["transformer"]
    numbers = 0
    for leaf in flatten(tree).values():
        split = any(side % devices == 0 for side in leaf.shape) and leaf.size >= SMALL
        numbers += leaf.size // devices if split else leaf.size
    return {"master": 4 * numbers, "moments": 8 * numbers, "gradient": 4 * numbers, "bf16 copy": 2 * numbers}
