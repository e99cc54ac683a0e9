"""ZeroStereo's loss where a label is wrong and not trusted, beside the same training from labels alone.

    python scripts/zero_loss.py [--steps 300] [--seeds 0 1 2]

The debug network on rendered pairs. In one patch, the same in every image, each label is `WRONG` pixels too large and has
confidence 0.05; elsewhere labels are true with confidence 1. Prints the error against the truth on unseen pairs, in the patch
and outside of it, for both losses and each seed; start, pairs and order are the same for both.
"""

import argparse
import dataclasses
import functools
import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from bridgedepth_jax.configs.bridgedepth import debug
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.ops.forward_warp import forward_warp
from bridgedepth_jax.sharding import make_mesh
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.step import Frozen, join, make_step

WRONG = 8.0  # pixels
PATCH = np.s_[16:48, 40:80]  # rows, columns of the 64 x 96 crop
TRUST = 0.05
UNSEEN = 32  # pairs


def arrays_of(sample, *, spoil: bool) -> dict[str, np.ndarray]:
    """A rendered pair as the zero loss wants it; the masks are those of its true disparity."""
    disparity, valid = sample["disparity"].copy(), sample["valid"]
    holes = forward_warp(sample["left"], disparity.astype(np.float64), valid)
    confidence = np.ones(disparity.shape, np.float32)
    if spoil:
        disparity[PATCH] += WRONG
        confidence[PATCH] = TRUST
    views = {name: sample[name.removesuffix("_clean")] for name in ("left", "right", "left_clean", "right_clean")}
    # `inpaint` is read where the label points, which in the patch is the wrong place: no pixel of these views is made up.
    nothing = np.zeros(disparity.shape, bool)
    return {
        **views,
        "disparity": disparity,
        "valid": valid,
        "confidence": confidence,
        "nonocc": holes.nonocc,
        "inpaint": nothing,
    }


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pairs", type=int, default=64, help="to learn from")
    args = parser.parse_args(argv)
    if args.steps < 1 or args.pairs < 1:
        raise InputError(f"--steps {args.steps}, --pairs {args.pairs}, expected at least 1")
    base = Experiment.from_dict(debug.get_config().to_dict())
    solver = dataclasses.replace(base.solver, max_iter=args.steps)
    experiments = {
        loss: dataclasses.replace(base, solver=solver, task=dataclasses.replace(base.task, loss=loss))
        for loss in ("labels", "zero")
    }
    system, mesh = base.how, make_mesh(1, jax.devices()[:1])
    objectives = {loss: experiment.objective() for loss, experiment in experiments.items()}
    steps = {loss: jax.jit(make_step(objective, solver, mesh), donate_argnums=0) for loss, objective in objectives.items()}
    assert system.estimate is not None
    estimate = jax.jit(system.estimate(base.model))
    init = jax.jit(functools.partial(system.init, base.model))
    results: dict[str, list[tuple[float, float]]] = {loss: [] for loss in steps}
    for seed in args.seeds:
        scenes = functools.partial(SyntheticStereo, *base.data.crop, max_disparity=24.0, config=SyntheticConfig().clean())
        pairs, unseen = scenes(seed=seed, size=args.pairs), scenes(seed=10_000 + seed, size=UNSEEN)
        rows = [arrays_of(pairs[i], spoil=True) for i in tqdm(range(args.pairs), unit="pair", file=sys.stderr)]
        truth = [arrays_of(unseen[i], spoil=False) for i in range(UNSEEN)]
        for loss, step in steps.items():
            weights = init(jax.random.key(seed))
            state, frozen = dataclasses.replace(experiments[loss], seed=seed).begin(objectives[loss], weights)
            fixed, order = Frozen(frozen, {}), np.random.default_rng(seed)
            for _ in tqdm(range(args.steps), unit="step", desc=loss, file=sys.stderr):
                chosen = order.integers(args.pairs, size=solver.batch_size)
                batch = {name: jnp.asarray(np.stack([rows[i][name] for i in chosen])) for name in rows[0]}
                state, _, _ = step(state, fixed, batch)
            results[loss].append(errors(estimate, join(state.best, frozen), truth))
            print(
                f"seed {seed}, {loss:6}: EPE {results[loss][-1][0]:5.2f} px in the patch, {results[loss][-1][1]:5.2f} outside",
                flush=True,
            )
    for loss, values in results.items():
        inside, outside = np.mean(values, 0)
        print(f"{loss:6}: mean EPE {inside:5.2f} px in the patch, {outside:5.2f} px outside, {args.steps} steps")


def errors(estimate, weights, truth) -> tuple[float, float]:
    """EPE on unseen pairs, in the patch and outside it."""
    inside, outside = [], []
    for sample in truth:
        found = np.asarray(estimate(weights, *(jnp.asarray(sample[side])[None] for side in ("left", "right"))).disparity[0])
        error, patch = np.abs(found - sample["disparity"]), np.zeros(found.shape, bool)
        patch[PATCH] = True
        known = sample["valid"] & sample["nonocc"]
        inside.append(error[known & patch])
        outside.append(error[known & ~patch])
    return float(np.concatenate(inside).mean()), float(np.concatenate(outside).mean())


if __name__ == "__main__":
    main()
