"""A network of two layers in place of BridgeDepth, and noise in place of data: what the loop does, without what it computes.

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
from bridgedepth_jax.store import checkpoint
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.systems.bridgedepth.network import StereoOutput
from bridgedepth_jax.training import experiment as experiment_module
from bridgedepth_jax.training import loop
from bridgedepth_jax.training.config import EvalConfig, RunConfig, SolverConfig
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.start import Start

HEIGHT, WIDTH, STEPS = 16, 32, 8
MODEL = ModelConfig()
NMP = dataclasses.replace(MODEL.nmp, infer_layers=1, refine_layers=1)
# Without the recurrent loss: its gradient through medians lands on another pixel after a change of one ulp.
MODEL = dataclasses.replace(MODEL, nmp=NMP, recurrent_loss_weight=0.0)


class Stub(nn.Module):
    """The outputs of BridgeDepth from next to nothing, with its freezing of `mono` and a dropped branch."""

    config: ModelConfig

    @nn.compact
    def __call__(self, left, right, *, train=False, train_mono=False):
        x = jnp.concatenate([left, right]) / 255
        x = nn.avg_pool(x, (8, 8), (8, 8))
        x = x + drop_path(self, nn.Dense(3, name="branch")(x), 0.5, train=train)
        left, right = jnp.split(nn.Dense(32, name="wide")(x), 2)
        mono = nn.Dense(32, name="mono")(left)
        mono = mono if train_mono else jax.lax.stop_gradient(mono)
        tokens = nn.gelu(jnp.concatenate([left, right, mono], -1))
        b, h, w, _ = tokens.shape

        def full(name, size, *shape):
            return jnp.abs(nn.Dense(size, name=name)(tokens)).reshape(b, h, w, *shape)

        def pixels(x):
            return x.reshape(b, h, w, 8, 8, -1).swapaxes(2, 3).reshape(b, 8 * h, 8 * w, -1)

        return StereoOutput(
            disparities=pixels(full("refine_head", 64, 64))[None, ..., 0],
            coarse_disparities=pixels(full("coarse", 128, 128))[None],
            logits=pixels(full("score", 128, 128))[None],
            proposals=full("proposals", 2, 2),
            prob=jax.nn.softmax(full("prob", 40, 40)),
            mono=jnp.stack([pixels(full(f"mono_{i}", 64, 64))[..., 0] for i in range(2)]),
        )


@functools.cache
def stub_params():
    image = jnp.zeros((1, HEIGHT, WIDTH, 3))
    return jax.jit(Stub(MODEL).init)(jax.random.key(0), image, image)["params"]


def replace_network(setattr):
    """Everywhere that asks what the parameters of BridgeDepth are."""

    def shapes(kind, config):
        tree = stub_params() if kind == "bridgedepth" else stub_params()["mono"]
        return {name: leaf.shape for name, leaf in checkpoint.flatten(tree).items()}

    setattr(loop, "BridgeDepth", Stub)
    setattr(experiment_module, "_abstract_params", lambda model: jax.eval_shape(stub_params))
    setattr(checkpoint, "expected_shapes", shapes)


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
            if step in self.poison:
                disparity[0, 0, 0] = np.nan
            whole = {"left": left, "right": right, "disparity": disparity, "valid": rng.random(shape) < 0.9}
            size = self.batch // hosts
            yield {name: values[host * size : (host + 1) * size] for name, values in whole.items()}


def make(**solver) -> Experiment:
    solver = dict(max_iter=STEPS, batch_size=8, base_lr=1e-2, loss_weights=(1.0, 2.0), max_bad_steps=3) | solver
    return Experiment(
        model=MODEL,
        solver=SolverConfig(**solver),
        run=RunConfig(latest_every=3, images_every=0, print_every=1),
        eval=EvalConfig(datasets=()),
        init="random-mono",
    )


def main(workdir: str, steps: str, coordinator: str, processes: str, number: str) -> None:
    replace_network(setattr)
    if coordinator != "-":
        jax.distributed.initialize(coordinator, int(processes), int(number), heartbeat_timeout_seconds=10)
    start = Start(jax.tree.map(np.asarray, stub_params()))
    print(loop.train(make(max_iter=int(steps)), Path(workdir), Noise(), lambda: start), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
