"""Writes a submission to a benchmark: python scripts/submit.py kitti_2015 --checkpoint C --root DATA --out submission/

The tree as the benchmark wants it, run times of single images without compilation, checked by reading it back, and zipped.
"""

import argparse
import statistics

from bridgedepth_jax.errors import command
from bridgedepth_jax.evaluation.submissions import BENCHMARKS, submit
from bridgedepth_jax.inference.stereo import Predictor


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=sorted(BENCHMARKS))
    parser.add_argument(
        "--checkpoint", help="folder of convert or of training, or a published name; default: the packaged model"
    )
    parser.add_argument("--root", default="data", help="data directory")
    parser.add_argument("--out", required=True)
    parser.add_argument("--method-name", default="BridgeDepth", help="in Middlebury's file names")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the computation; default: the checkpoint's")
    args = parser.parse_args()
    predictor = Predictor.load(args.checkpoint, dtype=args.dtype, check_order=False)

    def predict(left, right):
        return predictor(left, right).disparity

    done = submit(args.benchmark, predict, args.root, args.out, method=args.method_name, progress=True)
    for folder in done.missing:
        print(f"without the training scenes: there is no {folder}")
    mean = statistics.mean(done.seconds)
    print(f"{len(done.seconds)} pairs, {mean:.3f} s a pair on average (one at a time, without compilation), checked")
    print(f"upload {done.archive}")


if __name__ == "__main__":
    main()
