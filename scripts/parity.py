"""Compares a system with golden numbers of the original, case by case; exit status 1 if one is beyond tolerance.

    python scripts/parity.py --reference ../shared/reference [--system NAME] [--golden FOLDER] [--kind KIND] [--float64]

REFERENCE has the goldens of every system, and synth.py, which makes the weights; FOLDER may be any folder with files of the
same names and kinds.
"""

import argparse
import importlib
import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.parity import MODULES


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="folder with synth.py and the goldens")
    parser.add_argument("--system", choices=list(MODULES), default="bridgedepth", help="default: bridgedepth")
    parser.add_argument("--golden", type=Path, metavar="FOLDER", help="goldens; default: those of the system under REFERENCE")
    parser.add_argument("--kind", help="of goldens; default: all of the system's")
    parser.add_argument("--float64", action="store_true", help="parameters and computation in float64")
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", args.float64)
    system = importlib.import_module(MODULES[args.system])
    if args.kind is not None and args.kind not in system.KINDS:
        raise InputError(f"--kind {args.kind}, expected one of {', '.join(system.KINDS)}")
    print(f"{'case':<36} {'quantity':<28} {'value':>10} {'limit':>8}")
    good, beyond = 0, 0
    kinds = [args.kind] if args.kind else []
    for row in system.compare(args.reference, args.golden, kinds=kinds, float64=args.float64):
        good, beyond = good + row.ok, beyond + (not row.ok)
        verdict = "" if row.ok else "  BEYOND"
        print(f"{row.case:<36} {row.quantity:<28} {row.value:>10.2e} {row.limit:>8.0e}{verdict}", flush=True)
    print(f"{good} of {good + beyond} comparisons within tolerance, {'float64' if args.float64 else 'float32'}")
    if not good + beyond:
        raise InputError(f"{args.golden or args.reference} holds no golden of {args.system}")
    sys.exit(1 if beyond else 0)


if __name__ == "__main__":
    main()
