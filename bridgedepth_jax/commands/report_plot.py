"""Draws the EPE of a training run over its steps, beside that of the best constant prediction (extra `plot`).

bridgedepth report plot runs/synthetic --out curve.png

Reads metrics.jsonl (training), evaluation.jsonl (validation) and the newest checkpoint's config of the run.
"""

import argparse
import json
from pathlib import Path

from bridgedepth_jax.errors import InputError

WINDOW = 25  # steps of training under one point


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=Path, help="--workdir of bridgedepth train")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    parser.add_argument("--dataset", default="synthetic", help="validation set, one of the run's eval.datasets")


def run(args: argparse.Namespace) -> None:
    import numpy as np

    from bridgedepth_jax.files import replacing
    from bridgedepth_jax.training.export import load_run
    from bridgedepth_jax.training.validation import constant_epe

    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise InputError("matplotlib is not installed, which draws the curve: pip install 'bridgedepth-jax[plot]'") from None
    kinds = plt.figure().canvas.get_supported_filetypes()
    if args.out.suffix[1:] not in kinds:
        raise InputError(f"--out {args.out}: no writer for this file type, expected one of .{', .'.join(sorted(kinds))}")
    experiment, _, _ = load_run(args.workdir)
    if args.dataset not in experiment.eval.datasets:
        raise InputError(f"--dataset {args.dataset}, expected one of the run's: {', '.join(experiment.eval.datasets)}")
    training = np.array([row["epe_train"] for row in read(args.workdir / "metrics.jsonl")])
    validation = np.array([(row["step"], row[f"{args.dataset}/epe"]) for row in read(args.workdir / "evaluation.jsonl")])
    constant = constant_epe(experiment, args.dataset)

    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    points = len(training) // WINDOW
    means = training[: points * WINDOW].reshape(points, WINDOW).mean(1)
    axes.plot((np.arange(points) + 0.5) * WINDOW, means, color="0.6", label=f"training, mean of {WINDOW} steps")
    axes.plot(*validation.T, "o-", label="validation, unseen scenes")
    axes.axhline(constant, color="tab:red", linestyle="--", label="best constant")
    axes.set(xlabel="step", ylabel="EPE, px", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    with replacing(args.out) as temporary:
        figure.savefig(temporary, dpi=100)
    for step, epe in validation:
        print(f"after {step:.0f} steps: {args.dataset} EPE {epe:.2f} px")
    print(f"best constant: EPE {constant:.2f} px")
    print(args.out)


def read(path: Path) -> list[dict]:
    """Whole lines of a file of JSON objects."""
    if not path.is_file():
        raise InputError(f"{path} does not exist, expected a file of a run of bridgedepth train")
    rows = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    if not rows:
        raise InputError(f"{path} is empty, expected one JSON object a line")
    return rows
