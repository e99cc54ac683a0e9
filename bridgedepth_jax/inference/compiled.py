"""A network with its weights on the devices, ready for images of any size: what all predictors share.

Letters: B batch, H W size of the images. Padding and its removal happen here, outside the compiled function, so all sizes with
the same padded size share one compilation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import cache_folder
from bridgedepth_jax.inference.cost import SCRATCH, Cost
from bridgedepth_jax.ops.image import padding

DTYPES = ("float32", "bfloat16", "float16")
Devices = str | int | Sequence[Any] | None  # Any: jax.Device, which type checkers take for a variable


class Compiled:
    """`forward(params, *images)` on the devices, for images (B, H, W, 3) of one size.

    Args:
      forward: to a tuple of (B, H, W) arrays; jittable.
      params: nested dict of arrays; they are copied to the devices once, as float32.
      devices: None the first device, "all", a platform ("cpu", "gpu", "tpu": all its devices), a number of devices, or a
        sequence of `jax.Device`. Over several devices the batch is split.
      batch: rows of one pass. A larger batch runs in several passes, a smaller one is filled up by repeating its last row, so
        one compilation serves all. None: a batch runs as it is given, on CPUs one row per device and pass: there larger ones
        are no faster, take more memory, and would give each batch size its own rounding.
      multiple: of the sides that `forward` takes: images are padded by repeating the edge, rows on top, columns on the right,
        and the results cropped.
      bucket: images are padded to multiples of this instead, itself one of `multiple`: more means fewer padded sizes, each of
        which compiles, but then the network sees more padding than alone and its answer changes slightly. None: `multiple`.

    Raises InputError: devices that are not there, a batch below 1, a bucket that is no multiple.
    """

    def __init__(
        self,
        forward: Callable[..., tuple[Array, ...]],
        params: Mapping[str, Any],
        *,
        devices: Devices = None,
        batch: int | None = None,
        multiple: int = 1,
        bucket: int | None = None,
    ) -> None:
        self.bucket = multiple if bucket is None else bucket
        if self.bucket < multiple or self.bucket % multiple:
            raise InputError(f"bucket {bucket}, expected a multiple of {multiple}, at least {multiple}")
        if batch is not None and batch < 1:
            raise InputError(f"batch {batch}, expected at least 1")
        self.devices, self.batch = find_devices(devices), batch
        keep_compilations()
        mesh = jax.make_mesh((len(self.devices),), ("batch",), axis_types=(AxisType.Auto,), devices=self.devices)
        self._split = NamedSharding(mesh, P("batch"))
        as_float32 = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), dict(params))
        self._params = jax.device_put(as_float32, NamedSharding(mesh, P()))

        def run(params: Any, images: tuple[Array, ...]) -> tuple[Array, ...]:
            return forward(params, *images)

        # Every device runs the whole network on its share of the batch: nothing to communicate, and nothing for the
        # partitioner to decide.
        sharded = jax.shard_map(run, mesh=mesh, in_specs=(P(), P("batch")), out_specs=P("batch"), check_vma=False)
        self._forward = jax.jit(sharded)

    def rows(self, total: int) -> int:
        """Of one pass, for a batch of `total`."""
        devices = len(self.devices)
        whole = devices if self.devices[0].platform == "cpu" else total
        return -(-(self.batch or whole) // devices) * devices

    def cost(self, height: int, width: int, *, images: int, batch: int = 1) -> Cost:
        """Of a pass over so many images a row, of that size. Compiles it; a call of this size then does not."""
        (above, _), (_, right) = padding(height, width, self.bucket)
        shape = (self.rows(batch), height + above, width + right, 3)
        given = (jax.ShapeDtypeStruct(shape, np.float32, sharding=self._split),) * images
        compiled = self._forward.lower(self._params, given).compile()
        memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
        used = sum(getattr(memory, f"{kind}_size_in_bytes", 0) for kind in ("argument", "output", "temp"))
        used *= SCRATCH if self.devices[0].platform == "cpu" else 1
        return Cost.of(used, float((costs or {}).get("flops", 0.0)))

    def __call__(self, *images: np.ndarray) -> tuple[np.ndarray, ...]:
        """(B, H, W, 3) of any H, W and B, all of one shape -> what `forward` gives, (B, H, W)."""
        total, height, width = images[0].shape[:3]
        step = self.rows(total)
        pads = padding(height, width, self.bucket)
        results = []
        for start in range(0, total, step):
            chosen = np.minimum(np.arange(start, start + step), total - 1)
            # One dtype, so that uint8 and float images share a compilation.
            padded = tuple(np.pad(array[chosen].astype(np.float32), ((0, 0), *pads, (0, 0)), "edge") for array in images)
            outputs = self._forward(self._params, jax.device_put(padded, self._split))
            results.append([np.asarray(output)[: total - start, -height:, :width] for output in outputs])
        return tuple(np.concatenate(parts) for parts in zip(*results, strict=True))

    def params(self) -> Any:
        """Nested dict of numpy arrays, float32."""
        return jax.tree.map(np.asarray, self._params)


def find_devices(devices: Devices) -> list[Any]:
    """The devices that `Compiled` means by its argument of that name."""
    if devices is None:
        return jax.devices()[:1]
    if isinstance(devices, str) and devices != "all":
        try:
            return jax.devices(devices)
        except RuntimeError:
            raise InputError(f"devices {devices!r}, but JAX has only {jax.default_backend()} here") from None
    if devices == "all":
        return jax.devices()
    if isinstance(devices, int):
        if not 1 <= devices <= jax.device_count():
            raise InputError(f"devices {devices}, expected 1..{jax.device_count()}, as many as there are")
        return jax.devices()[:devices]
    if not devices:
        raise InputError("devices [], expected at least one")
    return list(devices)


def keep_compilations() -> None:
    """Turns on JAX's compilation cache on disk, unless the user has configured or disabled one."""
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
