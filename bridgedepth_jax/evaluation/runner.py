"""Evaluates a whole data set in jitted batches: read ahead, group by padded size, shard over the devices, measure, gather.

Processes share the images, devices share a batch. Each device runs the program of one image on its rows, one after another,
an image's sums are made in an order that no batch changes, and means are made of records sorted by name: so the numbers do
not depend on batch size, devices, processes or order. (The network chooses among candidates: with several rows in one
program, products are rounded differently, single pixels choose otherwise, and means move by some 1e-5.)
Letters: B batch, H W image, Hp Wp padded image, N proposals.
"""

import collections
import concurrent.futures
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bridgedepth_jax.data.pairs import Sample
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import metrics
from bridgedepth_jax.evaluation.protocol import MASKS, Protocol, pixel_masks
from bridgedepth_jax.evaluation.records import Record, gather
from bridgedepth_jax.geometry import Calibration
from bridgedepth_jax.ops.image import padding
from bridgedepth_jax.system import Estimate

Match = Callable[[Sample], tuple[np.ndarray, np.ndarray | None]]  # a pair -> disparity and raw (H, W), on the host
Consume = Callable[[Sample, np.ndarray, Record], None]  # with the disparity (H, W) of the image


class Item(NamedTuple):
    """One image of what is evaluated, read when its turn comes. An InputError of its functions is a problem of this image."""

    name: str  # unique in a set
    read: Callable[[], Sample]
    camera: Callable[[], Calibration | None] = lambda: None  # None: no metric depth


class ReadItem(NamedTuple):
    """An item, read and padded."""

    item: Item
    sample: Sample
    arrays: dict[str, np.ndarray]
    problem: str


class Evaluator:
    """A method with its compiled functions, one per padded size; keep it to evaluate again without compiling.

    Args:
      estimate: of a batch (weights, left, right (B, Hp, Wp, 3) uint8), jitted and run on the devices; or None and
      match: of one pair on the host (threads).
      batch: images in flight on the devices of a process; rounded up to a multiple of these.
      fused: one program for all rows of a batch on a device: faster where one image does not fill it, but then the numbers
        depend on the batch in the last digits. Small groups take smaller batches.
      bucket: sizes are padded to multiples of this, by default of `multiple`, which is exact; more means fewer compilations,
        but then the network sees more padding than alone and the numbers change slightly.
      multiple, minimum: of a side, in pixels, that `estimate` takes (`System.multiple`, `System.minimum`).
      devices: `jax.Device`s of this process; all by default.
      workers: threads that read ahead.
    """

    def __init__(
        self,
        estimate: Callable[[Any, jax.Array, jax.Array], Estimate] | None = None,
        match: Match | None = None,
        *,
        batch: int = 1,
        fused: bool = False,
        bucket: int | None = None,
        multiple: int = 1,
        minimum: int = 1,
        devices: Sequence[Any] | None = None,
        workers: int = 4,
    ):
        if (estimate is None) == (match is None):
            raise ValueError("an Evaluator needs either estimate or match")
        bucket = multiple if bucket is None else bucket
        if bucket < multiple or bucket % multiple:
            raise InputError(f"bucket {bucket}, expected a multiple of {multiple}, at least {multiple}")
        self.exact, self._minimum = bucket == multiple, minimum
        if batch < 1 or workers < 1:
            raise InputError(f"batch {batch} and workers {workers}, expected positive numbers")
        devices = list(devices or jax.local_devices())
        self._match, self.bucket, self.fused, self._workers = match, bucket, fused, workers
        self._devices = len(devices)
        steps = -(-batch // self._devices)
        self._batch = steps * self._devices if fused else self._devices  # rows of a program
        self._in_flight = 1 if fused else steps
        self._mesh = Mesh(np.array(devices), ("batch",))
        self._rows = NamedSharding(self._mesh, PartitionSpec("batch"))
        self._estimate = None if estimate is None else self._on_rows(estimate, has_params=True)
        self._measure = {}  # thresholds -> jitted function
        self.steps: collections.Counter[tuple[int, int, int]] = collections.Counter()  # batches by (rows, Hp, Wp)

    def __call__(
        self,
        params: Any,
        items: Sequence[Item],
        protocol: Protocol,
        *,
        done: Iterable[Record] = (),
        on_record: Callable[[Record], None] | None = None,
        consume: Consume | None = None,
        progress: bool = False,
    ) -> list[Record]:
        """Records of all items, sorted by name, the same on every process.

        Args:
          params: of `estimate`; numpy or jax arrays, also sharded over processes.
          done: records that this or another process already has; their images are not evaluated again.
          on_record: called with each new record of this process that has no problem, to keep it.
          consume: called with each image and its disparity, on the process that had it.
        """
        names = [item.name for item in items]
        twice = [name for name, count in collections.Counter(names).items() if count > 1]
        if twice:
            raise InputError(f"{protocol.name}: {len(twice)} names occur more than once, the first is {twice[0]}")
        records = {record.name: record for record in gather(done) if record.name in set(names)}
        todo = [item for item in items if item.name not in records][jax.process_index() :: jax.process_count()]
        placed = None if self._estimate is None else self._place(params)  # all processes: may gather shards
        new = []
        bar = tqdm.tqdm(
            total=len(todo), desc=protocol.name, unit="image", disable=None if progress else True, dynamic_ncols=True
        )
        with bar:
            for record, image, disparity in self._run(placed, todo, protocol):
                new.append(record)
                if on_record is not None and not record.problem:
                    on_record(record)
                if consume is not None and image is not None and disparity is not None and not record.problem:
                    consume(image.sample, disparity, record)
                bar.update()
        return gather([*records.values(), *new])

    def _run(
        self, params: Any, items: Sequence[Item], protocol: Protocol
    ) -> Iterator[tuple[Record, ReadItem | None, np.ndarray | None]]:
        groups: dict[tuple[int, int], list[ReadItem]] = collections.defaultdict(list)
        # Computing while the next are read.
        pending: collections.deque[tuple[list[ReadItem], Estimate, Any]] = collections.deque()
        for image in self._read_ahead(items, protocol):
            if image.problem:
                yield Record(protocol.name, image.item.name, problem=image.problem), None, None
                continue
            size = image.arrays["left"].shape[:2]
            groups[size].append(image)
            if len(groups[size]) == self._batch:
                pending.append(self._dispatch(params, groups.pop(size), protocol))
            while len(pending) > self._in_flight:
                yield from self._finish(*pending.popleft(), protocol)
        for images in groups.values():
            pending.append(self._dispatch(params, images, protocol))
            while len(pending) > self._in_flight:
                yield from self._finish(*pending.popleft(), protocol)
        while pending:
            yield from self._finish(*pending.popleft(), protocol)

    def _read_ahead(self, items: Sequence[Item], protocol: Protocol) -> Iterator[ReadItem]:
        with concurrent.futures.ThreadPoolExecutor(self._workers) as pool:
            waiting: collections.deque = collections.deque()
            for item in items:
                waiting.append(pool.submit(self._load, item, protocol))
                if len(waiting) > self._workers + self._batch * self._in_flight:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _load(self, item: Item, protocol: Protocol) -> ReadItem:
        try:
            sample, calibration = item.read(), item.camera()
            if calibration is not None:
                height, width = sample["disparity"].shape
                calibration = calibration.fitted(width, height)
        except InputError as error:
            return ReadItem(item, {}, {}, str(error))  # type: ignore[arg-type]
        problem = _problem(sample, protocol, self._minimum)
        if problem:
            return ReadItem(item, sample, {}, problem)
        arrays = _padded(sample, protocol, calibration, self.bucket)
        if self._match is not None:
            disparity, raw = self._match(sample)
            arrays |= _pad_all({"disparity": disparity} | ({} if raw is None else {"raw": raw}), self.bucket)
        return ReadItem(item, sample, arrays, "")

    def _dispatch(self, params: Any, images: list[ReadItem], protocol: Protocol) -> tuple[list[ReadItem], Estimate, Any]:
        """Starts a batch on the devices: rows beyond the images repeat the first with no pixel to count."""
        height, width = images[0].arrays["left"].shape[:2]
        rows = -(-len(images) // self._devices) * self._devices
        if self.steps[self._batch, height, width]:
            rows = self._batch  # this size has a program of the full batch: no second compilation for its rest
        self.steps[rows, height, width] += 1
        batch = {}
        for key in images[0].arrays:
            stacked = np.stack([image.arrays[key] for image in images])
            rest = np.repeat(stacked[:1], rows - len(images), 0)
            batch[key] = np.concatenate([stacked, np.zeros_like(rest) if key == "masks" else rest])
        batch = {key: jax.device_put(value, self._rows) for key, value in batch.items()}
        left, right = batch.pop("left"), batch.pop("right")
        if self._estimate is not None:
            prediction = self._estimate(params, left, right)
        else:
            prediction = Estimate(batch.pop("disparity"), raw=batch.pop("raw", None))
        thresholds = tuple(sorted({*metrics.THRESHOLDS, *protocol.thresholds}))
        key = thresholds, protocol.max_disp
        if key not in self._measure:
            self._measure[key] = self._on_rows(_measure(thresholds, protocol.max_disp))
        return images, prediction, self._measure[key](prediction, batch)

    def _finish(
        self, images: list[ReadItem], prediction: Estimate, sums: Any, protocol: Protocol
    ) -> Iterator[tuple[Record, ReadItem, np.ndarray]]:
        sums = jax.device_get(sums)
        disparity = np.asarray(prediction.disparity)
        for i, image in enumerate(images):
            row = {
                mask: {metric: (float(total[i]), int(count[i])) for metric, (total, count) in table.items() if count[i]}
                for mask, table in sums.items()
            }
            row = {mask: values for mask, values in row.items() if values}
            height, width = image.sample["disparity"].shape
            record = Record(protocol.name, image.item.name, row, _unsound(row))
            yield record, image, disparity[i, -height:, :width]

    def _on_rows(self, function: Callable, has_params: bool = False) -> Callable:
        rows, whole = PartitionSpec("batch"), PartitionSpec()

        def run(*arguments):
            specs = tuple(whole if has_params and i == 0 else rows for i in range(len(arguments)))
            return jax.shard_map(function, mesh=self._mesh, in_specs=specs, out_specs=rows, check_vma=False)(*arguments)

        return jax.jit(run)

    def _place(self, params: Any) -> Any:
        """The parameters on each device of this process."""
        everywhere = NamedSharding(self._mesh, PartitionSpec())

        def place(leaf):
            if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
                mesh = leaf.sharding.mesh  # type: ignore[union-attr]
                whole = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))(leaf)
                leaf = whole.addressable_data(0)
            return jax.device_put(leaf, everywhere)

        return jax.tree.map(place, params)


def _measure(thresholds: tuple[float, ...], max_disp: float | None) -> Callable:
    """(prediction, padded ground truth) -> {mask: {metric: (sum, count)}}, leaves (B,); masks of the raw answer `raw/...`."""

    def measure(prediction: Estimate, batch: dict[str, jax.Array]) -> dict[str, dict[str, metrics.SumCount]]:
        masks = {name: (batch["masks"] >> bit) & 1 == 1 for bit, name in enumerate(MASKS)}

        def of(disparity: jax.Array) -> dict[str, dict[str, metrics.SumCount]]:
            camera = batch["focal_baseline"], batch["doffs"]
            return metrics.all_metrics(disparity, batch["gt"], masks, thresholds=thresholds, camera=camera)

        result = of(prediction.disparity)
        if prediction.raw is not None:
            result |= {f"raw/{name}": row for name, row in of(prediction.raw).items()}
        if prediction.proposals is not None:
            some = (batch["masks"] != 0).any((-2, -1))[..., None, None]  # not the rows that only fill the batch
            target = jnp.where(some, batch["proposal_gt"], 0)
            result["paper"] |= metrics.proposals(prediction.proposals, target, max_disp)
            result["all/unlimited"] |= metrics.proposals(prediction.proposals, target, None)
        return result

    return measure


def _padded(sample: Sample, protocol: Protocol, calibration: Calibration | None, bucket: int) -> dict[str, np.ndarray]:
    gt, masks = sample["disparity"], pixel_masks(sample, protocol)
    images = {"left": sample["left"], "right": sample["right"]}
    images["proposal_gt"] = np.where(sample["valid"], gt, 0).astype(np.float32)
    arrays = _pad_all(images, bucket) | _pad_all(
        {"gt": np.where(masks, gt, 0).astype(np.float32), "masks": masks}, bucket, False
    )
    arrays["focal_baseline"] = np.asarray(0 if calibration is None else calibration.fx * calibration.baseline, np.float32)
    arrays["doffs"] = np.asarray(0 if calibration is None else calibration.doffs, np.float32)
    return arrays


def _pad_all(arrays: dict[str, np.ndarray], bucket: int, edge: bool = True) -> dict[str, np.ndarray]:
    """(H, W) or (H, W, 3) to multiples of `bucket`: the edge repeated, or zeros."""
    result = {}
    for key, array in arrays.items():
        height, width, *rest = array.shape
        pads = (*padding(height, width, bucket), *((0, 0) for _ in rest))
        result[key] = np.pad(array, pads, "edge" if edge else "constant")
    return result


def _problem(sample: Sample, protocol: Protocol, minimum: int) -> str:
    """Why a readable sample cannot be measured, or nothing."""
    height, width = sample["left"].shape[:2]
    for key in ("right", "disparity", "valid"):
        if sample[key].shape[:2] != (height, width):
            other = "x".join(map(str, sample[key].shape[1::-1]))
            return f"left image {width}x{height}, but {key} {other}"
    if min(height, width) < minimum:
        return f"{width}x{height}, expected at least {minimum} pixels a side"
    return "" if pixel_masks(sample, protocol).any() else "no pixel with ground truth"


def _unsound(row: dict[str, dict[str, tuple[float, int]]]) -> str:
    """A method must answer every pixel (but for `raw`): otherwise its means are no means over the image."""
    total, count = row["all/unlimited"]["density"]
    if total < 100 * count:
        return f"prediction not finite at {count - round(total / 100)} of {count} pixels"
    endless = [metric for table in row.values() for metric, (value, _) in table.items() if not math.isfinite(value)]
    return f"prediction so large that {endless[0]} is not finite" if endless else ""
