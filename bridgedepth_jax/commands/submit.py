"""Writes a submission to a benchmark.

bridgedepth submit kitti_2015 --checkpoint kitti --root data --out submission

The tree as the benchmark wants it, run times of single images without compilation, checked by reading it back, and zipped.
"""

import argparse
import statistics
import sys

from bridgedepth_jax.commands import options


def arguments(parser: argparse.ArgumentParser) -> None:
    from bridgedepth_jax.evaluation.submissions import BENCHMARKS

    parser.add_argument("benchmark", choices=sorted(BENCHMARKS), help="whose tree is written")
    options.add_checkpoint(parser)
    options.add_root(parser)
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--method-name", default="BridgeDepth", help="in Middlebury's file names")
    options.add_dtype(parser)


def run(args: argparse.Namespace) -> None:
    from bridgedepth_jax.evaluation.submissions import submit
    from bridgedepth_jax.inference.stereo import Predictor

    predictor = Predictor.load(args.checkpoint, dtype=args.dtype, check_order=False)

    def predict(left, right):
        return predictor(left, right).disparity

    done = submit(args.benchmark, predict, args.root, args.out, method=args.method_name, progress=True)
    for folder in done.missing:
        print(f"without the training scenes: there is no {folder}", file=sys.stderr)
    mean = statistics.mean(done.seconds)
    words = f"{len(done.seconds)} pairs, {mean:.3f} s a pair on average (one at a time, without compilation), checked"
    print(f"{words}; this file is what the benchmark takes:", file=sys.stderr)
    print(done.archive)
