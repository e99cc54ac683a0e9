"""Training samples per second and core: python scripts/benchmark_data.py

Three kinds, each in this process alone (0 workers) and with 1 and 2 worker processes: 960x540 PNG pairs with PFM to 368x784
crops with full augmentation, the same packed, and `synthetic` at 256x512. The pairs are rendered for the occasion (as PNG they
are about as large as those of Scene Flow), or are those of a data set of yours: --name things --root data.
"""

import argparse
import tempfile
from pathlib import Path

from bridgedepth_jax.data.speed import KINDS, report, write_pairs
from bridgedepth_jax.errors import command


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="things", help="data set for the PNG and the packed kind")
    parser.add_argument("--root", help="where it is; default: pairs are rendered into a temporary folder")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=0, help="reading ahead in each process; 0 measures one core")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each figure")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = args.root or str(write_pairs(Path(scratch) / "data"))
        for line in report(root, args.name, args.kinds, args.workers, args.threads, args.seconds, Path(scratch) / "packed"):
            print(line, flush=True)


if __name__ == "__main__":
    main()
