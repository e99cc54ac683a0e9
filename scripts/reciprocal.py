"""Do stereo and monocular networks teach each other? All three stages from nothing on rendered pairs, without their truth.

    python scripts/reciprocal.py --small --seeds 3 --out runs/reciprocal            # StereoNet from nothing
    python scripts/reciprocal.py --small --seeds 3 --out runs/default --stereo default    # the default model in its place

For each seed: StereoNet (stage 1), SingleNet from it (stage 2) and from the photometric loss alone, what both say together,
StereoNet-D (stage 3) and, where it began from nothing, StereoNet trained on for as many steps. Prints EPE over all, visible and
occluded pixels of unseen scenes, and of the fixed scenes that SingleNet learns from, mean and spread over the seeds. `--stereo
default` was trained with supervision before. The recipe is `configs/reciprocal/*_small.py`; broken off, the same command
continues.
"""

import argparse
import dataclasses
import functools
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from bridgedepth_jax.data.sources import SyntheticSource
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.files import replacing
from bridgedepth_jax.inference.compiled import keep_compilations
from bridgedepth_jax.inference.stereo import DEFAULT_MODEL
from bridgedepth_jax.store.checkpoint import load_checkpoint
from bridgedepth_jax.system import Teacher, find_system
from bridgedepth_jax.systems.reciprocal import stages
from bridgedepth_jax.training import loop
from bridgedepth_jax.training.configfile import override, read_config
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.start import make_start

SCENES, FIXED, UNSEEN = 1200, 64, 48  # that stage 1 sees, that stages 2 and 3 see, and that none sees
MONO_STEPS = 1000  # of SingleNet from the default model, which costs far more than StereoNet: half of the config's
UNSEEN_SEED = 1_000_003  # added to the seed of the scenes
ROWS = {
    "constant": "best constant",
    "stereo": "StereoNet",
    "mono": "SingleNet, distilled",
    "self": "SingleNet, photometric",
    "fused": "fused",
    "distilled": "StereoNet-D",
    "longer": "StereoNet, trained on",
}


class Rendered:
    """Batches of scenes that were rendered once, in an order that the seed decides. Images alone."""

    def __init__(self, scenes: Mapping[str, np.ndarray], batch: int, seed: int) -> None:
        self.left, self.right, self.batch, self.seed = scenes["left"], scenes["right"], batch, seed
        self.fingerprint = f"rendered {len(self.left)} {batch} {seed}"

    def iterate(self, start_step: int = 0, *, host: int = 0, hosts: int = 1) -> Iterator[dict[str, np.ndarray]]:
        step = start_step
        while True:
            rows = np.random.default_rng((self.seed, step)).integers(0, len(self.left), self.batch)
            yield {"left": self.left[rows], "right": self.right[rows]}
            step += 1


def render(experiment: Experiment, count: int, seed: int, cache: Path) -> dict[str, np.ndarray]:
    """Scenes of the config's kind, kept in a file."""
    if not cache.is_file():
        height, width = experiment.data.crop
        source = SyntheticSource(dataclasses.replace(experiment.data.synthetic, height=height, width=width, seed=seed))
        rows = [source[i] for i in range(count)]
        keys = ("left", "right", "disparity", "valid", "nonocc")
        stacked: Any = {key: np.stack([row[key] for row in rows]) for key in keys}
        with replacing(cache) as temporary:
            np.savez(temporary, **stacked)
    with np.load(cache) as arrays:
        return dict(arrays)


def measure(estimate: Any, weights: Any, scenes: Mapping[str, np.ndarray]) -> dict[str, float]:
    """EPE over valid pixels, those that both views see, and those that one sees; pixels."""
    run = jax.jit(lambda weights, left, right: estimate(weights, left, right).disparity)
    found = [np.asarray(run(weights, a[None], b[None]))[0] for a, b in zip(scenes["left"], scenes["right"], strict=True)]
    return errors(np.stack(found), scenes)


def errors(disparity: np.ndarray, scenes: Mapping[str, np.ndarray]) -> dict[str, float]:
    off, valid, seen = np.abs(disparity - scenes["disparity"]), scenes["valid"], scenes["nonocc"]
    masks = {"all": valid, "visible": valid & seen, "occluded": valid & ~seen}
    return {name: float(off[mask].mean()) for name, mask in masks.items()}


def train(name: str, config: str, scenes: Mapping[str, np.ndarray], folder: Path, seed: int, **changes: Any) -> Path:
    """Trains one network unless its export is there; the folder of its weights."""
    made = read_config(f"reciprocal/{config}")
    override(made, [f"--config.{key}={value}" for key, value in changes.pop("options", {}).items()])
    for key, value in changes.items():
        made[key] = value
    experiment = dataclasses.replace(Experiment.from_dict(made.to_dict()), seed=seed)
    start = lambda: make_start(experiment, experiment.init)
    began = time.perf_counter()
    loop.train(experiment, folder / name, Rendered(scenes, experiment.solver.batch_size, seed), start)
    print(f"{folder / name}: {time.perf_counter() - began:.0f} s", flush=True)
    return folder / name / "export"


def run_seed(seed: int, out: Path, stereo: str, options: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """{network: {scenes: {pixels: EPE}}}."""
    folder = out / f"seed{seed}"
    small = Experiment.from_dict(read_config("reciprocal/stereo_small").to_dict())
    # Other scenes for each seed in training, the same unseen ones for all.
    first = render(small, SCENES, seed, out / f"scenes{seed}.npz")
    sets = {"unseen": render(small, UNSEEN, UNSEEN_SEED, out / "unseen.npz")}
    sets["fixed"] = {key: value[:FIXED] for key, value in first.items()}
    if stereo == "default":
        teacher, config = DEFAULT_MODEL, "default_small"
    else:
        teacher, config = train("stereo", "stereo_small", first, folder, seed, options=options), "distill_small"
    kept, alike = (("stereo", str(teacher)),), options
    if stereo == "default":
        alike = {"solver.max_iter": MONO_STEPS} | options
    mono = train("mono", "mono_small", sets["fixed"], folder, seed, options=alike, teachers=kept)
    alone = train("self", "mono_small", sets["fixed"], folder, seed, options=alike | {"task.stage": "photometric"})
    both = (*kept, ("mono", str(mono)))
    distilled = train("distilled", config, first, folder, seed, options=options, teachers=both, init=str(teacher))
    folders = {"stereo": Path(teacher), "mono": mono, "self": alone, "distilled": distilled}
    if stereo != "default":
        frozen = options | {f"task.{name}": 0 for name in ("search", "occlusion_warmup")}
        frozen |= {"task.stage": "photometric"}
        folders["longer"] = train("longer", config, first, folder, seed, options=frozen, teachers=(), init=str(teacher))
    loaded = {key: load_checkpoint(path) for key, path in folders.items()}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for where, scenes in sets.items():
        guess = np.median(scenes["disparity"][scenes["valid"]])
        rows = {"constant": errors(np.full_like(scenes["disparity"], guess), scenes)}
        for key, one in loaded.items():
            made = find_system(one.kind).estimate
            assert made is not None
            rows[key] = measure(made(one.config), one.params, scenes)
        both_ways = (Teacher(loaded[key].kind, loaded[key].config) for key in ("stereo", "mono"))
        weights = {key: loaded[key].params for key in ("stereo", "mono")}
        rows["fused"] = measure(stages.fused_estimate(*both_ways), weights, scenes)
        for key, row in rows.items():
            found.setdefault(key, {})[where] = row
    return found


def table(found: list[dict[str, dict[str, dict[str, float]]]], where: str) -> str:
    """EPE, mean and spread (largest minus smallest) over the seeds."""
    lines = [
        f"EPE of {where} scenes, px; {len(found)} seeds",
        "",
        "| network | all | visible | occluded |",
        "|---|---|---|---|",
    ]
    for key, words in ROWS.items():
        if key not in found[0]:
            continue
        cells = []
        for pixels in ("all", "visible", "occluded"):
            values = [seed[key][where][pixels] for seed in found]
            cells.append(f"{np.mean(values):.3f} ({np.ptp(values):.3f})")
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def orders(found: list[dict[str, dict[str, dict[str, float]]]]) -> Iterator[str]:
    """What must be seen (spec `self-supervised.md` section 7), and in how many seeds it was."""
    at = lambda seed, key, where, pixels="all": seed[key][where][pixels]
    wanted = {
        "StereoNet at most 0.7 of the best constant, unseen": lambda s: (
            at(s, "stereo", "unseen") <= 0.7 * at(s, "constant", "unseen")
        ),
        "distilled SingleNet below the photometric one, fixed": lambda s: at(s, "mono", "fixed") < at(s, "self", "fixed"),
        "fused below StereoNet in occluded pixels, fixed": lambda s: (
            at(s, "fused", "fixed", "occluded") < at(s, "stereo", "fixed", "occluded")
        ),
        "fused below StereoNet, fixed": lambda s: at(s, "fused", "fixed") < at(s, "stereo", "fixed"),
        "fused below SingleNet, fixed": lambda s: at(s, "fused", "fixed") < at(s, "mono", "fixed"),
        "StereoNet-D below StereoNet, unseen": lambda s: at(s, "distilled", "unseen") < at(s, "stereo", "unseen"),
    }
    if "longer" in found[0]:
        wanted["StereoNet-D below StereoNet trained on, unseen"] = lambda s: (
            at(s, "distilled", "unseen") < at(s, "longer", "unseen")
        )
    for words, holds in wanted.items():
        yield f"{words}: {sum(map(holds, found))} of {len(found)} seeds"


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the small configs; the paper's need KITTI raw and train.py")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/reciprocal"), help="folder of the runs")
    parser.add_argument("--stereo", choices=("nothing", "default"), default="nothing", help="what stands for StereoNet")
    parser.add_argument("--steps", type=int, help="of every stage; default: those of the configs")
    args = parser.parse_args(argv)
    if not args.small:
        raise InputError("expected --small: the paper's sizes need KITTI raw, and train.py with configs/reciprocal/")
    if args.seeds < 1:
        raise InputError(f"--seeds {args.seeds}, expected at least 1")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    keep_compilations()
    options = {"eval.datasets": "()"} | ({"solver.max_iter": args.steps} if args.steps else {})
    run = functools.partial(run_seed, out=args.out, stereo=args.stereo, options=options)
    found = []
    began = time.perf_counter()
    for seed in range(args.seeds):
        found.append(run(seed))
        print("\n\n".join(table(found, where) for where in ("unseen", "fixed")), flush=True)
    print("\n".join(orders(found)))
    print(f"{(time.perf_counter() - began) / 60:.0f} minutes")
    with replacing(args.out / "results.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
