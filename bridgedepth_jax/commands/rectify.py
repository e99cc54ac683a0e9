"""Rectified pairs of your own two cameras: from pictures of a board, or from a calibration that exists.

bridgedepth rectify --left 'board/left_*.png' --right 'board/right_*.png' --board 9x6 --square 0.025 --out board_rectified
bridgedepth rectify --left 'board/left_*.png' --right 'board/right_*.png' --board 11x8 --square 0.02 --marker 0.015 --out out
bridgedepth rectify --calib board_rectified/rig.yaml --left photos/left --right photos/right --out rectified

Writes OUT/left, OUT/right (PNG) and OUT/calib.txt, which `bridgedepth infer --calib` reads; from a board also OUT/rig.yaml, the
calibration itself. Fifteen pictures or more that fill the images and tilt the board in all directions are a good start.
--calib reads OpenCV (YAML, JSON, XML), ROS (camera_info of left and right), KITTI (calib_cam_to_cam.txt) and ZED (conf).
"""

import argparse
from pathlib import Path

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    options.add_left_right(
        parser, "image, folder, or glob in quotes", "the same for the right camera; paired by name", required=True
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--calib", type=Path, help="calibration of the two cameras; without it: --board and --square")
    parser.add_argument(
        "--board", metavar="COLUMNSxROWS", help="inner corners of a chessboard; with --marker squares of a ChArUco board"
    )
    parser.add_argument("--square", type=float, help="metres, side of a square of the board")
    parser.add_argument("--marker", type=float, help="metres, side of a marker of a ChArUco board; default: a chessboard")
    parser.add_argument(
        "--dictionary", default="DICT_4X4_50", help="of the markers, as OpenCV names them; default: DICT_4X4_50"
    )
    parser.add_argument("--crop", type=float, default=0.0, help="0: only pixels that were seen; 1: all, with black")


def run(args: argparse.Namespace) -> None:
    from bridgedepth_jax.data.calibration import read_rig
    from bridgedepth_jax.data.formats import read_image, write_png
    from bridgedepth_jax.data.rig import write_middlebury
    from bridgedepth_jax.files import make_folder
    from bridgedepth_jax.inference import inputs

    if (args.calib is None) == (args.board is None):
        raise InputError("expected either --calib, or --board and --square")
    if not 0 <= args.crop <= 1:
        raise InputError(f"--crop {args.crop}, expected 0..1")
    options.check_out(args.out)
    pairs = inputs.pair_files(args.left, args.right)
    own = {path.parent.resolve() for pair in pairs for path in (pair.left, pair.right)}
    for side in ("left", "right"):
        if (args.out / side).resolve() in own:
            raise InputError(f"--out {args.out}: {args.out / side} holds images that were given, expected another folder")
    first = read_image(pairs[0].left)
    size = first.shape[1], first.shape[0]
    rig = read_rig(args.calib, size) if args.calib else _calibrate(args, pairs)
    if rig.size != size:
        given = "x".join(map(str, rig.size))
        raise InputError(f"{pairs[0].left} has {size[0]}x{size[1]} pixels, but the calibration is of {given}")
    rectification = rig.rectification(args.crop)
    make_folder(args.out, "--out")
    if not args.calib:
        rig.write(args.out / "rig.yaml")
        print(args.out / "rig.yaml")
    write_middlebury(args.out / "calib.txt", rectification.calibration)
    print(args.out / "calib.txt")
    for pair in pairs:
        images = read_image(pair.left), read_image(pair.right)
        for path, image in zip((pair.left, pair.right), images, strict=True):
            if image.shape[1::-1] != size:
                raise InputError(
                    f"{path} has {image.shape[1]}x{image.shape[0]} pixels, but the calibration is of {size[0]}x{size[1]}"
                )
        for side, image in zip(("left", "right"), rectification.apply(*images), strict=True):
            write_png(args.out / side / f"{pair.name}.png", image)
            print(args.out / side / f"{pair.name}.png")


def _calibrate(args: argparse.Namespace, pairs):
    """The rig that the pictures of the board show; says how well on stderr."""
    import sys

    import cv2

    from bridgedepth_jax.data.formats import read_image
    from bridgedepth_jax.data.rig import Board, calibrate

    columns, rows = options.size("--board", args.board, 3, "COLUMNSxROWS of inner corners such as 9x6")
    if args.square is None or not args.square > 0 or (args.marker is not None and not 0 < args.marker < args.square):
        raise InputError(f"--square {args.square}, --marker {args.marker}: expected metres, the marker smaller than its square")
    if args.square > 1:
        raise InputError(f"--square {args.square:g}, expected metres: {args.square:g} mm are {args.square / 1000:g}")
    board = Board(columns, rows, args.square, args.marker, args.dictionary)
    pictures = []
    for pair in pairs:
        images = [cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY) for path in (pair.left, pair.right)]
        if images[0].shape != images[1].shape or (pictures and images[0].shape != pictures[0][0].shape):
            raise InputError(f"{pair.left}, {pair.right}: other sizes than the pictures before, expected one size")
        pictures.append((images[0], images[1]))
    found = calibrate([pair.name for pair in pairs], pictures, board)
    print(f"{len(found.used)} of {len(pairs)} pairs, reprojection error {found.error:.2f} px", file=sys.stderr)
    for words, names in (
        ("the board is not seen by both cameras", found.unseen),
        ("fit much worse and are left out", found.weak),
    ):
        if names:
            print(f"{words}: {', '.join(names)}", file=sys.stderr)
    if found.error > 1:
        print(
            "an error above 1 px: check --board and --square, that the board is flat, and that nothing moved", file=sys.stderr
        )
    return found.rig
