"""Adapts a stereo network to your camera, from rectified pairs without ground truth.

bridgedepth adapt --pairs mine.csv --workdir runs/mine                   # the default model; a CSV with the columns left,right
bridgedepth adapt --left left --right right --init checkpoints/rvc --workdir runs/mine

A fifth of the pairs is held out and decides when to stop, and whether the network learns from what it says of enlarged images.
What is not better on them is not exported: exit status 1.
DIR/adapt.md has the numbers before and after, DIR/pictures the disparities, DIR/export the weights for `bridgedepth infer`.
Broken off, the same command continues.
"""

import argparse
import logging
import sys
from pathlib import Path

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", metavar="CSV", help="columns left, right [, disparity, format]; truth is only compared with")
    options.add_left_right(parser, "folder or glob in quotes", "the same for the right camera; paired by name", required=False)
    parser.add_argument("--init", metavar="CHECKPOINT", help="folder or published name; default: the default model")
    parser.add_argument("--workdir", required=True, type=Path, help="folder for the run and the exported weights")
    parser.add_argument("--stages", type=int, default=1, help="1, or 3: a monocular network helps where one camera sees")
    parser.add_argument("--steps", type=int, default=600, help="of each stage, at most; default 600")
    parser.add_argument("--every", type=int, default=50, help="steps between two looks at the held-out pairs; default 50")
    parser.add_argument("--patience", type=int, default=4, help="looks without a better result before a stage ends; default 4")
    parser.add_argument("--size", metavar="HEIGHTxWIDTH", help="images are resized to it; default: near their own")
    parser.add_argument("--batch", type=int, default=2, help="pairs a step; default 2")
    parser.add_argument("--rate", type=float, default=5e-5, help="learning rate; default 5e-5, up to 20 times it from labels")
    parser.add_argument("--held-out", type=float, default=0.2, metavar="SHARE", help="of the pairs; default 0.2")
    parser.add_argument("--seed", type=int, default=0, help="of order and augmentation; default 0")
    parser.add_argument("--imagenet", default="", metavar="PTH", help="torchvision's ResNet-18, for the monocular network")


def run(args: argparse.Namespace) -> None:
    from bridgedepth_jax.data.pairs import Pair, find_pairs
    from bridgedepth_jax.inference.compiled import keep_compilations
    from bridgedepth_jax.inference.inputs import pair_files
    from bridgedepth_jax.inference.stereo import DEFAULT_MODEL
    from bridgedepth_jax.systems.reciprocal.adapt import AdaptConfig, BrokenOff, adapt, report

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if bool(args.pairs) == bool(args.left or args.right) or bool(args.left) != bool(args.right):
        raise InputError("expected --pairs CSV, or --left and --right")
    size = options.size("--size", args.size) if args.size else None
    names = ("stages", "steps", "every", "patience", "batch", "rate", "held_out", "seed", "imagenet")
    config = AdaptConfig(size=size, **{name: getattr(args, name) for name in names})
    if args.pairs:
        pairs = find_pairs(f"custom:{Path(args.pairs).absolute()}", ".")
    else:
        files = pair_files(args.left, args.right)
        pairs = tuple(Pair("pairs", str(row.left), "sparse", row.left, row.right) for row in files)
    keep_compilations()
    try:
        result = adapt(pairs, args.init or DEFAULT_MODEL, args.workdir, config)
    except BrokenOff as ended:
        print(ended, file=sys.stderr)
        raise SystemExit(1) from None
    print(report(result))
    if result["refused"]:
        raise SystemExit(1)
