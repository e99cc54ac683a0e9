"""What each part of the default model is worth: trained alone and together for equally many steps, on rendered pairs only.

python scripts/ablate_nano.py --workdir runs/ablation --steps 2000
python scripts/ablate_nano.py --workdir runs/ablation --steps 2000 --only bounded,all

Prints a Markdown table: EPE and bad-2 of rendered validation pairs (sparse and crowded scenes, half of each, a seed that
training does not use), and the difference to the first row with its 95 % interval, bootstrapped over pairs. Every row starts at
random weights of one seed and sees the same scenes, but for the rows with "data". Rows that were trained before are continued
or read again.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from bridgedepth_jax.configs.bridgedepth import nano, nano_sharp
from bridgedepth_jax.data.pipeline import make_train_dataset
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.systems.bridgedepth import health
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.export import host_arrays, load_run
from bridgedepth_jax.training.loop import train
from bridgedepth_jax.training.start import make_start
from bridgedepth_jax.training.step import join

UNSEEN = 10_007
SCENES = ("sparse", "crowded")
ROWS: dict[str, tuple[str, ...]] = {  # name: the keys that are taken from configs/bridgedepth/nano_sharp.py
    "before": (),
    "bounded": ("bounded_prior",),
    "upsampling": ("upsampling", "learned_confidence"),
    "classical": ("sgm",),
    "choice": ("upsampling", "learned_confidence", "sgm", "fusion"),
    "data": ("data",),
    "all": ("bounded_prior", "upsampling", "learned_confidence", "sgm", "fusion", "data"),
}


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the runs, one in it for each row")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--crop", default="96,240", help="height,width")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--only", default=",".join(ROWS), help=f"rows, of {', '.join(ROWS)}")
    args = parser.parse_args()
    names = args.only.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise InputError(f"--only {unknown[0]}, expected of {', '.join(ROWS)}")
    height, width = (int(part) for part in args.crop.split(","))
    scenes = {kind: SyntheticStereo(height, width, max_disparity=3 * width / 8, seed=UNSEEN, config=SyntheticConfig.named(kind))
              for kind in SCENES}  # fmt: skip
    pairs = health.Pairs.of(scenes[SCENES[i % 2]][i] for i in range(args.pairs))
    print("| trained with | EPE, px | bad-2, % | EPE against the first row, px (95 %) |\n|---|---|---|---|", flush=True)
    first = None
    for name in names:
        errors = measure(experiment(name, args.steps, (height, width)), args.workdir / name, pairs)
        first = errors if first is None else first
        low, high = health.interval(errors[:, 0] - first[:, 0])
        difference = f"{np.mean(errors[:, 0] - first[:, 0]):+.2f} ({low:+.2f} to {high:+.2f})"
        print(f"| {name} | {errors[:, 0].mean():.2f} | {errors[:, 1].mean():.1f} | {difference} |", flush=True)


def experiment(name: str, steps: int, crop: tuple[int, int]) -> Experiment:
    """A row of the table: nano at random weights, with what the row takes from nano_sharp."""
    config: Any = nano.get_config()
    sharp: Any = nano_sharp.get_config()
    for key in ROWS[name]:
        if key == "data":
            config.data.synthetic.scenes = sharp.data.synthetic.scenes
        else:
            config.model[key] = sharp.model[key]
    config.data.crop = crop
    config.data.synthetic.max_disparity = 3 * crop[1] / 8
    config.solver.update(max_iter=steps, batch_size=1)
    config.run.update(latest_every=200, print_every=100, images_every=0)
    config.eval.datasets = ()
    return Experiment.from_dict(config.to_dict())


def measure(what: Experiment, workdir: Path, pairs: health.Pairs) -> np.ndarray:
    """Trains in `workdir`, or goes on there; EPE (px) and bad-2 (%) of each pair, (B, 2)."""
    train(what, workdir, make_train_dataset(what.data), start=lambda: make_start(what, what.init, ""))
    _, state, frozen = load_run(workdir)
    disparity, _ = health.predict(what.model, host_arrays(join(frozen, state.best)), pairs)
    return health.pair_errors(disparity, pairs)


if __name__ == "__main__":
    main()
