"""Several processes of one program, started by hand or by a cluster."""

from typing import Any

import jax

from bridgedepth_jax.errors import InputError

TIMEOUTS: dict[str, Any] = dict(heartbeat_timeout_seconds=30, shutdown_timeout_seconds=60)


def start_processes(coordinator: str | None, count: int | None, index: int | None, cluster: bool = False) -> None:
    """Makes this process number `index` of `count`, of which number 0 listens at `coordinator` (HOST:PORT).

    With `cluster` instead, Slurm, a TPU pod, Kubernetes or MPI says all three (`jax.distributed.initialize` without arguments).
    Does nothing without arguments. A process that is lost ends the others. Raises InputError where only some are given,
    one is none of these, or no cluster is found.
    """
    if cluster:
        if (coordinator, count, index) != (None, None, None):
            raise InputError(
                "--cluster says what --coordinator, --num-processes and --process-id do: expected one or the other"
            )
        try:
            jax.distributed.initialize(**TIMEOUTS)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"--cluster: no cluster that JAX knows says which process this is: {error}") from error
        return
    if coordinator is None and count is None and index is None:
        return
    if coordinator is None or count is None or index is None:
        raise InputError("--coordinator, --num-processes and --process-id go together, expected all of them or none")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--coordinator {coordinator}, expected HOST:PORT")
    if not 0 <= index < count:
        raise InputError(f"--process-id {index}, expected 0 to {count - 1} with --num-processes {count}")
    jax.distributed.initialize(coordinator, count, index, **TIMEOUTS)
