"""The files of the aesthetic reward to parameters (spec `mono-training.md` section 9): CLIP's image tower and the MLP on it."""

from pathlib import Path
from typing import Any, NamedTuple

from bridgedepth_jax.convert.engine import convert_state
from bridgedepth_jax.convert.pth import read_pth, state_dict
from bridgedepth_jax.convert.rules.bridge_mde import AESTHETIC, CLIP_VISION
from bridgedepth_jax.networks.clip_vision import ClipVisionConfig
from bridgedepth_jax.store.checkpoint import unflatten
from bridgedepth_jax.store.safetensors import SafeTensors
from bridgedepth_jax.systems.bridge_mde.manifests import clip_shapes, mlp_shapes


class Judge(NamedTuple):
    """What `generator.aesthetic.aesthetic_score` takes: parameters are nested dicts of float32 arrays."""

    clip: dict[str, Any]
    mlp: dict[str, Any]
    config: ClipVisionConfig


def read_judge(clip: Path, mlp: Path, config: ClipVisionConfig | None = None) -> Judge:
    """From model.safetensors of openai/clip-vit-large-patch14, whose text tower is left out, and
    sac+logos+ava1-l14-linearMSE.pth; `config` is ViT-L/14's by default.

    InputError names the file and what is missing, left or wrong in it.
    """
    config = config or ClipVisionConfig()
    tower = convert_state(CLIP_VISION, dict(SafeTensors(clip)), clip_shapes(config), source=str(clip))
    state = state_dict(mlp, read_pth(mlp))
    layers = convert_state(AESTHETIC, state, mlp_shapes(config.projection_dim), source=str(mlp))
    return Judge(unflatten(tower), unflatten(layers), config)
