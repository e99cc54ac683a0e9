"""Reward gradients on a small generator: do its images show their depth better afterwards, to a judge it never saw?

python scripts/reward_demo.py --out runs/reward_demo                  # some 20 minutes on two cores
python scripts/reward_demo.py --out runs/reward_demo --updates 100

Trains, on rendered scenes: two depth networks of other seeds and widths (the reward's and the judge), a generator by flow
matching, and then the generator by reward gradients (L_D alone) through the last step. Prints the centred cosine of held-out
maps by both networks before, in between and after, and the images' deviation; writes OUT/results.json and OUT/sheet.png.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.files import make_folder, replacing
from bridgedepth_jax.systems.bridge_mde import trials
from bridgedepth_jax.systems.bridge_mde.generator import nano
from bridgedepth_jax.systems.bridge_mde.generator.config import RewardTask
from bridgedepth_jax.systems.bridge_mde.generator.reward import depth_loss, reward_loss
from bridgedepth_jax.visualize import colorize

SHOWN = 8


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=100, help="of the reward")
    parser.add_argument("--pretraining", type=int, default=2000, help="steps of the generator")
    parser.add_argument("--judging", type=int, default=1000, help="steps of either depth network")
    parser.add_argument("--size", default="16,20", help="height,width")
    parser.add_argument("--scenes", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=8, help="of the sampler")
    parser.add_argument("--last", default="1", help="steps that carry a gradient, or random")
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.last != "random" and not args.last.isdigit():
        raise InputError(f"--last {args.last}, expected 1 to --steps {args.steps}, or random")
    last: Any = args.last if args.last == "random" else int(args.last)
    task = RewardTask(steps=args.steps, last=last, depth=1.0, aesthetic=0.0)
    try:
        height, width = (int(side) for side in args.size.split(","))
    except ValueError:
        raise InputError(f"--size {args.size}, expected height,width") from None
    make_folder(args.out, "--out")
    start = time.perf_counter()
    data = trials.scenes(args.scenes, (height, width), args.seed)
    images, inverse = data
    held = trials.scenes(128, (height, width), args.seed + trials.UNSEEN).inverse
    keys = jax.random.split(jax.random.key(args.seed), 2)
    rng = np.random.default_rng(args.seed)
    draw = lambda rows: rng.integers(0, len(images), rows)
    networks = {"reward": trials.SmallDepth(32, stride=1), "judge": trials.SmallDepth(24, (1, 2, 4, 2), stride=1)}
    weights = {}
    for number, (name, network) in enumerate(networks.items()):
        print(f"depth network, {name}")
        weights[name] = trials.train_depth(network, data, args.judging, args.seed + number, rows=16)

    def flow_batch(step: int) -> tuple[Any, ...]:
        chosen = draw(16)
        return images[chosen], inverse[chosen], jax.random.fold_in(keys[0], step)

    print("generator, flow matching")
    first = jax.jit(lambda key: nano.init_nano(key, height, width))(keys[0])
    generator = trials.train(nano.flow_loss, first, args.pretraining, 1e-3, flow_batch, words="velocity")
    sample = nano.make_sampler(args.steps)
    noise = jax.random.normal(keys[1], (len(held), height, width, 3))

    see = lambda name, made: networks[name].apply({"params": weights[name]}, jnp.clip(made, -1, 1))

    @jax.jit
    def judged(params: Any) -> Any:
        made = jnp.clip(sample(params, held, noise), -1, 1)
        agree = {name: 1 - depth_loss(see(name, made), held) for name in networks}  # type: ignore[arg-type]
        return made, agree, jnp.mean(jnp.std(made, axis=(1, 2, 3)))

    course: list[Any] = []

    def watch(step: int, params: Any) -> None:
        course.append(judged(params))
        words = ", ".join(f"{name} {float(jnp.mean(agree)):.3f}" for name, agree in course[-1][1].items())
        print(f"  update {step}: centred cosine by {words}; deviation {float(course[-1][2]):.3f}", flush=True)

    loss = reward_loss(task, sample, lambda made: see("reward", made))  # type: ignore[arg-type, return-value]

    def reward_batch(step: int) -> tuple[Any, ...]:
        key = jax.random.fold_in(keys[1], step + 1)
        return inverse[draw(8)], jax.random.normal(key, (8, height, width, 3)), jax.random.fold_in(key, 1)

    print("generator, reward gradients")
    trials.train(lambda *given: loss(*given)[0], generator, args.updates, args.rate, reward_batch, watch=watch)
    before, after = course[0], course[-1]
    result: dict[str, Any] = {"options": {k: str(v) for k, v in vars(args).items()}, "seconds": time.perf_counter() - start}
    draws = np.random.default_rng(0).integers(0, len(held), (2000, len(held)))
    for name in networks:
        a, b = np.asarray(before[1][name]), np.asarray(after[1][name])
        low, high = np.quantile((b - a)[draws].mean(1), (0.025, 0.975))
        result[name] = {"before": float(a.mean()), "after": float(b.mean()), "interval": [float(low), float(high)]}
        print(f"{name}: centred cosine {a.mean():.3f} before, {b.mean():.3f} after, difference {low:+.3f} .. {high:+.3f}")
    result["deviation"] = [float(before[2]), float(after[2])]
    result["course"] = [{name: float(jnp.mean(agree)) for name, agree in found[1].items()} for found in course]
    print(f"deviation of images {before[2]:.3f} before, {after[2]:.3f} after")
    rows = []
    for i in range(SHOWN):
        panels = [colorize(held[i], float(held[i].max()))]
        panels += [np.round((np.asarray(made[0][i]) + 1) * 127.5).astype(np.uint8) for made in (before, after)]
        rows.append(
            np.concatenate([cv2.resize(p, (8 * width, 8 * height), interpolation=cv2.INTER_NEAREST) for p in panels], 1)
        )
    with replacing(args.out / "sheet.png") as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
    with replacing(args.out / "results.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
