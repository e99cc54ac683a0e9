"""Contact sheet of a data set: from left to right left, right, disparity, masks, warped error.

bridgedepth data preview synthetic --count 8 --out sheet.png
bridgedepth data preview kitti_2015_train --root data --out sheet.png
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError

if TYPE_CHECKING:
    from bridgedepth_jax.data.pairs import Sample


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="synthetic, or a data set's name")
    options.add_root(parser)
    parser.add_argument("--count", type=int, default=8, help="samples, evenly spread over a data set on disk")
    parser.add_argument("--start", type=int, default=0, help="first sample")
    parser.add_argument("--out", type=Path, default=Path("sheet.png"), help="picture to write, default: sheet.png")
    parser.add_argument("--width", type=int, default=320, help="of one picture on the sheet, pixels")
    parser.add_argument("--size", nargs="+", default=["256x512"], metavar="HEIGHTxWIDTH", help="synthetic only")
    parser.add_argument("--max-disparity", type=float, default=192.0, help="synthetic only")
    parser.add_argument("--seed", type=int, default=0, help="synthetic only")
    parser.add_argument("--photos", type=Path, help="synthetic only: a folder of photographs in place of the built-in ones")


def run(args: argparse.Namespace) -> None:
    import cv2

    from bridgedepth_jax.data.preview import contact_sheet
    from bridgedepth_jax.files import replacing

    if args.width < 1:
        raise InputError(f"--width {args.width}: expected at least 1")
    if not cv2.haveImageWriter(str(args.out)):
        raise InputError(f"--out {args.out}: no writer for this file type, expected .png or .jpg")
    sheet = contact_sheet(_samples(args), args.width)
    with replacing(args.out) as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    print(args.out)


def _samples(args: argparse.Namespace) -> "Iterator[Sample]":
    from bridgedepth_jax.data.pairs import find_pairs, read_sample
    from bridgedepth_jax.data.procedural import SyntheticStereo

    if args.count < 1:
        raise InputError(f"--count {args.count}: expected at least 1")
    if args.name == "synthetic":
        height, width = options.size("--size", "x".join(args.size))  # 256 512, as it was once written, is 256x512
        data = SyntheticStereo(height, width, max_disparity=args.max_disparity, seed=args.seed, photos=args.photos)
        yield from (data[args.start + i] for i in range(args.count))
        return
    pairs = find_pairs(args.name, args.root)
    if not 0 <= args.start < len(pairs):
        raise InputError(f"--start {args.start}: expected 0 to {len(pairs) - 1}, {args.name} has {len(pairs)} pairs")
    step = max(1, len(pairs) // args.count)
    yield from (read_sample(pair) for pair in pairs[args.start :: step][: args.count])
