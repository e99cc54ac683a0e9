"""Evaluates a checkpoint, or a baseline, on whole data sets by every protocol.

bridgedepth evaluate --checkpoint sf --config bridgedepth/zero_shot_evaluation --root data --out results
bridgedepth evaluate --checkpoint depth_anything_v2_vits --datasets nyuv2,kitti_eigen,da2k --out results-depth
bridgedepth evaluate --checkpoint sf --datasets kitti_eigen --out results-metres     # of pairs, beside networks of one view
bridgedepth evaluate --method sgbm --datasets custom:my_pairs.csv --out results-sgbm
bridgedepth evaluate --protocol eigen --checkpoint runs/mono/export --post-process --root data --out results-eigen
bridgedepth evaluate --protocol kitti_2015_depth --checkpoint runs/stereo/export --fuse runs/mono/export --out results-fused
bridgedepth evaluate --video clips --limit 20 --out results-video        # depth of videos: what --video's other options say
"""

import argparse
import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError

if TYPE_CHECKING:
    from bridgedepth_jax.evaluation.suite import Method
    from bridgedepth_jax.system import System

CONFIG = "bridgedepth/zero_shot_evaluation"
DEPTH = ("eigen", "eigen_improved", "kitti_2015_depth")
SIZE = (320, 1024)  # of images that networks without a size of their own see, with --protocol
SGBM_MULTIPLE = 16  # pixels, to which images are padded where no network says: fewer compilations of what measures


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", choices=("network", "sgbm"), default="network", help="sgbm: OpenCV's, filled and raw")
    options.add_checkpoint(parser)
    parser.add_argument(
        "--config",
        metavar="CONFIG[:ARG]",
        help=f"{options.CONFIG}; its eval.datasets and data.root are used; default: {CONFIG}, unless --datasets are given",
    )
    parser.add_argument("--datasets", help="names, separated by commas, also custom:FILE.csv; default: those of the config")
    parser.add_argument("--protocol", choices=DEPTH, help="metric depth on KITTI instead, of stereo and monocular networks")
    parser.add_argument("--post-process", action="store_true", help="with --protocol: one image and its mirror, averaged")
    parser.add_argument("--fuse", metavar="MONO", help="with --protocol: a monocular network where one camera alone sees")
    parser.add_argument("--size", metavar="HEIGHTxWIDTH", help="with --protocol: what networks see, default 320x1024")
    parser.add_argument("--calibrated", action="store_true", help="with --protocol: KITTI's own focal length and baseline")
    parser.add_argument("--drives", help="with --protocol: some drives alone, separated by commas")
    options.add_root(parser, default=None, help="data directory; default: data.root of the config")
    parser.add_argument("--out", required=True, help="folder for results.json, results.md, images.csv, pictures/")
    parser.add_argument("--batch", type=int, default=8, help="images in flight, rounded up to the devices of a process")
    parser.add_argument("--fused", action="store_true", help="a batch as one program: faster on GPUs, last digits depend on it")
    options.add_bucket(parser)
    parser.add_argument("--list", type=Path, metavar="FILE", help="depth of single images: only those it names, one a line")
    parser.add_argument("--count", type=int, default=0, metavar="N", help="depth of single images: N evenly spaced ones")
    parser.add_argument("--pictures", type=int, default=0, metavar="N", help="draw the N worst and N median images of each set")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N pairs of each set")
    options.add_dtype(parser)
    parser.add_argument("--threads", type=int, default=4, help="that read ahead")
    options.alias(parser, "--workers", "--threads", type=int)
    options.add_processes(parser)
    video = parser.add_argument_group("depth of videos")
    video.add_argument(
        "--video", metavar="SET", help="clips, clips-hazy, bonn, bonn-depthcrafter, kitti, scannet, sintel or sintel-clean"
    )
    video.add_argument("--predictions", metavar="FOLDER", help="of NAME.npy (frames, height, width) of any method")
    video.add_argument("--disparity", action="store_true", help="--predictions are disparity, not depth")
    video.add_argument("--pairs", metavar="CHECKPOINT", help="pair network: pairs of frames, fused")
    video.add_argument("--diffusion", metavar="CHECKPOINT", help="second stage: from noise, and after each first stage")
    options.add_second_stage(video)
    video.add_argument("--baselines", action="store_true", help="also one depth for all, and smoothed first stages")
    video.add_argument("--ablation", action="store_true", help="also sharing, other schedules, parts switched off")


def run(args: argparse.Namespace) -> None:
    if args.video:
        from bridgedepth_jax.commands import evaluate_video

        evaluate_video.run(args)
        return
    import jax

    from bridgedepth_jax.data.mono import EVALUATION
    from bridgedepth_jax.evaluation.mono_suite import SETS as MONO_SETS
    from bridgedepth_jax.evaluation.runner import Evaluator
    from bridgedepth_jax.evaluation.suite import Method, choose, evaluate, from_config, match_sgbm
    from bridgedepth_jax.inference.compiled import keep_compilations
    from bridgedepth_jax.processes import start_processes
    from bridgedepth_jax.training.configfile import read_config

    start_processes(args.coordinator, args.num_processes, args.process_id, args.cluster)
    keep_compilations()
    for name in ("pictures", "limit", "count"):
        if getattr(args, name) < 0:
            raise InputError(f"--{name} {getattr(args, name)}, expected 0 or more")
    if args.protocol:
        evaluate_depth(args)
        return
    for name in ("post_process", "fuse", "size", "calibrated", "drives"):
        if getattr(args, name):
            raise InputError(f"--{name.replace('_', '-')} without --protocol, expected one of {', '.join(DEPTH)}")
    names = [name for name in (args.datasets or "").split(",") if name]
    if names and all(name in MONO_SETS for name in names) and args.method == "network":
        one_view = single(args.checkpoint)
        if one_view or any(name in EVALUATION or name == "da2k" for name in names):
            evaluate_single(args, names, pairs=not one_view)
            return
    if args.list is not None or args.count:
        raise InputError(f"--list and --count are for depth of single images, expected --datasets of {', '.join(MONO_SETS)}")
    protocols, root = from_config(read_config(args.config or CONFIG)) if args.config or not names else ([], "data")
    if names:
        protocols = choose(protocols, names)
    settings = dict(batch=args.batch, fused=args.fused, bucket=args.bucket, workers=args.threads)
    if args.method == "sgbm":
        method, evaluator = (
            Method("SGBM (OpenCV)", {"search": "up to the pair's largest disparity"}),
            Evaluator(match=match_sgbm, multiple=SGBM_MULTIPLE, **settings),
        )
    else:
        method, system, model = load_method(args.checkpoint, args.dtype)
        assert system.estimate is not None  # checked there
        evaluator = Evaluator(system.estimate(model), multiple=system.multiple, minimum=system.minimum, **settings)
    result = evaluate(evaluator, method, protocols, args.root or root, args.out, pictures=args.pictures, limit=args.limit)
    if jax.process_index() == 0:
        report(result, args.out)
    if any(not entry["images"] for entry in result["datasets"].values()):
        raise SystemExit(1)


def evaluate_depth(args: argparse.Namespace) -> None:
    """The protocols of depth."""
    import jax

    from bridgedepth_jax.evaluation import depth_suite
    from bridgedepth_jax.evaluation.suite import Method
    from bridgedepth_jax.system import Teacher
    from bridgedepth_jax.systems.reciprocal import stages

    for name, given in (("method", args.method != "network"), ("datasets", args.datasets), ("config", args.config)):
        if given:
            raise InputError(f"--{name} with --protocol, expected a --checkpoint alone")
    method, system, model = load_method(args.checkpoint, args.dtype)
    if args.post_process and args.fuse:
        raise InputError("--post-process and --fuse, expected one of them")
    assert system.estimate is not None
    estimate: Any = system.estimate(model)
    if args.post_process:
        estimate = stages.post_processed_estimate(Teacher(system.name, model))
        method = Method(f"{method.name}, post-processed", {**method.identity, "post_process": True}, method.params)
    if args.fuse:
        other, mono, mono_model = load_method(args.fuse, args.dtype, pairs=False)
        estimate = stages.fused_estimate(Teacher(system.name, model), Teacher(mono.name, mono_model))
        identity = {**method.identity, "fused_with": dict(other.identity)}
        method = Method(f"{method.name} fused with {other.name}", identity, {"stereo": method.params, "mono": other.params})
    size = options.size("--size", args.size) if args.size else getattr(model, "size", SIZE)
    if not isinstance(size, tuple) or any(side % system.multiple for side in size):
        raise InputError(f"--size {args.size}, expected multiples of {system.multiple}")
    drives = tuple(name for name in (args.drives or "").split(",") if name)
    result = depth_suite.evaluate_depth(
        estimate, method, args.protocol, args.root or "data", args.out,
        size=size, batch=args.batch, drives=drives, calibrated=args.calibrated, limit=args.limit, pictures=args.pictures,
        workers=args.threads,
    )  # fmt: skip
    if jax.process_index() == 0:
        print(depth_suite.markdown(result, depth_suite.PROTOCOLS[args.protocol].metrics))
    if not result["images"]:
        raise SystemExit(1)


def single(checkpoint: str | None) -> bool:
    """Whether a checkpoint is of a network that looks at one image."""
    from bridgedepth_jax.convert.published import resolve
    from bridgedepth_jax.store.checkpoint import read_kind
    from bridgedepth_jax.system import find_system

    if checkpoint is None:
        return False
    return find_system(read_kind(resolve(checkpoint))).depth is not None


def evaluate_single(args: argparse.Namespace, names: list[str], *, pairs: bool) -> None:
    """Depth of single images, relative or metric as the network gives it; of a network of pairs its metres, where the set has
    the other view."""
    from bridgedepth_jax.build import plain
    from bridgedepth_jax.convert.published import resolve
    from bridgedepth_jax.evaluation import mono_suite
    from bridgedepth_jax.inference.depth import load_single
    from bridgedepth_jax.inference.stereo import DEFAULT_MODEL, Predictor
    from bridgedepth_jax.store.checkpoint import DIGESTS

    folder = DEFAULT_MODEL if args.checkpoint is None else resolve(args.checkpoint)
    if pairs:
        stereo = Predictor.load(folder, dtype=args.dtype, check_order=False)
        predict, metric, config = (lambda left, right: stereo(left, right).disparity), True, stereo.config
    else:
        predict, metric, config = load_single(folder, dtype=args.dtype)
    identity = {"sha256": hashlib.sha256((folder / DIGESTS).read_bytes()).hexdigest(), "model": plain(config)}
    method = mono_suite.MonoMethod(folder.resolve().name, identity, predict, metric, pairs)
    choice = mono_suite.Choice(args.list, args.count, args.limit)
    result = mono_suite.evaluate_mono(method, names, Path(args.root or "data"), Path(args.out), choice, pictures=args.pictures)
    for name, entry in result["datasets"].items():
        shown = ", ".join(f"{key} {value:.4f}" for key, value in entry["means"].items())
        print(f"{name}: {shown or 'no image could be evaluated'} ({entry['images']} images, {entry['protocol']['words']})")
        for image, problem in entry["problems"].items():
            print(f"left out: {image}: {problem}", file=sys.stderr)
    print_files(Path(args.out))
    if any(not entry["images"] for entry in result["datasets"].values()):
        raise SystemExit(1)


def load_method(checkpoint: str | None, dtype: str | None, *, pairs: bool = True) -> "tuple[Method, System, Any]":
    """A checkpoint as something to evaluate, its system, and the config of its network; with `pairs`, one that estimates."""
    from bridgedepth_jax.build import plain
    from bridgedepth_jax.convert.published import ANY, OF_PAIRS, load, resolve
    from bridgedepth_jax.evaluation.suite import Method
    from bridgedepth_jax.inference.stereo import DEFAULT_MODEL
    from bridgedepth_jax.store.checkpoint import DIGESTS
    from bridgedepth_jax.system import find_system

    if checkpoint is None and not DEFAULT_MODEL.is_dir():
        raise InputError("no --checkpoint, expected a folder, a published name, or --method sgbm")
    wanted = OF_PAIRS if pairs else ANY
    folder = DEFAULT_MODEL if checkpoint is None else resolve(checkpoint, wanted)
    loaded = load(folder, wanted)
    system = find_system(loaded.kind)
    model = loaded.config
    if dtype is not None:
        if not hasattr(model, "dtype"):
            raise InputError(f"--dtype {dtype}: {loaded.kind} computes in the dtype of its weights, float32; expected none")
        model = dataclasses.replace(model, dtype=dtype)
    digest = hashlib.sha256((folder / DIGESTS).read_bytes()).hexdigest()
    identity = {"sha256": digest, "model": plain(model)}
    return Method(folder.resolve().name, identity, loaded.params), system, model


def report(result: dict, out: str) -> None:
    """A few lines of what the files in `out` say in full, and the files; on stderr how it was computed and what is left out."""
    for name in ("padding", "batches"):
        print(f"{name}: {result['settings'][name]}", file=sys.stderr)
    for name, entry in result["datasets"].items():
        means = entry["protocols"].get("paper", {})
        metrics = ["epe", *(f"bad-{t:g}" for t in entry["protocol"]["thresholds"]), "d1"]
        values = ", ".join(f"{m} {means[m]['images']:.3f}" for m in dict.fromkeys(metrics) if m in means)
        print(f"{name}: {values or 'no image could be evaluated'} ({entry['images']} images, {entry['protocol']['words']})")
        for image, problem in entry["problems"].items():
            print(f"left out: {image}: {problem}", file=sys.stderr)
    print_files(Path(out))


def print_files(out: Path, rows: str = "images.csv") -> None:
    """What is written in `out`, a path a line."""
    for name in ("results.md", "results.json", rows):
        print(out / name)
