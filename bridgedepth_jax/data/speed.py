"""Throughput of the training pipeline: what `bridgedepth data benchmark` prints."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2

from bridgedepth_jax.data.formats import write_pfm, write_png
from bridgedepth_jax.data.pipeline import DataConfig, make_train_dataset

KINDS = ("png", "packed", "synthetic")
PAIR = (540, 960)
CROP = (368, 784)
SYNTHETIC = (256, 512)
_BATCH = 4
_REPEATS = 1000  # an epoch as long as a real one


def write_pairs(root: Path, count: int = 12) -> Path:
    """FlyingThings3D's test layout with `count` rendered pairs of its size, fine texture and sensor noise included."""
    from bridgedepth_jax.data.procedural import SyntheticStereo

    scenes = SyntheticStereo(*PAIR, seed=0)
    for number in range(count):
        sample = scenes[number]
        for side in ("left", "right"):
            write_png(root / f"FlyingThings3D/frames_finalpass/TEST/A/0000/{side}/{number:04d}.png", sample[side])
        write_pfm(root / f"FlyingThings3D/disparity/TEST/A/0000/left/{number:04d}.pfm", sample["disparity"])
    return root


def report(
    root: str, name: str, kinds: Sequence[str], workers: Sequence[int], threads: int, seconds: float, packed: Path
) -> Iterator[str]:
    """One line a measurement; every one runs `seconds` after a warm-up. `packed`: a folder for the packed set."""
    cv2.setNumThreads(1)
    png = DataConfig(root, ((name, _REPEATS),), CROP, _BATCH, threads=threads)
    for kind in kinds:
        config = png
        if kind == "packed":
            from bridgedepth_jax.data.tfds import pack

            pack(name, root, packed)
            config = dataclasses.replace(png, root=str(packed), source="tfds")
        elif kind == "synthetic":
            config = dataclasses.replace(png, train=(("synthetic", 1),), crop=SYNTHETIC)
        for number in workers:
            rate, busy = measure(config, number, seconds)
            shape = "x".join(map(str, config.crop))
            yield f"{kind:10} {shape:8} workers {number}: {rate:6.1f} samples/s" + (f", {busy:6.1f} per core" if busy else "")


def measure(config: DataConfig, workers: int, seconds: float) -> tuple[float, float | None]:
    """Samples per second of wall time, and per second of this process's CPU time where there are no workers."""
    batches = make_train_dataset(config).iterate(workers=workers)
    for _ in range(2 * max(workers, 1)):  # the first are made while the processes start
        next(batches)
    done, start, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() - start < seconds:
        done += len(next(batches)["left"])
    wall, cpu = time.monotonic() - start, time.process_time() - cpu
    return done / wall, None if workers else done / cpu
