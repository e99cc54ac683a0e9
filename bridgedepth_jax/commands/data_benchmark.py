"""Training samples per second and core.

bridgedepth data benchmark
bridgedepth data benchmark --dataset things --root data

Three kinds, each in this process alone (0 workers) and with 1 and 2 worker processes: 960x540 PNG pairs with PFM to 368x784
crops with full augmentation, the same packed, and `synthetic` at 256x512. The pairs are rendered for the occasion (as PNG they
are about as large as those of Scene Flow), or are those of a data set of yours.
"""

import argparse
import tempfile
from pathlib import Path

from bridgedepth_jax.commands import options


def arguments(parser: argparse.ArgumentParser) -> None:
    from bridgedepth_jax.data.speed import KINDS

    parser.add_argument("--dataset", default="things", help="for the PNG and the packed kind; default: things")
    options.alias(parser, "--name", "--dataset")
    options.add_root(parser, default=None, help="data directory; default: pairs are rendered into a temporary folder")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS, help="of data, see above")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2], help="processes that read, default: 0 1 2")
    parser.add_argument("--threads", type=int, default=0, help="that read ahead in each process; 0 measures one core")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each figure")


def run(args: argparse.Namespace) -> None:
    from bridgedepth_jax.data.speed import report, write_pairs

    with tempfile.TemporaryDirectory() as scratch:
        root = args.root or str(write_pairs(Path(scratch) / "data"))
        packed = Path(scratch) / "packed"
        for line in report(root, args.dataset, args.kinds, args.workers, args.threads, args.seconds, packed):
            print(line, flush=True)
