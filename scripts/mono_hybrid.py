"""Pseudo-labels alone against hybrid labels, equal steps: is a little masked ground truth worth it?

python scripts/mono_hybrid.py --out runs/mono_hybrid
python scripts/mono_hybrid.py --out runs/mono_hybrid_better --teacher 100 --teacher-scenes 40 --rate 3e-4

A weak teacher (few scenes, few steps) labels rendered scenes; a student learns from its labels (trim 10) and is then trained on
for equally many steps: with pseudo-labels alone, or 19 of them to one with ground truth over three fifths of the image. Prints
AbsRel on held-out scenes and the difference with its 95 % interval over paired images; OUT/results.json has them. Networks
are kept in OUT: killed and started again it goes on with those that are done.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from bridgedepth_jax.data.procedural.config import SCENES
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.files import make_folder, replacing
from bridgedepth_jax.store.checkpoint import flatten, unflatten
from bridgedepth_jax.systems.bridge_mde import trials

SHARE = 20  # one image in so many has ground truth
MASK = 0.6  # of its rows or columns


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000, help="of the student, and again of either continuation")
    parser.add_argument("--teacher", type=int, default=30, help="steps of the teacher")
    parser.add_argument("--teacher-scenes", type=int, default=10)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--kind", choices=tuple(SCENES), default="hazy", help="of scenes")
    parser.add_argument("--size", default="28,35", help="height,width")
    parser.add_argument("--rate", type=float, default=1e-3, help="of either continuation")
    parser.add_argument(
        "--renormalise", type=int, default=2, help="of the loss: without it, trimming from nothing ends constant"
    )
    args = parser.parse_args(argv)
    try:
        seeds = [int(word) for word in args.seeds.split(",")]
        height, width = (int(side) for side in args.size.split(","))
    except ValueError:
        raise InputError(f"--seeds {args.seeds}, --size {args.size}: expected whole numbers with commas between") from None
    make_folder(args.out, "--out")
    options = {key: str(value) for key, value in vars(args).items() if key not in ("out", "seeds")}
    if (args.out / "options.json").is_file() and json.loads((args.out / "options.json").read_text()) != options:
        raise InputError(f"--out {args.out} holds networks of other options, see options.json there; expected a new folder")
    with replacing(args.out / "options.json") as temporary:
        temporary.write_text(json.dumps(options) + "\n")
    size = height, width
    held = trials.scenes(args.held_out, size, trials.UNSEEN, kind=args.kind)
    network = trials.SmallDepth()
    found: dict[str, list[np.ndarray]] = {"mean map": [], "teacher": [], "student": [], "pseudo": [], "hybrid": []}

    def measured(name: str, predictions: np.ndarray) -> None:
        found[name].append(trials.measure(predictions, held.inverse)["abs_rel"])
        print(f"{name}: AbsRel {found[name][-1].mean():.4f}", flush=True)

    def trained(name: str, seed: int, data: trials.Scenes, steps: int, own_seed: int, **options: Any) -> Any:
        """A network, read again where it is there, and what it measures."""
        path = args.out / f"{name}_{seed}.npz"
        if not path.is_file():
            params = trials.train_depth(network, data, steps, own_seed, **options)
            arrays: dict[str, Any] = {key: np.asarray(leaf) for key, leaf in flatten(params).items()}
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **arrays)
        with np.load(path) as stored:
            params = unflatten(dict(stored))
        measured(name, trials.predict(network, params, held.image))
        return params

    def choose(rng: np.random.Generator, rows: int) -> np.ndarray:
        """Of both kinds behind each other: numbers from `scenes` on have ground truth."""
        return rng.integers(0, args.scenes, rows) + args.scenes * (rng.random(rows) < 1 / SHARE)

    for seed in seeds:
        print(f"seed {seed}")
        data = trials.scenes(args.scenes, size, seed, kind=args.kind)
        measured("mean map", np.broadcast_to(trials.mean_map(data.inverse), held.inverse.shape))
        small = trials.Scenes(data.image[: args.teacher_scenes], data.inverse[: args.teacher_scenes])
        teacher = trained("teacher", seed, small, args.teacher, seed)
        guess = trials.Scenes(data.image, trials.predict(network, teacher, data.image))
        loss: dict[str, Any] = dict(percent=np.full(args.scenes, 10), renormalise=args.renormalise)
        student = trained("student", seed, guess, args.steps, seed + 100, **loss)
        again: dict[str, Any] = dict(rate=args.rate, params=student)
        trained("pseudo", seed, guess, args.steps, seed + 200, **loss, **again)
        both = trials.Scenes(np.concatenate([data.image] * 2), np.concatenate([guess.inverse, data.inverse]))
        valid = np.ones(both.inverse.shape, bool)
        rng = np.random.default_rng((seed, 13))
        for mask in valid[args.scenes :]:
            axis = int(rng.integers(2))
            hidden = int((1 - MASK) * mask.shape[axis])
            first = int(rng.integers(0, mask.shape[axis] - hidden + 1))
            np.moveaxis(mask, axis, 0)[first : first + hidden] = False
        loss["percent"] = np.concatenate([loss["percent"], np.zeros(args.scenes)])
        trained("hybrid", seed, both, args.steps, seed + 200, valid=valid, choose=choose, **loss, **again)
    rows = {name: np.stack(values) for name, values in found.items()}
    for name, values in rows.items():
        change = trials.paired(rows["mean map"], values)
        print(f"{name}: AbsRel {values.mean():.4f} over {len(seeds)} seeds, less mean map {change}")
    interval = trials.paired(rows["pseudo"], rows["hybrid"])
    print(f"hybrid less pseudo alone: {interval}")
    with replacing(args.out / "results.json") as temporary:
        words = {"options": options | {"seeds": args.seeds}, "difference": list(interval)}
        temporary.write_text(json.dumps(words | {name: values.tolist() for name, values in rows.items()}) + "\n")


if __name__ == "__main__":
    main()
