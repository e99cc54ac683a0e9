"""Depth of single images: relative inverse depth, larger is nearer, or metres where the network knows them; of a singlenet
checkpoint disparity in pixels of the image.

bridgedepth depth --checkpoint depth_anything_v2_metric_hypersim_vits --image photo.jpg --out out
bridgedepth depth --checkpoint depth_anything_v2_vits --image photo.jpg --out out
bridgedepth depth --checkpoint checkpoints/depth_anything_v2_vitl --image photos --out out --save disparity-npy

Files are named as those of `bridgedepth infer`: OUT/<name>_disparity.pfm holds the inverse depth, and so on. Of a metric
network OUT/<name>_depth.npy holds metres, too (by default), and the inverse depth is in 1/m.
"""

import argparse
import itertools
import sys
from pathlib import Path

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError

LEAST = 1e-3  # metres, that are inverted
KINDS = ("disparity", "disparity-npy", "disparity-png", "color", "metres")


def arguments(parser: argparse.ArgumentParser) -> None:
    from bridgedepth_jax.inference.depth import SHORTER_SIDE

    options.add_checkpoint(parser, "folder of convert, or a published name", required=True)
    parser.add_argument("--image", required=True, help="image, folder, or glob in quotes")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    words = f"any of {','.join(KINDS)}; default disparity,color, and metres of a metric network"
    parser.add_argument("--save", default="", help=words)
    parser.add_argument(
        "--size", type=int, help=f"pixels of the shorter side as Depth Anything V2 sees it; default {SHORTER_SIDE}"
    )
    options.add_dtype(parser)
    options.add_devices(parser, None)
    options.alias(parser, "--device", "--devices", type=options.devices)


def run(args: argparse.Namespace) -> None:
    import numpy as np
    from tqdm import tqdm

    from bridgedepth_jax.data.formats import read_image
    from bridgedepth_jax.inference import inputs, outputs
    from bridgedepth_jax.inference.depth import DepthPredictor
    from bridgedepth_jax.inference.stereo import Prediction

    kinds = outputs.parse_kinds(args.save or "disparity,color", KINDS)
    options.check_out(args.out)
    files = inputs.find_files(args.image)
    images = inputs.read_ahead((name, read_image(file)) for name, file in files.items())
    first = next(images)  # what is wrong with it shows before the weights are loaded
    predictor = DepthPredictor.load(args.checkpoint, dtype=args.dtype, devices=args.devices)
    print(f"{'metric' if predictor.metric else 'relative'} depth", file=sys.stderr)
    if "metres" in kinds and not predictor.metric:
        raise InputError(f"--save metres: {args.checkpoint} gives relative depth, expected a metric network")
    if predictor.metric and not args.save:
        kinds.append("metres")
    for name, image in tqdm(
        itertools.chain([first], images), total=len(files), unit=" images", bar_format=options.BAR, disable=None
    ):
        depth = predictor(image, size=args.size)
        inverse = 1 / np.maximum(depth, LEAST) if predictor.metric else depth
        result = outputs.PredictedPair(name, image, Prediction(inverse, np.ones_like(depth)))
        for path in outputs.save(args.out, result, [kind for kind in kinds if kind != "metres"]):
            tqdm.write(str(path))
        if "metres" in kinds:
            outputs.write_npy(args.out / f"{name}_depth.npy", depth)
            tqdm.write(str(args.out / f"{name}_depth.npy"))
