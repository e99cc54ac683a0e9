"""From a training run to the default model inside the package: weights as float16, and the model card beside them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax

from bridgedepth_jax.checkpoint import DIGESTS, Checkpoint, save_checkpoint
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing
from bridgedepth_jax.training.export import host_arrays, load_run

CARD = "README.md"
LOGGED = (0, 1, 2, 10, 50, 100, 199)  # steps, from 0, whose losses the card has
LIMIT = 10e6  # bytes of the whole folder

TEXT = """\
# {name}: the default model of bridgedepth_jax

What `Predictor.load()` gives: BridgeDepth in {parameters:.2f} M parameters ({megabytes:.1f} MB, {dtype}).

{about}

| | |
|---|---|
| data | {data} |
| recipe | {recipe} |
| steps | {steps} |
| seed | {seed} |
| hardware | {hardware}, {hours:.1f} hours |
| software | {versions} |
| source | commit {commit}, data fingerprint {fingerprint} |
| licence | MIT, like the code: free for commercial use |

SHA-256 of `{digests}`, which lists that of every file here: `{digest}`

## Scores

{scores}

## Again

```
{command}
python scripts/ship_default.py runs/nano --hardware "{hardware}"
```

The first logged losses, of steps counted from 0 ({precision}):

| step | loss | EPE, px |
|---|---|---|
{losses}
"""


DATA = (
    "procedural stereo pairs alone (`bridgedepth_jax/data/synthetic`), {height}x{width} pixels, disparities up to {disparity:g}"
    " px. No real pair was seen in training, and none had a say in the choice of anything. With scikit-image installed, as it"
    " was, some of its photographs are textures; its stereo pair is not"
)
RECIPE = (
    "`configs/nano.py`: everything from random weights, the monocular branch too; AdamW, one-cycle rate up to {rate:g},"
    " {batch} pairs a step"
)


def ship(workdir: Path, folder: Path, *, hardware: str, about: str, scores: str, commit: str | None = None) -> None:
    """Writes the newest checkpoint of a run, and its card, to `folder`, replacing what is there.

    hardware: what it was trained on, in words. about, scores: Markdown for the card. commit: what the run's log says
    by default. Raises InputError: no such run, one without its logs, or weights that are too many to ship.
    """
    experiment, state, frozen = load_run(workdir)
    start, records = _lines(workdir / "run.jsonl")[0], _lines(workdir / "metrics.jsonl")
    params = host_arrays({**frozen, **state.params})
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    if 2 * size > LIMIT:
        raise InputError(f"{workdir}: {size} parameters, {2 * size / 1e6:.1f} MB, expected at most {LIMIT / 1e6:g} MB")
    step, solver, data = int(state.step), experiment.solver, experiment.data
    command = f"python train.py --config configs/nano.py --workdir runs/nano --config.solver.max_iter={solver.max_iter}"
    provenance = {
        "source": f"training run, step {step}",
        "init": experiment.init,
        "experiment": experiment.to_dict(),
        "licence": "MIT",
    }
    checkpoint = Checkpoint("bridgedepth", params, experiment.model.replace(remat=False), provenance)
    save_checkpoint(folder, checkpoint, dtype="float16")
    by_step = {record["step"]: record for record in records}
    rows = [f"| {i} | {by_step[i]['loss']:.3f} | {by_step[i]['epe_train']:.3f} |" for i in LOGGED if i in by_step]
    text = TEXT.format(
        name=folder.name,
        parameters=size / 1e6,
        megabytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6,
        dtype="float16",
        about=about.strip(),
        data=DATA.format(height=data.crop[0], width=data.crop[1], disparity=data.synthetic.max_disparity),
        recipe=RECIPE.format(rate=solver.base_lr, batch=solver.batch_size),
        steps=step,
        seed=experiment.seed,
        hardware=hardware,
        hours=sum(solver.batch_size / record["images_per_s"] for record in records) / 3600,
        versions=", ".join(f"{name} {version}" for name, version in start["versions"].items() if version),
        commit=commit or start["git"],
        fingerprint=start["data"],
        digests=DIGESTS,
        digest=hashlib.sha256((folder / DIGESTS).read_bytes()).hexdigest(),
        scores=scores.strip(),
        command=command,
        precision="equal on one machine, to about three digits on another",
        losses="\n".join(rows),
    )
    with replacing(folder / CARD) as temporary:
        temporary.write_text(text)


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}, expected the log of a training run") from None
