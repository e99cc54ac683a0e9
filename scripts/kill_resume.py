"""Shows that a training run survives anything: killed, stopped, moved to other devices, split over processes.

python scripts/kill_resume.py --out runs/kill_resume [--checks kill sigterm devices processes partner] [--steps 40 --kills 20]
python scripts/kill_resume.py --out runs/kill_resume_mono --config configs/bridge_mde/nano.py --checks kill --kills 5

kill       `kill -9` at random moments and start again: parameters and logged losses equal an unbroken run bit for bit
sigterm    the same with SIGTERM, which must save and exit with 0
devices    1 -> 8 -> 2 simulated devices in one run: losses equal those of one device to 1e-5 relative, in float64
processes  2 processes x 4 devices equal 1 x 8 and one device (losses of 20 steps to 1e-4), in float64
partner    when one of two processes is killed, the other ends with an error
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from bridgedepth_jax.store.checkpoint import flatten
from bridgedepth_jax.training.export import load_run

# Topologies are compared in float64. They add up in another order, which in float32 shows: the choice of seeds and candidates
# jumps where two are equal but for rounding, and the gradient of the recurrent loss lands on whichever pixel is the median.
# Losses that agree to seven digits at first agree to three or two within ten steps.
FLOAT64 = "--config.model.dtype=float64"
ROOT = Path(__file__).resolve().parents[1]
CHECKS = ("kill", "sigterm", "devices", "processes", "partner")
COMPARED = ("loss", "epe_train", "grad_norm", "rate", "loss_prop", "init", "loss_disp", "loss_recurrent", "ssi", "gm")


class Runs:
    """Starts train.py on a config, by default the tiny network of configs/debug.py."""

    def __init__(self, out: Path, steps: int, config: str = "configs/debug.py") -> None:
        self.out, self.steps, self.config = out, steps, config
        self.options = [
            "--config",
            str(ROOT / config),
            f"--config.solver.max_iter={steps}",
            "--config.solver.batch_size=8",
            "--config.run.latest_every=2",
            "--config.run.keep=2",
            "--config.run.images_every=0",
            "--config.eval.datasets=()",
            "--config.data.prefetch=1",
        ]

    def fresh(self, name: str) -> Path:
        shutil.rmtree(self.out / name, ignore_errors=True)
        return self.out / name

    def start(self, workdir: Path, *extra: str, devices: int = 1) -> subprocess.Popen:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_X64": str(int(FLOAT64 in extra)),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(self.out / "compilation_cache"),
        }
        command = [sys.executable, str(ROOT / "train.py"), *self.options, "--workdir", str(workdir), *extra]
        log = (self.out / f"{workdir.name}.log").open("a")
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)

    def finish(self, workdir: Path, *extra: str, devices: int = 1) -> None:
        status = self.start(workdir, *extra, devices=devices).wait()
        if status:
            raise SystemExit(f"train.py ended with {status}, see {self.out / workdir.name}.log")

    def stop_after(self, workdir: Path, step: int, with_signal: int, *extra: str, devices: int = 1, delay: float = 0.0) -> int:
        """Runs until `step` steps are logged and `delay` seconds have passed, then sends the signal; its exit status."""
        process = self.start(workdir, *extra, devices=devices)
        while process.poll() is None and len(log_of(workdir)) < step:
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(with_signal)
        return process.wait()


def log_of(workdir: Path) -> list[dict]:
    """Whole lines of metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def check_equal(name: str, a: Path, b: Path) -> None:
    """Bit for bit: the log's results and the last state."""
    logs = [[{key: row[key] for key in ("step", *COMPARED) if key in row} for row in log_of(path)] for path in (a, b)]
    if logs[0] != logs[1]:
        steps = [x["step"] for x, y in zip(*logs, strict=False) if x != y]
        raise SystemExit(f"{name}: the logs differ ({len(logs[0])} and {len(logs[1])} steps, first at {steps[:1]})")
    states = [load_run(path)[1] for path in (a, b)]
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(states[0]), jax.tree.leaves(states[1]), strict=True):
        if np.asarray(x).tobytes() != np.asarray(y).tobytes():
            raise SystemExit(f"{name}: {jax.tree_util.keystr(path)} differs")
    count = len(flatten(states[0].params))
    print(f"{name}: {len(logs[0])} logged steps and {count} parameters (and their moments) are equal bit for bit", flush=True)


def check_close(name: str, a: Path, b: Path, tolerance: float) -> None:
    losses = [np.array([row["loss"] for row in log_of(path)]) for path in (a, b)]
    worst = float(np.max(np.abs(losses[0] / losses[1] - 1)))
    if len(losses[0]) != len(losses[1]) or not worst <= tolerance:
        raise SystemExit(f"{name}: losses differ by {worst:.2g} relative, expected at most {tolerance:g}")
    print(f"{name}: losses of {len(losses[0])} steps differ by at most {worst:.2g} relative", flush=True)


def kill(runs: Runs, kills: int, seed: int) -> None:
    rng, workdir, done, killed = random.Random(seed), runs.fresh("killed"), 0, 0
    for _ in range(kills):
        ahead = rng.choice([0, 1, 2, 3])  # 0: while it starts, restores or compiles
        delay = rng.uniform(0, 10) if ahead == 0 else rng.uniform(0, 0.3)
        status = runs.stop_after(workdir, done + ahead, signal.SIGKILL, delay=delay)
        steps = sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())
        done = len(log_of(workdir))
        print(f"  killed (status {status}): {done} steps logged, checkpoints {steps}", flush=True)
        if status == 0:
            break
        killed += 1
    runs.finish(workdir)
    check_equal(f"kill -9 at {killed} moments", runs.out / "unbroken", workdir)


def sigterm(runs: Runs, seed: int) -> None:
    rng, workdir = random.Random(seed), runs.fresh("stopped")
    for step in sorted(rng.sample(range(1, runs.steps - 4), 3)):
        step = max(step, len(log_of(workdir)) + 1)  # in the loop, not while it starts, when there is nothing to save
        status = runs.stop_after(workdir, step, signal.SIGTERM, delay=rng.uniform(0, 0.2))
        if status:
            raise SystemExit(f"SIGTERM: exit status {status}, expected 0")
    runs.finish(workdir)
    check_equal("SIGTERM at 3 moments, exit status 0", runs.out / "unbroken", workdir)


def devices(runs: Runs) -> None:
    still, workdir = runs.fresh("not_moved"), runs.fresh("moved")
    runs.finish(still, FLOAT64)
    for step, count in ((runs.steps // 3, 1), (2 * runs.steps // 3, 8)):
        runs.stop_after(workdir, step, signal.SIGTERM, FLOAT64, devices=count)
    runs.finish(workdir, FLOAT64, "--config.run.fsdp=2", devices=2)
    check_close("1 -> 8 -> 2 devices", workdir, still, 1e-5)


def processes(runs: Runs) -> None:
    one, eight, two = (runs.fresh(name) for name in ("one_device", "eight_devices", "two_processes"))
    runs.finish(one, FLOAT64)
    runs.finish(eight, FLOAT64, "--config.run.fsdp=2", devices=8)
    started = pair(runs, two, FLOAT64, "--config.run.fsdp=2")
    if any(process.wait() for process in started):
        raise SystemExit(f"two processes: exit status {[process.returncode for process in started]}")
    check_close("2 processes x 4 devices against one device", two, one, 1e-4)
    check_close("2 processes x 4 devices against 1 x 8", two, eight, 1e-4)


def partner(runs: Runs) -> None:
    broken = runs.fresh("one_process_killed")
    started = pair(runs, broken)
    while len(log_of(broken)) < 3 and all(process.poll() is None for process in started):
        time.sleep(0.1)
    started[1].kill()
    began = time.monotonic()
    try:
        status = started[0].wait(timeout=120)
    finally:
        started[0].kill()
    if status == 0:  # an abort by jax.distributed is a negative number
        raise SystemExit(f"the process left alone ended with {status}, expected an error")
    print(
        f"one of two processes killed: the other ended with status {status} after {time.monotonic() - began:.1f} s", flush=True
    )


def pair(runs: Runs, workdir: Path, *extra: str) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = ("--coordinator", address, "--num-processes", "2", *extra)
    return [runs.start(workdir, *shared, "--process-id", str(i), devices=4) for i in range(2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and their logs")
    parser.add_argument("--config", default="configs/debug.py", help="of 8 images a step at least; default configs/debug.py")
    parser.add_argument("--checks", nargs="+", default=CHECKS, choices=CHECKS)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out = args.out.absolute()
    args.out.mkdir(parents=True, exist_ok=True)
    runs = Runs(args.out, args.steps, args.config)
    if set(args.checks) & {"kill", "sigterm"}:
        runs.finish(runs.fresh("unbroken"))
    if "kill" in args.checks:
        kill(runs, args.kills, args.seed)
    if "sigterm" in args.checks:
        sigterm(runs, args.seed)
    if "devices" in args.checks:
        devices(runs)
    if "processes" in args.checks:
        processes(Runs(args.out, 20, args.config))
    if "partner" in args.checks:
        partner(Runs(args.out, 100_000, args.config))


if __name__ == "__main__":
    main()
