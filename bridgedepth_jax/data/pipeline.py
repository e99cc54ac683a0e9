"""From data sets to training batches, deterministically (spec: data; training, "Defaults and configs").

Position p of the endless stream belongs to epoch p // N, N samples in an epoch (every set times its multiplier). The epoch's
order is a permutation drawn from (seed, epoch), the augmentation of a sample from (seed, epoch, its number in the epoch). Step
s takes positions s * B to s * B + B - 1, and of these host k of n the k-th block of B / n. So a batch is a function of
(config, seed, s) alone: number of hosts, worker processes and threads change nothing, and a run resumes from its step number.
"""

import collections
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import cv2
import grain
import numpy as np

from bridgedepth_jax.data.augment import EXTRAS, AugmentConfig, augment, whole_views
from bridgedepth_jax.data.clips import ClipOptions, ClipSource, clip_example, clip_shapes
from bridgedepth_jax.data.mono import MonoAugment, make_example, open_mono
from bridgedepth_jax.data.pairs import Sample
from bridgedepth_jax.data.sources import Packing, SyntheticOptions, open_source
from bridgedepth_jax.errors import InputError

HostBatch = dict[str, np.ndarray]

DERIVED = ("batch_size", "seed", "extras")  # fields of `DataConfig` that follow from other sections of an experiment
FILED = frozenset(("confidence", "nonocc", "inpaint"))  # extras that come from files

_LOG = logging.getLogger(__name__)
_ENDLESS = 2**40  # samples: more than any run takes
_MAX_SKIPS = 100  # broken files in a row before even skip_broken gives up


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What a training run reads. `workers`, `threads` and `prefetch` change the speed only, never a batch."""

    root: str = "data"  # of the data sets as downloaded, or of the packed ones
    train: tuple[tuple[str, int], ...] = (("sceneflow", 1),)  # (name, multiplier); below 1 means once
    crop: tuple[int, int] = (368, 784)  # height, width
    batch_size: int = 8  # over all hosts
    seed: int = 326
    source: Packing = "raw"
    whole: bool = False  # whole images at the size `crop` and no ground truth, for training that must not see it
    skip_broken: bool = False  # a broken file: the next index takes its place, instead of an error
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    # single: images with depth, the sets of `data/mono.py`; clips: frames of a moving camera, `data/clips.py`
    views: Literal["pairs", "single", "clips"] = "pairs"
    shares: tuple[int, ...] = ()  # samples of each set in a row of sum(shares); empty: as many as they have
    mono: MonoAugment = dataclasses.field(default_factory=MonoAugment)  # of single images
    clips: ClipOptions = dataclasses.field(default_factory=ClipOptions)  # of clips
    synthetic: SyntheticOptions = dataclasses.field(default_factory=SyntheticOptions)
    extras: tuple[str, ...] = ()  # of `EXTRAS`: what a batch holds beside views and disparity
    workers: int = 0  # processes
    threads: int = 2  # reading ahead, in each process
    prefetch: int = 2  # batches a process keeps ready

    def __post_init__(self) -> None:
        if not self.train:
            raise InputError("no training data: `train` is empty")
        if self.shares and (len(self.shares) != len(self.train) or min(self.shares) < 1):
            raise InputError(f"data.shares = {self.shares}, expected a number above 0 for each of {len(self.train)} sets")
        if self.batch_size < 1 or min(self.crop) < 1:
            raise InputError(f"batch_size {self.batch_size}, crop {self.crop}: expected positive numbers")
        if self.extras and (self.whole or (self.augment.enabled and self.augment.flip in ("h", "hf"))):
            raise InputError(
                f"data.whole {self.whole}, data.augment.flip {self.augment.flip!r}: {', '.join(self.extras)} are of the left"
                " view and of whole pairs, expected False and '' or 'v'"
            )
        if self.views == "clips" and [name for name, _ in self.train] != ["clips"]:
            raise InputError(f"data.train = {self.train}: data.views are clips, expected (('clips', 1),)")


def batch_shapes(config: DataConfig) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each array of a batch over all hosts, as `TrainDataset` gives them."""
    size = (config.batch_size, *config.crop)
    if config.views == "clips":
        shapes = clip_shapes(config.clips, config.crop)
        return {name: ((config.batch_size, *shape), kind) for name, (shape, kind) in shapes.items()}
    if config.views == "single":
        maps = {"inverse": (size, np.float32), "valid": (size, np.bool_)}
        return {"image": ((*size, 3), np.uint8), **maps, "pseudo": (size[:1], np.bool_)}
    kinds: dict[str, Any] = {"left": np.uint8, "right": np.uint8}
    if not config.whole:
        kinds |= {"disparity": np.float32, "valid": np.bool_} | {name: EXTRAS[name] for name in config.extras}
    return {name: ((*size, 3) if kind is np.uint8 else size, kind) for name, kind in kinds.items()}


class TrainDataset:
    """Batches by step number. See the module's docstring for what is in one.

    A batch is a dict: left, right (b, h, w, 3) uint8 RGB; disparity (b, h, w) float32, pixels; valid (b, h, w) bool.
    With `whole` it is the two images alone. `config.extras` adds left_clean, right_clean (b, h, w, 3) uint8: the views before
    colour, eraser and row jitter; confidence (b, h, w) float32, of the disparity; nonocc and inpaint (b, h, w) bool, of the
    left and the right view. Every pair must have them. Of single images: image (b, h, w, 3) uint8; inverse (b, h, w) float32;
    valid (b, h, w) bool; pseudo (b,) bool. Of clips: `clip_example`, each with a leading axis b.
    """

    def __init__(self, config: DataConfig):
        flip_views = config.augment.enabled and not config.whole and config.augment.flip == "h"
        height, width = config.crop
        options = config.synthetic
        options = dataclasses.replace(
            options,
            height=options.height or height,
            width=options.width or width,
            seed=config.seed if options.seed is None else options.seed,
        )
        self.config = config
        self.sources: dict[str, Sequence[Any]] = {}
        for name, _ in config.train:
            if config.views == "clips":
                self.sources[name] = ClipSource(config.clips, config.crop, config.seed)
            elif config.views == "single":
                self.sources[name] = open_mono(name, config.root, options)
            else:
                how: dict[str, Any] = dict(storage=config.source, right_disparity=flip_views, synthetic=options)
                self.sources[name] = open_source(name, config.root, **how)
        self._check_extras()
        self.repeats = [(name, max(times, 1)) for name, times in config.train]
        ends = np.cumsum([len(self.sources[name]) * times for name, times in self.repeats])
        self.ends: list[int] = ends.tolist()
        self.epoch_length = self.ends[-1]
        self._parts = [
            grain.MapDataset.range(len(self.sources[name]) * times).shuffle(seed=config.seed + 1 + row).repeat()
            for row, (name, times) in enumerate(self.repeats)
            if config.shares
        ]
        self._order = grain.MapDataset.range(self.epoch_length).shuffle(seed=config.seed).repeat()

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the batches: config and file lists. Equal for raw and packed data."""
        config = dataclasses.asdict(self.config)
        for name in ("root", "source", "workers", "threads", "prefetch"):
            del config[name]
        # An option that came later, at what there was before there was the choice, changes nothing.
        for name, before, section in (
            ("scenes", "sparse", config["synthetic"]), ("clean", False, config["synthetic"]), ("whole", False, config),
            ("views", "pairs", config), ("shares", (), config), ("extras", (), config),
        ):  # fmt: skip
            if section[name] == before:
                del section[name]
        for name, kind in (("mono", "single"), ("clips", "clips")):  # sections of one kind of sample alone
            if self.config.views != kind:
                del config[name]
        files = {name: [len(source), source.fingerprint] for name, source in self.sources.items()}  # type: ignore[attr-defined]
        return hashlib.sha256(json.dumps([config, files], sort_keys=True).encode()).hexdigest()[:16]

    def _check_extras(self) -> None:
        """Before anything is read: InputError names the first pair without a file that `extras` needs."""
        for source in self.sources.values():
            for pair in getattr(source, "pairs", ()):
                for name in FILED.intersection(self.config.extras):
                    if getattr(pair, name) is None:
                        raise InputError(f"{pair.dataset}: {pair.left} has no {name}, which the loss asks for")

    def element(self, position: int) -> dict[str, Any]:
        """The augmented sample at a position of the stream, and `skipped`, the number of broken files it replaces."""
        epoch, index = self._place(position)
        rng = np.random.default_rng((self.config.seed, epoch, index))
        for skipped in range(_MAX_SKIPS):
            try:
                sample = self._sample((index + skipped) % self.epoch_length)
                break
            except InputError as error:
                if not self.config.skip_broken:
                    raise
                _LOG.warning("skipped: %s", error)
        else:
            raise InputError(f"{_MAX_SKIPS} broken files in a row, from number {index} of the epoch on")
        if self.config.views == "clips":
            return {**clip_example(sample, self.config.clips, rng), "skipped": np.int32(skipped)}
        if self.config.views == "single":
            return {**make_example(sample, self.config.crop, self.config.mono, rng), "skipped": np.int32(skipped)}
        if self.config.whole:
            return {**whole_views(sample, self.config.crop), "skipped": np.int32(skipped)}
        for name in FILED.intersection(self.config.extras):
            if name not in sample:
                raise InputError(f"{sample['name']}: a pair without {name}, which the loss asks for")
        made = augment(sample, sample.get("kind", "masked"), self.config.crop, self.config.augment, rng, self.config.extras)
        return {**made, "skipped": np.int32(skipped)}

    def _place(self, position: int) -> tuple[int, int]:
        """(epoch, number in the epoch) of a position of the stream; with `shares` both are those of the sample's set."""
        shares = self.config.shares
        if not shares:
            index = self._order[position]
            assert index is not None  # only filtered datasets have holes
            return position // self.epoch_length, int(index)
        # Rows of sum(shares) positions, in each as many of a set as its share, in an order of the row's own.
        number, place = divmod(position, sum(shares))
        order = np.random.default_rng((self.config.seed, number, 1)).permutation(np.repeat(np.arange(len(shares)), shares))
        part = int(order[place])
        before = number * shares[part] + int((order[:place] == part).sum())
        index = self._parts[part][before]
        assert index is not None
        start = self.ends[part - 1] if part else 0
        return before // (self.ends[part] - start), start + int(index)

    def batch(self, step: int, host: int = 0, hosts: int = 1) -> HostBatch:
        """The batch of a step (this host's part of it), made here and now."""
        return _stack([self.element(position) for position in self._positions(step, host, hosts)])[0]

    def iterate(
        self,
        start_step: int = 0,
        *,
        host: int = 0,
        hosts: int = 1,
        workers: int | None = None,
        threads: int | None = None,
        prefetch: int | None = None,
    ) -> "BatchIterator":
        """Batches of start_step, start_step + 1, ... without end; the three last default to the config's.

        OpenCV's own threads are switched off in this process: samples are made in parallel already.
        """
        cv2.setNumThreads(1)
        self._positions(start_step, host, hosts)
        given = (workers, self.config.workers), (threads, self.config.threads), (prefetch, self.config.prefetch)
        workers, threads, prefetch = (default if value is None else value for value, default in given)
        size = self.config.batch_size // hosts
        stream = grain.MapDataset.source(_HostElements(self, start_step, host, hosts)).batch(size, batch_fn=_stack)
        batches = stream.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch if threads else 0)
        )
        if workers:
            _mark_absl_flags_parsed()
            options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch)
            batches = batches.mp_prefetch(options, worker_init_fn=_start_worker)
        return BatchIterator(iter(batches))

    def _positions(self, step: int, host: int, hosts: int) -> range:
        size, rest = divmod(self.config.batch_size, hosts)
        if rest or not 0 <= host < hosts:
            raise InputError(f"host {host} of {hosts} cannot take a whole part of batch_size {self.config.batch_size}")
        first = step * self.config.batch_size + host * size
        return range(first, first + size)

    def _sample(self, index: int) -> Any:
        row = next(row for row, end in enumerate(self.ends) if index < end)
        source = self.sources[self.repeats[row][0]]
        return source[(index - (self.ends[row - 1] if row else 0)) % len(source)]


class BatchIterator(Iterator[HostBatch]):
    """Batches in order; `skipped` counts the broken files replaced so far."""

    def __init__(self, batches: Iterator[tuple[HostBatch, int]]):
        self._batches = batches
        self.skipped = 0

    def __next__(self) -> HostBatch:
        batch, skipped = next(self._batches)
        if skipped:
            self.skipped += skipped
            _LOG.warning("broken files replaced so far: %d", self.skipped)
        return batch


class _HostElements:
    """The elements of one host from a step on, as Grain's random access."""

    def __init__(self, dataset: TrainDataset, start_step: int, host: int, hosts: int):
        self._dataset, self._start, self._host, self._hosts = dataset, start_step, host, hosts
        self._size = dataset.config.batch_size // hosts

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> dict[str, Any]:
        step, number = divmod(int(index), self._size)
        return self._dataset.element(self._dataset._positions(self._start + step, self._host, self._hosts)[number])


def make_train_dataset(config: DataConfig) -> TrainDataset:
    """Finds the files of every set of `config.train`. InputError where something is missing."""
    return TrainDataset(config)


def make_eval_dataset(
    name: str, root: str, *, source: Packing = "raw", synthetic: SyntheticOptions | None = None
) -> Sequence[Sample]:
    """The samples of a set as they are, read when indexed; `[index]["name"]` names one. For `synthetic` give its size."""
    return open_source(name, root, storage=source, synthetic=synthetic)


def prefetch_to_device(batches: Iterable[Any], put: Callable[[Any], Any], depth: int = 2) -> Iterator[Any]:
    """Keeps `depth` batches on their way to the device while one is used. `put` must not wait, as `jax.device_put` does not."""
    queue: collections.deque[Any] = collections.deque()
    for batch in batches:
        queue.append(put(batch))
        if len(queue) >= depth:
            yield queue.popleft()
    yield from queue


def _stack(elements: Sequence[dict[str, Any]]) -> tuple[HostBatch, int]:
    batch = {key: np.stack([element[key] for element in elements]) for key in elements[0]}
    return batch, int(batch.pop("skipped").sum())


def _start_worker(index: int, count: int) -> None:
    cv2.setNumThreads(1)


def _mark_absl_flags_parsed() -> None:
    """Grain's worker processes refuse to start under a program that does not parse absl flags."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
