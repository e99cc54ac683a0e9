"""Depth of a video, from a stereo video (metres, the model of the package), pairs of frames, single frames, or a file.

bridgedepth video --video left.mp4 --right right.mp4 --calib calib.txt --out out
bridgedepth video --video phone.mp4 --stage1 pairs --pairs monst3r --diffusion checkpoints/depthcrafter --out out
bridgedepth video --video phone.mp4 --stage1 file --depth other.npy --disparity --diffusion checkpoints/depthcrafter --out out
bridgedepth video --demo --out out

--video is a video or a folder of images. OUT gets depth.npy (frames, height, width), color.mp4, report.json, and poses.npy
with --stage1 pairs. A run that was interrupted goes on when it is called again. --diffusion names the model of the second
stage, which smooths flicker; without it there is none.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError

if TYPE_CHECKING:
    from bridgedepth_jax.systems.stereodiff.refine import VideoDiffusion
    from bridgedepth_jax.systems.stereodiff.sources import FirstStage, Video

STAGES = ("stereo", "pairs", "mono", "file")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--video", metavar="IN", help="video, or folder of images; of a stereo video the left view")
    parser.add_argument("--right", metavar="IN2", help="the right view of a stereo video")
    parser.add_argument("--stage1", choices=STAGES, help="where depth comes from; default: stereo with --right, else pairs")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--save", default="npy,color", help="any of npy,color,video16; default npy,color")
    options.add_checkpoint(parser, "of --stage1 stereo or mono; default: the model of the package for stereo")
    parser.add_argument("--pairs", metavar="CHECKPOINT", help="pair network of --stage1 pairs, or a published name: monst3r")
    parser.add_argument("--depth", metavar="FILE", type=Path, help=".npy of --stage1 file, (frames, height, width)")
    parser.add_argument("--disparity", action="store_true", help="the file of --depth holds disparity, not depth")
    parser.add_argument("--diffusion", metavar="CHECKPOINT", help="video diffusion model of the second stage")
    parser.add_argument("--no-stage2", action="store_true", help="the first stage alone, as without --diffusion")
    parser.add_argument(
        "--from-noise", action="store_true", help="the second stage begins with noise alone; the first gives the scale"
    )
    options.add_second_stage(parser)
    parser.add_argument("--seed", type=int, default=0, help="of all noise; default 0")
    parser.add_argument("--reach", type=int, default=2, help="pairs are up to so many frames apart; default 2")
    parser.add_argument("--pose", choices=("procrustes", "pnp"), default="procrustes", help="of frames that the tree leaves")
    parser.add_argument("--scale", type=float, default=1.0, help="stereo: the network sees frames resized by this factor")
    parser.add_argument("--batch", type=int, default=1, help="stereo: pairs in one pass")
    options.add_dtype(parser)
    options.add_devices(parser, 1)
    options.add_camera(parser, cloud=False)
    parser.add_argument("--demo", action="store_true", help="a held-out procedural stereo clip instead of --video")


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from bridgedepth_jax.files import make_folder
    from bridgedepth_jax.inference.outputs import parse_kinds
    from bridgedepth_jax.systems.stereodiff import run as runner
    from bridgedepth_jax.systems.stereodiff.sources import Video

    options.check_positive(args)
    options.check_out(args.out)
    saves = parse_kinds(args.save, runner.SAVES)
    if args.demo:
        _demo(args)
        return
    if args.video is None:
        raise InputError("--video is missing, expected a video or a folder of images, or --demo")
    if args.batch < 1 or args.reach < 1:
        raise InputError(f"--batch {args.batch} and --reach {args.reach}, expected at least 1")
    stage1 = args.stage1 or ("stereo" if args.right else "pairs")
    _check(args, stage1)
    refine_options = _refine_options(args)
    video = Video(args.video)
    make_source = _source(args, stage1, video)
    model = _diffusion(args)
    make_folder(args.out, "--out")
    bar: Any = None

    def progress(what: str, number: int, total: int) -> None:
        nonlocal bar
        if bar is None or bar.desc != f"{what}: ":
            if bar is not None:
                bar.close()
            bar = tqdm(total=total, desc=what, bar_format=f"{{desc}}{options.BAR}", unit="", disable=None)
        bar.update(number - bar.n)

    recipe = _recipe(args, stage1, video)
    report = runner.run(
        video,
        make_source,
        args.out,
        stage1=stage1,
        recipe=recipe,
        saves=saves,
        model=model,
        options=refine_options,
        progress=progress,
    )
    if bar is not None:
        bar.close()
    for line in summary(report):
        print(line)


def summary(report: Any) -> list[str]:
    """What the command says of a report."""
    lines = [f"{report.frames} frames of {report.width}x{report.height}, depth in {report.unit}, {report.seconds:.0f} s"]
    if report.resumed_at:
        lines.append(f"went on from frame {report.resumed_at}")
    counted = report.not_positive + report.not_finite
    if counted:
        lines.append(f"{counted} pixels of the first stage have no positive depth")
    if report.about.get("hidden_pixels"):
        lines.append(f"{report.about['hidden_pixels']} pixels lay behind their camera and became depth 1")
    if report.about.get("equal_confidences"):
        lines.append("all pairs have the same confidence: the tree of the fusion is one of many")
    if report.flicker is not None:
        after = f" after the second stage, {report.flicker_stage1:.4f} before" if report.stage2 else ""
        lines.append(f"flicker {report.flicker:.4f}{after} (mean relative deviation from the neighbours in time)")
    return lines


def _check(args: argparse.Namespace, stage1: str) -> None:
    """InputError: options that belong to another first stage, or are missing for this one."""
    needs = {"stereo": ("right",), "pairs": ("pairs",), "mono": ("checkpoint",), "file": ("depth",)}
    owners = {"right": "stereo", "pairs": "pairs", "depth": "file"}
    for name in needs[stage1]:
        if getattr(args, name) is None:
            raise InputError(f"--stage1 {stage1} needs --{name}")
    for name, owner in owners.items():
        if getattr(args, name) is not None and owner != stage1:
            raise InputError(f"--{name} belongs to --stage1 {owner}, not {stage1}")
    if args.no_stage2 and args.diffusion:
        raise InputError("--no-stage2 and --diffusion: expected one of them")
    if args.from_noise and not args.diffusion:
        raise InputError("--from-noise needs --diffusion")
    camera = [name for name in options.CAMERA if getattr(args, name) is not None]
    if stage1 == "stereo" and not camera:
        raise InputError("a stereo video without calibration, expected --calib, --intrinsics, or --focal and --baseline")


def _refine_options(args: argparse.Namespace) -> Any:
    from bridgedepth_jax.systems.stereodiff.config import RefineOptions

    fields = {"window": args.window, "overlap": args.overlap, "seed": args.seed}
    try:
        if args.from_noise:
            return RefineOptions.from_noise(**fields)
        return RefineOptions(share=args.share, steps=args.steps, first=args.first, **fields)
    except ValueError as error:
        raise InputError(f"--window, --overlap, --steps and --first: {error}") from None


def _source(args: argparse.Namespace, stage1: str, video: "Video") -> Any:
    """A function of the folder of a run that makes the first stage. What is wrong with files shows here."""
    from bridgedepth_jax.systems.stereodiff import sources

    if stage1 == "file":
        return lambda _: sources.FileSource(video, args.depth, "disparity" if args.disparity else "depth")
    if stage1 == "mono":
        from bridgedepth_jax.inference.depth import DepthPredictor

        mono = DepthPredictor.load(args.checkpoint, dtype=args.dtype, devices=args.devices)
        return lambda _: sources.MonoSource(video, mono)
    if stage1 == "pairs":
        return _pairs(args, video)
    from bridgedepth_jax.inference.run import calibrations
    from bridgedepth_jax.inference.stereo import Predictor

    calibrate = calibrations([video.name], **{name: getattr(args, name) for name in options.CAMERA})
    right = sources.Video(args.right)
    assert calibrate is not None

    def make(_: Path) -> "FirstStage":
        predictor = Predictor.load(args.checkpoint, dtype=args.dtype, devices=args.devices, check_order=False)
        return sources.StereoSource(video, right, calibrate, predictor, args.batch, args.scale)

    return make


def _pairs(args: argparse.Namespace, video: "Video") -> Any:
    from bridgedepth_jax.convert.published import load, of
    from bridgedepth_jax.systems.stereodiff import sources

    loaded = load(args.pairs, of("dust3r"))
    model = sources.PairModel(loaded.config, loaded.params)
    return lambda folder: sources.PairSource(video, model, folder, reach=args.reach, pose=args.pose)


def _diffusion(args: argparse.Namespace) -> "VideoDiffusion | None":
    if not args.diffusion:
        return None
    from bridgedepth_jax.store.checkpoint import load_checkpoint
    from bridgedepth_jax.systems.stereodiff.refine import VideoDiffusion

    loaded = load_checkpoint(args.diffusion)
    if loaded.kind != "depthcrafter":
        raise InputError(f"--diffusion {args.diffusion} holds {loaded.kind}, expected depthcrafter")
    return VideoDiffusion(loaded.config, loaded.params)


def _recipe(args: argparse.Namespace, stage1: str, video: "Video") -> dict[str, Any]:
    """What the result depends on."""
    names = ("right", "checkpoint", "pairs", "depth", "disparity", "diffusion", "window", "overlap", "share", "from_noise")
    names += ("seed", "reach", "pose", "scale", "dtype", *options.CAMERA)
    plain = {name: getattr(args, name) for name in names}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}
    return {"video": str(args.video), "frames": video.count, "stage1": stage1, **plain}


def _demo(args: argparse.Namespace) -> None:
    from bridgedepth_jax.systems.stereodiff import demo

    for line in demo.run(args.out, devices=args.devices, diffusion=_diffusion(args)):
        print(line)
