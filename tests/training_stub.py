"""A system of two layers, and noise in place of data: what the loop does, without what a real network computes.

As a program it is one process of a run: `training_stub.py WORKDIR STEPS COORDINATOR PROCESSES ID` (COORDINATOR - for one).
"""

import dataclasses
import functools
import itertools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bridgedepth_jax.layers import drop_path
from bridgedepth_jax.system import Group, Objective, Result, System
from bridgedepth_jax.training import loop
from bridgedepth_jax.training.config import EvalConfig, RunConfig, SolverConfig
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.start import Start

HEIGHT, WIDTH, STEPS = 16, 32, 8
NAME = "training_stub:SYSTEM"


@dataclasses.dataclass(frozen=True)
class StubConfig:
    width: int = 32


@dataclasses.dataclass(frozen=True)
class StubTask:
    train_mono: bool = False
    mono_rate: float = 0.1
    max_disp: int = 192  # ground truth from here on counts as unknown


class Stub(nn.Module):
    """Disparity from next to nothing, with a frozen part `mono` and a dropped branch."""

    config: StubConfig

    @nn.compact
    def __call__(self, left, right, *, train=False):
        x = nn.avg_pool(jnp.concatenate([left, right]) / 255, (8, 8), (8, 8))
        x = x + drop_path(self, nn.Dense(3, name="branch")(x), 0.5, train=train)
        left, right = jnp.split(nn.Dense(self.config.width, name="wide")(x), 2)
        mono = nn.Dense(self.config.width, name="mono")(left)
        tokens = jnp.abs(nn.Dense(64, name="head")(nn.gelu(jnp.concatenate([left, right, mono], -1))))
        b, h, w, _ = tokens.shape
        return tokens.reshape(b, h, w, 8, 8).swapaxes(2, 3).reshape(b, 8 * h, 8 * w)


def init(config, key):
    image = jnp.zeros((1, HEIGHT, WIDTH, 3))
    return Stub(config).init(key, image, image)["params"]


def objective(config, task, teachers):
    def mask(batch):
        return batch["valid"] & ~(batch["disparity"] >= task.max_disp)

    def loss(weights, teachers, batch, counts, rows):
        numbers = jnp.concatenate([rows.numbers, rows.total + rows.numbers])
        variables = {"params": weights, "samples": {"numbers": numbers}}
        images = (batch[side].astype(jnp.float32) for side in ("left", "right"))
        disparity = Stub(config).apply(variables, *images, train=True, rngs=rows.keys)
        error = jnp.sum(jnp.where(mask(batch), jnp.abs(disparity - batch["disparity"]), 0)) / counts
        return 2 * error, Result({"epe_train": error}, disparity)

    return Objective(
        trained=lambda path: task.train_mono or not path.startswith("mono/"),
        count=lambda batch: jnp.sum(mask(batch), dtype=jnp.float32),
        loss=loss,
        groups=lambda solver: (
            Group("mono", r"mono/", solver.weight_decay, task.mono_rate),
            Group("other", r"(?!mono/)", solver.weight_decay),
        ),
        keys=("drop_path",),
        headline=("epe_train",),
        health=lambda weights, batch: {"largest/wide": jnp.max(jnp.abs(weights["wide"]["kernel"]))},
        part=lambda path: path.split("/")[0],
    )


SYSTEM = System(name=NAME, config=StubConfig, init=init, task=StubTask, objective=objective, multiple=16, minimum=16)


@functools.cache
def stub_params():
    return jax.jit(init, static_argnums=0)(StubConfig(), jax.random.key(0))


class Noise:
    """Batches from the step; `poison` are steps without a finite loss, `at` calls a function before a step."""

    fingerprint = "noise"

    def __init__(self, batch=8, poison=(), at=()):
        self.batch, self.poison, self.at = batch, poison, dict(at)

    def iterate(self, start_step=0, *, host=0, hosts=1):
        for step in itertools.count(start_step):
            self.at.get(step, lambda: None)()
            rng = np.random.default_rng(step)
            shape = (self.batch, HEIGHT, WIDTH)
            left, right = (rng.integers(0, 256, (*shape, 3), np.uint8) for _ in range(2))
            disparity = rng.uniform(0, 40, shape).astype(np.float32)
            valid = rng.random(shape) < 0.9
            if step in self.poison:
                disparity[0, 0, 0], valid[0, 0, 0] = np.nan, True
            whole = {"left": left, "right": right, "disparity": disparity, "valid": valid}
            size = self.batch // hosts
            yield {name: values[host * size : (host + 1) * size] for name, values in whole.items()}


def make(task=None, **solver) -> Experiment:
    solver = dict(max_iter=STEPS, batch_size=8, base_lr=1e-2, max_bad_steps=3) | solver
    return Experiment(
        system=NAME,
        task=StubTask(**(task or {})),
        solver=SolverConfig(**solver),
        run=RunConfig(latest_every=3, images_every=0, print_every=1),
        eval=EvalConfig(datasets=()),
        init="random",
    )


def start() -> Start:
    return Start(jax.tree.map(np.asarray, stub_params()))


def main(workdir: str, steps: str, coordinator: str, processes: str, number: str) -> None:
    if coordinator != "-":
        jax.distributed.initialize(coordinator, int(processes), int(number), heartbeat_timeout_seconds=10)
    print(loop.train(make(max_iter=int(steps)), Path(workdir), Noise(), start), flush=True)


if __name__ == "__main__":
    from training_stub import main as run  # the module that the system's name means, not this second copy of it

    run(*sys.argv[1:])
