"""Batches on the devices. Batch `step` is a function of the step alone, so resuming needs nothing but its number."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import jax
import numpy as np

from bridgedepth_jax.data.pipeline import prefetch_to_device
from bridgedepth_jax.system import Batch

Host = dict[str, np.ndarray]  # this process's rows, any keys


@runtime_checkable
class TrainingData(Protocol):
    """What training reads; `bridgedepth_jax.data.TrainDataset` is one."""

    @property
    def fingerprint(self) -> str: ...

    def iterate(self, start_step: int = 0, *, host: int = 0, hosts: int = 1) -> Iterator[Host]: ...


def batches(dataset: TrainingData, step: int, sharding: jax.sharding.Sharding) -> Iterator[tuple[Batch, Host]]:
    """Batches from `step` on: over all devices, and this process's rows. The mesh keeps processes in order."""

    def put(host: Host) -> tuple[Batch, Host]:
        arrays = {name: jax.make_array_from_process_local_data(sharding, values) for name, values in host.items()}
        return arrays, host

    return prefetch_to_device(dataset.iterate(step, host=jax.process_index(), hosts=jax.process_count()), put)
