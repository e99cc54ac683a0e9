"""A stereo checkpoint as one file that JAX alone runs, on CPUs, GPUs and TPUs: (b, H, W, 3) pairs to disparity, confidence.

bridgedepth export jax --checkpoint checkpoints/rvc --size 480x640 --out rvc.jax

The size is fixed, the batch only with --batch: a file that an earlier JAX is to read needs it. Beside the file lies a loader of
ten lines that imports nothing else of the project.
"""

import argparse
from pathlib import Path

from bridgedepth_jax.commands.export_onnx import add_model, add_sizes, load_model, sizes
from bridgedepth_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_sizes(parser)
    parser.add_argument("--batch", type=int, help="pairs; default: any number")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"), help="of the computation")
    parser.add_argument("--input", default="float32", choices=("float32", "uint8"), help="of the images, values 0..255")
    parser.add_argument("--beside", action="store_true", help="weights in OUT.npz, not in the file")
    parser.add_argument("--out", type=Path, required=True, help="the file")


def run(args: argparse.Namespace) -> None:
    from bridgedepth_jax.export.pairs import export_jax

    size, *others = sizes(args)
    if others:
        raise InputError(f"{1 + len(others)} sizes given, expected one a file")
    checkpoint, _, _ = load_model(args)
    export_jax(checkpoint, args.out, size, dtype=args.dtype, input=args.input, inside=not args.beside, batch=args.batch)
    print(args.out)
