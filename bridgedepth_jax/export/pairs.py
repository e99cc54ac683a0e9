"""Stereo networks as files: which function is written, its metadata, and its comparison with JAX (spec `export.md`).

Letters: B batch, H W size of the images. Files take `left`, `right` (B, 3, H, W), RGB in 0..255, and give `disparity` (pixels)
and `confidence` (B, 1, H, W) float32. Padding to whole windows and its removal are inside.
"""

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import make_folder
from bridgedepth_jax.store.checkpoint import Checkpoint
from bridgedepth_jax.system import System, find_system

# Against jitted JAX in float32: how far the middle pixel may be, and which share of pixels may be off by more than BEYOND.
# Random weights amplify roundings: 1e-4 px and 1 % with them, 1e-6 px and none with trained ones. float16 rounds itself.
BEYOND = 0.05  # pixels
LIMITS = {"float32": (5e-4, 0.02), "float16": (0.25, 1.0)}
NAMES = ("disparity", "confidence")


class Difference(NamedTuple):
    """Of an exported program from JAX in float32, over the disparities of a pair."""

    median: float  # pixels
    largest: float  # pixels
    beyond: float  # share of pixels off by more than BEYOND


class Exported(NamedTuple):
    """A file that was written."""

    path: Path
    nodes: int
    difference: Difference


def stereo(checkpoint: Checkpoint) -> System:
    """The system of a checkpoint. InputError: it is not one for pairs."""
    system = find_system(checkpoint.kind)
    if system.estimate is None:
        raise InputError(f"the checkpoint holds {checkpoint.kind}, expected bridgedepth or another system for pairs")
    return system


def nhwc(system: System, config: Any) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The function (weights, left, right) of a jax.export file: (B, H, W, 3) images to (B, H, W) twice."""
    assert system.estimate is not None
    estimate = system.estimate(config)

    def run(weights: Any, left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = estimate(weights, left.astype(np.float32), right.astype(np.float32))
        confidence = jax.numpy.full_like(found.disparity, np.nan) if found.confidence is None else found.confidence
        return found.disparity.astype(np.float32), confidence.astype(np.float32)

    return run


def nchw(system: System, config: Any) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The function (weights, left, right) that an ONNX file holds: (B, 3, H, W) images to (B, 1, H, W) twice."""
    inner = nhwc(system, config)

    def run(weights: Any, left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
        left, right = (image.astype(np.float32).transpose(0, 2, 3, 1) for image in (left, right))
        disparity, confidence = inner(weights, left, right)
        return disparity[:, None], confidence[:, None]

    return run


def check_size(system: System, height: int, width: int) -> None:
    if min(height, width) < system.minimum:
        raise InputError(f"size {height}x{width}, expected at least {system.minimum}x{system.minimum}")


def with_dtype(config: Any, dtype: str) -> Any:
    if dtype not in LIMITS:
        raise InputError(f"dtype {dtype!r}, expected one of {', '.join(LIMITS)}")
    return dataclasses.replace(config, dtype=dtype)


def metadata(checkpoint: Checkpoint, folder: os.PathLike | str, **more: Any) -> dict[str, str]:
    """What is written into a file: where it comes from, under which licence, and for which size."""
    digest = hashlib.sha256((Path(folder) / "files.sha256").read_bytes()).hexdigest()
    words = {
        "kind": checkpoint.kind,
        "checkpoint_sha256": digest,  # of its files.sha256, which lists that of every file
        "licence": checkpoint.provenance.get("licence", "unknown"),
        "version": version("bridgedepth-jax"),
        **more,
    }
    return {key: str(value) for key, value in words.items()}


def resized(left: np.ndarray, right: np.ndarray, height: int, width: int, batch: int) -> list[np.ndarray]:
    """A pair of images (h, w, 3) as uint8 (B, 3, H, W); every second of the batch upside down, so that pairs differ."""
    both = []
    for image in (left, right):
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
        both.append(np.stack([small[:, ::-1] if i % 2 else small for i in range(batch)]))
    return both


def compare(disparity: np.ndarray, reference: np.ndarray) -> Difference:
    error = np.abs(np.asarray(disparity, np.float64) - reference)
    return Difference(float(np.median(error)), float(error.max()), float(np.mean(~(error <= BEYOND))))


def run_onnx(file: Path, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """`left` and `right` through onnxruntime on the CPU."""
    from bridgedepth_jax.export.runtime import session

    results = session(file).run(list(NAMES), dict(zip(("left", "right"), images, strict=True)))
    return [np.asarray(result) for result in results]


@dataclasses.dataclass(frozen=True)
class OnnxOptions:
    """Of `export_onnx`."""

    sizes: tuple[tuple[int, int], ...]  # (H, W) of each file
    batch: int = 1
    dtype: str = "float32"  # of the computation; what must not lose precision stays float32
    input: str = "float32"  # of the images
    external: bool = False  # weights in a file of their own; always so for several sizes, which share it, and above 2 GB


def export_onnx(
    checkpoint: Checkpoint,
    folder: os.PathLike | str,
    out: Path,
    name: str,
    pair: tuple[np.ndarray, np.ndarray],
    options: OnnxOptions,
    say: Callable[[str], None] = print,
) -> list[Exported]:
    """Writes OUT/NAME_HxW.onnx for each size, and OUT/NAME.weights where weights lie outside. Returns the graphs.

    Each file is run with onnxruntime on the pair and compared with JAX before any takes its place.

    Args:
      folder: of the checkpoint, for the metadata.
      pair: two images (h, w, 3) uint8, resized to each size.

    Raises InputError: not a stereo network, sizes too small, output that exists, float16 that overflows (the layer is
    named), numbers that differ from JAX's.
    """
    from bridgedepth_jax.export import onnx, onnx_graph
    from bridgedepth_jax.export.activations import check_float16, largest_activations

    system = stereo(checkpoint)
    if options.batch < 1:
        raise InputError(f"batch {options.batch}, expected at least 1")
    if options.input not in ("float32", "uint8"):
        raise InputError(f"input {options.input!r}, expected float32 or uint8")
    for size in options.sizes:
        check_size(system, *size)
    config = with_dtype(checkpoint.config, options.dtype)
    function, weights = nchw(system, config), checkpoint.params
    weights_name = f"{name}.weights"
    files = [f"{name}_{height}x{width}.onnx" for height, width in options.sizes]
    for file in (*files, weights_name):
        if (out / file).exists():
            raise InputError(f"{out / file} exists, expected a new name or folder")
    make_folder(out, "--out")

    graphs, nodes, found = {}, {}, {}
    for file, (height, width) in zip(files, options.sizes, strict=True):
        kind = jax.ShapeDtypeStruct((options.batch, 3, height, width), np.dtype(options.input))
        graphs[file] = onnx.to_graph(function, weights, {"left": kind, "right": kind}, NAMES)
        nodes[file] = graphs[file].count()
        say(f"{file}: {nodes[file]} nodes")
        if options.dtype == "float16":
            images = [image.astype(options.input) for image in resized(*pair, height, width, options.batch)]
            with tempfile.TemporaryDirectory() as scratch:
                largest = largest_activations(graphs[file], dict(zip(("left", "right"), images, strict=True)), Path(scratch))
            for layer, value in largest.items():
                say(f"{value:12.4g}  {layer}")
            check_float16(largest)

    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=out) as scratch:
        places = {}
        constants = [onnx_graph.large(graph) for graph in graphs.values()]
        whole = max(sum(array.nbytes for array in arrays.values()) for arrays in constants)
        if options.external or len(graphs) > 1 or whole > onnx_graph.LARGEST:
            # What depends on the size stays in its graph, unless a graph would then be too large.
            shared = set(constants[0]).intersection(*constants[1:])
            arrays = {key: array for key, array in constants[0].items() if key in shared}
            with open(Path(scratch) / weights_name, "wb") as stream:
                places = onnx_graph.write_weights(stream, weights_name, arrays)
        del constants
        for file, (height, width) in zip(files, options.sizes, strict=True):
            more = {"height": height, "width": width, "batch": options.batch, "dtype": options.dtype, "input": options.input}
            onnx_graph.write(Path(scratch) / file, graphs.pop(file), metadata(checkpoint, folder, **more), places)
        reference = jax.jit(nchw(system, with_dtype(checkpoint.config, "float32")))
        for file, (height, width) in zip(files, options.sizes, strict=True):
            images = [image.astype(options.input) for image in resized(*pair, height, width, options.batch)]
            found[file] = compare(run_onnx(Path(scratch) / file, images)[0], np.asarray(reference(weights, *images)[0]))
            check(file, found[file], options.dtype)
            share = f"{100 * found[file].beyond:.2f} % beyond {BEYOND} px"
            say(f"{file}: median {found[file].median:.1e} px, largest {found[file].largest:.1e} px, {share}")
        for file in ([weights_name] if places else []) + files:
            (Path(scratch) / file).replace(out / file)
    return [Exported(out / file, nodes[file], found[file]) for file in files]


def check(file: str, found: Difference, dtype: str) -> None:
    """Raises InputError where an exported program is not the one that JAX runs."""
    median, beyond = LIMITS[dtype]
    if not (found.median <= median and found.beyond <= beyond):
        raise InputError(
            f"{file}: disparity differs from JAX's by {found.median:.2g} px in the median, {100 * found.beyond:.1f} % of pixels"
            f" by more than {BEYOND} px; expected at most {median} px and {100 * beyond:g} %; nothing was written"
        )


def export_jax(
    checkpoint: Checkpoint,
    out: Path,
    size: tuple[int, int],
    *,
    dtype: str = "float32",
    input: str = "float32",
    inside: bool = True,
    batch: int | None = None,
) -> None:
    """Writes a jax.export file for pairs of one size, with its loader; batch None: any number of them.

    Raises InputError: as `export_onnx`, and without flatbuffers.
    """
    from bridgedepth_jax.export.jax_export import save_function
    from bridgedepth_jax.store.checkpoint import flatten, unflatten

    system = stereo(checkpoint)
    check_size(system, *size)
    run = nhwc(system, with_dtype(checkpoint.config, dtype))
    flat = {name: np.asarray(value) for name, value in flatten(checkpoint.params).items()}
    if batch is not None and batch < 1:
        raise InputError(f"batch {batch}, expected at least 1")
    shape = ("b" if batch is None else batch, *size, 3)
    save_function(
        out,
        lambda weights, left, right: run(unflatten(weights), left, right),
        flat,
        [(shape, np.dtype(input))] * 2,
        inside=inside,
    )
