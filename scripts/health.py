"""What a checkpoint of BridgeDepth is made of, as Markdown: sizes of its activations, what each part is good for, confidence.

python scripts/health.py bridgedepth_jax/weights/nano
python scripts/health.py runs/nano_sharp --pairs 16 --size 256,512 --all
python scripts/health.py runs/nano_sharp --calibrate runs/calibrated

Measured on rendered pairs of a seed that training does not use. A --workdir of training is read at its newest checkpoint, its
average where it keeps one. --calibrate writes a checkpoint whose confidence has the temperature that fits these pairs best.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint folder, published name, or a --workdir of train.py")
    parser.add_argument("--pairs", type=int, default=8, metavar="N", help="so many rendered pairs")
    parser.add_argument("--size", default="256,512", help="height,width of them")
    parser.add_argument("--max-disparity", type=float, help="pixels; default: a quarter of the width")
    parser.add_argument("--scenes", default="sparse", choices=("sparse", "crowded"))
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
    known = load(args.checkpoint, last=args.last)
    config, params = known.config, known.params
    scenes = SyntheticStereo(
        height, width, max_disparity=args.max_disparity or width / 4, seed=UNSEEN, config=SyntheticConfig.named(args.scenes)
    )
    pairs = health.Pairs.of(scenes[i] for i in range(args.pairs))

    sizes = health.sizes(config, params, pairs.left, pairs.right)
    print(f"# {args.checkpoint}\n\n{args.pairs} rendered pairs of {height}x{width}, scenes {args.scenes}\n\n## Activations\n")
    print("| tap | rms | largest |\n|---|---|---|")
    for row in sizes:
        if args.all or row.name.startswith("tap "):
            print(f"| {row.name.removeprefix('tap ')} | {row.rms:.3g} | {row.largest:.3g} |")
    health.check_finite(sizes, args.checkpoint)
    top = max((row for row in sizes if not row.name.startswith("tap ")), key=lambda row: row.largest)
    print(f"\nLargest of all modules: {top.name}, {top.largest:.3g}. Dead units before a relu:")
    print(", ".join(f"{row.name} {100 * row.dead:.0f} %" for row in sizes if row.dead) or "none")

    for dtype in ("float16", "bfloat16"):
        try:
            health.check_dtype(sizes, dtype)
        except InputError as error:
            print(f"Refused: {error}")
    if args.activations:
        return
    print("\n## Without each part\n\n| without | change, px | EPE, px | bad-2, % | more than the whole (95 %) |")
    print("|---|---|---|---|---|")
    for effect in health.effects(config, params, pairs):
        more = f"{effect.worse[0]:+.2f} to {effect.worse[1]:+.2f}"
        print(f"| {effect.part} | {effect.change:.3g} | {effect.epe:.3f} | {effect.bad2:.2f} | {more} |", flush=True)

    if not args.no_gradient:
        print("\n## Share of the squared gradient norm\n")
        found = health.shares(gradient(config, params, pairs))
        print("| " + " | ".join(found) + " |\n|" + "---|" * len(found))
        print("| " + " | ".join(f"{100 * share:.2g} %" for share in found.values()) + " |")

    disparity, confidence = health.predict(config, params, pairs)
    error = np.abs(disparity - pairs.disparity)
    print("\n## Confidence\n\n| from | share of pixels, % | mean confidence | wrong by more than 2 px, % | right |")
    print("|---|---|---|---|---|")
    for row in health.reliability(confidence, error, pairs.valid):
        bar = "█" * round(BAR * (1 - row.wrong))  # the reliability diagram: bars that grow evenly are a calibrated confidence
        print(f"| {row.low:.1f} | {100 * row.share:.1f} | {row.confidence:.3f} | {100 * row.wrong:.1f} | `{bar:<{BAR}}` |")
    sure = pairs.valid & (confidence > SURE)
    wrong = 100 * float((error[sure] > health.WRONG).mean()) if sure.any() else 0.0
    share = 100 * sure.sum() / pairs.valid.sum()
    print(f"\nAbove {SURE}: {share:.1f} % of the pixels, {wrong:.1f} % of them wrong by more than 2 px.")
    areas = health.sparsification(confidence, error, pairs.valid)
    print(f"\nArea under the sparsification curve, px: {', '.join(f'{name} {value:.3f}' for name, value in areas.items())}")
    temperature = health.fit_temperature(config, confidence, error, pairs.valid)
    print(f"Likeliest temperature: {temperature:.3g} (now {config.temperature:.3g})")
    if args.calibrate:
        calibrated = dataclasses.replace(
            known,
            config=config.replace(temperature=temperature),
            provenance=known.provenance | {"temperature": f"fitted on {args.pairs} rendered pairs of seed {UNSEEN}"},
        )
        save_checkpoint(args.calibrate, calibrated, dtype="float32")


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
