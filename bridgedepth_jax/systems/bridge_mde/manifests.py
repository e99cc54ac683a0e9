"""The published networks of the generator, tensor by tensor: what the converter expects of their files."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from bridgedepth_jax.convert import diffusion
from bridgedepth_jax.convert.engine import Rules, original_shape
from bridgedepth_jax.convert.rules import bridge_mde as rules
from bridgedepth_jax.networks.clip_vision import ClipVisionConfig, ClipVisionModelWithProjection
from bridgedepth_jax.networks.diffusion import flux
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, FluxConfig
from bridgedepth_jax.store.checkpoint import flatten
from bridgedepth_jax.systems.bridge_mde.generator.aesthetic import AestheticMlp

Shapes = dict[str, tuple[int, ...]]


def _shape(*sides: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sides, np.float32)


def flux_shapes(config: FluxConfig) -> Shapes:
    """Path and shape of each parameter of the transformer; traced, nothing is computed."""
    by = jax.eval_shape(lambda: flux.rotation(config, 1, 1, 1, np.float32))
    inputs = (
        _shape(1, 1, config.in_channels), _shape(1, flux.FREQUENCIES), _shape(1, flux.FREQUENCIES),
        _shape(1, 1, config.joint_attention_dim), _shape(1, config.pooled_projection_dim), by,
    )  # fmt: skip
    return _traced(flux.FluxTransformer2DModel(config), *inputs)


def clip_shapes(config: ClipVisionConfig) -> Shapes:
    """Of CLIP's image tower."""
    return _traced(ClipVisionModelWithProjection(config), _shape(1, config.image_size, config.image_size, 3))


def mlp_shapes(width: int) -> Shapes:
    """Of the aesthetic MLP."""
    return _traced(AestheticMlp(), _shape(1, width))


def _traced(module: Any, *inputs: Any) -> Shapes:
    tree = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return {path: leaf.shape for path, leaf in flatten(tree).items()}


def _named(table: Rules, shapes: Shapes) -> Shapes:
    found = {}
    for path, shape in shapes.items():
        name = table.name(path)
        layout = table.layout(name)
        assert layout is not None and table.path(name) == path, path
        found[name] = original_shape(shape, layout)
    return found


def expected_tensors(name: str, config: Mapping[str, Any]) -> Shapes:
    """Name and shape of each tensor in the original's file, of the network that a manifest's config describes."""
    if name == "flux_depth_dev":
        return _named(rules.FLUX, flux_shapes(FluxConfig.from_diffusers(config, name)))
    if name == "clip_vit_l14":
        return _named(rules.CLIP_VISION, clip_shapes(ClipVisionConfig(**config)))
    if name == "aesthetic_mlp":
        return _named(rules.AESTHETIC, mlp_shapes(config["width"]))
    shapes = diffusion.expected_shapes(AutoencoderConfig.from_diffusers(config, name))
    return {diffusion.name_of(path): diffusion.file_shape(path, shape) for path, shape in shapes.items()}


def uncovered(name: str, manifest: Mapping[str, Any]) -> tuple[list[str], int]:
    """Tensors of the manifest or of ours that the other lacks or has in another shape, and how many numbers ours have."""
    ours = expected_tensors(name, manifest["config"])
    theirs = {entry["name"]: tuple(entry["shape"]) for entry in manifest["entries"]}
    wrong = sorted({key for key, _ in ours.items() ^ theirs.items()})
    return wrong, sum(int(np.prod(shape)) for shape in ours.values())
