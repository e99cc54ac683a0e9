"""A TensorRT engine from an ONNX file, and the command line that builds the same (spec `export.md`, TensorRT).

The precision is that of the file: networks are strongly typed, the only kind there is from TensorRT 11 on. TensorRT-RTX has the
same interface and builds for an architecture without a GPU at hand.
"""

import importlib
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing

PACKAGES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx-cu12"}  # module: what pip calls it


class Facts(NamedTuple):
    """What an ONNX file says of itself."""

    shapes: dict[str, tuple[int, ...]]  # of its inputs
    dtype: str  # of the computation
    words: dict[str, str]  # metadata


def facts(file: Path) -> Facts:
    """Reads a file that `bridgedepth export onnx` wrote. InputError: there is none, or it is something else."""
    from bridgedepth_jax.export.onnx_graph import onnx

    if not file.is_file():
        raise InputError(f"{file}: no such file, expected one that `bridgedepth export onnx` wrote")
    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as error:  # protobuf's, of several kinds
        raise InputError(f"{file} is not an ONNX file ({type(error).__name__})") from None
    words = {entry.key: entry.value for entry in model.metadata_props}
    shapes = {x.name: tuple(d.dim_value for d in x.type.tensor_type.shape.dim) for x in model.graph.input}
    if not shapes or not all(all(shape) for shape in shapes.values()) or "dtype" not in words:
        raise InputError(f"{file}: sizes or dtype are not in it, expected a file that `bridgedepth export onnx` wrote")
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and not (file.parent / entry.value).is_file():
                raise InputError(f"{file}: its weights {entry.value} do not lie beside it")
    return Facts(shapes, words["dtype"], words)


def check_fp16(file: Path, found: Facts) -> None:
    """`--fp16` of earlier versions. InputError, with the command to use, where the file is not float16 itself."""
    if found.dtype != "float16":
        height, width = next(iter(found.shapes.values()))[2:]
        raise InputError(
            f"--fp16: {file} computes in {found.dtype}, and an engine has the precision of its file; write one in float16:"
            f" bridgedepth export onnx --size {height}x{width} --dtype float16"
        )


def check_shapes(option: str, text: str, found: Facts) -> None:
    """Shapes as trtexec has them, "left:1x3x480x640,right:1x3x480x640" or one for all. InputError: not the file's."""
    for part in text.split(","):
        name, _, shape = part.rpartition(":")
        asked = tuple(int(number) for number in re.findall(r"\d+", shape))
        for key in [name] if name else found.shapes:
            if key not in found.shapes:
                raise InputError(f"{option} {text}: there is no input {key}, expected {' and '.join(found.shapes)}")
            if asked != found.shapes[key]:
                fixed = "x".join(map(str, found.shapes[key]))
                raise InputError(f"{option} {text}: sizes are fixed in a file, and input {key} of this one is {fixed}")


def command_line(file: Path, out: Path, workspace: int, *, rtx: bool) -> str:
    """What builds the same engine without Python, TensorRT 10 and 11 alike: 11 has no other kind and ignores the last word."""
    program = "tensorrt_rtx" if rtx else "trtexec"
    words = [program, f"--onnx={file}", f"--saveEngine={out}", f"--memPoolSize=workspace:{workspace}M"]
    return shlex.join(words if rtx else [*words, "--stronglyTyped"])


def load(module: str) -> Any:
    """TensorRT or TensorRT-RTX. InputError: not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"{module} is not installed: pip install {PACKAGES[module]}; --print needs none") from None


def build_engine(trt: Any, file: str, workspace: int, architecture: str | None = None) -> bytes:
    """The serialised engine. `trt` is the module, workspace in MiB. RuntimeError: the parser's complaints, or no engine.

    architecture: of GPUs that need not be here, TensorRT-RTX alone; None is the GPU at hand.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(file):
        complaints = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise RuntimeError(f"the parser refuses {file}: {'; '.join(complaints)}")
    print(f"{file}: 0 errors, {network.num_layers} layers")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)
    if architecture is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.__members__[architecture], 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError(f"no engine was built of {file}")
    return bytes(engine)


def write_engine(file: Path, out: Path, workspace: int, *, rtx: bool, architecture: str | None) -> int:
    """Builds and writes an engine; returns its bytes. InputError: output that exists, no TensorRT, what it refuses."""
    if out.exists():
        raise InputError(f"{out} exists, expected a new name")
    trt = load("tensorrt_rtx" if rtx else "tensorrt")
    if architecture is not None and architecture not in trt.ComputeCapability.__members__:
        known = ", ".join(trt.ComputeCapability.__members__)
        raise InputError(f"--architecture {architecture}, expected one of {known}")
    try:
        engine = build_engine(trt, str(file), workspace, architecture)
    except RuntimeError as error:
        raise InputError(str(error)) from None
    with replacing(out) as temporary:
        temporary.write_bytes(engine)
    return len(engine)
