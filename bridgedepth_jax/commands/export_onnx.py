"""A stereo checkpoint as ONNX: `left`, `right` (B, 3, H, W) to `disparity`, `confidence` (B, 1, H, W), one file a size.

bridgedepth export onnx --checkpoint checkpoints/rvc --size 540x960 --out onnx
bridgedepth export onnx --size 480x640 --size 540x960 --input uint8 --out onnx

Sizes are fixed in a file; padding is inside. Several sizes share one file of weights. Each file is compared with JAX on a
real pair before it is there.
"""

import argparse
from pathlib import Path

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_sizes(parser)
    parser.add_argument("--batch", type=int, default=1, help="pairs, default 1")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"), help="of the computation")
    parser.add_argument("--input", default="float32", choices=("float32", "uint8"), help="of the images, values 0..255")
    parser.add_argument("--external", action="store_true", help="weights in a file of their own")
    add_pair(parser)
    parser.add_argument("--out", type=Path, default=Path("onnx"), help="folder, default onnx")


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", help="folder or published name; default: the model of the package")
    parser.add_argument("--model_name", help=argparse.SUPPRESS)  # the name that `make_onnx.py` scripts give it


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """--size, and --height with --width, its former names."""
    parser.add_argument("--size", action="append", default=[], metavar="HEIGHTxWIDTH", help="may be given several times")
    for side in ("--height", "--width"):
        parser.add_argument(side, type=int, help=argparse.SUPPRESS)


def add_pair(parser: argparse.ArgumentParser) -> None:
    options.add_left_right(
        parser, "image of the pair to compare on; default: motorcycle of scikit-image", "its partner", required=False
    )


def load_pair(args: argparse.Namespace):
    """Both images of the pair to compare on."""
    from bridgedepth_jax.data.formats import read_image
    from bridgedepth_jax.inference import demo

    if (args.left is None) != (args.right is None):
        raise InputError("--left and --right go together, one is missing")
    if args.left is None:
        sample, _ = demo.motorcycle()
        return sample.left, sample.right
    return read_image(args.left), read_image(args.right)


def load_model(args: argparse.Namespace):
    """The checkpoint that the arguments name, its folder, and a short name."""
    from bridgedepth_jax.convert.published import OF_PAIRS, resolve
    from bridgedepth_jax.inference.stereo import DEFAULT_MODEL
    from bridgedepth_jax.store.checkpoint import load_checkpoint

    if args.checkpoint and args.model_name:
        raise InputError("--checkpoint and --model_name are both given, expected one")
    folder = resolve(args.checkpoint or args.model_name or DEFAULT_MODEL, OF_PAIRS)
    return load_checkpoint(folder), folder, folder.resolve().name


def sizes(args: argparse.Namespace) -> tuple[tuple[int, int], ...]:
    """(height, width) of --size and of --height, --width, without repetitions."""
    found = [options.size("--size", text) for text in args.size]
    if (args.height is None) != (args.width is None):
        raise InputError("--height and --width go together, one is missing")
    if args.height is not None:
        found.append((args.height, args.width))
    if not found:
        raise InputError("no size given, expected --size HEIGHTxWIDTH")
    return tuple(dict.fromkeys(found))


def run(args: argparse.Namespace) -> None:
    from bridgedepth_jax.export.pairs import OnnxOptions, export_onnx

    chosen = OnnxOptions(sizes(args), args.batch, args.dtype, args.input, args.external)
    pair = load_pair(args)
    checkpoint, folder, name = load_model(args)
    for exported in export_onnx(checkpoint, folder, args.out, name, pair, chosen):
        print(exported.path)
