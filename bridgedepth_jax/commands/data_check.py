"""What is there of each data set.

bridgedepth data check --root data
bridgedepth data check --root data eth3d --all-samples

Sets of single images are single:NAME, or mono:FILE.csv. For every set: pairs found (of how many it has), size and disparity
range of a sample, a fingerprint of the file list; for a broken one the first missing or broken file; for an absent one where to
get it. Exit status 1 if a set named here is not usable.
"""

import argparse
from pathlib import Path

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="data sets; default: all but custom")
    options.add_root(parser)
    parser.add_argument("--all-samples", action="store_true", help="read every sample, not the first, the middle and the last")


def run(args: argparse.Namespace) -> None:
    from bridgedepth_jax.data.check import SINGLE, check, check_single
    from bridgedepth_jax.data.mono import MONO_DATASETS
    from bridgedepth_jax.data.table import DATASETS

    if not Path(args.root).is_dir():
        raise InputError(f"--root {args.root}: no such folder, expected the data directory with the sets as downloaded")
    reports = []
    for name in args.names or [*DATASETS, "synthetic", *(SINGLE + single for single in (*MONO_DATASETS, "da2k"))]:
        how = check_single if name.startswith((SINGLE, "mono:")) else check
        reports.append(how(name, args.root, every_sample=args.all_samples))
        print(f"{name:22} {reports[-1]}", flush=True)
    if not all(report.usable for report in reports) and (args.names or any(report.broken for report in reports)):
        raise SystemExit(1)
