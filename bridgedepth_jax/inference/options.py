"""What the commands that make disparities have in common: camera options, checks of numbers, the progress bar."""

import argparse
import math
from pathlib import Path

from bridgedepth_jax.errors import InputError

BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
CAMERA = ("calib", "intrinsics", "focal", "baseline", "doffs")  # the arguments of `inference.run.calibrations`


def add_camera_options(parser: argparse.ArgumentParser) -> None:
    """What makes metres out of pixels, and --z-far."""
    parser.add_argument("--z-far", type=float, help="metres, points beyond are left out of the cloud")
    parser.add_argument("--calib", help="Middlebury calib.txt, or a folder or glob of them, paired by name like the images")
    parser.add_argument("--intrinsics", help="file with the nine numbers of K in line 1 and the baseline in metres in line 2")
    parser.add_argument("--focal", type=float, help="pixels; the principal point is the image's centre")
    parser.add_argument("--baseline", type=float, help="metres, with --focal")
    parser.add_argument("--doffs", type=float, help="pixels, with --focal: principal points, right minus left; default 0")


def check_options(args: argparse.Namespace) -> None:
    """Raises InputError for numbers that are not positive, and an --out that is a file, before anything is computed."""
    for option in ("scale", "max_disparity", "z_far", "focal", "baseline"):
        value = getattr(args, option, None)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"--{option.replace('_', '-')} {value}, expected a positive number")
    check_out(args.out)


def check_out(out: Path) -> None:
    """Raises InputError for an --out that is a file."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file, expected a folder")
