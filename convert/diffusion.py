"""Names and layouts of the diffusers parameter layout, both ways (spec `diffusion.md` sections 1, 3, 6).

Every module of these networks is a Linear, a convolution or a norm, so the number of axes of a `weight` says which.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.diffusion.autoencoder import AutoencoderKL
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, UNetConfig
from bridgedepth_jax.networks.diffusion.unet import UNet2DConditionModel
from bridgedepth_jax.store.checkpoint import flatten, unflatten

# Axes of a `weight` in a file, by their number, and the leaf it becomes.
LAYOUTS = {1: ("scale", (0,)), 2: ("kernel", (1, 0)), 4: ("kernel", (2, 3, 1, 0))}
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
    return "/".join([*modules, LAYOUTS[axes][0] if leaf == "weight" and axes in LAYOUTS else leaf])


def name_of(path: str) -> str:
    """Inverse of `path_of`, in the new spelling."""
    *modules, leaf = path.split("/")
    modules = [m if m in ("linear_1", "linear_2") else re.sub(r"_([0-9]+)$", r".\1", m) for m in modules]
    return ".".join([*modules, {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)])


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
    expected = expected_shapes(config)
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
            wrong.append(f"{name} has shape {value.shape}, expected {_file_shape(path, expected[path])}")
        else:
            leaves[path] = found
    named = {text.split(" ")[0] for text in wrong}
    missing = [name for name in map(name_of, sorted(set(expected) - set(leaves))) if name not in named]
    problems = [("missing", missing), ("not part of this network", unused), ("wrong", wrong)]
    texts = [f"{len(names)} {what}: {', '.join(names)}" for what, names in problems if names]
    if texts:
        raise InputError(f"{source}: its tensors do not fit the network; {'; '.join(texts)}")
    return unflatten(leaves)


def _file_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[i] for i in np.argsort(LAYOUTS[len(shape)][1])) if path.endswith("/kernel") else shape
