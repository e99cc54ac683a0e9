"""A first look: disparity, colour picture and point cloud of a real pair, by the default model, on the CPU.

bridgedepth demo
bridgedepth demo --left left.png --right right.png --calib calib.txt --checkpoint rvc --devices gpu

Without --left and --right: the pair "motorcycle" of scikit-image (extra `demo`), with its error and that of semi-global
matching. Images without any calibration get no point cloud. The first run compiles; later ones take the compilation from
the disk.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from bridgedepth_jax.inference.run import LoadedPair


def arguments(parser: argparse.ArgumentParser) -> None:
    options.add_left_right(parser, "image; default: the sample pair", "image of the right camera", required=False)
    options.add_checkpoint(parser)
    options.add_scale(parser)
    options.add_devices(parser, "cpu")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the results, default: out")
    options.add_camera(parser)


def run(args: argparse.Namespace) -> None:
    import numpy as np

    from bridgedepth_jax.data.formats import write_png
    from bridgedepth_jax.files import make_folder
    from bridgedepth_jax.inference import demo, outputs
    from bridgedepth_jax.inference.run import check_size, choose_scale
    from bridgedepth_jax.inference.stereo import Predictor

    options.check_positive(args)
    options.check_out(args.out)
    pair, truth = read_pair(args)
    predictor = Predictor.load(args.checkpoint, devices=args.devices)
    scale = args.scale or choose_scale(pair, predictor)
    check_size(pair, scale, predictor.minimum)
    make_folder(args.out, "--out")
    print("computing; the first time it compiles, for half a minute or so", file=sys.stderr)
    began = time.perf_counter()
    prediction = predictor(pair.left, pair.right, scale=scale)
    height, width = prediction.disparity.shape
    spent = time.perf_counter() - began
    print(f"{pair.name}, {width}x{height}: {spent:.1f} s, compilation included if there was one", file=sys.stderr)

    kinds = ["disparity", "color", "confidence"] + (["cloud"] if pair.calibration else [])
    limit = None if truth is None else float(np.nanmax(truth))  # one range for all pictures of a result
    result = outputs.PredictedPair(pair.name, pair.left, prediction, pair.calibration, limit, args.z_far)
    files = outputs.save(args.out, result, kinds)
    files.append(args.out / f"{pair.name}_overview.png")
    write_png(files[-1], demo.overview(pair.left, prediction.disparity, truth))
    for file in files:
        print(file)
    if truth is not None:
        print(f"{'':14}bad-2, %  EPE, px   (all pixels with ground truth)")
        for name, disparity in (("this model", prediction.disparity), ("SGBM, filled", demo.filled_sgbm(pair, truth))):
            found = demo.errors(disparity, truth)
            print(f"{name:14}{found.bad2:8.2f}{found.epe:9.2f}")


def read_pair(args: argparse.Namespace) -> "tuple[LoadedPair, np.ndarray | None]":
    """The pair of the command line, or the sample and its ground truth."""
    from bridgedepth_jax.data.formats import read_image
    from bridgedepth_jax.inference import demo, run

    camera = {name: getattr(args, name) for name in options.CAMERA}
    if args.left is None and args.right is None:
        given = [f"--{name}" for name, value in camera.items() if value is not None]
        if given:
            raise InputError(f"{given[0]} belongs to --left and --right, which are missing")
        return demo.motorcycle()
    if args.left is None or args.right is None:
        raise InputError("one of --left and --right is missing, expected both or neither")
    name = Path(args.left).stem
    calibrate = run.calibrations([name], **camera)
    images = read_image(args.left), read_image(args.right)
    return run.make_pair(name, *images, (args.left, args.right), scale=args.scale or 1.0, calibrate=calibrate), None
