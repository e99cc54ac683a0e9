"""Stereo pairs from a folder of photographs: right view, disparity, confidence and masks for each.

    python scripts/synthesize.py PHOTOS --out SET --depth field --inpaint telea
    python scripts/synthesize.py PHOTOS --out SET --depth weights/vitl --inpaint row --num-processes 2 --process-id 0

The same command again makes what is missing. Processes share nothing but SET, so start as many as you like, on any hosts; the
one that finds everything done writes pairs.csv, rejected.csv and contact.png. Train on it with "custom:pairs.csv" and
`--config.data.root=SET`. The photographs are only read.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.systems.zerostereo.depth import open_depth
from bridgedepth_jax.systems.zerostereo.fillers import FILLERS, open_filler
from bridgedepth_jax.systems.zerostereo.synthesis import Recipe, Synthesis


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder with photographs, below it too")
    parser.add_argument("--out", metavar="SET", type=Path, required=True, help="folder of the set")
    parser.add_argument("--depth", required=True, help="field (random), files:FOLDER (npy, pfm, 16-bit png), or a checkpoint")
    parser.add_argument("--inpaint", required=True, help=f"{', '.join(FILLERS)}, or a checkpoint (diffusion)")
    parser.add_argument("--steps", type=int, default=50, help="of diffusion")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-side", type=int, default=1024, help="larger photographs are shrunk; 0: never")
    parser.add_argument("--dilate", type=int, default=1, help="of depth edges, pixels")
    parser.add_argument("--num-processes", type=int, default=1)
    parser.add_argument("--process-id", type=int, default=0, help="this process makes every n-th photograph from this one on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--verify", action="store_true", help="hash the samples that are there")
    parser.add_argument("--finish", action="store_true", help="only write the lists of a set that is done")
    args = parser.parse_args(argv)
    if not 0 <= args.process_id < args.num_processes:
        raise InputError(f"--process-id {args.process_id}, expected 0 to {args.num_processes - 1}")
    if args.threads < 1:
        raise InputError(f"--threads {args.threads}, expected at least 1")
    recipe = Recipe(args.depth, args.inpaint, args.seed, args.max_side or None, args.dilate)
    if not 1 <= args.steps <= 1000:
        raise InputError(f"--steps {args.steps}, expected 1 to 1000")
    (depth, about), (fill, more) = open_depth(args.depth), open_filler(args.inpaint, args.steps)
    work = Synthesis(args.photos, args.out, recipe, depth, fill, about | more)
    if args.verify:
        work.verify(work.keys[args.process_id :: args.num_processes])
    if not args.finish:
        keys = work.missing(args.process_id, args.num_processes)
        for _ in tqdm(work.make(keys, args.threads), total=len(keys), unit="photo", file=sys.stderr, disable=None):
            pass
        others = work.missing()
        if others:
            print(f"{args.out}: this process is done, {len(others)} of {len(work.keys)} photographs are others' to make")
            return
    made, refused = work.finish()
    print(f"{args.out}: {made} pairs, {refused} photographs rejected; pairs.csv, rejected.csv, contact.png")


if __name__ == "__main__":
    main()
