"""Whether a data set is there, whole and readable: what `bridgedepth data check` prints."""

import dataclasses
from pathlib import Path

import numpy as np

from bridgedepth_jax.data.mono import (
    DA2K,
    DA2K_ORIGIN,
    EVALUATION,
    MONO_DATASETS,
    MonoSource,
    find_images,
    read_mono,
    read_truth,
)
from bridgedepth_jax.data.pairs import custom_file
from bridgedepth_jax.data.sources import RawSource, open_source
from bridgedepth_jax.data.table import DATASETS
from bridgedepth_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Report:
    """Either `problem` says what is wrong, or the rest describes the set."""

    problem: str = ""
    broken: bool = False  # files are there, but not all or not readable
    pairs: int = 0
    complete: int | None = None  # pairs of the whole set
    size: str = ""  # height x width
    disparity: str = ""  # range of the valid ones
    fingerprint: str = ""
    unit: str = "pairs"

    @property
    def usable(self) -> bool:
        """Whether the set can be trained on or evaluated."""
        return not self.problem

    def __str__(self) -> str:
        if self.problem:
            return ("BROKEN  " if self.broken else "absent  ") + self.problem
        whole = f" of {self.complete}" if self.complete not in (None, self.pairs) else ""
        found = f"{self.pairs}{whole} {self.unit}"
        return f"ok      {found}, {self.size}, {self.disparity}, fingerprint {self.fingerprint}"


def check(name: str, root: str | Path, *, every_sample: bool = False) -> Report:
    """Finds the files of a set, pairs them, and reads the first, middle and last sample, or all."""
    try:
        source = open_source(name, root)
    except InputError as error:
        found = DATASETS.get(name)
        globs = [found.listing, *(part.left for part in found.sources)] if found else []
        there = any(next(Path(root).glob(glob), None) for glob in globs if glob)
        listed = name.partition(":")[0] == "custom" and custom_file(name, Path(root)).exists()
        return Report(str(error), broken=there or listed)
    count = len(source)
    numbers = range(count) if every_sample and isinstance(source, RawSource) else sorted({0, count // 2, count - 1})
    try:
        samples = [_describe(source[number]) for number in numbers]
    except InputError as error:
        return Report(str(error), broken=True)
    ranges = [limits for _, limits in samples if limits is not None]
    disparity = "no disparity"
    if ranges:
        disparity = f"disparity {min(low for low, _ in ranges):.1f} to {max(high for _, high in ranges):.1f} px"
    complete = DATASETS[name].pairs if name in DATASETS else None
    return Report("", False, count, complete, samples[0][0], disparity, source.fingerprint)  # type: ignore[attr-defined]


def _describe(sample) -> tuple[str, tuple[float, float] | None]:
    height, width = sample["left"].shape[:2]
    known = sample["disparity"][sample["valid"]]
    return f"{height} x {width}", (float(np.min(known)), float(np.max(known))) if known.size else None


SINGLE = "single:"  # before the names of sets of single images, of which some are sets of pairs too


def check_single(name: str, root: str | Path, *, every_sample: bool = False) -> Report:
    """As `check`, of a set of `data/mono.py` (`single:NAME`, or `mono:FILE.csv`): inverse depth where that says disparity."""
    short = name.removeprefix(SINGLE)
    if short == "da2k":
        found = (Path(root) / DA2K).is_file()
        problem = "" if found else f"{Path(root) / DA2K} is missing; it comes from {DA2K_ORIGIN}"
        return Report(problem, pairs=int(found), size="ordered pairs", unit="table of points")
    row = MONO_DATASETS.get(short)
    try:
        files = find_images(short, root)
    except InputError as error:
        there = next(Path(root).glob(row.image), None) if row else (Path(root) / short.removeprefix("mono:")).is_file()
        return Report(str(error), broken=bool(there))
    count = len(files)
    sizes, limits = [], []
    try:
        for number in range(count) if every_sample else sorted({0, count // 2, count - 1}):
            sample = read_mono(files[number]) if short not in EVALUATION else None
            image, inverse = (sample["image"], sample["inverse"]) if sample else read_truth(files[number])
            known = inverse[np.isfinite(inverse) & (inverse > 0)]
            sizes.append("{} x {}".format(*image.shape[:2]))
            limits += [float(known.min()), float(known.max())] if known.size else []
    except InputError as error:
        return Report(str(error), broken=True)
    what = "depth in m" if short in EVALUATION else "inverse depth"
    words = f"{what} {min(limits):.3g} to {max(limits):.3g}" if limits else "no depth"
    mark = MonoSource(files, root).fingerprint
    return Report("", False, count, row.images if row else None, sizes[0], words, mark, "images")
