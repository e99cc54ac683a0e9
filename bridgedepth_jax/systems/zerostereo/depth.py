"""Where the depth of a photograph comes from (spec `zerostereo.md` sections 1 and 7).

`--depth field` is a random field, `files:FOLDER` depth in files named after the photographs, and anything else the folder of
a Depth Anything V2 checkpoint. H, W the photograph's sides; larger is nearer.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from bridgedepth_jax.data.formats import read_bytes, read_pfm
from bridgedepth_jax.data.procedural.warp import random_disparity
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.store.checkpoint import load_checkpoint

SUFFIXES = (".npy", ".pfm", ".png")


class Depth(NamedTuple):
    """Depth of a photograph, and that of its mirror image, mirrored back, where there is one."""

    plain: Float[np.ndarray, "H W"]
    mirrored: Float[np.ndarray, "H W"] | None


# (key of the photograph, its pixels, a random stream of its own) -> depth of its size. ValueError: this photograph has none.
DepthSource = Callable[[str, np.ndarray, np.random.Generator], Depth]


def open_depth(option: str) -> tuple[DepthSource, dict[str, Any]]:
    """The source that `--depth` names, and what a recipe says about it. InputError for one that is not there."""
    if option == "field":
        return lambda key, image, rng: Depth(random_disparity(rng, image, 0.0, 1.0), None), {}
    kind, _, folder = option.partition(":")
    if kind == "files":
        if not Path(folder).is_dir():
            raise InputError(f"--depth {option}: {folder} is no folder, expected one with {', '.join(SUFFIXES)} files")
        return lambda key, image, rng: _from_files(Path(folder), key), {}
    return _from_checkpoint(option)


def _from_files(folder: Path, key: str) -> Depth:
    stem = folder / Path(key).with_suffix("")
    plain, mirrored = (_read(stem.with_name(stem.name + ending)) for ending in ("", "_mirrored"))
    if plain is None:
        raise ValueError(f"no depth file {Path(key).with_suffix('').as_posix()}{{{','.join(SUFFIXES)}}}")
    return Depth(plain, None if mirrored is None else mirrored[:, ::-1])  # the file is that of the mirrored photograph


def _read(stem: Path) -> np.ndarray | None:
    found = [path for suffix in SUFFIXES if (path := stem.with_name(stem.name + suffix)).is_file()]
    if not found:
        return None
    path = found[0]
    try:
        if path.suffix == ".npy":
            depth = np.load(path, allow_pickle=False)
        elif path.suffix == ".pfm":
            depth = read_pfm(path)
        else:
            depth = cv2.imdecode(np.frombuffer(read_bytes(path), np.uint8), cv2.IMREAD_UNCHANGED)
    except (ValueError, OSError, EOFError, cv2.error) as error:
        raise ValueError(f"{path.name} cannot be read ({' '.join(str(error).split())[:80]})") from error
    if not isinstance(depth, np.ndarray) or depth.ndim != 2:
        raise ValueError(f"{path.name} is no map of one channel")
    return depth.astype(np.float32)


def _from_checkpoint(option: str) -> tuple[DepthSource, dict[str, Any]]:
    checkpoint = load_checkpoint(option)
    if checkpoint.kind not in ("depth-anything", "bridge_mde"):
        raise InputError(f"--depth {option}: a checkpoint of kind {checkpoint.kind!r}, expected 'depth-anything'")
    if checkpoint.config.metric:
        raise InputError(f"--depth {option}: a network that gives metres, expected relative inverse depth")
    import jax
    import jax.numpy as jnp

    from bridgedepth_jax.networks.depth_anything import DepthAnything
    from bridgedepth_jax.networks.diffusion.inpainting import crop_edges, pad_edges
    from bridgedepth_jax.ops.image import normalize

    model, patch = DepthAnything(checkpoint.config), checkpoint.config.patch
    devices = jax.local_devices()
    copies = [jax.device_put(checkpoint.params, device) for device in devices]
    turn = itertools.count()

    @jax.jit
    def run(params: Any, image: jax.Array) -> jax.Array:
        """Both passes of a padded photograph (H, W, 3) in 0..255, at its own size; compiled once for a size."""
        both = normalize(jnp.stack([image, image[:, ::-1]]).astype(jnp.float32))
        depth: Any = model.apply({"params": params}, both)
        return depth

    def depth_of(key: str, image: np.ndarray, rng: np.random.Generator) -> Depth:
        number, size = next(turn) % len(devices), (image.shape[0], image.shape[1])
        padded = pad_edges(jax.device_put(image, devices[number])[None], patch)[0]
        plain, mirrored = np.asarray(run(copies[number], padded))
        plain, mirrored = (np.asarray(crop_edges(d[None], size, patch)[0]) for d in (plain, mirrored[:, ::-1]))
        return Depth(plain, mirrored)

    provenance = checkpoint.provenance
    return depth_of, {"depth_sha256": provenance.get("sha256"), "depth_licence": provenance.get("licence")}
