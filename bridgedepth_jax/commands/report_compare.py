"""Compares two results of `bridgedepth evaluate` on the same images.

bridgedepth report compare a/results.json b/results.json

Prints, for each data set and protocol, the difference of every metric with a paired bootstrap interval per image.
"""

import argparse

from bridgedepth_jax.errors import InputError, unknown


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", help="results.json, or the folder that holds it")
    parser.add_argument("b", help="the same of the other")
    parser.add_argument("--protocols", help="separated by commas, such as paper,noc/below; default: all")
    parser.add_argument("--level", type=float, default=0.95, help="of the interval")
    parser.add_argument("--draws", type=int, default=10_000, help="of the bootstrap")


def run(args: argparse.Namespace) -> None:
    from bridgedepth_jax.evaluation.compare import compare, lines
    from bridgedepth_jax.evaluation.tables import read_results

    if not 0 < args.level < 1 or args.draws < 100:
        raise InputError(f"--level {args.level} and --draws {args.draws}, expected a level in 0..1 and at least 100 draws")
    masks = args.protocols.split(",") if args.protocols else None
    a, b = read_results(args.a), read_results(args.b)
    entries = [entry for result in (a, b) for entry in result["datasets"].values()]
    there = sorted({name for entry in entries for image in entry["per_image"].values() for name in image})
    for name in masks or ():
        if name not in there:
            raise unknown("protocol", name, there)
    print(f"a: {a['method']['name']} ({args.a})\nb: {b['method']['name']} ({args.b})\n")
    print("\n".join(lines(compare(a, b, masks=masks, level=args.level, draws=args.draws), args.level)))
