"""Relative inverse depth of single images with Depth Anything V2: larger is nearer, up to an unknown scale and shift.

bridgedepth depth --checkpoint depth_anything_v2_vits --image photo.jpg --out out
bridgedepth depth --checkpoint checkpoints/depth_anything_v2_vitl --image photos --out out --save disparity-npy

Files are named as those of `bridgedepth infer`: OUT/<name>_disparity.pfm holds the inverse depth, and so on.
"""

import argparse
import itertools
from pathlib import Path

from bridgedepth_jax.commands import options

KINDS = ("disparity", "disparity-npy", "disparity-png", "color")


def arguments(parser: argparse.ArgumentParser) -> None:
    from bridgedepth_jax.inference.depth import SHORTER_SIDE

    options.add_checkpoint(parser, "folder of convert, or a published name", required=True)
    parser.add_argument("--image", required=True, help="image, folder, or glob in quotes")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--save", default="disparity,color", help=f"any of {','.join(KINDS)}; default disparity,color")
    parser.add_argument("--size", type=int, default=SHORTER_SIDE, help="pixels of the shorter side as the network sees it")
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

    kinds = outputs.parse_kinds(args.save, KINDS)
    options.check_out(args.out)
    files = inputs.find_files(args.image)
    images = inputs.read_ahead((name, read_image(file)) for name, file in files.items())
    first = next(images)  # what is wrong with it shows before the weights are loaded
    predictor = DepthPredictor.load(args.checkpoint, dtype=args.dtype, devices=args.devices)
    for name, image in tqdm(
        itertools.chain([first], images), total=len(files), unit=" images", bar_format=options.BAR, disable=None
    ):
        depth = predictor(image, size=args.size)
        result = outputs.PredictedPair(name, image, Prediction(depth, np.ones_like(depth)))
        for path in outputs.save(args.out, result, kinds):
            tqdm.write(str(path))
