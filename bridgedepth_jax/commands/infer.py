"""Disparity, depth and point clouds of stereo pairs: files, folders, globs, or two videos.

bridgedepth infer --left left.png --right right.png --out out
bridgedepth infer --checkpoint rvc_pretrain --left 'scenes/*/im0.png' --right 'scenes/*/im1.png' \\
    --calib 'scenes/*/calib.txt' --out out --save disparity,color,depth,cloud --z-far 10
bridgedepth infer --checkpoint rvc_pretrain --left left.mp4 --right right.mp4 --out out --max-disparity 128

Files are named OUT/<name>_disparity.pfm and so on; <name> is the left file's, or what stands for the wildcards of a glob.
"""

import argparse
import itertools
import sys
from pathlib import Path

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    from bridgedepth_jax.inference.outputs import OUTPUTS

    options.add_checkpoint(parser)
    options.add_left_right(
        parser, "image, folder, glob in quotes, or video", "the same for the right camera; paired by name", required=True
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--save", help=f"any of {','.join(OUTPUTS)}; default disparity,color (videos: color)")
    options.add_scale(parser)
    parser.add_argument(
        "--tiles", metavar="HEIGHTxWIDTH", help="see images in overlapping tiles: for those beyond memory; 768x1024"
    )
    parser.add_argument("--batch", type=int, default=1, help="pairs of equal size in one pass; default: 1")
    options.add_bucket(parser)
    options.add_dtype(parser)
    options.add_devices(parser, 1)
    parser.add_argument("--max-disparity", type=float, help="pixels, the end of the colours; default: per image, one per video")
    options.add_checks(parser)
    options.add_camera(parser)


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from bridgedepth_jax.files import make_folder
    from bridgedepth_jax.inference import inputs, outputs, recording, run, video
    from bridgedepth_jax.inference.stereo import Predictor

    is_video = video.is_video(args.left)
    if is_video != video.is_video(args.right):
        raise InputError(f"--left {args.left} and --right {args.right}: one is a video, expected two or none")
    if args.batch < 1:
        raise InputError(f"--batch {args.batch}, expected at least 1")
    options.check_positive(args)
    options.check_out(args.out)
    tiles = options.size("--tiles", args.tiles, 256) if args.tiles else None
    kinds = outputs.parse_kinds(args.save or ("color" if is_video else "disparity,color"), tuple(outputs.OUTPUTS))
    if "recording" in kinds:
        recording.require()
    files = [] if is_video else inputs.pair_files(args.left, args.right)
    names = [Path(args.left).stem] if is_video else [pair.name for pair in files]
    calibrate = run.calibrations(names, **{name: getattr(args, name) for name in options.CAMERA})
    needing = [kind for kind in kinds if outputs.OUTPUTS[kind].needs_calibration]
    if needing and calibrate is None:
        raise InputError(f"--save {','.join(needing)}: needs --calib, --intrinsics, or --focal and --baseline")
    checks = run.Checks(args.check, args.fix)
    if is_video:
        fps, total = video.check_together(args.left, args.right)
        source = run.video_pairs(args.left, args.right, scale=args.scale or 1.0, calibrate=calibrate, checks=checks)
    else:
        total = len(files)
        source = run.image_pairs(files, scale=args.scale or 1.0, calibrate=calibrate, checks=checks)
    ahead = inputs.read_ahead(source, 2 * args.batch)
    first = next(ahead)  # what is wrong with it shows before the weights are loaded
    unused = [f"--{name}" for name in options.CAMERA if getattr(args, name) is not None] if not needing else []
    if args.z_far is not None and not {"cloud", "recording"} & set(kinds):
        unused.append("--z-far")
    if unused:
        words = f"note: {', '.join(unused)} changes nothing of --save {','.join(kinds)}"
        print(f"{words}: depth is in metres, and cloud ends at --z-far", file=sys.stderr)

    settings = dict(dtype=args.dtype, devices=args.devices, bucket=args.bucket)
    predictor = Predictor.load(args.checkpoint, check_order=False, **settings)
    run.check_size(first, args.scale or 1.0, predictor.minimum)
    make_folder(args.out, "--out")
    consistency = any(outputs.OUTPUTS[kind].needs_occlusion for kind in kinds)
    print("computing; the first time it compiles, for half a minute or so", file=sys.stderr)
    source = itertools.chain([first], ahead)
    settings = dict(batch=args.batch, scale=args.scale, consistency=consistency, tiles=tiles)
    predicted = run.predict(predictor, source, **settings)
    results = (
        outputs.PredictedPair(pair.name, pair.left, prediction, pair.calibration, args.max_disparity, args.z_far)
        for pair, prediction in tqdm(predicted, total=total or None, unit=" pairs", bar_format=options.BAR, disable=None)
    )
    if is_video:
        run.write_video(args.out, results, kinds, names[0], fps)
    else:
        run.write_images(args.out, results, kinds)
