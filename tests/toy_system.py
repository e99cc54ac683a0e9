"""A sixth system: a linear model with BatchNorm, a frozen teacher, an average of its weights, and batches of its own keys.

As a program it is a run in a process of its own: `toy_system.py WORKDIR TEACHER [KILL_BEFORE_STEP]`.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bridgedepth_jax.store.checkpoint import Checkpoint, load_checkpoint
from bridgedepth_jax.system import Estimate, Group, Objective, Result, System
from bridgedepth_jax.training.config import EvalConfig, RunConfig, SolverConfig
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.loop import train
from bridgedepth_jax.training.start import make_start

NAME, STEPS, FEATURES = "toy_system:SYSTEM", 12, 6


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    width: int = 5


@dataclasses.dataclass(frozen=True)
class ToyTask:
    distil: float = 0.5  # weight of the teacher's answers
    threshold: float = 0.0  # answers below it do not count


class Toy(nn.Module):
    config: ToyConfig

    @nn.compact
    def __call__(self, x, *, train=False, axes=None):
        x = nn.Dense(self.config.width, name="first")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=axes, name="norm")(x)
        return nn.Dense(1, name="last")(x)[..., 0]


def init(config, key):
    variables = Toy(config).init(key, jnp.zeros((1, FEATURES)))
    return {**variables["params"], "batch_stats": variables["batch_stats"]}


def variables(weights):
    return {"params": {k: v for k, v in weights.items() if k != "batch_stats"}, "batch_stats": weights["batch_stats"]}


def objective(config, task, teachers):
    teacher = teachers["wise"].config

    def loss(weights, frozen, batch, counts, rows):
        noise = 0.01 * jax.vmap(lambda n: jax.random.normal(jax.random.fold_in(rows.keys["noise"], n), (FEATURES,)))(
            rows.numbers
        )
        answer, new = Toy(config).apply(
            variables(weights), batch["features"] + noise, train=True, axes=rows.axes, mutable=["batch_stats"]
        )
        taught = Toy(teacher).apply(variables(frozen["wise"]), batch["features"])
        right = jnp.sum((answer - batch["target"]) ** 2) / counts
        counted = jax.lax.stop_gradient(answer > task.threshold)  # a divisor that depends on the prediction
        kept = rows.across("counted", jnp.sum(counted, dtype=answer.dtype))
        like = jnp.sum(jnp.where(counted, (answer - taught) ** 2, 0)) / jnp.maximum(kept, 1)
        return right + task.distil * like, Result({"right": right, "like": like}, answer, new)

    return Objective(
        trained=lambda path: not path.startswith("first/bias"),
        count=lambda batch: jnp.asarray(len(batch["target"]), jnp.float32),
        loss=loss,
        groups=lambda solver: (Group("all", "", solver.weight_decay),),
        keys=("noise",),
        headline=("right", "like"),
        picture=lambda host, answer: np.full((2, 2, 3), np.uint8(abs(answer[0]) % 255)),
    )


def estimate(config):
    def run(weights, left, right):
        mean = jnp.mean(left, axis=(-2, -1))  # (B, H)
        features = jnp.broadcast_to(mean[..., None], (*mean.shape, FEATURES)) / 255
        answer = jnp.abs(Toy(config).apply(variables(weights), features))  # (B, H)
        return Estimate(jnp.broadcast_to(answer[..., None], left.shape[:3]))

    return run


SYSTEM = System(
    name=NAME, config=ToyConfig, init=init, collections=("batch_stats",), task=ToyTask, objective=objective, estimate=estimate
)


class Points:
    """Batches of a noisy plane, from the step; `kill` is the step before which the process is killed."""

    fingerprint = "points"

    def __init__(self, kill=None):
        self.kill = kill

    def iterate(self, start_step=0, *, host=0, hosts=1):
        step = start_step
        while True:
            if step == self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            rng = np.random.default_rng(step)
            features = rng.standard_normal((16, FEATURES)).astype(np.float32)
            target = features @ np.arange(FEATURES, dtype=np.float32) + rng.standard_normal(16).astype(np.float32)
            rows = slice(host * 16 // hosts, (host + 1) * 16 // hosts)
            yield {"features": features[rows], "target": target[rows].astype(np.float32)}
            step += 1


def make(teacher: Path, task=None, **solver) -> Experiment:
    return Experiment(
        system=NAME,
        task=ToyTask(**(task or {})),
        solver=SolverConfig(**dict(max_iter=STEPS, batch_size=16, base_lr=5e-2, schedule="constant", average=0.9) | solver),
        run=RunConfig(latest_every=4, keep=1, images_every=5, print_every=4),
        eval=EvalConfig(datasets=()),
        init="random",
        teachers=(("wise", str(teacher)),),
    )


def wise(seed: int = 7) -> Checkpoint:
    """A teacher of another width."""
    config = ToyConfig(width=3)
    weights = jax.tree.map(np.asarray, jax.jit(init, static_argnums=0)(config, jax.random.key(seed)))
    return Checkpoint(NAME, weights, config, {"source": "a test"})


def start(experiment: Experiment):
    return lambda: make_start(experiment, experiment.init)


def main(workdir: str, teacher: str, kill: str = "") -> None:
    experiment = make(Path(teacher))
    print(train(experiment, Path(workdir), Points(int(kill) if kill else None), start(experiment)), flush=True)
    assert load_checkpoint(Path(workdir) / "export").kind == NAME


if __name__ == "__main__":
    main(*sys.argv[1:])
