"""Packs a data set into ArrayRecord shards, losslessly: python scripts/prepare_dataset.py eth3d --root data --out packed

Train from it with `source: tfds` and the data root at --out. An interrupted run goes on where it was.
"""

import argparse
import sys

from bridgedepth_jax.data.table import NAMES
from bridgedepth_jax.errors import InputError, command


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help=f"one of {', '.join(name for name in NAMES if name != 'synthetic')}, or custom:FILE.csv")
    parser.add_argument("--root", required=True, help="data directory with the files as downloaded")
    parser.add_argument("--out", required=True, help="folder of the packed sets")
    parser.add_argument("--shards", type=int, help="number of files; default: one per 256 MiB")
    parser.add_argument("--right-disparity", action="store_true", help="also the right view's, which only the 'h' flip needs")
    args = parser.parse_args()
    try:
        from bridgedepth_jax.data.tfds import pack
    except ImportError as error:
        raise InputError(f"packing needs `pip install bridgedepth-jax[tfds]` ({error})") from error
    folder = pack(
        args.name,
        args.root,
        args.out,
        args.shards,
        right_disparity=args.right_disparity,
        progress=lambda done, total: print(f"shard {done} of {total}", file=sys.stderr),
    )
    print(folder)


if __name__ == "__main__":
    main()
