"""What is there of each data set: python scripts/check_data.py --root data [names]

For every set: pairs found (of how many it has), size and disparity range of a sample, a fingerprint of the file list; for a
broken one the first missing or broken file; for an absent one where to get it. Exit status 1 if a set named here is not usable.
"""

import argparse

from bridgedepth_jax.data.check import check
from bridgedepth_jax.data.table import DATASETS
from bridgedepth_jax.errors import command


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="data sets; default: all but custom")
    parser.add_argument("--root", required=True, help="data directory")
    parser.add_argument("--all-samples", action="store_true", help="read every sample, not the first, the middle and the last")
    args = parser.parse_args()
    reports = []
    for name in args.names or [*DATASETS, "synthetic"]:
        reports.append(check(name, args.root, every_sample=args.all_samples))
        print(f"{name:22} {reports[-1]}", flush=True)
    if not all(report.usable for report in reports) and (args.names or any(report.broken for report in reports)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
