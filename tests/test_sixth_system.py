"""The door is right: a system that is not in the package trains, stops, resumes, moves, exports and evaluates as it is."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_system
from toy_system import STEPS, Points, Toy, make, start, variables, wise

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.sharding import make_mesh
from bridgedepth_jax.store.checkpoint import flatten, load_checkpoint, save_checkpoint
from bridgedepth_jax.system import find_system
from bridgedepth_jax.training.export import kinds, load_run
from bridgedepth_jax.training.loop import train
from bridgedepth_jax.training.start import make_start
from bridgedepth_jax.training.step import Frozen, make_step


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "wise"
    save_checkpoint(folder, wise())
    return folder


def run(workdir, experiment, devices=1):
    return train(experiment, workdir, Points(), start(experiment), devices=jax.devices()[:devices])


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, teacher):
    workdir = tmp_path_factory.mktemp("unbroken")
    assert run(workdir, make(teacher)) == f"finished after {STEPS} steps"
    return workdir


def log(workdir, *keys):
    return [tuple(row[key] for key in keys) for row in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())]


def close(a, b, rtol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol), load_run(a)[1], load_run(b)[1])
    np.testing.assert_allclose(log(a, "loss", "right", "like"), log(b, "loss", "right", "like"), rtol=rtol)


def test_it_learns_all_that_it_should_and_nothing_else(unbroken, teacher):
    experiment, state, frozen = load_run(unbroken)
    losses = log(unbroken, "right")
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert list(flatten(frozen)) == ["first/bias"] and "bias" not in state.params["first"]
    first = make_start(experiment, "random").weights
    np.testing.assert_array_equal(frozen["first"]["bias"], first["first"]["bias"])
    assert np.abs(state.collections["batch_stats"]["norm"]["mean"]).max() > 0
    kept = load_checkpoint(unbroken / "teachers" / "wise")
    jax.tree.map(np.testing.assert_array_equal, kept.params, load_checkpoint(teacher).params)


def test_the_average_is_what_is_exported(unbroken):
    _, state, _ = load_run(unbroken)
    exported = load_checkpoint(unbroken / "export").params
    np.testing.assert_array_equal(exported["last"]["kernel"], state.average["last"]["kernel"])
    assert np.abs(exported["last"]["kernel"] - state.params["last"]["kernel"]).max() > 1e-3
    np.testing.assert_array_equal(exported["batch_stats"]["norm"]["var"], state.collections["batch_stats"]["norm"]["var"])


def test_the_average_is_the_running_mean_of_the_weights(teacher):
    """Against a loop over the steps; a bad step leaves it as it was."""
    experiment = make(teacher)
    objective, mesh, checkpoint = experiment.objective(kinds({"wise": wise()})), make_mesh(1, jax.devices()[:1]), wise()
    state, fixed = experiment.begin(objective, make_start(experiment, "random").weights)
    step, frozen = jax.jit(make_step(objective, experiment.solver, mesh)), Frozen(fixed, {"wise": checkpoint.params})
    average, good = np.asarray(state.params["last"]["kernel"]), 0
    for i, batch in zip(range(6), Points().iterate(), strict=False):
        if i == 3:
            batch = batch | {"target": np.full_like(batch["target"], np.nan)}
        before = state
        state, _, _ = step(state, frozen, batch)
        if i == 3:
            jax.tree.map(np.testing.assert_array_equal, state.average, before.average)
            jax.tree.map(np.testing.assert_array_equal, state.collections, before.collections)
            continue
        keep = min(0.9, (1 + good) / (10 + good))
        average, good = keep * average + (1 - keep) * np.asarray(state.params["last"]["kernel"]), good + 1
    np.testing.assert_allclose(state.average["last"]["kernel"], average, rtol=1e-5)


def test_eight_devices_and_one_agree_statistics_included(tmp_path, unbroken, teacher):
    fsdp = dataclasses.replace(make(teacher), run=dataclasses.replace(make(teacher).run, fsdp=2))
    run(tmp_path, fsdp, devices=8)
    close(tmp_path, unbroken, 2e-4)


def test_statistics_and_divisors_are_of_the_global_batch(teacher):
    """The loss of a step on 8 devices against plain numpy over all rows."""
    experiment = make(teacher)
    objective = experiment.objective(kinds({"wise": wise()}))
    state, fixed = experiment.begin(objective, make_start(experiment, "random").weights)
    frozen, batch = Frozen(fixed, {"wise": wise().params}), next(Points().iterate())
    step = jax.jit(make_step(objective, experiment.solver, make_mesh(1)))
    _, metrics, answer = step(state, frozen, batch)
    noise_key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 0)
    noise = np.stack([0.01 * jax.random.normal(jax.random.fold_in(noise_key, n), (toy_system.FEATURES,)) for n in range(16)])
    hidden = (batch["features"] + noise) @ state.params["first"]["kernel"] + fixed["first"]["bias"]
    hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5) * state.params["norm"]["scale"] + state.params["norm"][
        "bias"
    ]
    expected = (hidden @ state.params["last"]["kernel"] + state.params["last"]["bias"])[:, 0]
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)
    other = wise()
    taught = np.asarray(jax.jit(lambda x: Toy(other.config).apply(variables(other.params), x))(batch["features"]))
    counted = expected > 0
    np.testing.assert_allclose(metrics["like"], ((expected - taught) ** 2)[counted].mean(), rtol=1e-4)


def test_a_divisor_that_depends_on_the_prediction_survives_parts(teacher):
    """Without BatchNorm, whose statistics parts cannot know: the gradient of four parts is that of the whole."""
    experiment = make(teacher)
    whole = experiment.objective(kinds({"wise": wise()}))

    def loss(weights, frozen, batch, counts, rows):
        answer = batch["features"] @ weights["first"]["kernel"][:, 0]
        counted = jax.lax.stop_gradient(answer > 0)
        kept = rows.across("counted", jnp.sum(counted, dtype=answer.dtype))
        value = jnp.sum(jnp.where(counted, (answer - batch["target"]) ** 2, 0)) / kept
        return value, toy_system.Result({}, answer)

    objective = whole._replace(loss=loss)
    weights = {k: v for k, v in make_start(experiment, "random").weights.items() if k != "batch_stats"}
    batch, results = next(Points().iterate()), []
    for parts, devices in ((1, 1), (4, 1), (2, 8)):
        solver = dataclasses.replace(experiment.solver, accumulate=parts)
        state, fixed = dataclasses.replace(experiment).begin(whole, weights | {"batch_stats": {}})
        state = state.replace(collections={})
        step = jax.jit(make_step(objective, solver, make_mesh(1, jax.devices()[:devices]), parameter_norms=True))
        results.append(step(state, Frozen(fixed, {"wise": {}}), batch))
    for _, metrics, answer in results[1:]:
        np.testing.assert_allclose(answer, results[0][2], rtol=1e-6)
        for name in ("loss", "gradient/first/kernel"):
            np.testing.assert_allclose(metrics[name], results[0][1][name], rtol=1e-5)


def test_parts_of_a_batch_with_statistics_are_refused(teacher):
    with pytest.raises(InputError, match=r"solver\.accumulate = 2: batch_stats of toy_system:SYSTEM are statistics"):
        make(teacher, accumulate=2)


def test_killed_it_resumes_to_the_bit(tmp_path, unbroken, teacher):
    root, tests = Path(__file__).parents[1], Path(__file__).parent
    one_device = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"  # the last word counts
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{tests}", "XLA_FLAGS": one_device}
    workdir = tmp_path / "run"
    command = [sys.executable, "-c", "import sys, toy_system; toy_system.main(*sys.argv[1:])", str(workdir), str(teacher)]
    killed = subprocess.run([*command, "6"], env=environment, capture_output=True, text=True)
    assert killed.returncode == -9 and not (workdir / "export").exists()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    close(workdir, unbroken, 0)
    for file in ("export", "teachers/wise", "frozen"):
        assert (workdir / file).is_dir()


def test_another_task_or_teacher_is_another_run(unbroken, teacher, tmp_path):
    with pytest.raises(InputError, match=r"differs in task\.distil \(0\.5 there, 0\.25 now\)"):
        run(unbroken, make(teacher, dict(distil=0.25)))
    save_checkpoint(tmp_path / "other", wise(8))
    with pytest.raises(InputError, match="differs in teachers"):
        run(unbroken, make(tmp_path / "other"))


def test_a_run_can_go_on_from_it_with_its_average_or_its_optimiser(unbroken, teacher):
    fresh = make_start(make(teacher, base_lr=1.0), str(unbroken))
    np.testing.assert_array_equal(fresh.weights["last"]["kernel"], load_run(unbroken)[1].average["last"]["kernel"])
    assert fresh.state is None and list(fresh.teachers) == ["wise"]
    whole = make_start(make(teacher, base_lr=1.0, no_resume_optimizer=False), str(unbroken))
    assert whole.state is not None and int(whole.state.step) == STEPS


def test_it_evaluates(unbroken):
    """By the evaluator of every system, from its exported weights."""
    checkpoint = load_checkpoint(unbroken / "export")
    system = find_system(checkpoint.kind)
    assert system.estimate is not None
    left = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3)).astype(np.float32)
    answer = jax.jit(system.estimate(checkpoint.config))(checkpoint.params, left, left).disparity
    assert answer.shape == (2, 32, 48) and np.isfinite(answer).all() and np.ptp(answer) > 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bridgedeth", "unknown system 'bridgedeth', did you mean bridgedepth"),
        ("zzz", "expected one of bridgedepth"),
        ("no_such_module:SYSTEM", "No module named 'no_such_module'"),
    ],
)
def test_an_unknown_system_is_refused(name, words):
    with pytest.raises(InputError, match=words):
        find_system(name)
