"""Several processes of one program, started by hand."""

import jax

from bridgedepth_jax.errors import InputError


def start_processes(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Makes this process number `index` of `count`, of which number 0 listens at `coordinator` (HOST:PORT).

    Does nothing without arguments. A process that is lost ends the others. Raises InputError where only some are given.
    """
    given = [value is not None for value in (coordinator, count, index)]
    if not any(given):
        return
    if not all(given):
        raise InputError("--coordinator, --num-processes and --process-id go together, expected all of them or none")
    jax.distributed.initialize(coordinator, count, index, heartbeat_timeout_seconds=30, shutdown_timeout_seconds=60)
