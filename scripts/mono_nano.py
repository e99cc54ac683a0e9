"""A monocular run on scenes that it never saw, against the mean depth map of scenes like those it was trained on.

python train.py --config configs/bridge_mde/nano.py --workdir runs/mono_nano
python scripts/mono_nano.py --run runs/mono_nano --out runs/mono_nano_sheet

Prints AbsRel and delta1 of both and the difference with its 95 % interval over paired images; writes OUT/results.json and
OUT/sheet.png: image, prediction (as it was fitted) and true inverse depth of eight scenes, evenly spaced.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from bridgedepth_jax.data.mono import open_mono
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.evaluation import mono
from bridgedepth_jax.evaluation.mono_suite import CAPS, LOW
from bridgedepth_jax.files import make_folder, replacing
from bridgedepth_jax.systems.bridge_mde import trials
from bridgedepth_jax.training.export import load_run
from bridgedepth_jax.training.step import join
from bridgedepth_jax.training.validation import unseen_scenes
from bridgedepth_jax.visualize import colorize

SHOWN, COLUMNS = 8, 2


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="--workdir of train.py, of rendered scenes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--scenes", type=int, default=400, help="of training, for the mean map")
    args = parser.parse_args(argv)
    if args.held_out < SHOWN or args.scenes < 1:
        raise InputError(f"--held-out {args.held_out}, --scenes {args.scenes}: expected at least {SHOWN} and 1")
    experiment, state, frozen = load_run(args.run)
    if experiment.data.train[0][0] != "synthetic" or experiment.how.depth is None:
        raise InputError(
            f"--run {args.run} trains on {experiment.data.train[0][0]}, expected a network of one view on synthetic"
        )
    make_folder(args.out, "--out")
    weights: Any = join(frozen, state.best)
    forward = jax.jit(experiment.how.depth(experiment.model))
    unseen = unseen_scenes(experiment)
    seen = dataclasses.replace(unseen, seed=(experiment.data.synthetic.seed or experiment.seed))
    maps = open_mono("synthetic", ".", seen)
    flat = trials.mean_map(np.stack([maps[i]["inverse"] for i in range(args.scenes)]))
    source, everything = open_mono("synthetic", ".", unseen), (slice(None), slice(None))
    rows: dict[str, list[mono.Measured]] = {"network": [], "mean map": []}
    panels = []
    for i in range(args.held_out):
        sample = source[i]
        known = sample["valid"] & (sample["inverse"] > 0)
        metres = np.where(known, unseen.max_disparity / np.where(known, sample["inverse"], 1), 0)
        found = {"network": np.asarray(forward(weights, sample["image"][None]))[0], "mean map": flat}
        for name, prediction in found.items():
            rows[name].append(mono.evaluate_image(prediction, metres, LOW, CAPS["synthetic"], everything, metric=False))
        if len(panels) < SHOWN and i == len(panels) * args.held_out // SHOWN:
            fit = rows["network"][-1].fit
            assert fit is not None
            top = float(sample["inverse"].max()) or 1.0
            fitted = (fit.scale * found["network"] + fit.shift) * unseen.max_disparity
            shown = [colorize(np.clip(x, 0, top).astype(np.float32), top) for x in (fitted, sample["inverse"])]
            panels.append(np.concatenate([sample["image"], *shown], axis=1))
    table = {
        name: {
            measure: np.array([row.measures[measure] for row in found]) for measure in ("abs_rel", "abs_rel_inverse", "delta1")
        }
        for name, found in rows.items()
    }
    for name, values in table.items():
        print(f"{name}: " + ", ".join(f"{measure} {value.mean():.4f}" for measure, value in values.items()))
    a, b = (table[name]["abs_rel"] for name in ("mean map", "network"))
    change = 100 * (b.mean() / a.mean() - 1)
    print(f"AbsRel less mean map {trials.paired(a[None], b[None])}, {change:+.1f} %, {args.held_out} scenes")
    sheet = np.concatenate([np.concatenate(panels[k::COLUMNS]) for k in range(COLUMNS)], axis=1)
    with replacing(args.out / "sheet.png") as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    with replacing(args.out / "results.json") as temporary:
        found = {name: {key: value.tolist() for key, value in values.items()} for name, values in table.items()}
        temporary.write_text(json.dumps({"step": int(state.step), **found}) + "\n")


if __name__ == "__main__":
    main()
