"""Stereo pairs from a folder of photographs: right view, disparity, confidence and masks for each (ZeroStereo).

bridgedepth data synthesize PHOTOS --out SET --depth field --inpaint telea
bridgedepth data synthesize PHOTOS --out SET --depth weights/vitl --inpaint weights/stereogen
bridgedepth data synthesize PHOTOS --out SET --depth weights/vitl --inpaint row --num-processes 2 --process-id 0

The same command again makes what is missing. Processes share nothing but SET, so start as many as you like, on any hosts; the
one that finds everything done writes pairs.csv, rejected.csv and contact.png. Each uses all its devices. With --coordinator
a process that is lost ends the others. Train on the set with the config zerostereo/train. The photographs are only read.
"""

import argparse
import sys
from pathlib import Path

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    from bridgedepth_jax.systems.zerostereo.fillers import FILLERS

    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder with photographs, below it too")
    parser.add_argument("--out", metavar="SET", type=Path, required=True, help="folder of the set")
    parser.add_argument("--depth", required=True, help="field (random), files:FOLDER (npy, pfm, 16-bit png), or a checkpoint")
    parser.add_argument("--inpaint", required=True, help=f"{', '.join(FILLERS)}, or a checkpoint (diffusion)")
    parser.add_argument("--steps", type=int, default=50, help="of diffusion")
    parser.add_argument("--batch", type=int, default=1, help="of diffusion: photographs of one padded size together")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--max-side", type=int, default=1024, help="larger photographs are shrunk; 0: never")
    parser.add_argument("--dilate", type=int, default=1, help="of depth edges, pixels")
    options.add_processes(parser)
    parser.add_argument("--threads", type=int, default=2, help="photographs at once in each process")
    parser.add_argument("--verify", action="store_true", help="hash the samples that are there")
    parser.add_argument("--finish", action="store_true", help="only write the lists of a set that is done")


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from bridgedepth_jax.systems.zerostereo.depth import open_depth
    from bridgedepth_jax.systems.zerostereo.fillers import open_filler
    from bridgedepth_jax.systems.zerostereo.synthesis import Recipe, Synthesis

    index, count = args.process_id or 0, args.num_processes or 1
    if not 0 <= index < count:
        raise InputError(f"--process-id {index}, expected 0 to {count - 1}")
    if args.coordinator is not None:
        from bridgedepth_jax.processes import start_processes

        start_processes(args.coordinator, args.num_processes, args.process_id)
    if args.threads < 1:
        raise InputError(f"--threads {args.threads}, expected at least 1")
    if args.batch < 1:
        raise InputError(f"--batch {args.batch}, expected at least 1")
    if not 1 <= args.steps <= 1000:
        raise InputError(f"--steps {args.steps}, expected 1 to 1000")
    recipe = Recipe(args.depth, args.inpaint, args.seed, args.max_side or None, args.dilate)
    (depth, about), (fill, more) = open_depth(args.depth), open_filler(args.inpaint, args.steps, args.batch)
    work = Synthesis(args.photos, args.out, recipe, depth, fill, about | more)
    if args.verify:
        work.verify(work.keys[index::count])
    if not args.finish:
        keys = work.missing(index, count)
        for _ in tqdm(
            work.make(keys, args.threads), total=len(keys), unit="photo", bar_format=options.BAR, file=sys.stderr, disable=None
        ):
            pass
        others = work.missing()
        if others:
            print(f"{args.out}: this process is done, {len(others)} of {len(work.keys)} photographs are others' to make")
            return
    made, refused = work.finish()
    print(f"{args.out}: {made} pairs, {refused} photographs rejected; pairs.csv, rejected.csv, contact.png")
