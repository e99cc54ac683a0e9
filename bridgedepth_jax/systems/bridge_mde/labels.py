"""Pseudo-labels of photographs, and hybrid labels of generated ones (spec `mono-training.md` section 6).

Files of the user are only read. See `data/shards.py` for how runs are split and gone on with.
"""

import concurrent.futures
import csv
import dataclasses
import functools
import hashlib
import multiprocessing
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt16

from bridgedepth_jax.data.formats import decode_image, read_bytes, write_png
from bridgedepth_jax.data.mono_formats import decode_target
from bridgedepth_jax.data.shards import Index, Shard
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing
from bridgedepth_jax.systems.bridge_mde import fusion

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
DEPTH_SUFFIXES = {".npy": "npy", ".pfm": "pfm", ".png": "png_mm", ".dpt": "dpt", ".hdf5": "hypersim"}
FULL = 65535
JITTER = 32  # pixels either way, in training


def images_under(folder: Path) -> dict[str, Path]:
    """{path relative to the folder: file}, of all images however deep. InputError: none."""
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    }
    if not found:
        raise InputError(f"{folder}: no images, expected files with {' '.join(SUFFIXES)}")
    return found


class Label(NamedTuple):
    """Relative inverse depth in 16 bits, and what was lost by it."""

    values: UInt16[np.ndarray, "h w"]
    low: float
    high: float


def quantise(depth: Float[np.ndarray, "h w"]) -> Label:
    """Smallest to 0, largest to 65535; a constant map to 0. InputError: values that are not finite."""
    low, high = float(depth.min()), float(depth.max())
    if not np.isfinite(high - low):
        raise InputError(f"prediction from {low} to {high}, expected finite numbers")
    if high == low:
        return Label(np.zeros(depth.shape, np.uint16), low, high)
    return Label(np.round(FULL * ((depth.astype(np.float64) - low) / (high - low))).astype(np.uint16), low, high)


class Outcome(NamedTuple):
    """Names done now, done before, and those that could not be, with the reason."""

    made: int
    before: int
    problems: dict[str, str]


def pseudo_label(
    predict: Callable[[np.ndarray], np.ndarray],
    about: dict[str, Any],
    images: Path,
    out: Path,
    shard: Shard,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Outcome:
    """Labels of all images of a shard: OUT/<path>.png, a line in the index, a row of labels.csv.

    predict: an image (H, W, 3) uint8 to relative inverse depth (h, w) at the network's size. about: what it is made
    by, in each line of the index; labels made by another are refused.
    """
    files = images_under(images)
    names = shard.mine(files)
    index = Index(out, shard, about)
    target = lambda name: out / f"{name}.png"
    todo = [name for name in names if not index.done(name, [target(name)])]
    problems: dict[str, str] = {}
    ahead = _ahead(todo, lambda name: read_bytes(files[name]))
    for name in progress(todo):
        try:
            data = next(ahead)()
            image = decode_image(data, str(files[name]))
            label = quantise(predict(image))
        except InputError as error:
            problems[name] = str(error)
            continue
        write_png(target(name), label.values)
        size = list(image.shape[:2])
        index.add(name, {"size": size, "min": label.low, "max": label.high, "image": hashlib.sha256(data).hexdigest()})
    index.finish(names)
    done = [name for name in names if name in index.lines]
    rows = [(os.path.relpath(files[name], out), f"{name}.png", "relative16", "") for name in done]
    write_table(out, shard, rows)
    return Outcome(len(todo) - len(problems), len(names) - len(todo), problems)


def _ahead(names: Sequence[str], read: Callable[[str], bytes], depth: int = 4) -> Iterator[Callable[[], bytes]]:
    """Contents, read by a thread before they are asked for; an error comes where its file is asked for."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(read, name) for name in names[:depth]]
        for i in range(len(names)):
            if i + depth < len(names):
                waiting.append(pool.submit(read, names[i + depth]))
            yield waiting.pop(0).result


def write_table(out: Path, shard: Shard, rows: Iterable[tuple[str, str, str, str]]) -> None:
    """labels.csv (of a shard: labels-I-of-N.csv), what `mono:FILE.csv` reads."""
    name = "labels.csv" if shard.total == 1 else f"labels-{shard.words}.csv"
    with replacing(out / name) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "depth", "format", "mask"))
        writer.writerows(rows)


@dataclasses.dataclass(frozen=True)
class FuseOptions:
    """How samples are cut out."""

    size: int = fusion.CROP  # pixels a side
    jitter: int = 0  # pixels either way that a crop moves, drawn from its name; training: 32
    format: str = ""  # of depth files; empty: by their suffix

    def __post_init__(self) -> None:
        if self.size < 14 or self.jitter < 0:
            raise InputError(f"--size {self.size}, --jitter {self.jitter}: expected at least 14 and 0")


class Job(NamedTuple):
    name: str
    generated: Path
    original: Path
    depth: Path


def find_jobs(generated: Path, original: Path, depth: Path) -> dict[str, Job]:
    """Generated images with their original and depth, which have the same path but for the suffix; behind the name of a
    generated one may stand the number of its draw, `street_3.png`. InputError: one without a partner."""
    originals = {Path(name).with_suffix("").as_posix(): path for name, path in images_under(original).items()}
    depths = {
        path.relative_to(depth).with_suffix("").as_posix(): path
        for path in sorted(depth.rglob("*"))
        if path.suffix.lower() in DEPTH_SUFFIXES and path.is_file()
    }
    jobs = {}
    for name, path in images_under(generated).items():
        stem = Path(name).with_suffix("").as_posix()
        stems = [stem, re.sub(r"_\d+$", "", stem)]
        partners = []
        for folder, found in ((original, originals), (depth, depths)):
            known = [found[s] for s in stems if s in found]
            if not known:
                raise InputError(f"{path}: no file {stems[-1]}.* in {folder}")
            partners.append(known[0])
        jobs[name] = Job(name, path, *partners)
    return jobs


def fuse_labels(
    generated: Path, original: Path, depth: Path, out: Path, shard: Shard, options: FuseOptions, *, processes: int = 1
) -> Outcome:
    """Samples of all generated images of a shard: OUT/<stem>.png, _mask.png, _depth.npy, a line in the index and labels.csv.

    A rejected image has its line, with the reason, and no files.
    """
    jobs = find_jobs(generated, original, depth)
    names = shard.mine(jobs)
    index = Index(out, shard, {"options": dataclasses.asdict(options)})

    def done(name: str) -> bool:
        accepted = name in index.lines and index.lines[name]["accepted"]
        return index.done(name, outputs(out, name) if accepted else [])

    todo = [name for name in names if not done(name)]
    problems: dict[str, str] = {}
    work = functools.partial(_fuse_one, out=out, options=options)
    for name, row in _over(work, [jobs[name] for name in todo], processes):
        if "problem" in row:
            problems[name] = row["problem"]
        else:
            index.add(name, row)
    index.finish(names)
    rows = []
    for name in names:
        if name in index.lines and index.lines[name]["accepted"]:
            image, mask, metres = (path.relative_to(out).as_posix() for path in outputs(out, name))
            rows.append((image, metres, "npy", mask))
    write_table(out, shard, rows)
    return Outcome(len(todo) - len(problems), len(names) - len(todo), problems)


def outputs(out: Path, name: str) -> tuple[Path, Path, Path]:
    """Image, mask and depth of an accepted sample."""
    stem = Path(name).with_suffix("").as_posix()
    return out / f"{stem}.png", out / f"{stem}_mask.png", out / f"{stem}_depth.npy"


def _over(work: Callable[[Job], Any], jobs: Sequence[Job], processes: int) -> Iterator[tuple[str, dict[str, Any]]]:
    if processes <= 1:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context, initializer=_one_thread) as pool:
        yield from pool.map(work, jobs, chunksize=max(1, min(8, len(jobs) // (4 * processes))))


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _fuse_one(job: Job, *, out: Path, options: FuseOptions) -> tuple[str, dict[str, Any]]:
    """(name, its line in the index); the sample's files are in place when it returns."""
    try:
        contents = [read_bytes(path) for path in (job.generated, job.original, job.depth)]
        image, original = (decode_image(data, str(path)) for data, path in zip(contents, job[1:3], strict=False))
        format = options.format or DEPTH_SUFFIXES[job.depth.suffix.lower()]
        target = decode_target(contents[2], format, str(job.depth))
        if target.inverse.shape != original.shape[:2]:
            raise InputError(f"{job.depth}: depth {target.inverse.shape}, but {job.original} is {original.shape[:2]}")
    except InputError as error:
        return job.name, {"problem": str(error)}
    known = target.valid & (target.inverse > 0)
    metres = np.where(known, 1 / np.where(known, target.inverse, 1), 0).astype(np.float32)
    found = fusion.fuse(image, original, known)
    digests = {
        key: hashlib.sha256(data).hexdigest() for key, data in zip(("generated", "original", "depth"), contents, strict=True)
    }
    row: dict[str, Any] = {
        "matches": found.registration.matches,
        "inliers": found.registration.inliers,
        "corner_shift": found.registration.shift,
        "chosen": found.chosen,
        "fraction_before_erosion": found.fraction,
        "fraction": float(found.mask.mean()),
        "accepted": found.accepted,
        "reason": found.reason,
        **digests,
    }
    if found.accepted:
        sample, row["crop"] = cut(found, metres, options, job.name)
        paths = outputs(out, job.name)
        write_png(paths[0], sample.image)
        write_png(paths[1], sample.mask.astype(np.uint8) * 255)
        with replacing(paths[2]) as temporary, open(temporary, "wb") as file:
            np.save(file, sample.metres)
    return job.name, row


class Cut(NamedTuple):
    """A square sample; what is not in its mask has no label."""

    image: np.ndarray
    mask: np.ndarray
    metres: np.ndarray


def cut(found: fusion.Fusion, metres: Float[np.ndarray, "H W"], options: FuseOptions, name: str) -> tuple[Cut, list[int]]:
    """The crop around the largest part of the mask, and its top and left; a smaller image is enlarged first."""
    image, mask, size = found.image, found.mask, options.size
    scale = size / min(mask.shape)
    if scale > 1:
        width, height = (max(size, round(side * scale)) for side in mask.shape[::-1])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        mask = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        metres = cv2.resize(metres, (width, height), interpolation=cv2.INTER_NEAREST)
    box = fusion.largest_component(mask)
    assert box is not None  # more than half of the image before erosion
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    moved = tuple(int(n) for n in rng.integers(-options.jitter, options.jitter + 1, 2))
    top, left = fusion.crop_of(box, *mask.shape, size, moved)  # type: ignore[arg-type]
    window = slice(top, top + size), slice(left, left + size)
    return Cut(image[window], mask[window], np.where(mask, metres, 0)[window]), [top, left]
