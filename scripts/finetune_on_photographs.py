"""What fills the holes of pairs made from photographs, and the zero loss, are they worth anything to the small stereo network?

    python scripts/finetune_on_photographs.py PHOTOS --real ROOT --inpaint runs/inpaint_nano/export --workdir runs/photographs

Makes a set of the same photographs with each filler, fine-tunes the default model (`nano`) on each for equal steps from the
same weights and with the same draws, and evaluates on ROOT/pairs.csv (a `custom` list): the metrics and, against the model
before, the paired bootstrap. The last row does not train the monocular branch: a label that is an affine function of what that
branch sees can be read off it. What was done before is kept.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from bridgedepth_jax import commands
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.evaluation.compare import compare, lines
from bridgedepth_jax.evaluation.tables import read_results

ROWS = {  # name: filler of the set, what differs from the config
    "background": ("background", ("task.loss=labels",)),
    "telea": ("telea", ("task.loss=labels",)),
    "diffusion": ("diffusion", ("task.loss=labels",)),
    "diffusion, zero loss": ("diffusion", ("task.loss=zero",)),
    "diffusion, zero loss, mono fixed": ("diffusion", ("task.loss=zero", "task.train_mono=False")),
}


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", metavar="PHOTOS", type=Path)
    parser.add_argument("--real", metavar="ROOT", type=Path, required=True, help="folder of pairs.csv with real pairs")
    parser.add_argument("--inpaint", required=True, help="checkpoint of the small inpainting network")
    parser.add_argument("--depth", default="field", help="as bridgedepth data synthesize has it")
    parser.add_argument("--init", default=str(Path(commands.__file__).parents[1] / "weights" / "nano"))
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--sampling-steps", type=int, default=10)
    parser.add_argument("--max-side", type=int, default=384)
    args = parser.parse_args(argv)
    if args.steps < 1:
        raise InputError(f"--steps {args.steps}, expected at least 1")
    fillers = {"background": "background", "telea": "telea", "diffusion": args.inpaint}
    for name, filler in fillers.items():
        made = ("--depth", args.depth, "--inpaint", filler, "--steps", args.sampling_steps, "--max-side", args.max_side)
        run("data", "synthesize", args.photos, "--out", args.workdir / f"set_{name}", *made)
    results = {"before": evaluate("before", args.init, args)}
    for name, (filler, changes) in ROWS.items():
        folder = args.workdir / name.replace(", ", "_").replace(" ", "_")
        changed = (*changes, f"solver.max_iter={args.steps}", f"data.root={args.workdir / f'set_{filler}'}")
        options = [f"--config.{change}" for change in changed]
        run("train", "--config", "zerostereo/nano", "--workdir", folder, "--init", args.init, *options)
        results[name] = evaluate(name, folder / "export", args)
    for name in ROWS:
        print(f"\n## {name}: b, against the model before: a")
        print("\n".join(lines(compare(read_results(results["before"]), read_results(results[name])))))


def evaluate(name: str, checkpoint: str | Path, args: argparse.Namespace) -> Path:
    out = args.workdir / "results" / name.replace(", ", "_").replace(" ", "_")
    if not (out / "results.json").is_file():
        data = ("--datasets", "custom:pairs.csv", "--root", args.real)
        run("evaluate", "--checkpoint", checkpoint, *data, "--out", out, "--batch", 1)
    return out / "results.json"


def run(*words: object) -> None:
    commands.main([str(word) for word in words])


if __name__ == "__main__":
    sys.exit(main())
