"""Large images: what a pass takes beside what was said before it, and the seams of tiles.

python scripts/large_images.py
python scripts/large_images.py --size 3000x4000 --size 4000x6000/768x1024
python scripts/large_images.py --seams 4 --tiles 384x768

HEIGHTxWIDTH/HEIGHTxWIDTH is a size in tiles of that size. Each size is a process of its own: memory is its peak during the
pass, less what it held before; time is as it was, and what it would be if nothing else ran: the processor time by the number of
cores. --seams renders so many pairs of 768x1536 pixels and looks at the borders of tiles, between the last row or column of one
and the next of those beside it:

* of the blend: the step between the two pixels that comes from the change of weights alone. A step of what is blended is
  sum(weight * step of the answer) + sum(step of the weight * answer); the first is in the answers themselves, the second is the
  seam. Its mean along the worst border, and the largest of all pixels on borders.
* excess: the mean step across the worst border less that of the image seen as a whole: over all pixels, where edges of objects
  count that both answers have in slightly other places, and over those where neither has a step of 3 px or more.
"""

import argparse
import concurrent.futures
import contextlib
import ctypes
import multiprocessing
import os
import resource
import threading
import time
from pathlib import Path

import cv2
import numpy as np

from bridgedepth_jax.commands.options import size
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.errors import command
from bridgedepth_jax.inference.cost import available
from bridgedepth_jax.inference.stereo import Predictor
from bridgedepth_jax.inference.tiles import OVERLAP, Plan, cut, fine_share, match_tiled, plan, starts, weigh

SIZES = ("480x640", "960x1280", "1440x1920", "2000x3000", "3000x4000", "2000x3000/768x1024", "4000x6000/768x1024")
SEAM = (768, 1536)  # rendered pairs of --seams
EDGE = 3.0  # pixels
COLUMNS = (
    "size",
    "tiles",
    "memory, GiB",
    "estimate",
    "of it",
    "time, s",
    "of all cores, s",
    "estimate",
    "of it",
    "compilation, s",
)


def texture(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A pair of that size: noise at all scales, 24 pixels of disparity."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (height, width + 24, 3), np.uint8)
    return image[:, :-24], image[:, 24:]


def resident() -> int:
    """Bytes of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def trim() -> None:
    """Gives back what the compiler held, where the C library can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class Peak:
    """The most that this process held while it was watched."""

    def __enter__(self) -> "Peak":
        self.bytes, self._ended = resident(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self.bytes = max(self.bytes, resident())

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def measure(checkpoint: str | None, text: str) -> list[str]:
    whole, _, part = text.partition("/")
    (height, width), tiles = size("--size", whole), size("--size", part) if part else None
    left, right = texture(height, width)
    predictor = Predictor.load(checkpoint, check_order=False)
    begin = time.perf_counter()
    said = predictor.cost(height, width, tiles=tiles)
    compiled = time.perf_counter() - begin
    free = available(predictor.devices[0])
    if free is not None and said.memory > free:
        words = f"refused, {free / 2**30:.0f} GiB are free"
        return [whole, "", words, f"{said.memory / 2**30:.2f}", "", "", "", f"{said.seconds():.1f}", "", f"{compiled:.0f}"]
    trim()
    before = resident()
    expected, begin, used = said.seconds(), time.perf_counter(), time.process_time()
    with Peak() as peak:
        predictor(left, right, tiles=tiles)
    if tiles is None:  # the first pass is traced, which of many tiles does not count
        begin, used = time.perf_counter(), time.process_time()
        predictor(left, right)
    wall, spent = time.perf_counter() - begin, (time.process_time() - used) / len(os.sched_getaffinity(0))
    memory = peak.bytes - before
    return [
        whole, f"{said.passes} of {part}" if part else "", f"{memory / 2**30:.2f}", f"{said.memory / 2**30:.2f}",
        f"{said.memory / memory:.0%}", f"{wall:.1f}", f"{spent:.1f}", f"{expected:.1f}", f"{expected / spent:.0%}",
        f"{compiled:.0f}",
    ]  # fmt: skip


def by_weights(coarse: np.ndarray, answers: list[np.ndarray], planned: Plan, reach: float | None, axis: int) -> np.ndarray:
    """The steps (H, W), less a row or column, that the change of weights makes; of the coarse answer and those of tiles."""
    weights, shown, knows = [], [], np.zeros_like(coarse)
    for tile, answer in zip(cut(coarse, planned.size, planned.overlap), answers, strict=True):
        weight, known = weigh(tile, coarse, planned, reach)
        around = [(begin, side - begin - part) for begin, side, part in zip(tile, coarse.shape, planned.size, strict=False)]
        weights.append(np.pad(weight, around))
        shown.append(np.pad(answer + tile.shift, around, "edge"))
        knows += np.pad(known, around)
    share = fine_share(knows) / np.maximum(sum(weights), 1e-6)
    weights = [weight * share for weight in weights]
    weights, shown = [*weights, 1 - sum(weights)], [*shown, coarse]
    ahead = lambda array: np.delete(array, 0, axis)
    before = lambda array: np.delete(array, -1, axis)
    steps = [(ahead(w) - before(w)) * (ahead(d) + before(d)) / 2 for w, d in zip(weights, shown, strict=True)]
    return np.abs(sum(steps))


def seams(checkpoint: str | None, count: int, tiles: tuple[int, int]) -> None:
    """Prints a row for each rendered pair."""
    predictor = Predictor.load(checkpoint, check_order=False)
    scenes = SyntheticStereo(*SEAM, max_disparity=192.0, seed=10_007, config=SyntheticConfig.named("sparse"))
    planned = plan(*SEAM, tiles, predictor.reach)
    borders: list[list[int]] = []  # of rows and of columns: the last one before a tile begins or ends
    for side, part, overlap in zip(SEAM, planned.size, (OVERLAP, planned.overlap), strict=True):
        begins = starts(side, part, overlap)
        borders.append(sorted(at - 1 for at in {*begins[1:], *(begin + part for begin in begins[:-1])}))
    print(f"{planned.count} tiles of {tiles[0]}x{tiles[1]}, {sum(map(len, borders))} borders\n")
    columns = ("pair", "of the blend, px", "any pixel", "excess, px", "off edges", "bad-2", "of the whole")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for i in range(count):
        scene = scenes[i]
        answers: list[np.ndarray] = []

        def match(left: np.ndarray, right: np.ndarray, answers: list[np.ndarray] = answers) -> tuple[np.ndarray, np.ndarray]:
            found = predictor(left, right)
            answers.extend(found.disparity)
            return found.disparity, found.confidence

        whole = predictor(scene["left"], scene["right"]).disparity
        found, _ = match_tiled(scene["left"], scene["right"], match, tiles, predictor.reach)
        coarse = cv2.resize(answers[0], SEAM[::-1]) * np.float32(SEAM[1] / answers[0].shape[1])
        known = scene["valid"]
        blend, largest, excess, off = [], [], [], []
        for axis, at in enumerate(borders):
            made = by_weights(coarse, answers[1:], planned, predictor.reach, axis)
            blend += [made.mean(1 - axis)[at].max()]
            largest += [np.take(made, at, axis).max()]
            steps = [np.abs(np.diff(disparity, axis=axis)) for disparity in (found, whole)]
            smooth, more = np.maximum(*steps) < EDGE, steps[0] - steps[1]
            excess += [more.mean(1 - axis)[at].max()]
            off += [((more * smooth).sum(1 - axis) / smooth.sum(1 - axis))[at].max()]
        bad = [np.mean(np.abs(disparity - scene["disparity"])[known] > 2) for disparity in (found, whole)]
        cells = [f"{max(blend):.3f}", f"{max(largest):.2f}", f"{max(excess):.3f}", f"{max(off):.3f}"]
        print(f"| {i} | {' | '.join(cells)} | {bad[0]:.1%} | {bad[1]:.1%} |", flush=True)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="folder or published name; default: the model of the package")
    parser.add_argument("--size", action="append", help=f"repeatable; default: {' '.join(SIZES)}")
    parser.add_argument("--seams", type=int, default=0, metavar="N", help="rendered pairs; default: sizes instead")
    parser.add_argument("--tiles", default="384x768", help="with --seams; default: 384x768")
    args = parser.parse_args()
    if args.seams:
        seams(args.checkpoint, args.seams, size("--tiles", args.tiles, 256))
        return
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for text in args.size or SIZES:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            print(f"| {' | '.join(pool.submit(measure, args.checkpoint, text).result())} |", flush=True)


if __name__ == "__main__":
    main()
