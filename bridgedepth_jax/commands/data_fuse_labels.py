"""Masked ground truth of generated images: where they still show what their originals show.

bridgedepth data fuse-labels --generated generated --original images --depth depth --out fused --processes 2

Files belong together by their paths; behind a generated one's name may stand the number of its draw, `street_3.png`. For each
that agrees with its original over more than half of the image OUT has a crop, its mask and its depth in metres;
OUT/index-*.jsonl has a line for every image (matches, inliers, fractions, verdict), OUT/labels.csv what `data.train` reads as
mono:FILE.csv.
"""

import argparse
from pathlib import Path

from bridgedepth_jax.commands.data_pseudo_label import report


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--generated", required=True, type=Path, metavar="DIR", help="generated images")
    parser.add_argument("--original", required=True, type=Path, metavar="DIR", help="the images that their depth belongs to")
    parser.add_argument("--depth", required=True, type=Path, metavar="DIR", help="depth of the originals")
    parser.add_argument("--out", required=True, type=Path, help="folder for the samples, outside the others")
    parser.add_argument(
        "--format", default="", help="of depth files; default by suffix: .npy and .pfm metres, .png millimetres"
    )
    parser.add_argument("--size", type=int, default=518, help="pixels a side of a crop")
    parser.add_argument("--jitter", type=int, default=0, help="pixels either way that crops move; the paper's training: 32")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="only this part of the images")
    parser.add_argument("--processes", type=int, default=1, help="that work side by side")


def run(args: argparse.Namespace) -> None:
    from bridgedepth_jax.data.mono_formats import find_depth_format
    from bridgedepth_jax.data.shards import Shard, check_apart
    from bridgedepth_jax.systems.bridge_mde import labels

    shard = Shard.of(args.shard)
    if args.format:
        find_depth_format(args.format, "--format")
    folders = {"--generated": args.generated, "--original": args.original, "--depth": args.depth}
    check_apart(args.out, folders)
    options = labels.FuseOptions(args.size, args.jitter, args.format)
    found = labels.fuse_labels(args.generated, args.original, args.depth, args.out, shard, options, processes=args.processes)
    report(found.made, found.before, found.problems)
