"""Relative inverse depth of single images with Depth Anything V2: larger is nearer, up to an unknown scale and shift.

python scripts/depth_anything.py --checkpoint depth_anything_v2_vits --image photo.jpg --out out
python scripts/depth_anything.py --checkpoint checkpoints/depth_anything_v2_vitl --image photos --out out --save disparity-npy

Files are named as those of scripts/infer.py: OUT/<name>_disparity.pfm holds the inverse depth, and so on.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bridgedepth_jax.data.formats import read_image
from bridgedepth_jax.errors import command
from bridgedepth_jax.inference import inputs, outputs
from bridgedepth_jax.inference.depth import SHORTER_SIDE, DepthPredictor
from bridgedepth_jax.inference.options import BAR, check_out
from bridgedepth_jax.inference.stereo import Prediction

KINDS = ("disparity", "disparity-npy", "disparity-png", "color")


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="folder written by `python -m convert`, or a published name")
    parser.add_argument("--image", required=True, help="image, folder, or glob in quotes")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--save", default="disparity,color", help=f"any of {','.join(KINDS)}; default disparity,color")
    parser.add_argument("--size", type=int, default=SHORTER_SIDE, help="pixels of the shorter side as the network sees it")
    parser.add_argument("--dtype", help="float32 or bfloat16; default float32")
    parser.add_argument("--device", help="cpu, gpu or tpu; default: JAX's own choice")
    args = parser.parse_args(argv)

    kinds = outputs.parse_kinds(args.save, KINDS)
    check_out(args.out)
    files = inputs.find_files(args.image)
    images = inputs.read_ahead((name, read_image(file)) for name, file in files.items())
    first = next(images)  # what is wrong with it shows before the weights are loaded
    predictor = DepthPredictor.load(args.checkpoint, dtype=args.dtype, devices=args.device)
    for name, image in tqdm(itertools.chain([first], images), total=len(files), unit=" images", bar_format=BAR):
        depth = predictor(image, size=args.size)
        result = outputs.Result(name, image, Prediction(depth, np.ones_like(depth)))
        for path in outputs.save(args.out, result, kinds):
            tqdm.write(str(path))


if __name__ == "__main__":
    main()
