"""What a pass will take, before it is made: memory from the compiled program, time from its operations; and which scale fits.

Letters: H W size of the images.
"""

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LARGE = 1_500_000  # pixels that the network sees, from which a pass is announced
AUTO = 2_000_000  # pixels that `auto_scale` lets the network see at most
HEADROOM = 0.9  # share of the search range that the largest matches may take
STEP = 0.05  # of the scales that are chosen, so that equal images compile once
# Times what the compiler counts: what CPUs took, 1.24 at 480x640, 1.22 at 960x1280, 1.21 at 1440x1920 (default model, float32).
SCRATCH = 1.25
# How many times slower than a matrix product a pass is on CPUs, and what each GiB of its memory adds: it leaves the caches, and
# up to half of the time goes to pages that the system hands out. The default model was 1.29 times slower at 480x640, 1.49 at
# 768x1024, 1.61 at 960x1280, 2.11 at 1440x1920, 3.6 at 2000x3000.
SLOWER, PER_GIB = 1.22, 0.21


class Cost(NamedTuple):
    """Of a pair on one device."""

    memory: int  # bytes, weights and images included; on CPUs with SCRATCH
    work: float  # floating-point operations of matrix products that take as long on CPUs, 0 where the compiler does not say
    passes: int = 1  # tiles

    @classmethod
    def of(cls, memory: float, operations: float) -> "Cost":
        """Of a program that takes so much memory and so many operations."""
        return cls(int(memory), operations * (SLOWER + PER_GIB * memory / 2**30))

    def seconds(self) -> float:
        """On this machine's CPUs, whose rate is measured now."""
        return self.work / rate()

    def __str__(self) -> str:
        return f"{self.memory / 2**30:.1f} GiB"


def available(device: Any) -> int | None:
    """Bytes that a program may still take on a device; None where that cannot be known."""
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else None
    found = [_meminfo(), _cgroup()]
    return min((value for value in found if value is not None), default=None)


def _meminfo() -> int | None:
    try:
        rows = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        return next(int(row[1]) * 1024 for row in rows if row[0] == "MemAvailable:")
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _cgroup() -> int | None:
    """What is left of a container's limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # none, or "max"
        return None


def rate(seconds: float = 0.1) -> float:
    """Operations a second of this machine's matrix products, on all cores that this process may use.

    Measured now by NumPy on one core, in its processor time: what else runs does not count.
    """
    side = 64  # OpenBLAS shares larger products among threads, which wait for each other where cores are busy
    a = np.ones((side, side), np.float32)
    np.dot(a, a)
    count, begin = 0, time.thread_time()
    while (spent := time.thread_time() - begin) < seconds:
        np.dot(a, a)
        count += 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores * 2 * side**3 * count / spent


def auto_scale(width: int, height: int, largest: float | None, reach: float | None, minimum: int) -> float:
    """The scale, at most 1, at which disparities up to `largest` fit the search range `reach` and the image is not too large.

    Args:
      largest: pixels of the images, None if unknown.
      reach: pixels as the network sees them, None for any.
      minimum: pixels of a side as the network sees it, kept where the image has them.
    """
    wanted = min(1.0, (AUTO / (width * height)) ** 0.5)
    if largest is not None and reach is not None and largest > 0:
        wanted = min(wanted, HEADROOM * reach / largest)
    stepped = 1.0 if wanted >= 1 else max(STEP, int(wanted / STEP + 1e-6) * STEP)
    return round(max(stepped, min(1.0, (minimum + 1) / min(width, height))), 6)
