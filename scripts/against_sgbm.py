"""A checkpoint beside semi-global matching, as a Markdown table: bad-2 (%) and EPE (px) over all pixels with ground truth, and
bad-2 (%) within 5 px of depth edges.

python scripts/against_sgbm.py
python scripts/against_sgbm.py --pairs my_pairs.csv --scales 0.5,0.75,1 --pictures pictures
python scripts/against_sgbm.py --synthetic 8 --scenes crowded --scales 0.5,0.75,1

Without --pairs and --synthetic: the pair "motorcycle" of scikit-image. --pairs is a table as for `bridgedepth evaluate
--datasets custom:FILE`. --synthetic renders pairs that training has not seen: the ones to choose a scale by.
"""

import argparse
import collections
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bridgedepth_jax.data.formats import write_png
from bridgedepth_jax.data.pairs import Pair as PairFiles
from bridgedepth_jax.data.pairs import find_pairs, read_sample
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.inference import demo
from bridgedepth_jax.inference.run import LoadedPair
from bridgedepth_jax.inference.stereo import Predictor

UNSEEN = 10_007  # seed of the rendered pairs; training has another
SIZE, MAX_DISPARITY = (384, 640), 128.0


class Cell(NamedTuple):
    """Errors of one method on one pair; NaN where there is no edge."""

    bad2: float  # per cent
    epe: float  # pixels
    edges: float  # bad-2 near depth edges, per cent


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="checkpoint folder or published name; default: the model of the package")
    parser.add_argument("--pairs", type=Path, help="CSV file: left, right, disparity, format")
    parser.add_argument("--synthetic", type=int, default=0, metavar="N", help="so many rendered pairs, and those of --pairs")
    parser.add_argument("--scenes", default="sparse", choices=("sparse", "crowded", "fine"), help="of the rendered pairs")
    parser.add_argument("--scales", default="1", help="at which the network sees the images, separated by commas")
    parser.add_argument("--pictures", type=Path, help="folder for left | disparity | error of each pair, at the first scale")
    parser.add_argument("--devices", default="cpu", help="cpu, gpu, tpu or all")
    args = parser.parse_args()
    try:
        scales = [float(part) for part in args.scales.split(",")]
    except ValueError:
        raise InputError(f"--scales {args.scales}, expected numbers separated by commas") from None
    found_pairs = find_pairs(f"custom:{args.pairs.name}", args.pairs.parent) if args.pairs else ()
    predictor = Predictor.load(args.checkpoint, devices=args.devices)
    names = [f"scale {scale:g}" for scale in scales] + ["SGBM, filled"]
    print(f"| pair | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    found = []
    scenes = rendered(args.synthetic, args.scenes)
    asked = [scenes, real(found_pairs)] if args.synthetic or args.pairs else [iter([demo.motorcycle()])]
    for pair, truth in itertools.chain(*asked):
        disparities = [predictor(pair.left, pair.right, scale=scale).disparity for scale in scales]
        near = demo.near_edges(truth)
        rows = [cell(disparity, truth, near) for disparity in (*disparities, demo.filled_sgbm(pair, truth))]
        print(row(pair.name, rows), flush=True)
        found.append(rows)
        if args.pictures:
            picture = demo.overview(pair.left, disparities[0], truth)
            write_png(args.pictures / f"{pair.name}.png", picture)
    print(row("mean", [Cell(*mean) for mean in np.ma.masked_invalid(found).mean(axis=0).filled(np.nan)]))


def row(name: str, cells: list[Cell]) -> str:
    edges = lambda c: "" if np.isnan(c.edges) else f", {c.edges:.1f} % at edges"
    return f"| {name} | {' | '.join(f'{c.bad2:.1f} %, {c.epe:.2f} px{edges(c)}' for c in cells)} |"


def cell(disparity: np.ndarray, truth: np.ndarray, near: np.ndarray) -> Cell:
    edges = demo.errors(disparity, np.where(near, truth, np.nan)).bad2 if near.any() else float("nan")
    return Cell(*demo.errors(disparity, truth), edges)


def real(rows: Iterable[PairFiles]) -> Iterator[tuple[LoadedPair, np.ndarray]]:
    rows = list(rows)
    folders = collections.Counter(found.left.parent for found in rows)
    for found in rows:
        sample = read_sample(found)
        truth = np.where(sample["valid"] | (sample["disparity"] > 0), sample["disparity"], np.nan).astype(np.float32)
        if not np.isfinite(truth).any():
            raise InputError(f"{found.disparity}: no pixel has a disparity, expected ground truth to compare with")
        folder = found.left.parent
        name = folder.absolute().name + (f"_{found.left.stem}" if folders[folder] > 1 else "")
        yield LoadedPair(name, sample["left"], sample["right"], (str(found.left), str(found.right)), None), truth


def rendered(count: int, scenes: str) -> Iterator[tuple[LoadedPair, np.ndarray]]:
    source = SyntheticStereo(*SIZE, max_disparity=MAX_DISPARITY, seed=UNSEEN, config=SyntheticConfig.named(scenes))
    for sample in map(source.__getitem__, range(count)):
        truth = np.where(sample["valid"], sample["disparity"], np.nan).astype(np.float32)
        yield LoadedPair(Path(sample["name"]).name, sample["left"], sample["right"], ("left", "right"), None), truth


if __name__ == "__main__":
    main()
