"""Pseudo-labels alone against hybrid labels, equal steps: is a little masked ground truth worth it?

python scripts/mono_hybrid.py --out runs/mono_hybrid
python scripts/mono_hybrid.py --out runs/mono_hybrid --steps 4000 --teacher 100

A weak teacher (few scenes, few steps) labels rendered scenes; a student learns from its labels (trim 10) and is then trained on
for equally many steps: with pseudo-labels alone, or 19 of them to one with ground truth over three fifths of the image. Prints
AbsRel on held-out scenes and the difference with its 95 % interval over paired images; OUT/results.json has them.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.files import make_folder, replacing
from bridgedepth_jax.systems.bridge_mde import trials

SHARE = 20  # one image in so many has ground truth
MASK = 0.6  # of its rows or columns


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000, help="of the student, and again of either continuation")
    parser.add_argument("--teacher", type=int, default=100, help="steps of the teacher")
    parser.add_argument("--teacher-scenes", type=int, default=40)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--size", default="56,70", help="height,width")
    args = parser.parse_args(argv)
    try:
        seeds = [int(word) for word in args.seeds.split(",")]
        height, width = (int(side) for side in args.size.split(","))
    except ValueError:
        raise InputError(f"--seeds {args.seeds}, --size {args.size}: expected whole numbers with commas between") from None
    make_folder(args.out, "--out")
    size = height, width
    held = trials.scenes(args.held_out, size, trials.UNSEEN)
    network = trials.SmallDepth()
    found: dict[str, list[np.ndarray]] = {"teacher": [], "student": [], "pseudo": [], "hybrid": []}

    def note(name: str, params: object) -> None:
        values = trials.measure(trials.predict(network, params, held.image), held.inverse)["abs_rel"]
        found[name].append(values)
        print(f"{name}: AbsRel {values.mean():.4f}", flush=True)

    for seed in seeds:
        data = trials.scenes(args.scenes, size, seed)
        small = trials.Scenes(data.image[: args.teacher_scenes], data.inverse[: args.teacher_scenes])
        teacher = trials.train_depth(network, small, args.teacher, seed)
        note("teacher", teacher)
        guess = trials.Scenes(data.image, trials.predict(network, teacher, data.image))
        trimmed = np.full(args.scenes, 10)
        student = trials.train_depth(network, guess, args.steps, seed + 100, percent=trimmed)
        note("student", student)
        options = dict(rate=3e-4, params=student)
        note("pseudo", trials.train_depth(network, guess, args.steps, seed + 200, percent=trimmed, **options))
        # Both kinds behind each other: numbers from `scenes` on have ground truth, where the mask says so.
        both = trials.Scenes(np.concatenate([data.image] * 2), np.concatenate([guess.inverse, data.inverse]))
        valid = np.ones(both.inverse.shape, bool)
        rng = np.random.default_rng((seed, 13))
        for mask in valid[args.scenes :]:
            axis = int(rng.integers(2))
            hidden = int((1 - MASK) * mask.shape[axis])
            first = int(rng.integers(0, mask.shape[axis] - hidden + 1))
            np.moveaxis(mask, axis, 0)[first : first + hidden] = False

        def choose(rng: np.random.Generator, rows: int) -> np.ndarray:
            return rng.integers(0, args.scenes, rows) + args.scenes * (rng.random(rows) < 1 / SHARE)

        percent = np.concatenate([trimmed, np.zeros(args.scenes)])
        hybrid = dict(percent=percent, valid=valid, choose=choose, **options)
        note("hybrid", trials.train_depth(network, both, args.steps, seed + 200, **hybrid))
    rows = {name: np.stack(values) for name, values in found.items()}
    for name, values in rows.items():
        print(f"{name}: AbsRel {values.mean():.4f} over {len(seeds)} seeds")
    interval = trials.paired(rows["pseudo"], rows["hybrid"])
    print(f"hybrid less pseudo alone: {interval}")
    with replacing(args.out / "results.json") as temporary:
        words = {"options": {key: str(value) for key, value in vars(args).items()}, "difference": list(interval)}
        temporary.write_text(json.dumps(words | {name: values.tolist() for name, values in rows.items()}) + "\n")


if __name__ == "__main__":
    main()
