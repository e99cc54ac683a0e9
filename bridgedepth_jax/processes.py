"""Several processes of one program, started by hand."""

import jax

from bridgedepth_jax.errors import InputError


def start_processes(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Makes this process number `index` of `count`, of which number 0 listens at `coordinator` (HOST:PORT).

    Does nothing without arguments. A process that is lost ends the others. Raises InputError where only some are given,
    or one is none of these.
    """
    if coordinator is None and count is None and index is None:
        return
    if coordinator is None or count is None or index is None:
        raise InputError("--coordinator, --num-processes and --process-id go together, expected all of them or none")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--coordinator {coordinator}, expected HOST:PORT")
    if not 0 <= index < count:
        raise InputError(f"--process-id {index}, expected 0 to {count - 1} with --num-processes {count}")
    jax.distributed.initialize(coordinator, count, index, heartbeat_timeout_seconds=30, shutdown_timeout_seconds=60)
