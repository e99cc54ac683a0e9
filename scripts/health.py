"""What a checkpoint of BridgeDepth is made of, as Markdown: sizes of its activations, what each part is good for, confidence.

python scripts/health.py bridgedepth_jax/weights/nano
python scripts/health.py bridgedepth_jax/weights/nano runs/mine        # side by side
python scripts/health.py runs/nano_sharp --pairs 16 --size 256,512 --all
python scripts/health.py runs/nano_sharp --calibrate runs/calibrated

Measured on rendered pairs of a seed that training does not use. A --workdir of training is read at its newest checkpoint, its
average where it keeps one. --calibrate writes a checkpoint whose confidence has the temperature that fits these pairs best.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.convert.published import resolve
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.store.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bridgedepth_jax.systems.bridgedepth import health, losses
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth

UNSEEN = 10_007  # seed of the rendered pairs; training has another
BAR, SURE = 20, 0.9


class Table(NamedTuple):
    """What a report says of one checkpoint, by the names of its rows."""

    title: str
    columns: tuple[str, ...]  # the first is that of the rows' names
    rows: dict[str, tuple[str, ...]]
    remarks: tuple[str, ...] = ()


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="checkpoint folder, published name, or a --workdir of train.py")
    parser.add_argument("--pairs", type=int, default=8, metavar="N", help="so many rendered pairs")
    parser.add_argument("--size", default="256,512", help="height,width of them")
    parser.add_argument("--max-disparity", type=float, help="pixels; default: a quarter of the width")
    parser.add_argument("--scenes", default="sparse", choices=("sparse", "crowded", "fine"))
    parser.add_argument("--activations", action="store_true", help="nothing else: the rest takes most of the time")
    parser.add_argument("--no-gradient", action="store_true", help="leave out its shares, which take longest to compile")
    parser.add_argument("--last", action="store_true", help="of a --workdir: the last weights, not their average")
    parser.add_argument("--all", action="store_true", help="every module's output, not only the taps and the largest")
    parser.add_argument("--calibrate", type=Path, metavar="FOLDER", help="write the checkpoint with a fitted temperature")
    args = parser.parse_args()
    try:
        height, width = (int(part) for part in args.size.split(","))
    except ValueError:
        raise InputError(f"--size {args.size}, expected height,width") from None
    if height % 16 or width % 16 or args.pairs < 1:
        raise InputError(f"--size {args.size}, --pairs {args.pairs}: expected multiples of 16 and at least one pair")
    if args.calibrate and len(args.checkpoints) > 1:
        raise InputError(f"--calibrate {args.calibrate} with {len(args.checkpoints)} checkpoints, expected one")
    known = [load(name, last=args.last) for name in args.checkpoints]
    scenes = SyntheticStereo(
        height, width, max_disparity=args.max_disparity or width / 4, seed=UNSEEN, config=SyntheticConfig.named(args.scenes)
    )
    pairs = health.Pairs.of(scenes[i] for i in range(args.pairs))

    print(f"# {', '.join(args.checkpoints)}\n\n{args.pairs} rendered pairs of {height}x{width}, scenes {args.scenes}")
    show([activations(here, name, pairs, args.all) for here, name in zip(known, args.checkpoints, strict=True)])
    if args.activations:
        return
    show([ceilings_table(here, pairs) for here in known])
    show([without_parts(here, pairs) for here in known])
    if not args.no_gradient:
        show([gradient_shares(here, pairs) for here in known])
    predictions = [health.predict(here.config, here.params, pairs) for here in known]
    show([confidence_table(here, *found, pairs) for here, found in zip(known, predictions, strict=True)])
    if args.calibrate:
        temperature = likeliest_temperature(known[0], *predictions[0], pairs)
        calibrated = dataclasses.replace(
            known[0],
            config=known[0].config.replace(temperature=temperature),
            provenance=known[0].provenance | {"temperature": f"fitted on {args.pairs} rendered pairs of seed {UNSEEN}"},
        )
        save_checkpoint(args.calibrate, calibrated, dtype="float32")


def show(tables: Sequence[Table]) -> None:
    """One table as Markdown; several side by side, numbered as their checkpoints are."""
    first, *others = tables[0].columns
    marks = [f" ({n})" if len(tables) > 1 else "" for n in range(1, 1 + len(tables))]
    columns = [first, *(f"{column}{mark}" for mark in marks for column in others)]
    lines = [f"## {tables[0].title}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    nothing = ("",) * len(others)
    for name in dict.fromkeys(name for table in tables for name in table.rows):
        lines.append("| " + " | ".join([name, *(cell for table in tables for cell in table.rows.get(name, nothing))]) + " |")
    for mark, table in zip(marks, tables, strict=True):
        lines += [line for remark in table.remarks for line in ("", f"{mark} {remark}".strip())]
    print("\n" + "\n".join(lines), flush=True)


def activations(known: Checkpoint, source: str, pairs: health.Pairs, every: bool) -> Table:
    """InputError: one that is not finite."""
    found = health.sizes(known.config, known.params, pairs.left, pairs.right)
    shown = [row for row in found if every or row.name.startswith("tap ")]
    table = {row.name.removeprefix("tap "): (f"{row.rms:.3g}", f"{row.largest:.3g}") for row in shown}
    if not all(row.finite for row in found):
        show([Table("Activations", ("tap", "rms", "largest"), table)])
    health.check_finite(found, source)
    top = max((row for row in found if not row.name.startswith("tap ")), key=lambda row: row.largest)
    dead = ", ".join(f"{row.name} {100 * row.dead:.0f} %" for row in found if row.dead) or "none"
    remarks = [f"Largest of all modules: {top.name}, {top.largest:.3g}. Dead units before a relu: {dead}."]
    for dtype in ("float16", "bfloat16"):
        try:
            health.check_dtype(found, dtype)
        except InputError as error:
            remarks.append(f"Refused: {error}")
    return Table("Activations", ("tap", "rms", "largest"), table, tuple(remarks))


def ceilings_table(known: Checkpoint, pairs: health.Pairs) -> Table:
    rows = {
        row.name: (f"{row.bad2:.1f}", f"{row.edges:.1f}", f"{row.occluded:.1f}")
        for row in health.ceilings(known.config, known.params, pairs)
    }
    return Table("What it holds", ("disparity", "bad-2, %", "near edges, %", "occluded, %"), rows)


def without_parts(known: Checkpoint, pairs: health.Pairs) -> Table:
    rows = {
        effect.part: (
            f"{effect.change:.3g}",
            f"{effect.epe:.3f}",
            f"{effect.bad2:.2f}",
            f"{effect.worse[0]:+.2f} to {effect.worse[1]:+.2f}",
        )
        for effect in health.effects(known.config, known.params, pairs)
    }
    return Table("Without each part", ("without", "change, px", "EPE, px", "bad-2, %", "more than the whole (95 %)"), rows)


def gradient_shares(known: Checkpoint, pairs: health.Pairs) -> Table:
    found = health.shares(gradient(known.config, known.params, pairs))
    rows = {part: (f"{100 * share:.2g} %",) for part, share in found.items()}
    return Table("Share of the squared gradient norm", ("part", "share"), rows)


def confidence_table(known: Checkpoint, disparity: np.ndarray, confidence: np.ndarray, pairs: health.Pairs) -> Table:
    error, rows = np.abs(disparity - pairs.disparity), {}
    for row in health.reliability(confidence, error, pairs.valid):
        bar = "█" * round(BAR * (1 - row.wrong))  # the reliability diagram: bars that grow evenly are a calibrated confidence
        rows[f"{row.low:.1f}"] = f"{100 * row.share:.1f}", f"{row.confidence:.3f}", f"{100 * row.wrong:.1f}", f"`{bar:<{BAR}}`"
    sure = pairs.valid & (confidence > SURE)
    wrong = 100 * float((error[sure] > health.WRONG).mean()) if sure.any() else 0.0
    share = 100 * sure.sum() / pairs.valid.sum()
    areas = health.sparsification(confidence, error, pairs.valid)
    temperature = likeliest_temperature(known, disparity, confidence, pairs)
    return Table(
        "Confidence",
        ("from", "share of pixels, %", "mean confidence", "wrong by more than 2 px, %", "right"),
        rows,
        (
            f"Above {SURE}: {share:.1f} % of the pixels, {wrong:.1f} % of them wrong by more than 2 px.",
            f"Area under the sparsification curve, px: {', '.join(f'{name} {value:.3f}' for name, value in areas.items())}.",
            f"Likeliest temperature: {temperature:.3g} (now {known.config.temperature:.3g}).",
        ),
    )


def likeliest_temperature(known: Checkpoint, disparity: np.ndarray, confidence: np.ndarray, pairs: health.Pairs) -> float:
    return health.fit_temperature(known.config, confidence, np.abs(disparity - pairs.disparity), pairs.valid)


def load(source: str, *, last: bool) -> Checkpoint:
    """A BridgeDepth checkpoint, or the newest state of a run."""
    if (Path(source) / "checkpoints").is_dir():
        from bridgedepth_jax.training.export import host_arrays, load_run
        from bridgedepth_jax.training.step import join

        experiment, state, frozen = load_run(Path(source))
        words = {"source": f"training run, step {int(state.step)}", "experiment": experiment.to_dict()}
        known = Checkpoint(
            experiment.how.name, host_arrays(join(frozen, state.params if last else state.best)), experiment.model, words
        )
    else:
        known = load_checkpoint(resolve(source))
    if not isinstance(known.config, ModelConfig):
        raise InputError(f"checkpoint {source} holds {known.kind}, expected bridgedepth")
    return known


def gradient(config: ModelConfig, params: Mapping[str, Any], pairs: health.Pairs) -> Any:
    """Of the training loss on the first pair, monocular branch included."""
    outputs = config.nmp.infer_layers + config.nmp.refine_layers
    task = losses.StereoTask(train_mono=True, loss_weights=(1.0,) * outputs, max_disp=config.dpn.max_disp)
    terms = losses.LossConfig.of(config, task)

    @jax.jit
    @jax.grad
    def slope(params: Any, left: Any, right: Any, disparity: Any, valid: Any) -> jax.Array:
        output: Any = BridgeDepth(config).apply(
            {"params": params}, left, right, train=True, train_mono=True, rngs={"drop_path": jax.random.key(0)}
        )
        return losses.total(losses.losses(output, disparity, valid, terms), terms)

    first = (getattr(pairs, name)[:1] for name in ("left", "right", "disparity", "valid"))
    return jax.device_get(slope(*jax.tree.map(jnp.asarray, (params, *first))))


if __name__ == "__main__":
    main()
