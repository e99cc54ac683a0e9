"""Packs a data set into ArrayRecord shards, losslessly (extra `tfds`).

bridgedepth data prepare eth3d --root data --out packed

Train from it with --config.data.source=tfds and --config.data.root=OUT. An interrupted run goes on where it was.
"""

import argparse
import sys

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    from bridgedepth_jax.data.table import NAMES

    names = ", ".join(name for name in NAMES if name != "synthetic")
    parser.add_argument("name", help=f"one of {names}, or custom:FILE.csv")
    options.add_root(parser, help="data directory with the files as downloaded, default: data")
    parser.add_argument("--out", required=True, help="folder of the packed sets")
    parser.add_argument("--shards", type=int, help="number of files; default: one per 256 MiB")
    parser.add_argument("--right-disparity", action="store_true", help="also the right view's, which only the 'h' flip needs")


def run(args: argparse.Namespace) -> None:
    try:
        from bridgedepth_jax.data.tfds import pack
    except ImportError as error:
        raise InputError(f"packing needs `pip install bridgedepth-jax[tfds]` ({error})") from error
    folder = pack(
        args.name,
        args.root,
        args.out,
        args.shards,
        right_disparity=args.right_disparity,
        progress=lambda done, total: print(f"shard {done} of {total}", file=sys.stderr),
    )
    print(folder)
