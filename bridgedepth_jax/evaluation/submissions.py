"""Submissions to the benchmarks' servers (data specification, Submission files): the tree, honest times, a check, a zip.

    kitti_2012, kitti_2015   <set>_submission/NNNNNN_10.png; in the zip as the servers want them: at the root for 2012, in
                             disp_0/ for 2015
    eth3d                    low_res_two_view/<scene>.pfm and .txt, test and training scenes
    middlebury_{F,H,Q}       {test,training}{F,H,Q}/<scene>/disp0<Method>.pfm and time<Method>.txt

Letters: H W image. Disparities in pixels.
"""

import dataclasses
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import tqdm

from bridgedepth_jax.data import formats
from bridgedepth_jax.data.pairs import Pair, find_pairs
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]  # left, right (H, W, 3) uint8 -> disparity (H, W), one pair


@dataclasses.dataclass(frozen=True)
class Split:
    """Part of a benchmark: a data set of the registry, its folder under the data directory, whether the server insists."""

    dataset: str
    folder: str
    split: str = ""  # folder in a Middlebury submission
    required: bool = True


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A row: what is predicted, and the largest disparity that may be written."""

    kind: str
    splits: tuple[Split, ...]
    limit: float
    zip_root: str | None = None  # KITTI: where the files go in the zip; None: the tree as it is


def _middlebury(size: str) -> Benchmark:
    folder = "Middlebury/MiddEval3/"
    splits = (
        Split(f"middlebury_{size}_test", f"{folder}test{size}", f"test{size}"),
        Split(f"middlebury_{size}", f"{folder}training{size}", f"training{size}", required=False),
    )
    return Benchmark("middlebury", splits, 400)


BENCHMARKS: dict[str, Benchmark] = {
    "kitti_2012": Benchmark("kitti", (Split("kitti_2012_test", "KITTI/KITTI_2012/testing"),), 65535 / 256, zip_root=""),
    "kitti_2015": Benchmark("kitti", (Split("kitti_2015_test", "KITTI/KITTI_2015/testing"),), 65535 / 256, zip_root="disp_0/"),
    "eth3d": Benchmark(
        "eth3d",
        (
            Split("eth3d_test", "ETH3D/two_view_testing"),
            Split("eth3d", "ETH3D/two_view_training", required=False),
        ),
        64,
    ),
    **{f"middlebury_{size}": _middlebury(size) for size in "FHQ"},
}


@dataclasses.dataclass(frozen=True)
class Submission:
    """What was written: the files, the zip, seconds a pair, and parts of the benchmark that were not found."""

    files: tuple[Path, ...]
    archive: Path
    seconds: tuple[float, ...]
    missing: tuple[str, ...]


def submit(
    name: str,
    predict: Predict,
    root: str | os.PathLike,
    out: str | os.PathLike,
    *,
    method: str = "BridgeDepth",
    progress: bool = False,
) -> Submission:
    """Predicts every image of a benchmark alone, writes its tree into `out`, checks it by reading it back, and zips it.

    Raises InputError: unknown benchmark, test images not found, a method name that makes no file name, a file of an older
    submission in the way, output that fails the check.
    """
    if name not in BENCHMARKS:
        raise InputError(f"unknown benchmark {name!r}, expected one of {', '.join(BENCHMARKS)}")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", method) or method.endswith("_s"):
        raise InputError(f"method name {method!r}, expected letters, digits, - and _, not ending in _s (sparse)")
    benchmark, root, out = BENCHMARKS[name], Path(root), Path(out)
    splits = [split for split in benchmark.splits if split.required or (root / split.folder).is_dir()]
    missing = tuple(str(root / split.folder) for split in benchmark.splits if split not in splits)
    work = [(split, pair) for split in splits for pair in find_pairs(split.dataset, root)]
    files: list[Path] = []
    seconds: list[float] = []
    sizes: dict[Path, tuple[int, int]] = {}
    results = timed(predict, [pair for _, pair in work])
    for (split, pair), (disparity, duration) in zip(
        work, tqdm.tqdm(results, total=len(work), disable=None if progress else True), strict=True
    ):
        written = _write(name, benchmark, split, pair, out, method, disparity, duration)
        sizes[written[0]] = disparity.shape
        files += written
        seconds.append(duration)
    check(benchmark, files, sizes)
    _no_strangers(files, out)
    archive = out / f"{name}.zip"
    with replacing(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(files):
            inside = path.relative_to(out).as_posix() if benchmark.zip_root is None else benchmark.zip_root + path.name
            file.write(path, inside)
    return Submission(tuple(files), archive, tuple(seconds), missing)


def timed(predict: Predict, pairs: list[Pair]) -> Iterator[tuple[np.ndarray, float]]:
    """Disparity and seconds of each pair alone, from images in memory to the disparity in memory.

    Before the first pair of each padded size it is predicted once untimed, so that no compilation counts.
    """
    warm: set[tuple[int, int]] = set()
    for pair in pairs:
        left, right = formats.read_image(pair.left), formats.read_image(pair.right)
        if left.shape != right.shape:
            raise InputError(f"{pair.right}: {right.shape[:2]}, but its left image {pair.left} is {left.shape[:2]}")
        padded = (-(-left.shape[0] // 16), -(-left.shape[1] // 16))
        if padded not in warm:
            predict(left, right)
            warm.add(padded)
        start = time.perf_counter()
        disparity = predict(left, right)
        duration = time.perf_counter() - start
        if disparity.shape != left.shape[:2] or not np.isfinite(disparity).all():
            raise InputError(
                f"{pair.left}: the prediction has shape {disparity.shape} or is not finite, expected {left.shape[:2]}"
            )
        yield disparity.astype(np.float32), duration


def check(benchmark: Benchmark, files: list[Path], sizes: dict[Path, tuple[int, int]]) -> None:
    """Reads back what was written. Raises InputError naming the first file whose type, size or values a server would refuse."""
    for path in files:
        if path.suffix == ".txt":
            text = path.read_text().split()
            words = 2 if benchmark.kind == "eth3d" else 1
            if len(text) != words or (words == 2 and text[0] != "runtime") or not float(text[-1]) > 0:
                raise InputError(f"{path}: {' '.join(text)!r}, expected a positive run time")
            continue
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        dtype = np.uint16 if benchmark.kind == "kitti" else np.float32
        if values is None or values.dtype != dtype or values.shape != sizes[path]:
            found = "unreadable" if values is None else f"{values.dtype} {values.shape}"
            raise InputError(f"{path}: {found}, expected {np.dtype(dtype)} {sizes[path]}")
        if benchmark.kind != "kitti" and not (
            np.isfinite(values).all() and values.min() >= 0 and values.max() <= benchmark.limit
        ):
            raise InputError(f"{path}: values {values.min()}..{values.max()}, expected 0..{benchmark.limit:g}")
        if benchmark.kind == "kitti" and not values.any():
            raise InputError(f"{path}: all zero, so without any disparity")


def _no_strangers(files: list[Path], out: Path) -> None:
    """Files of an older submission in the same folders would be zipped, or uploaded, with this one."""
    for folder in sorted({out / path.relative_to(out).parts[0] for path in files}):
        strangers = sorted({path for path in folder.rglob("*") if path.is_file()} - set(files))
        if strangers:
            raise InputError(f"{strangers[0]} is no part of this submission; remove {folder} and start again")


def _write(
    name: str, benchmark: Benchmark, split: Split, pair: Pair, out: Path, method: str, disparity: np.ndarray, seconds: float
) -> list[Path]:
    disparity = np.maximum(disparity, np.float32(0))
    if benchmark.kind == "kitti":
        return [formats.write_kitti_submission(out, name, pair.left.name, disparity)]
    scene = pair.left.parent.name
    if benchmark.kind == "eth3d":
        path = formats.write_eth3d_submission(out, scene, disparity, seconds)
        return [path, path.with_suffix(".txt")]
    path = formats.write_middlebury_submission(out, split.split, scene, method, disparity, seconds)
    return [path, path.with_name(f"time{method}.txt")]
