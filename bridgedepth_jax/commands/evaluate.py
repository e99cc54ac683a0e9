"""Evaluates a checkpoint, or a baseline, on whole data sets by every protocol.

bridgedepth evaluate --checkpoint sf --config bridgedepth/zero_shot_evaluation --root data --out results
bridgedepth evaluate --method sgbm --datasets custom:my_pairs.csv --out results-sgbm
"""

import argparse
import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError

if TYPE_CHECKING:
    from bridgedepth_jax.evaluation.suite import Method
    from bridgedepth_jax.system import System

CONFIG = "bridgedepth/zero_shot_evaluation"
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
    options.add_root(parser, default=None, help="data directory; default: data.root of the config")
    parser.add_argument("--out", required=True, help="folder for results.json, results.md, images.csv, pictures/")
    parser.add_argument("--batch", type=int, default=8, help="images in flight, rounded up to the devices of a process")
    parser.add_argument("--fused", action="store_true", help="a batch as one program: faster on GPUs, last digits depend on it")
    parser.add_argument(
        "--bucket", type=int, help="pad sizes to multiples of this, by default the network's own; 64 compiles less, not exact"
    )
    parser.add_argument("--pictures", type=int, default=0, metavar="N", help="draw the N worst and N median images of each set")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N pairs of each set")
    options.add_dtype(parser)
    parser.add_argument("--threads", type=int, default=4, help="that read ahead")
    options.alias(parser, "--workers", "--threads", type=int)
    options.add_processes(parser)


def run(args: argparse.Namespace) -> None:
    import jax

    from bridgedepth_jax.evaluation.runner import Evaluator
    from bridgedepth_jax.evaluation.suite import Method, choose, evaluate, from_config, match_sgbm
    from bridgedepth_jax.inference.compiled import keep_compilations
    from bridgedepth_jax.processes import start_processes
    from bridgedepth_jax.training.configfile import read_config

    start_processes(args.coordinator, args.num_processes, args.process_id, args.cluster)
    keep_compilations()
    for name in ("pictures", "limit"):
        if getattr(args, name) < 0:
            raise InputError(f"--{name} {getattr(args, name)}, expected 0 or more")
    names = [name for name in (args.datasets or "").split(",") if name]
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


def load_method(checkpoint: str | None, dtype: str | None) -> "tuple[Method, System, Any]":
    """A checkpoint as something to evaluate, its system, and the config of its network."""
    from bridgedepth_jax.build import plain
    from bridgedepth_jax.convert.published import resolve
    from bridgedepth_jax.evaluation.suite import Method
    from bridgedepth_jax.inference.stereo import DEFAULT_MODEL
    from bridgedepth_jax.store.checkpoint import DIGESTS, load_checkpoint
    from bridgedepth_jax.system import find_system

    if checkpoint is None and not DEFAULT_MODEL.is_dir():
        raise InputError("no --checkpoint, expected a folder, a published name, or --method sgbm")
    folder = DEFAULT_MODEL if checkpoint is None else resolve(checkpoint)
    loaded = load_checkpoint(folder)
    system = find_system(loaded.kind)
    if system.estimate is None:
        raise InputError(f"checkpoint {folder} holds {loaded.kind}, expected bridgedepth or another system for pairs")
    model = loaded.config if dtype is None else dataclasses.replace(loaded.config, dtype=dtype)
    digest = hashlib.sha256((folder / DIGESTS).read_bytes()).hexdigest()
    identity = {"sha256": digest, "model": plain(model)}
    return Method(folder.resolve().name, identity, loaded.params), system, model


def report(result: dict, out: str) -> None:
    """A few lines of what the files in `out` say in full."""
    for name in ("padding", "batches"):
        print(f"{name}: {result['settings'][name]}")
    for name, entry in result["datasets"].items():
        means = entry["protocols"].get("paper", {})
        metrics = ["epe", *(f"bad-{t:g}" for t in entry["protocol"]["thresholds"]), "d1"]
        values = ", ".join(f"{m} {means[m]['images']:.3f}" for m in dict.fromkeys(metrics) if m in means)
        print(f"{name}: {values or 'no image could be evaluated'} ({entry['images']} images, {entry['protocol']['words']})")
        for image, problem in entry["problems"].items():
            print(f"  left out: {image}: {problem}")
    print(f"written to {out}: results.md, results.json, images.csv")
