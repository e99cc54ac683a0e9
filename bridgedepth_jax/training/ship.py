"""From a training run to the default model inside the package: weights as float16, and the model card beside them."""

import argparse
import dataclasses
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing
from bridgedepth_jax.store.checkpoint import DIGESTS, Checkpoint, save_checkpoint
from bridgedepth_jax.training.export import host_arrays, load_run, without_remat
from bridgedepth_jax.training.start import RANDOM
from bridgedepth_jax.training.step import join

CARD = "README.md"
LOGGED = (0, 1, 2, 10, 50, 100, 199)  # steps, from 0, whose losses the card has
LIMIT = 8e6  # bytes of the whole folder

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
{commands}
```

The first logged losses, of steps counted from 0 ({precision}):

| step | loss | EPE, px |
|---|---|---|
{losses}
"""


DATA = (
    "procedural stereo pairs alone (`bridgedepth_jax/data/procedural`), {height}x{width} pixels, disparities up to"
    " {disparity:g} px. No real pair was seen in training, and none had a say in the choice of anything. With scikit-image"
    " installed, as it was, some of its photographs are textures; its stereo pair is not"
)
RECIPE = "`{config}`: {trained} trained, from {origin}; AdamW, {schedule} {rate:g}, pairs a step: {batch}{average}"


RATES = {"one_cycle": "one-cycle rate up to", "constant": "constant rate", "drop": "dropping rate from"}


class Origin(NamedTuple):
    """What a run started from, where that was not random weights."""

    words: str  # of what kind, Markdown
    init: str  # --init in the card's command
    commands: str = ""  # shell lines that make it


def ship(
    workdir: Path,
    folder: Path,
    *,
    hardware: str,
    about: str,
    scores: str,
    origin: Origin | None = None,
    temperature: float | None = None,
) -> None:
    """Writes the newest checkpoint of a run, and its card, to `folder`, replacing what is there.

    hardware: what it was trained on, in words. about, scores: Markdown for the card. temperature: of the confidence, for a
    model that has one, in place of the run's. Raises InputError: no such run, one without its logs, one that did not start at
    random and is given no `origin`, or weights that are too many to ship.
    """
    experiment, state, frozen = load_run(workdir)
    start, records = _lines(workdir / "run.jsonl")[0], _lines(workdir / "metrics.jsonl")
    params = host_arrays(join(frozen, state.best))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    if 2 * size > LIMIT:
        raise InputError(f"{workdir}: {size} parameters, {2 * size / 1e6:.1f} MB, expected at most {LIMIT / 1e6:g} MB")
    if origin is None and experiment.init not in RANDOM:
        raise InputError(f"{workdir}: started from {experiment.init}; the card must say what that is, expected --origin")
    init = origin.init if origin else experiment.init
    only = getattr(experiment.task, "only", ())  # of what a run can be limited to, where the system has that
    step, solver, data = int(state.step), experiment.solver, experiment.data
    config, commands = _commands(start["command"], workdir, step, hardware, origin)
    commands += f" --temperature {temperature:g}" if temperature is not None else ""
    by_step = {record["step"]: record for record in records}
    rows = [f"| {i} | {by_step[i]['loss']:.3f} | {by_step[i]['epe_train']:.3f} |" for i in LOGGED if i in by_step]
    hours = sum(solver.batch_size / record["images_per_s"] for record in records) / 3600
    provenance = {
        "source": f"training run, step {step}",
        "init": init,
        "experiment": experiment.to_dict() | {"init": init},
        "licence": "MIT",
    }
    model = without_remat(experiment.model)
    if temperature is not None:
        model = dataclasses.replace(model, temperature=temperature)
    checkpoint = Checkpoint(experiment.how.name, params, model, provenance)
    save_checkpoint(folder, checkpoint, dtype="float16")
    text = TEXT.format(
        name=folder.name,
        parameters=size / 1e6,
        megabytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6,
        dtype="float16",
        about=about.strip(),
        data=DATA.format(height=data.crop[0], width=data.crop[1], disparity=data.synthetic.max_disparity),
        recipe=RECIPE.format(
            config=f"configs/{config.name}",
            trained=f"{' and '.join(f'`{name}`' for name in only)} alone is"
            if only
            else "everything, the monocular branch too, is",
            origin=origin.words if origin else "random weights",
            schedule=RATES.get(solver.schedule, solver.schedule),
            rate=solver.base_lr,
            average=f"; average of the weights with decay {solver.average:g}" if solver.average else "",
            batch=solver.batch_size,
        ),
        steps=step,
        seed=experiment.seed,
        hardware=hardware,
        hours=hours,
        versions=", ".join(f"{name} {version}" for name, version in start["versions"].items() if version),
        commit=start["git"],
        fingerprint=start["data"],
        digests=DIGESTS,
        digest=hashlib.sha256((folder / DIGESTS).read_bytes()).hexdigest(),
        scores=scores.strip(),
        commands=commands,
        precision="equal on one machine, to about three digits on another",
        losses="\n".join(rows),
    )
    with replacing(folder / CARD) as temporary:
        temporary.write_text(text)


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}, expected the log of a training run") from None
    needed = {"run.jsonl": ("command", "git", "data", "versions")}.get(path.name, ("step", "loss", "epe_train", "images_per_s"))
    lacking = [key for key in needed if not lines or key not in lines[0]]
    if lacking:
        raise InputError(f"{path}: no {lacking[0]} in the first line, expected the log of a training run")
    return lines


def _commands(given: list[str], workdir: Path, steps: int, hardware: str, origin: Origin | None) -> tuple[Path, str]:
    """The config file of a run, and the shell lines that train and ship it again, from the run's own command.

    Everything of that command stays but for its workdir and its --init, which are the reader's.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    for name in ("config", "workdir", "init"):
        parser.add_argument(f"--{name}")
    known, rest = parser.parse_known_args(given[2:] if given[1:2] == ["train"] else given[1:])  # bridgedepth train, or train.py
    if known.config is None:
        raise InputError(f"{workdir / 'run.jsonl'}: command {' '.join(given)}, expected one with --config")
    path, _, argument = known.config.partition(":")
    config = Path(path).with_suffix(".py")
    folder = f"runs/{config.stem}"
    rest = [word for word in rest if not word.startswith("--config.solver.max_iter")]
    train = ["python", "train.py", "--config", f"configs/{config.name}{':' * bool(argument)}{argument}", "--workdir", folder]
    train += [f"--config.solver.max_iter={steps}", *rest, *(["--init", origin.init] if origin else [])]
    ship = ["python", "scripts/ship_default.py", folder, "--hardware", hardware]
    ship += ["--origin", origin.words, "--origin-init", origin.init] if origin else []
    before = origin.commands.strip() if origin else ""
    return config, f"{before}\n{shlex.join(train)}\n{shlex.join(ship)}".strip()
