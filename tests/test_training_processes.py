"""Two processes on loopback, four simulated devices each, against one process; and the end of one of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("training_stub.py")
pytestmark = pytest.mark.slow


def start(workdir, steps, devices, coordinator="-", processes=1, number=0):
    environment = os.environ | {
        "PYTHONPATH": str(PROGRAM.parents[1]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONFAULTHANDLER": "1",
    }
    command = [sys.executable, str(PROGRAM), str(workdir), str(steps), coordinator, str(processes), str(number)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start_two(workdir, steps):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    return [start(workdir, steps, 4, coordinator, 2, number) for number in range(2)]


def ended(processes, timeout):
    """What each printed; those that do not end say where they stand, and are not left behind."""
    try:
        return [process.communicate(timeout=timeout)[0] for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.send_signal(signal.SIGABRT)
        said = "\n---\n".join(process.communicate()[0] for process in processes)
        raise AssertionError(f"not ended after {timeout} s:\n{said}") from None


def steps_of(workdir):
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_two_processes_equal_one(tmp_path):
    both = start_two(tmp_path / "two", 8)
    outputs = ended(both, 300)
    assert [process.returncode for process in both] == [0, 0], outputs
    (said,) = ended([start(tmp_path / "one", 8, 1)], 300)
    assert "finished after 8 steps" in said
    rows = [steps_of(tmp_path / name) for name in ("one", "two")]
    losses = [[row["loss"] for row in run] for run in rows]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert (tmp_path / "two" / "export").is_dir()
    assert all(row["slowest_host"] in (0, 1) and row["slowest_host_wait_s"] >= 0 for row in rows[1])
    assert not any("slowest_host" in row for row in rows[0])


SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
CLUSTER = "import jax; from bridgedepth_jax.processes import start_processes as start; start(None, None, None, True)"


def test_a_cluster_says_which_process_this_is():
    """Two processes under the variables that Slurm sets; and a line where nobody sets any."""
    asked = f"{CLUSTER}; print(jax.process_count(), jax.process_index())"
    plain = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    with socket.socket() as free:  # Slurm's job number is where jax takes the port from
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = str(port - (65535 - 2**12 + 1)) if port > 61440 else "77"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", asked],
            env=plain | dict(zip(SLURM, (job, "127.0.0.1", "2", str(i), str(i)), strict=True)),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    said = [words.split()[-2:] for words in ended(started, 120)]
    assert said == [["2", "0"], ["2", "1"]]
    alone = subprocess.run([sys.executable, "-c", CLUSTER], env=plain, capture_output=True, text=True)
    assert "--cluster: no cluster that JAX knows says which process this is" in alone.stderr


def wait_for_steps(workdir, count, processes):
    while len(steps_of(workdir)) < count:
        assert all(process.poll() is None for process in processes), processes[0].communicate()[0]
        time.sleep(0.1)


def test_the_death_of_one_process_ends_the_other_with_an_error(tmp_path):
    both = start_two(tmp_path, 10**6)
    try:
        wait_for_steps(tmp_path, 3, both)
        both[1].kill()
        ended(both[:1], 120)
        assert both[0].returncode != 0
    finally:
        for process in both:
            process.kill()
            process.communicate()


def test_sigterm_to_one_process_saves_and_ends_both(tmp_path):
    both = start_two(tmp_path, 10**6)
    try:
        wait_for_steps(tmp_path, 3, both)
        both[1].send_signal(signal.SIGTERM)
        outputs = ended(both, 120)
        assert [process.returncode for process in both] == [0, 0], outputs
        assert "stopped by SIGTERM" in outputs[0]
    finally:
        for process in both:
            process.kill()
            process.communicate()
    saved = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert max(saved) == len(steps_of(tmp_path))
