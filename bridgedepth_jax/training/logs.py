"""What a run writes down: metrics.jsonl (one object a step), TensorBoard, pictures, run.jsonl (environment of each start)."""

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from bridgedepth_jax.files import replacing

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "bridgedepth-jax")


class Records:
    """Writes into WORKDIR. Only the first process has one."""

    def __init__(self, workdir: Path, start: int) -> None:
        self._folder = workdir
        path = workdir / "metrics.jsonl"
        _forget(path, start)
        self._file = path.open("a", buffering=1)  # a line is with the operating system before the next step ends
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start or None)

    def step(self, record: dict[str, Any]) -> None:
        """One object of metrics.jsonl; `step` and `loss` are in it."""
        self._file.write(json.dumps(record) + "\n")
        for name, value in record.items():
            if name != "step":
                self._board.add_scalar(f"train/{name}", value, record["step"])

    def evaluation(self, step: int, results: dict[str, float]) -> None:
        """Results named set/metric after `step` steps, also in evaluation.jsonl."""
        path = self._folder / "evaluation.jsonl"
        _forget(path, step)
        with path.open("a") as file:
            file.write(json.dumps({"step": step, **results}) + "\n")
        for name, value in results.items():
            self._board.add_scalar(f"eval/{name}", value, step)

    def picture(self, step: int, image: np.ndarray) -> None:
        """(H, W, 3) uint8 of the step."""
        self._board.add_image("train/picture", image, step, dataformats="HWC")

    def close(self) -> None:
        self._file.close()
        self._board.close()


def _forget(path: Path, start: int) -> None:
    """Drops the lines of step `start` and later, which a killed run wrote after its last checkpoint: they come again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):  # the last line of a killed run can be half a line
            continue
        if step < start:
            kept.append(line + "\n")
    with replacing(path) as temporary:
        temporary.write_text("".join(kept))


def environment() -> dict[str, Any]:
    """Versions, devices and git revision, for the log of a run."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _git_revision() -> str | None:
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def memory() -> dict[str, float]:
    """Peak memory in GiB: of the process, and of the fullest local device where it says."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    peaks = [peak for peak in peaks if peak is not None]
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"host_memory_gib": host / 2**30} | ({"device_memory_gib": max(peaks) / 2**30} if peaks else {})


class Progress:
    """A line every `every` steps: speed over those steps and time left."""

    def __init__(self, every: int, total: int, headline: tuple[str, ...]) -> None:
        self._every, self._total, self._headline = every, total, headline
        self._mark: tuple[int, float] | None = None

    def step(self, record: dict[str, Any], bad: int) -> None:
        done = record["step"] + 1
        if self._mark is None:  # the first step compiles
            self._mark = (done, time.monotonic())
        if done % self._every and done != self._total and done != self._mark[0]:
            return
        steps, seconds = done - self._mark[0], time.monotonic() - self._mark[1]
        left = "" if not steps else f", {datetime.timedelta(seconds=round((self._total - done) * seconds / steps))} left"
        if steps:
            self._mark = (done, time.monotonic())
        skipped = f", {bad} skipped" if bad else ""
        named = "".join(f", {name} {record[name]:.3g}" for name in self._headline)
        losses = f"loss {record['loss']:.4g}{named}, gradient {record['grad_norm']:.3g}"
        speed = f"rate {record['rate']:.3g}, {record['images_per_s']:.3g} pairs/s"
        print(f"step {done}/{self._total}: {losses}, {speed}{skipped}{left}", file=sys.stderr, flush=True)
