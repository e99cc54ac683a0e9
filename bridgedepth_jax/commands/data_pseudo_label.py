"""Relative depth of a folder of images as labels to train on.

bridgedepth data pseudo-label --checkpoint depth_anything_v2_vitl --images photos --out labels
bridgedepth data pseudo-label --checkpoint runs/mono_teacher/export --images photos --out labels --shard 0/4

OUT/<path>.png holds inverse depth in 16 bits at the network's size, OUT/index-I-of-N.jsonl a line for each with the hashes
of the image and of the weights, OUT/labels.csv (of one shard: labels-I-of-N.csv) what `data.train` reads as mono:FILE.csv.
Killed and started again it goes on. Images that cannot be read are named and left out; exit status 1 then.
"""

import argparse
import sys
from pathlib import Path

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError

PATCH = 14  # pixels, the least side that a network sees


def arguments(parser: argparse.ArgumentParser) -> None:
    from bridgedepth_jax.inference.depth import SHORTER_SIDE

    options.add_checkpoint(parser, "folder of convert or of training, or a published name; of relative depth", required=True)
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="folder of images, however deep")
    parser.add_argument("--out", required=True, type=Path, help="folder for the labels, outside --images")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="only this part of the images")
    parser.add_argument("--size", type=int, default=SHORTER_SIDE, help="pixels of the shorter side as the network sees it")
    options.add_dtype(parser)


def run(args: argparse.Namespace) -> None:
    import hashlib

    from tqdm import tqdm

    from bridgedepth_jax.convert.published import ONE_VIEW, resolve
    from bridgedepth_jax.data.shards import Shard, check_apart
    from bridgedepth_jax.inference.depth import DepthPredictor
    from bridgedepth_jax.store.checkpoint import DIGESTS
    from bridgedepth_jax.systems.bridge_mde import labels

    shard = Shard.of(args.shard)
    check_apart(args.out, {"--images": args.images})
    if args.size < PATCH:
        raise InputError(f"--size {args.size}, expected at least {PATCH}")
    folder = resolve(args.checkpoint, ONE_VIEW)
    predictor = DepthPredictor.load(folder, dtype=args.dtype)
    if predictor.metric:
        raise InputError(f"--checkpoint {args.checkpoint} gives metres, expected one of relative depth")
    identity = hashlib.sha256((folder / DIGESTS).read_bytes()).hexdigest()
    progress = lambda names: tqdm(names, unit=" images", bar_format=options.BAR, disable=None)
    predict = lambda image: predictor.raw(image, size=args.size)[0]
    about = {"checkpoint": identity, "shorter_side": args.size, "dtype": args.dtype}
    found = labels.pseudo_label(predict, about, args.images, args.out, shard, progress)
    report(found.made, found.before, found.problems)


def report(made: int, before: int, problems: dict[str, str]) -> None:
    """Says what was done; exit status 1 where something could not be."""
    for name, why in problems.items():
        print(f"left out: {name}: {why}", file=sys.stderr)
    print(f"{made} made now, {before} before, {len(problems)} left out", file=sys.stderr)
    if problems:
        raise SystemExit(1)
