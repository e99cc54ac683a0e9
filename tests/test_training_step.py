"""The alarm: one training step of the real network against the original's numbers, and against what its parts say.

The goldens are those of the original in float64 (losses, gradient norm of every parameter, totals of four optimiser steps);
the weights are seeded by name. What they do not reach (drop path is off there, the monocular branch frozen) has tests of its
own below, on a tiny network.
"""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from synth import as_float64, synth_params

from bridgedepth_jax.sharding import make_mesh, replicated
from bridgedepth_jax.systems.bridgedepth import losses, parity
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.systems.bridgedepth.losses import LossConfig, StereoTask
from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth
from bridgedepth_jax.training import optimizer
from bridgedepth_jax.training.config import SolverConfig
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.step import Frozen, make_step

GOLDEN = Path(__file__).parent / "reference" / "train"
EMITTERS = "xla_cpu_use_fusion_emitters"
RATES = dict(max_iter=40, base_lr=1e-3)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    "case",
    [
        "train_resnet_vits_smooth_l1",
        pytest.param("train_convnext_vits", marks=pytest.mark.slow),
        pytest.param("train_convnext_vits_one_blank", marks=pytest.mark.slow),
    ],
)
def test_a_step_equals_the_originals(case, monkeypatch):
    # Unlike tiny networks, this one pays for a little optimisation, and compiles faster with the emitters (conftest.py).
    emitters = {EMITTERS: True} if EMITTERS in os.environ["XLA_FLAGS"] else {}
    monkeypatch.setattr(parity, "FEW_STEPS", {"xla_backend_optimization_level": 1, **emitters})
    golden = dict(np.load(GOLDEN / f"{case}.npz")) | {"json": json.loads((GOLDEN / f"{case}.json").read_text())}
    config = ModelConfig.size(*golden["json"]["variant"].split("_"))
    weights = parity.Weights(config.replace(dtype="float64"), jax.device_put(as_float64(synth_params(config))))
    rows = list(parity.check_train(case, weights, golden, float64=True, parts=2))  # one image a part: half the memory
    assert len(rows) == 14 + 1 + 4  # losses, all gradient norms in one, totals
    assert not [row for row in rows if not row.ok]


def make(drop_path: float = 0.0, task: dict | None = None, **solver) -> Experiment:
    backbone = dataclasses.replace(tiny.MODEL.backbone, drop_path=drop_path)
    model = tiny.MODEL.replace(dtype="float64", backbone=backbone)
    task = dict(loss_weights=(1.4, 2.0), max_disp=64) | (task or {})
    return Experiment(model=model, task=StereoTask(**task), solver=SolverConfig(**RATES | dict(batch_size=8) | solver))


def batch(rows: int = 8) -> dict[str, np.ndarray]:
    rng, size = np.random.default_rng(5), (rows, 32, 48)
    return {
        "left": rng.integers(0, 256, (*size, 3), np.uint8),
        "right": rng.integers(0, 256, (*size, 3), np.uint8),
        "disparity": rng.uniform(0, 40, size).astype(np.float32),
        "valid": rng.random(size) < 0.8,
    }


def step(experiment: Experiment, devices: int = 1, rows: int = 8, **objective):
    """(state before, state after, metrics) of one step on some of the simulated devices."""
    what = experiment.objective()._replace(**objective)
    before, fixed = experiment.begin(what, as_float64(tiny.model_params()))
    mesh = make_mesh(1, jax.devices()[:devices])
    arguments = jax.device_put((before, Frozen(fixed, {}), batch(rows)), replicated(mesh))
    advance = jax.jit(make_step(what, experiment.solver, mesh, parameter_norms=True)).lower(*arguments)
    after, metrics, _ = advance.compile(parity.FEW_STEPS)(*arguments)
    return before, after, jax.device_get(metrics)


@pytest.fixture(scope="module")
def one_device():
    with jax.enable_x64(True):
        return step(make(drop_path=0.5, task=dict(train_mono=True)))


@pytest.mark.parametrize(
    ("devices", "parts"), [(8, 1), pytest.param(1, 4, marks=pytest.mark.slow), pytest.param(4, 2, marks=pytest.mark.slow)]
)
def test_neither_devices_nor_parts_change_a_step(one_device, devices, parts):
    """Drop path on and everything trained; the recurrent loss included, whose medians would jump in float32."""
    _, expected, metrics = one_device
    _, after, found = step(make(drop_path=0.5, task=dict(train_mono=True), accumulate=parts), devices)
    for name, value in metrics.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    # Adam divides by its own moments: where the true gradient is zero it turns rounding into steps, so moments are compared.
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected.moments.mu))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12 * scale), after.moments.mu, expected.moments.mu
    )


def test_the_loss_of_a_step_is_that_of_the_network_in_training(one_device):
    """The step's loss from its definition: all layers' outputs, one drop-path draw for each image of each row."""
    experiment, (before, _, metrics), data = make(drop_path=0.5, task=dict(train_mono=True)), one_device, batch()

    @jax.jit
    def expected(params, numbers):
        output = BridgeDepth(experiment.model).apply(
            {"params": params, "samples": {"numbers": numbers}},
            *(data[side].astype(np.float64) for side in ("left", "right")),
            train=True,
            train_mono=True,
            rngs={"drop_path": jax.random.fold_in(jax.random.wrap_key_data(before.key), 0)},
        )
        config = LossConfig.of(experiment.model, experiment.task)
        return losses.total(losses.losses(output, data["disparity"], data["valid"], config), config)

    independent, shared = jnp.arange(16), jnp.tile(jnp.arange(8), 2)
    np.testing.assert_allclose(metrics["loss"], expected(before.params, independent), rtol=1e-9)
    assert abs(float(expected(before.params, shared)) / metrics["loss"] - 1) > 1e-6  # the draws matter


def test_the_total_is_the_weighted_sum_of_the_losses(one_device):
    """Weights of the specification, written out."""
    metrics = one_device[2]
    weights = {"loss_prop": 1.0, "init": 1.0, "loss_recurrent": 1.0, "loss_coarse_disp": 1.4, "loss_disp": 2.0}
    np.testing.assert_allclose(metrics["loss"], sum(weight * metrics[name] for name, weight in weights.items()), rtol=1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_the_monocular_branch_has_its_own_rate(rate):
    """Of what each parameter moves by, in the optimiser that the objective asks for."""
    experiment = make(task=dict(train_mono=True, mono_rate=rate), weight_decay=0.0, weight_decay_norm=0.0)
    update = optimizer.make_optimizer(experiment.objective().groups(experiment.solver))
    params = {"mono": {"depth_head": {"kernel": jnp.ones(3)}}, "refine_head": {"kernel": jnp.ones(3)}}
    gradients = jax.tree.map(lambda x: 0.3 * x, params)
    moved, _ = update.update(gradients, update.init(params), params, rate=jnp.float64(1e-3))
    np.testing.assert_allclose(moved["refine_head"]["kernel"], -1e-3, rtol=1e-6)
    np.testing.assert_allclose(moved["mono"]["depth_head"]["kernel"], rate * moved["refine_head"]["kernel"], rtol=1e-12)
