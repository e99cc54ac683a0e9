"""A TensorRT engine from a file that `bridgedepth export onnx` wrote, in the precision of that file.

bridgedepth export trt onnx/nano_480x640.onnx
bridgedepth export trt onnx/nano_480x640.onnx --print
bridgedepth export trt onnx/nano_480x640.onnx --rtx --architecture SM80

--print builds nothing and needs no TensorRT: it shows the Python function that builds, and the equal command line. --rtx takes
TensorRT-RTX (extra `rtx`), which builds without a GPU.
"""

import argparse
import sys
from pathlib import Path

from bridgedepth_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="FILE.onnx")
    parser.add_argument("--out", type=Path, help="the engine, default: FILE.engine")
    parser.add_argument("--workspace", type=int, default=4096, metavar="MIB", help="memory for tactics, default 4096")
    parser.add_argument("--print", action="store_true", help="show how it is built instead")
    parser.add_argument("--rtx", action="store_true", help="TensorRT-RTX instead of TensorRT")
    parser.add_argument("--architecture", help="with --rtx: of GPUs that need not be here, such as SM80")
    parser.add_argument("--fp16", action="store_true", help="accepted for files in float16, which need it no more")
    for end in ("min", "opt", "max"):
        parser.add_argument(f"--{end}-shape", metavar="SHAPE", help="accepted if it is the file's, 1x3x480x640")


def run(args: argparse.Namespace) -> None:
    import inspect

    from bridgedepth_jax.export import tensorrt

    if args.workspace < 1:
        raise InputError(f"--workspace {args.workspace}, expected a positive number of MiB")
    if args.architecture and not args.rtx:
        raise InputError("--architecture goes with --rtx: TensorRT itself builds for the GPU at hand")
    found = tensorrt.facts(args.file)
    if args.fp16:
        tensorrt.check_fp16(args.file, found)
    for end in ("min", "opt", "max"):
        if text := getattr(args, f"{end}_shape"):
            tensorrt.check_shapes(f"--{end}-shape", text, found)
    out = args.out or args.file.with_suffix(".engine")
    line = tensorrt.command_line(args.file, out, args.workspace, rtx=args.rtx)
    if args.print:
        module = "tensorrt_rtx" if args.rtx else "tensorrt"
        call = f"build_engine(trt, {str(args.file)!r}, {args.workspace}, {args.architecture!r})"
        print(f"from typing import Any\n\nimport {module} as trt\n\n\n{inspect.getsource(tensorrt.build_engine)}\n")
        print(f'with open({str(out)!r}, "wb") as stream:\n    stream.write({call})\n\n# The same without Python:\n# {line}')
        return
    size = tensorrt.write_engine(args.file, out, args.workspace, rtx=args.rtx, architecture=args.architecture)
    print(f"{size / 1e6:.1f} MB", file=sys.stderr)
    print(out)
