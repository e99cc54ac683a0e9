"""What the commands have in common: how they read their arguments, and the options that several of them have.

An option that means the same has one name everywhere, and one explanation here. A former name is an alias without help.
"""

import argparse
import difflib
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from bridgedepth_jax.errors import InputError

BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
CAMERA = ("calib", "intrinsics", "focal", "baseline", "doffs")  # the arguments of `inference.run.calibrations`
CHECKPOINT = "folder of convert or of training, or a published name; default: the model of the package"
CONFIG = "a name such as bridgedepth/sf, or a file; ARG is given to its get_config"


class Help(argparse.RawDescriptionHelpFormatter):
    """The docstring as it is, and the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default, text = action.default, action.help
        unsaid = not text or default in (None, "", argparse.SUPPRESS) or isinstance(default, bool)
        if unsaid or default == [] or "default" in (text or ""):
            return text
        words = " ".join(map(str, default)) if isinstance(default, list) else default
        return f"{text}; default: {words}"


class Parser(argparse.ArgumentParser):
    """Options in full alone, so that a new one changes no command that works; what is wrong is one line, an InputError."""

    def __init__(self, **options) -> None:
        super().__init__(formatter_class=Help, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}{_nearest(message)}; {self.prog} --help explains")


def _nearest(message: str) -> str:
    """A guess at what was meant, if argparse complains of one of several choices."""
    found = re.search(r"invalid choice: (\S+) \(choose from (.*)\)", message)
    if found is None:
        return ""
    given, choices = found[1].strip("'"), [choice.strip("' ") for choice in found[2].split(",")]
    near = difflib.get_close_matches(given, choices, n=1)
    return f", did you mean {near[0]}?" if near else ""


def alias(parser: argparse.ArgumentParser, former: str, name: str, **options) -> None:
    """`former` still means the option `name`, unsaid by --help."""
    dest = name.removeprefix("--").replace("-", "_")
    parser.add_argument(former, dest=dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **options)


def add_checkpoint(parser: argparse.ArgumentParser, help: str = CHECKPOINT, **options) -> None:
    parser.add_argument("--checkpoint", help=help, **options)


def add_root(
    parser: argparse.ArgumentParser, *, default: str | None = "data", help: str = "data directory, default: data"
) -> None:
    parser.add_argument("--root", default=default, help=help)


def add_dtype(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the computation; default: the checkpoint's")


def add_devices(parser: argparse.ArgumentParser, default: str | int | None) -> None:
    words = "JAX's own choice" if default is None else default
    parser.add_argument(
        "--devices", type=devices, default=default, help=f"cpu, gpu, tpu, all, or a number of devices; default: {words}"
    )


def add_bucket(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bucket", type=int, help="pad sizes to multiples of this, by default the network's own; 64 compiles less, not exact"
    )


def add_checks(parser: argparse.ArgumentParser) -> None:
    """The arguments of `inference.run.Checks`."""
    parser.add_argument(
        "--check",
        default="warn",
        help="warn: say what is wrong with a pair, default; error: stop there; off: do not look",
    )
    parser.add_argument("--fix", action="store_true", help="undo in memory what --check finds, where that is safe")


def add_scale(parser: argparse.ArgumentParser, default: str = "1") -> None:
    """A number, or None for auto."""
    parser.add_argument(
        "--scale",
        type=scale,
        default=scale(default),
        help=f"the network sees images resized by this factor, results stay at the input size; auto: by size and disparities;"
        f" default: {default}",
    )


def add_left_right(parser: argparse.ArgumentParser, left: str, right: str, *, required: bool) -> None:
    parser.add_argument("--left", required=required, help=left)
    parser.add_argument("--right", required=required, help=right)


def add_camera(parser: argparse.ArgumentParser, *, cloud: bool = True) -> None:
    """What makes metres out of pixels, and --z-far for what makes a cloud."""
    if cloud:
        parser.add_argument("--z-far", type=float, help="metres, points beyond are left out of the cloud")
    parser.add_argument(
        "--calib", help="calibration (Middlebury, KITTI, ROS, OpenCV, ZED), or a folder or glob of them, paired by name"
    )
    parser.add_argument("--intrinsics", help="file with the nine numbers of K in line 1 and the baseline in metres in line 2")
    parser.add_argument("--focal", type=float, help="pixels; the principal point is the image's centre")
    parser.add_argument("--baseline", type=float, help="metres, with --focal")
    parser.add_argument("--doffs", type=float, help="pixels, with --focal: principal points, right minus left; default 0")


def add_processes(parser: argparse.ArgumentParser) -> None:
    """The arguments of `processes.start_processes`."""
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0; starts several processes by hand")
    parser.add_argument("--cluster", action="store_true", help="Slurm, Kubernetes, MPI or a TPU pod says which process this is")
    parser.add_argument("--num-processes", type=int, metavar="N", help="with --coordinator: how many")
    parser.add_argument("--process-id", type=int, metavar="I", help="with --coordinator: which of them this is, from 0")


def add_second_stage(parser: Any) -> None:
    """Some fields of `systems.stereodiff.config.RefineOptions`."""
    parser.add_argument("--window", type=int, default=110, help="frames of a window of the second stage; default 110")
    parser.add_argument("--overlap", type=int, default=25, help="frames that windows share; default 25")
    parser.add_argument("--share", action="store_true", help="windows begin with the latents of the one before (Table 4)")
    parser.add_argument("--steps", type=int, default=4, help="of the noise schedule; default 4")
    parser.add_argument("--first", type=int, default=2, help="step at which the first stage gets its noise; default 2")


def devices(text: str) -> str | int:
    """A number of devices, or a word that `Predictor` knows."""
    return int(text) if text.isdigit() else text


def scale(text: str) -> float | None:
    """A factor, or None for "auto"."""
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}, expected a number or auto") from None


def size(option: str, text: str, minimum: int = 1, form: str = "HEIGHTxWIDTH such as 288x512") -> tuple[int, int]:
    """Two numbers in the form that is named. InputError: it is none, or has a side below the minimum."""
    try:
        height, width = map(int, text.split("x"))
    except ValueError:
        raise InputError(f"{option} {text}, expected {form}") from None
    if min(height, width) < minimum:
        raise InputError(f"{option} {text}, expected sides of at least {minimum}")
    return height, width


def check_positive(args: argparse.Namespace) -> None:
    """Raises InputError for numbers of the options above that are not positive."""
    for option in ("scale", "max_disparity", "z_far", "focal", "baseline"):
        value = getattr(args, option, None)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"--{option.replace('_', '-')} {value}, expected a positive number")


def check_out(out: Path) -> None:
    """Raises InputError for an --out that is a file, before anything is computed."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file, expected a folder")
