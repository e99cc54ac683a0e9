"""Depth of a stereo camera while it films, on a page in the browser: left image, disparity, metres under the mouse.

bridgedepth live --camera 0 --rig board_rectified/rig.yaml --scale 0.5
bridgedepth live --left 0 --right 1 --focal 700 --baseline 0.12
bridgedepth live --camera side_by_side.mp4 --loop

--camera is one device (its number) whose frames hold both images side by side, as ZED and many USB cameras give them; --left
and --right are two. A video file can stand in the place of a number. --rig is a calibration of cameras that are not rectified,
as `bridgedepth rectify` writes it. The first frame is checked like a pair of `bridgedepth infer`; what --fix undoes in it is
undone in all.
"""

import argparse
import sys
import threading

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    options.add_checkpoint(parser)
    parser.add_argument("--camera", help="number of a device, or a video, with both images side by side")
    options.add_left_right(parser, "number of the left camera, or a video", "the same for the right camera", required=False)
    parser.add_argument("--rig", help="calibration of the two cameras, by which frames are rectified first")
    parser.add_argument("--loop", action="store_true", help="begin a video again when it ends")
    options.add_scale(parser, "1")
    options.add_dtype(parser)
    options.add_devices(parser, 1)
    parser.add_argument("--max-disparity", type=float, help="pixels, the end of the colours; default: that of the first frame")
    options.add_checks(parser)
    options.add_camera(parser, cloud=False)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1, reached from here alone")
    parser.add_argument("--port", type=int, default=8081, help="default: 8081")


def run(args: argparse.Namespace) -> None:
    import dataclasses
    import itertools
    from pathlib import Path

    import numpy as np

    from bridgedepth_jax.commands.view import check_port
    from bridgedepth_jax.data.calibration import read_rig
    from bridgedepth_jax.inference import live
    from bridgedepth_jax.inference import run as pairs
    from bridgedepth_jax.inference.check import Picture, Repair
    from bridgedepth_jax.inference.stereo import Prediction, Predictor

    options.check_positive(args)
    if (args.camera is None) == (args.left is None and args.right is None) or (args.left is None) != (args.right is None):
        raise InputError("expected --camera, or --left and --right")
    check_port(args.host, args.port)
    checks = pairs.Checks(args.check, args.fix)
    calibrate = pairs.calibrations(["live"], **{name: getattr(args, name) for name in options.CAMERA})
    if args.rig and calibrate:
        raise InputError("--rig says what --calib, --intrinsics and --focal say, expected one of them")
    given = (args.camera, args.camera) if args.camera is not None else (args.left, args.right)
    files = str(given[0]), str(given[1])
    if args.camera is not None:
        frames = live.side_by_side(args.camera, loop=args.loop)
    else:
        frames = live.two_devices(*files, loop=args.loop)
    first = next(frames, None)  # what is wrong with it shows before the weights are loaded
    if first is None:
        raise InputError(f"{files[0]}: no frame")
    frames = itertools.chain([first], frames)
    if args.rig:
        size = first[0].shape[1], first[0].shape[0]
        rig = read_rig(Path(args.rig), size)
        if rig.size != size:
            raise InputError(
                f"--rig {args.rig} is of {rig.size[0]}x{rig.size[1]} images, but the camera gives {size[0]}x{size[1]}"
            )
        rectification = rig.rectification()
        frames = (rectification.apply(*pair) for pair in frames)
        calibrate = lambda *_: rectification.calibration
        first = rectification.apply(*first)
    pair = pairs.make_pair("live", *first, files, scale=args.scale or 1.0, calibrate=calibrate)
    left, right = (Picture(image) for image in first)
    verdict = checks(left, right, files, calibrated=False)
    pair, repair = pairs.mended(pair, left, right, verdict), verdict.repair
    if repair != Repair():
        frames = (repair.apply(Picture(left), Picture(right)) for left, right in frames)

    predictor = Predictor.load(args.checkpoint, dtype=args.dtype, devices=args.devices, check_order=False)
    scale = args.scale or pairs.choose_scale(pair, predictor)
    pairs.check_size(pair, scale, predictor.minimum)
    pairs.announce(predictor, pair, scale, None, 1, set(), automatic=args.scale is None)
    pairs.tell(pair)

    def predict(left: np.ndarray, right: np.ndarray) -> Prediction:
        found = predictor(left, right, scale=scale)
        return dataclasses.replace(found, disparity=repair.restore(found.disparity))

    shown = live.Live(
        frames,
        predict,
        lambda width, height: calibrate("live", width, height) if calibrate else None,
        args.max_disparity,
    )
    server = live.Server(shown, args.host, args.port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://{args.host}:{args.port}/", flush=True)
    print("Ctrl-C ends it", file=sys.stderr)
    try:
        count = shown.run()
    except KeyboardInterrupt:
        count = shown.newest.number if shown.newest else 0
    finally:
        shown.stop()
        server.shutdown()
        server.server_close()
    print(f"{count} pairs, {shown.newest.rate if shown.newest else 0:.1f} a second", file=sys.stderr)
