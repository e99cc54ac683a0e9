"""The loop, with a system of two layers: resume, stop, skip, move, accumulate, refuse."""

import dataclasses
import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_stub
from training_stub import HEIGHT, STEPS, WIDTH, Noise, Stub, StubConfig, make, stub_params

from bridgedepth_jax.data.pipeline import DataConfig
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.store.checkpoint import load_checkpoint
from bridgedepth_jax.training.config import EvalConfig, RunConfig
from bridgedepth_jax.training.export import load_frozen, load_run
from bridgedepth_jax.training.loop import TrainingFailed, train
from bridgedepth_jax.training.start import make_start


def run(workdir, experiment=None, data=None, *, devices=1, evaluate=None):
    """One start of train.py on some of the simulated devices."""
    return train(experiment or make(), workdir, data or Noise(), training_stub.start, evaluate, devices=jax.devices()[:devices])


def log(workdir, *keys):
    return [tuple(row[key] for key in keys) for row in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())]


def state(workdir):
    return jax.tree.map(np.asarray, load_run(workdir)[1])


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, state(a), state(b))
    assert log(a, "step", "loss", "grad_norm") == log(b, "step", "loss", "grad_norm")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    assert run(workdir) == f"finished after {STEPS} steps"
    return workdir


def test_the_log_says_in_which_share_of_the_time_steps_ran(unbroken):
    shares = [json.loads(line)["goodput"] for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= share <= 1 for share in shares)
    assert shares[0] < 0.5 < 1 - shares[0]  # the first step compiles


def test_a_finished_run_exports_and_says_so_when_started_again(unbroken, caplog):
    assert [step for (step,) in log(unbroken, "step")] == list(range(STEPS))
    exported, kept = load_checkpoint(unbroken / "export"), state(unbroken)
    np.testing.assert_array_equal(exported.params["wide"]["kernel"], kept.params["wide"]["kernel"])
    np.testing.assert_array_equal(exported.params["mono"]["kernel"], stub_params()["mono"]["kernel"])
    assert "mono" not in kept.params and "mono" not in kept.moments.mu
    assert run(unbroken) == f"finished: all {STEPS} steps are done"
    assert "is not read" not in caplog.text
    assert run(unbroken, dataclasses.replace(make(), init="other")) == f"finished: all {STEPS} steps are done"
    assert "--init other is not read: this run has begun, from" in caplog.text
    environment = json.loads((unbroken / "run.jsonl").read_text().splitlines()[0])
    assert environment["versions"]["jax"] == jax.__version__ and environment["experiment"]["seed"] == 326


def test_the_health_of_a_step_is_in_the_log_and_changes_nothing(unbroken, tmp_path):
    plain = make()
    run(tmp_path, dataclasses.replace(plain, run=dataclasses.replace(plain.run, health_every=3)))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)  # another program rounds otherwise
    jax.tree.map(close, state(unbroken).params, state(tmp_path).params)
    close(log(unbroken, "step", "loss"), log(tmp_path, "step", "loss"))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    shares = {"share/branch", "share/wide", "share/head"}
    for row in rows:
        extra = {name for name in row if name.startswith(("share/", "largest/"))}
        assert extra == (shares | {"largest/wide"} if row["step"] % 3 == 0 else set())
        assert not extra or sum(row[name] for name in shares) == pytest.approx(1, abs=1e-6)
    assert rows[0]["largest/wide"] == pytest.approx(float(np.abs(stub_params()["wide"]["kernel"]).max()))  # before the step


class Killed(BaseException):
    pass


def test_a_run_that_died_in_its_last_evaluation_is_evaluated_and_exported_by_the_next_start(tmp_path, capsys):
    def die(params):
        raise Killed

    experiment = dataclasses.replace(make(), eval=EvalConfig(datasets=(), every=0))
    with pytest.raises(Killed):
        run(tmp_path, experiment, evaluate=die)
    assert not (tmp_path / "export").exists()
    (tmp_path / "evaluation.jsonl").write_text(json.dumps({"step": STEPS, "set/epe": 9.0}) + "\n")  # of another such death
    found = {"set/epe": 1.5, "set/rmse": 9.0, "other/abs_rel": 0.25}
    assert run(tmp_path, experiment, evaluate=lambda params: found) == f"finished after {STEPS} steps"
    assert f"evaluation after step {STEPS}: set/epe 1.5, other/abs_rel 0.25\n" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "export").provenance["source"] == f"training run, step {STEPS}"
    assert json.loads((tmp_path / "evaluation.jsonl").read_text()) == {"step": STEPS} | found
    assert [step for (step,) in log(tmp_path, "step")] == list(range(STEPS))
    assert run(tmp_path, experiment, evaluate=die) == f"finished: all {STEPS} steps are done"


@pytest.mark.parametrize("step", [0, 2, 4])
def test_a_killed_run_continues_exactly(tmp_path, unbroken, step):
    def die():
        raise Killed

    with pytest.raises(Killed):
        run(tmp_path, data=Noise(at={step: die}))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')  # the line it was writing
    run(tmp_path)
    same(tmp_path, unbroken)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_saves_at_once_and_the_run_continues_exactly(tmp_path, unbroken, number, name):
    handlers = [signal.getsignal(other) for other in (signal.SIGTERM, signal.SIGINT)]
    word = run(tmp_path, data=Noise(at={4: lambda: os.kill(os.getpid(), number)}))
    assert handlers == [signal.getsignal(other) for other in (signal.SIGTERM, signal.SIGINT)]
    step = int(state(tmp_path).step)  # batches are read ahead, so the signal comes a step or two before batch 4 is used
    assert word == f"stopped by {name} after step {step}, saved; the same command continues"
    assert 2 < step < STEPS and not (tmp_path / "export").exists()
    run(tmp_path)
    same(tmp_path, unbroken)


def test_a_damaged_newest_checkpoint_costs_only_its_steps(tmp_path, unbroken):
    run(tmp_path, data=Noise(at={6: lambda: os.kill(os.getpid(), signal.SIGTERM)}))
    newest = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert newest > 3  # the one before
    for file in (tmp_path / "checkpoints" / str(newest) / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-7])
    run(tmp_path)
    same(tmp_path, unbroken)


def test_the_devices_do_not_decide_the_result(tmp_path, unbroken):
    stop = [Noise(at={step: lambda: os.kill(os.getpid(), signal.SIGTERM)}) for step in (2, 5)]
    run(tmp_path, data=stop[0], devices=1)
    fsdp = dataclasses.replace(make(), run=dataclasses.replace(make().run, fsdp=4))
    run(tmp_path, fsdp, data=stop[1], devices=8)
    run(tmp_path, devices=2)
    np.testing.assert_allclose(log(tmp_path, "loss"), log(unbroken, "loss"), rtol=1e-5)


def test_accumulation_changes_rounding_only(tmp_path, unbroken):
    run(tmp_path, make(accumulate=2), devices=4)
    np.testing.assert_allclose(log(tmp_path, "loss"), log(unbroken, "loss"), rtol=1e-5)


def test_drop_path_draws_per_sample(unbroken):
    """Without it the two tests above would show less."""
    image = jnp.ones((2, HEIGHT, WIDTH, 3))
    variables = {"params": stub_params(), "samples": {"numbers": jnp.array([5, 9, 13, 17])}}

    def apply(numbers, rows):
        values = variables | {"samples": {"numbers": jnp.asarray(numbers)}}
        return Stub(StubConfig()).apply(values, image[rows], image[rows], train=True, rngs={"drop_path": jax.random.key(3)})

    whole = apply([5, 9, 13, 17], slice(0, 2))
    for row, numbers in enumerate([[5, 13], [9, 17]]):
        np.testing.assert_allclose(apply(numbers, slice(row, row + 1))[0], whole[row], rtol=1e-5)


def test_a_bad_batch_is_skipped_and_counted(tmp_path):
    run(tmp_path, data=Noise(poison={2, 3}))
    assert log(tmp_path, "skipped")[-1] == (2,)
    final = state(tmp_path)
    assert int(final.moments.count) == STEPS - 2 and int(final.step) == STEPS
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(final.params))


def test_too_many_bad_batches_stop_the_run_and_the_last_is_kept(tmp_path):
    with pytest.raises(TrainingFailed, match="3 steps in a row without a finite loss and gradient; the batch of step 4"):
        run(tmp_path, data=Noise(poison=range(2, 8)))
    batch = np.load(tmp_path / "bad_batch_4_process0.npz")
    assert np.isnan(batch["disparity"][0, 0, 0]) and batch["left"].shape == (8, HEIGHT, WIDTH, 3)


def test_frozen_parameters_get_no_gradient_and_trained_ones_do(tmp_path):
    run(tmp_path, make(dict(train_mono=True, mono_rate=1.0), max_iter=2))
    trained = state(tmp_path)
    assert not (tmp_path / "frozen").exists()
    assert np.abs(trained.params["mono"]["kernel"] - stub_params()["mono"]["kernel"]).max() > 1e-5


def test_a_half_precision_frozen_branch(tmp_path):
    experiment = dataclasses.replace(make(max_iter=2), run=RunConfig(frozen_dtype="bfloat16", images_every=0))
    run(tmp_path, experiment)
    assert str(load_frozen(tmp_path)["mono"]["kernel"].dtype) == "bfloat16"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(base_lr=1.0), "solver.base_lr"),
        (dict(task=dict(max_disp=7)), "task.max_disp"),
        (dict(max_iter=STEPS + 1), "solver.max_iter"),
        (dict(batch_size=16), "solver.batch_size"),
    ],
)
def test_a_workdir_of_another_run_is_refused(unbroken, change, words):
    with pytest.raises(InputError, match=f"holds another run, it differs in {words}"):
        run(unbroken, make(**change))


def test_a_workdir_of_other_data_is_refused(unbroken):
    data = Noise()
    data.fingerprint = "other"
    with pytest.raises(InputError, match="data \\(fingerprint noise there, other now\\)"):
        run(unbroken, data=data)


@pytest.mark.parametrize(
    ("experiment", "devices", "words"),
    [
        (make(batch_size=4), 8, "a batch of 4 pairs is not a multiple of the number of devices, 8"),
        (make(accumulate=2), 8, "a batch of 4 pairs is not a multiple"),
        (dataclasses.replace(make(), run=RunConfig(fsdp=3)), 8, "run.fsdp = 3"),
    ],
)
def test_devices_that_do_not_fit_are_refused(tmp_path, experiment, devices, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path, experiment, devices=devices)


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        run(tmp_path / "file" / "run")


def test_evaluation_is_called_with_the_whole_tree(tmp_path):
    seen = []

    def evaluate(params):
        seen.append(sorted(params))
        return {"set/epe": 1.5}

    run(tmp_path, dataclasses.replace(make(), eval=EvalConfig(datasets=(), every=4)), evaluate=evaluate)
    assert len(seen) == 2 and "mono" in seen[0] and "wide" in seen[0]
    rows = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").read_text().splitlines()]
    assert rows == [{"step": 4, "set/epe": 1.5}, {"step": 8, "set/epe": 1.5}]


def test_start_from_a_run_with_and_without_its_optimiser(unbroken):
    weights = make_start(make(base_lr=1.0), str(unbroken))
    assert weights.state is None
    np.testing.assert_array_equal(weights.weights["wide"]["kernel"], state(unbroken).params["wide"]["kernel"])
    whole = make_start(make(base_lr=1.0, no_resume_optimizer=False), str(unbroken))
    assert int(whole.state.step) == STEPS and int(whole.state.moments.count) == STEPS
    with pytest.raises(InputError, match=r"mono/bias is frozen there, so its optimiser has other parameters"):
        make_start(make(dict(train_mono=True), base_lr=1.0, no_resume_optimizer=False), str(unbroken))


def test_what_is_wrong_with_a_start_shows_before_anything_is_compiled(unbroken, monkeypatch):
    from bridgedepth_jax.training import start

    monkeypatch.setattr(start, "_random", lambda experiment: pytest.fail("made weights"))
    with pytest.raises(InputError, match="nowhere"):
        make_start(make(), "nowhere/at-all")
    with pytest.raises(InputError, match=r"a\.pth"):
        make_start(make(), "random-mono", "a.pth")
    with pytest.raises(InputError, match=r"--imagenet a\.pth: the run .* has weights of the whole network"):
        make_start(make(), str(unbroken), "a.pth")
    with pytest.raises(InputError, match=r"--imagenet a\.pth: .*export has weights of the whole network"):
        make_start(make(), str(unbroken / "export"), "a.pth")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": DataConfig(crop=(60, 96))}, r"data\.crop = \(60, 96\), expected multiples of 16"),
        ({"solver": {"base_lr": -1.0}}, r"solver\.base_lr = -1\.0, expected more than 0"),
        ({"solver": {"grad_clip": 0.0}}, r"solver\.grad_clip = 0\.0, expected more than 0"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(make(**changes.get("solver", {})), **{k: v for k, v in changes.items() if k == "data"})


def test_merge_is_strict_unless_told(caplog):
    from bridgedepth_jax.training.start import merge

    expected, given = {"a": np.zeros(2), "b": np.zeros(3)}, {"a": np.ones(2), "b": np.ones(4), "c": np.ones(1)}
    with pytest.raises(InputError, match=r"1 unused \(c, ...\); 1 of another shape \(b, ...\)"):
        merge(expected, given, strict=True, source="x")
    with caplog.at_level("INFO"):
        merged = merge(expected, given, strict=False, source="x")
    assert "x: 1 of 2 arrays fit; 1 unused (c, ...); 1 of another shape (b, ...)" in caplog.text
    assert merged.keys() == expected.keys() and merged["a"].sum() == 2 and merged["b"].sum() == 0
