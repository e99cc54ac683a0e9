"""Does adapting without ground truth help? Rendered pairs under another camera than the default model was trained for.

    python scripts/adapt_shift.py --out runs/shift [--camera short] [--pairs 160] [--size 96x192] [--steps 1200] [--seed 77]

Other cameras, with other blur, noise, exposure and disparities. "short" is a telephone's pair of cameras: lenses a finger's
width apart, so that disparities end at 10 pixels, sharp and quiet, of an even exposure. "bright" is overexposed and sharp, and
sees large disparities alone; of "noisy" the images are so dark and noisy that the photometric error is no smaller at the truth
than at what the network says: nothing can be learnt there, and nothing must be exported. Only the held-out pairs keep their
truth, for the table. Then the same list is given swapped, with one view moved down, and as noise: each must be refused.
"""

import argparse
import csv
import dataclasses
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from bridgedepth_jax import commands
from bridgedepth_jax.commands.options import size
from bridgedepth_jax.data.formats import write_png
from bridgedepth_jax.data.pairs import Sample
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.errors import command

HELD_OUT = 0.2
COMMON = dict(sharpen=0.0, noise=1.0, misaligned=0.0, near=(0.5, 0.97))
CAMERAS = {  # name: the largest disparity, pixels, and what differs from SyntheticConfig
    "short": (10.0, dict(level=(90.0, 190.0), blur=(0.0, 0.4), read_noise=(0.1, 0.5), shot_noise=(0.0, 0.03),
                         asymmetry=0.0, jpeg=0.0)),
    "bright": (40.0, dict(level=(230.0, 245.0), level_gain=(2.0, 6.0), level_curve=(1.0, 1.0), blur=(0.0, 0.5),
                          read_noise=(0.1, 0.3), shot_noise=(0.0, 0.02), asymmetry=0.0, jpeg=0.0)),
    "noisy": (40.0, dict(level=(25.0, 45.0), level_gain=(0.2, 1.0), blur=(1.3, 1.9), read_noise=(3.0, 5.0),
                         shot_noise=(0.3, 0.5), asymmetry=0.3)),
}  # fmt: skip


def write_list(folder: Path, samples: list[Sample], kind: str = "") -> Path:
    """PNG files and pairs.csv. `kind`: swapped, moved or noise, none of which has truth."""
    rng, rows = np.random.default_rng(0), []
    first = len(samples) - round(HELD_OUT * len(samples))
    for i, sample in enumerate(samples):
        left, right = sample["left"], sample["right"]
        if kind == "swapped":
            left, right = right, left
        if kind == "moved":
            right = np.roll(right, 4, axis=0)
        if kind == "noise":
            left, right = (rng.integers(0, 256, left.shape, np.uint8) for _ in range(2))
        row = {"left": f"left/{i:03d}.png", "right": f"right/{i:03d}.png", "disparity": "", "format": "", "valid": ""}
        write_png(folder / row["left"], left)
        write_png(folder / row["right"], right)
        if i >= first and not kind:
            row |= {"disparity": f"disparity/{i:03d}.png", "format": "kitti", "valid": f"valid/{i:03d}.png"}
            truth = np.maximum(np.rint(256 * sample["disparity"]), 1)
            write_png(folder / row["disparity"], truth.astype(np.uint16))
            write_png(folder / row["valid"], np.where(sample["valid"], 255, 0).astype(np.uint8))
        rows.append(row)
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "pairs.csv"


def adapt(*arguments: str) -> int:
    """The command's exit status."""
    try:
        commands.main(["adapt", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/shift"))
    parser.add_argument("--camera", choices=CAMERAS, default="short")
    parser.add_argument("--pairs", type=int, default=160)
    parser.add_argument("--size", default="96x192")
    parser.add_argument("--seed", type=int, default=77, help="of the scenes")
    parser.add_argument("--steps", type=int, default=1200)
    args = parser.parse_args(argv)
    height, width = size("--size", args.size)
    disparity, changes = CAMERAS[args.camera]
    camera = dataclasses.replace(SyntheticConfig(), **COMMON, **changes)
    scenes = SyntheticStereo(height, width, max_disparity=disparity, seed=args.seed, config=camera)
    samples = [scenes[i] for i in range(args.pairs)]
    began = time.perf_counter()
    status = adapt(
        "--pairs", str(write_list(args.out / "data", samples)), "--workdir", str(args.out / "run"),
        "--steps", str(args.steps), "--every", "100", "--held-out", str(HELD_OUT), "--size", args.size,
    )  # fmt: skip
    print(f"exit status {status} after {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)
    for kind in ("swapped", "moved", "noise"):
        status = adapt(
            "--pairs", str(write_list(args.out / kind, samples[:10], kind)), "--workdir", str(args.out / f"{kind}-run")
        )
        print(f"{kind}: exit status {status}", flush=True)
        if status == 0:
            sys.exit(1)


if __name__ == "__main__":
    main()
