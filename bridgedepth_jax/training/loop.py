"""The training loop: resume, step, write down, save, and stop well (spec `training.md`; issue of exact resume).

The next step is dispatched before the metrics of the last one are read, so the devices never wait for the host.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bridgedepth_jax import sharding
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import make_folder
from bridgedepth_jax.store.run_state import Checkpoints
from bridgedepth_jax.system import Batch, Objective
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.export import export, kinds, load_frozen, load_teachers, save_frozen
from bridgedepth_jax.training.feed import TrainingData, batches
from bridgedepth_jax.training.logs import Progress, Records, environment, memory
from bridgedepth_jax.training.start import Start
from bridgedepth_jax.training.step import Frozen, TrainState, join, make_step
from bridgedepth_jax.training.validation import Evaluate

log = logging.getLogger(__name__)
RESULT = (
    "system",
    "model",
    "task",
    "solver",
    "seed",
    "teachers",
)  # parts of an experiment that a resumed run must share; the data has a fingerprint
# In them, but without a say in the result.
FREE = ("model.remat", "model.remat_policy", "solver.accumulate", "solver.max_bad_steps")
HEADLINES = ("/epe", "/d1", "/abs_rel", "/delta1")  # of an evaluation, on its line
STRAGGLES = 0.2  # of the time of a step: a process that waits longer for its data is named


class TrainingFailed(RuntimeError):
    """The run cannot go on, through no fault of its input; the message is one line."""


def train(
    experiment: Experiment,
    workdir: Path,
    data: TrainingData,
    start: Callable[[], Start],
    evaluate: Evaluate | None = None,
    devices: Sequence[Any] | None = None,
) -> str:
    """Runs or continues the experiment in `workdir`; returns a word on how it ended.

    `start` gives what a fresh run starts from; it is not called if the workdir has a checkpoint. `devices` (`jax.Device`) are
    all by default. Raises InputError for a workdir of another experiment or one that cannot be written, TrainingFailed if the
    loss stays bad.
    """
    run = _Run(experiment, workdir, data, start, evaluate, devices)
    try:
        return run.go()
    finally:
        run.close()


class _Run:
    def __init__(
        self, experiment: Experiment, workdir: Path, data: TrainingData, start: Any, evaluate: Evaluate | None, devices: Any
    ) -> None:
        self.experiment, self.workdir, self.data, self.evaluate = experiment, workdir.absolute(), data, evaluate
        solver, run = experiment.solver, experiment.run
        self.main = jax.process_index() == 0
        self.mesh = sharding.make_mesh(run.fsdp, devices)
        rows = sharding.batch_sharding(self.mesh, solver.batch_size)
        sharding.batch_sharding(self.mesh, solver.batch_size // solver.accumulate)
        self._make_folder()
        self.checkpoints = Checkpoints(self.workdir / "checkpoints", keep=run.keep, milestone_every=run.milestone_every)
        self.objective, self.state, self.frozen = self._restore() or self._fresh(start)
        self.step = self.first = int(self.state.step)
        self.rows = rows
        self.records = Records(self.workdir, self.step) if self.main else None
        self.progress = Progress(run.print_every, solver.max_iter, self.objective.headline)
        self.advance = self._compile(rows)
        self.measure = jax.jit(self.objective.health) if run.health_every and self.objective.health else None
        self.clock = self.began = time.perf_counter()
        self.lost = 0.0  # seconds of this process's life in which no step ran: data, saves, evaluation, compilation
        self.waits: list[float] = []  # seconds for data, since the last line of progress
        self.profiling = False

    def go(self) -> str:
        solver, run = self.experiment.solver, self.experiment.run
        if self.step >= solver.max_iter and self._exported():
            return f"finished: all {solver.max_iter} steps are done"
        self._describe_start()
        pending = None
        stream = batches(self.data, self.step, self.rows)
        with _stop_request() as stop:
            while self.step < solver.max_iter:
                self._profile()
                began = time.perf_counter()
                batch, host = next(stream)
                waited = time.perf_counter() - began
                self.lost += waited
                with self._losing(first=self.step == self.first):  # it compiles
                    health = self._health(batch)  # of the weights that the step begins with
                    self.state, metrics, shown = self.advance(self.state, self.frozen, batch)
                metrics = {name: value for name, value in metrics.items() if health or not name.startswith("share/")} | health
                if pending:
                    self._report(*pending)
                pending = (self.step, metrics, shown, host, waited)
                self.step += 1
                stopping = stop(self.step)
                if stopping or self._due(run.latest_every) or self._due(run.milestone_every):
                    self._report(*pending)  # the log is never behind a checkpoint
                    pending = None
                    with self._losing():
                        self.checkpoints.save(self.state, self._description())
                if stopping:
                    self.checkpoints.wait()
                    return f"stopped by {stop.word} after step {self.step}, saved; the same command continues"
                if self.evaluate and self.experiment.eval.every and self._due(self.experiment.eval.every):
                    with self._losing():
                        self._evaluate()
            if pending:
                self._report(*pending)
        self.checkpoints.save(self.state, self._description())
        self.checkpoints.wait()
        if self.evaluate:
            self._evaluate()
        export(self.workdir / "export", self.state, self.frozen.params, self.experiment)
        return f"finished after {self.step} steps"

    @contextlib.contextmanager
    def _losing(self, first: bool = True) -> Iterator[None]:
        """Counts what happens inside as time without steps, unless it is no `first` step."""
        began = time.perf_counter()
        yield
        self.lost += (time.perf_counter() - began) * first

    def _hosts(self, step: int, waited: float) -> dict[str, float]:
        """Of the slowest to feed of several processes, since the last line: seconds it waited for data. All must call it."""
        if jax.process_count() == 1:
            return {}
        self.waits.append(waited)
        if (step + 1) % self.experiment.run.print_every:
            return {}
        jax.block_until_ready(self.state)  # two programs that wait for other processes never run side by side
        waits, steps = multihost_utils.process_allgather(np.float32(sum(self.waits))), len(self.waits)
        self.waits.clear()
        slowest = int(np.argmax(waits))
        if self.main and waits[slowest] > STRAGGLES * (time.perf_counter() - self.clock) * steps:
            log.warning("process %d waited %.1f s for data in %d steps: all wait with it", slowest, waits[slowest], steps)
        return {"slowest_host": slowest, "slowest_host_wait_s": float(waits[slowest])}

    def _exported(self) -> bool:
        """Is the last thing of a run there? The first process says so to all."""
        there = (self.workdir / "export").is_dir()
        return bool(multihost_utils.broadcast_one_to_all(np.asarray(there))) if jax.process_count() > 1 else there

    def _due(self, every: int) -> bool:
        return self.step % every == 0 and self.step < self.experiment.solver.max_iter

    def _make_folder(self) -> None:
        make_folder(self.workdir, "--workdir")

    def _fresh(self, start: Callable[[], Start]) -> tuple[Objective, TrainState, Frozen]:
        if self.main:
            print("making the first weights", file=sys.stderr, flush=True)
        begin, experiment = start(), self.experiment
        objective = experiment.objective(kinds(begin.teachers))
        state, frozen = experiment.begin(objective, jax.tree.map(np.asarray, begin.weights))
        if self.main:
            save_frozen(self.workdir, frozen, begin.teachers, experiment.run.frozen_dtype)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("frozen weights are saved")
        teachers = {name: teacher.params for name, teacher in begin.teachers.items()}
        return objective, self._place(begin.state or state), self._freeze(frozen, teachers)

    def _restore(self) -> tuple[Objective, TrainState, Frozen] | None:
        if not self.checkpoints.steps():
            return None
        teachers: dict[str, Any] = {}

        def shapes(description: dict[str, Any]) -> TrainState:
            self._check_same(description)
            teachers.update(load_teachers(self.workdir, self.experiment))
            return self.experiment.abstract_state(self.experiment.objective(kinds(teachers)))[0]

        found = self.checkpoints.restore(shapes, self.mesh)
        if found is None:
            return None
        state = found[0]
        if self.main:
            log.info("continuing from step %d", int(state.step))
        objective = self.experiment.objective(kinds(teachers))
        weights = {name: teacher.params for name, teacher in teachers.items()}
        return objective, state, self._freeze(load_frozen(self.workdir), weights)

    def _check_same(self, description: dict[str, Any]) -> None:
        """InputError unless the description is of this experiment and this data."""
        stored, mine = Experiment.from_dict(description["experiment"]).to_dict(), self.experiment.to_dict()
        if stored["init"] != mine["init"] and self.main:
            log.warning("--init %s is not read: this run has begun, from %s", mine["init"], stored["init"])
        different = [words for part in RESULT for words in _differences(stored[part], mine[part], part)]
        if description["data"] != self.data.fingerprint:
            different.append(f"data (fingerprint {description['data']} there, {self.data.fingerprint} now)")
        if different:
            raise InputError(
                f"--workdir {self.workdir} holds another run, it differs in {different[0]}: take a new folder"
                " (and --init to start from its weights)"
            )

    def _freeze(self, params: Any, teachers: Any) -> Frozen:
        """On the devices, as they are held while training."""
        dtype = self.experiment.run.frozen_dtype
        return self._place(jax.tree.map(lambda x: x.astype(dtype), Frozen(params, teachers)))

    def _place(self, tree: Any) -> Any:
        return jax.tree.map(
            lambda leaf, where: jax.make_array_from_callback(leaf.shape, where, np.asarray(leaf).__getitem__),
            tree, sharding.tree_shardings(tree, self.mesh),
        )  # fmt: skip

    def _health(self, batch: Batch) -> dict[str, Any]:
        if self.measure is None or self.step % self.experiment.run.health_every:
            return {}
        return dict(self.measure({**join(self.frozen.params, self.state.params), **self.state.collections}, batch))

    def _compile(self, rows: jax.sharding.NamedSharding) -> Callable:
        shares = bool(self.experiment.run.health_every)
        step = make_step(self.objective, self.experiment.solver, self.mesh, shares=shares)
        state = sharding.tree_shardings(self.state, self.mesh)
        frozen = sharding.tree_shardings(self.frozen, self.mesh)
        one = sharding.replicated(self.mesh)
        return jax.jit(step, in_shardings=(state, frozen, rows), out_shardings=(state, one, rows), donate_argnums=0)

    def _description(self) -> dict[str, Any]:
        return {"experiment": self.experiment.to_dict(), "data": self.data.fingerprint}

    def _report(self, step: int, metrics: dict, shown: Any, host: dict[str, np.ndarray], waited: float) -> None:
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        hosts, now = self._hosts(step, waited), time.perf_counter()
        seconds, self.clock = now - self.clock, now
        skipped, in_row = int(values.pop("skipped")), int(values.pop("bad_in_row"))
        if self.records:
            speed = self.experiment.solver.batch_size / seconds
            record = {"step": step, **values, "images_per_s": speed, "data_wait_s": waited, "skipped": skipped, **hosts}
            record |= {"goodput": 1 - self.lost / (now - self.began), **memory()}
            self.records.step(record)
            self.progress.step(record, skipped)
            every = self.experiment.run.images_every
            if every and step % every == 0 and self.objective.picture:
                rows = jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data), shown)
                self.records.picture(step, self.objective.picture(host, rows))
        if in_row:
            log.warning("step %d skipped: loss %s, gradient norm %s", step, values["loss"], values["grad_norm"])
        if in_row >= self.experiment.solver.max_bad_steps:
            path = self.workdir / f"bad_batch_{step}_process{jax.process_index()}.npz"
            np.savez(path, allow_pickle=False, **host)
            raise TrainingFailed(
                f"{in_row} steps in a row without a finite loss and gradient; the batch of step {step} is in {path}"
            )

    def _evaluate(self) -> None:
        assert self.evaluate is not None
        results = self.evaluate(join(self.frozen.params, self.state.best))
        if self.records:
            self.records.evaluation(self.step, results)
            shown = {name: value for name, value in results.items() if name.endswith(HEADLINES)}
            words = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
            print(f"evaluation after step {self.step}: {words}", file=sys.stderr, flush=True)

    def _profile(self) -> None:
        at = self.experiment.run.profile_at
        if at and self.step == at and self.main:
            jax.profiler.start_trace(str(self.workdir / "profile"))
            self.profiling = True
        if at and self.step == at + 3 and self.profiling:
            jax.block_until_ready(self.state)
            jax.profiler.stop_trace()
            self.profiling = False

    def _describe_start(self) -> None:
        if not self.main:
            return
        start = {"step": self.step, "experiment": self.experiment.to_dict(), "data": self.data.fingerprint, **environment()}
        with (self.workdir / "run.jsonl").open("a") as file:
            file.write(json.dumps(start) + "\n")
        versions = ", ".join(f"{name} {version}" for name, version in start["versions"].items() if version)
        devices = f"{len(start['devices'])} x {start['devices'][0]}, {start['processes']} process(es)"
        print(f"{devices}, git {start['git']}, {versions}", file=sys.stderr)
        size = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
        frozen = sum(leaf.size for leaf in jax.tree.leaves(self.frozen))
        print(f"{size / 1e6:.1f} M parameters trained, {frozen / 1e6:.1f} M frozen; from step {self.step}", file=sys.stderr)
        print("the first step compiles, which takes from seconds to minutes", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends what works in the background; a save under way is finished."""
        if self.records:
            self.records.close()
        with contextlib.suppress(InputError):  # of a save: `wait` or the next `save` raised it where it matters
            self.checkpoints.wait()
        self.checkpoints.close()


class _Stop:
    """Has SIGTERM or Ctrl-C come? Called with a step; all processes get the same answer for the same step."""

    def __init__(self) -> None:
        self.word = "SIGTERM"
        self._asked = threading.Event()

    def ask(self, number: int, frame: Any) -> None:
        self.word = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        if self._asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second one does not wait for the step
        self._asked.set()

    def __call__(self, step: int) -> bool:
        return self._asked.is_set()


class _StopTogether(_Stop):
    """Of several processes: jax.distributed has a handler of SIGTERM and makes all agree on a step."""

    def ask(self, number: int, frame: Any) -> None:
        self.word = "Ctrl-C"
        os.kill(os.getpid(), signal.SIGTERM)

    def __call__(self, step: int) -> bool:
        return multihost_utils.reached_preemption_sync_point(step)


@contextlib.contextmanager
def _stop_request() -> Iterator[_Stop]:
    """Yields what says whether to stop, and leaves the signals as they were."""
    together = jax.process_count() > 1
    stop = _StopTogether() if together else _Stop()
    caught = (signal.SIGINT,) if together else (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop.ask) for number in caught}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _differences(stored: Any, mine: Any, where: str) -> list[str]:
    if isinstance(stored, dict) and isinstance(mine, dict):
        keys = sorted(stored.keys() | mine.keys())
        return [name for key in keys for name in _differences(stored.get(key), mine.get(key), f"{where}.{key}")]
    return [] if stored == mine or where in FREE else [f"{where} ({stored} there, {mine} now)"]
