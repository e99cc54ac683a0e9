"""Where arrays live: a mesh of `data` and `fsdp`, and a table of rules outside the model.

The batch is split over both axes. Parameters and optimiser moments are split over `fsdp` and repeated over `data`.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bridgedepth_jax.errors import InputError

SMALL = 2**14  # leaves with fewer elements are repeated: gathering them costs more than it saves
LARGEST = "largest axis that the fsdp devices divide"
# First match wins; a rule is a PartitionSpec or LARGEST. Names are joined by /, optimiser moments end in the parameter's name.
RULES: tuple[tuple[str, Any], ...] = (
    (r"relative_position", P()),
    (r".*", LARGEST),
)


def make_mesh(fsdp: int, devices: Sequence[Any] | None = None) -> Mesh:
    """All devices as (data, fsdp), in the order of the processes. Raises InputError unless `fsdp` divides their number."""
    devices = sorted(jax.devices() if devices is None else devices, key=lambda device: (device.process_index, device.id))
    if len(devices) % fsdp:
        raise InputError(f"run.fsdp = {fsdp}, expected a divisor of the number of devices, {len(devices)}")
    # Auto: with Explicit axes, the default of jax.make_mesh, convolutions do not run.
    return Mesh(np.array(devices).reshape(-1, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def batch_sharding(mesh: Mesh, batch: int) -> NamedSharding:
    """The leading axis over all devices. Raises InputError unless they divide the batch."""
    if batch % mesh.size:
        raise InputError(f"a batch of {batch} pairs is not a multiple of the number of devices, {mesh.size}")
    return NamedSharding(mesh, P(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """A tree like `tree` (arrays or their shapes) with the sharding of each leaf."""

    def of(path: Any, leaf: Any) -> NamedSharding:
        name = "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)
        rule = next(rule for pattern, rule in RULES if re.search(pattern, name))
        return NamedSharding(mesh, _largest(leaf.shape, mesh.shape["fsdp"]) if rule == LARGEST else rule)

    return jax.tree_util.tree_map_with_path(of, tree)


def _largest(shape: tuple[int, ...], devices: int) -> P:
    axes = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if devices == 1 or not axes or np.prod(shape) < SMALL:
        return P()
    axis = max(axes, key=lambda axis: shape[axis])
    return P(*[None] * axis, "fsdp")
