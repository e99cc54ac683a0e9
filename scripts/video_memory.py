"""Memory of a long stereo video: a clip repeated, as `bridgedepth video` reads, computes and writes it.

python scripts/video_memory.py --out /tmp/long --frames 200 2000 10000

Each length runs in a process of its own. Printed is the largest memory that is the process's own (RssAnon), that of the first
tenth of the time too; the first length also compiles. Pages of depth.npy, which the kernel may drop, are counted apart.
"""

import argparse
import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SIZE, VIEWS = (64, 96), 16
EVERY = 0.05  # seconds between two looks at the memory


def status(name: str) -> float:
    """A line of /proc/self/status, in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def measure(out: Path, frames: int, batch: int, answers: multiprocessing.Queue) -> None:
    """Runs one length; answers (seconds, largest RssAnon, the same after the first tenth, largest RssFile)."""
    from bridgedepth_jax.inference.stereo import Predictor
    from bridgedepth_jax.systems.stereodiff import run as runner
    from bridgedepth_jax.systems.stereodiff.sets import Frames, clips
    from bridgedepth_jax.systems.stereodiff.sources import StereoSource

    class Repeated(Frames):
        """A clip forwards and backwards, again and again."""

        def __init__(self, name: str, views: list[np.ndarray]) -> None:
            super().__init__(name, [*views, *views[-2:0:-1]])
            self.count = frames

        def read(self, start: int = 0) -> Iterator[np.ndarray]:
            return (self._read[k % len(self._read)] for k in range(start, self.count))

    (sample,) = clips(1, views=VIEWS, size=SIZE)
    assert sample.right is not None
    left, right = (Repeated(name, list(view.read())) for name, view in (("left", sample.video), ("right", sample.right)))
    predictor = Predictor.load(None, check_order=False)
    source = StereoSource(left, right, lambda *_: sample.camera, predictor, batch, 1.0)
    seen: list[tuple[float, float]] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(EVERY):
            seen.append((status("RssAnon"), status("RssFile")))

    began, watcher = time.perf_counter(), threading.Thread(target=look)
    watcher.start()
    runner.run(left, lambda _: source, out, stage1="stereo", recipe={"frames": frames})
    stop.set()
    watcher.join()
    anonymous, file = zip(*seen, strict=True)
    early = max(anonymous[: max(len(anonymous) // 10, 1)])
    answers.put((time.perf_counter() - began, max(anonymous), early, max(file)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder for the depths")
    parser.add_argument("--frames", type=int, nargs="+", default=[200, 2000, 10_000])
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    print("| frames | own memory, MiB | in the first tenth | pages of files | s |\n|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for frames in args.frames:
        out = args.out / str(frames)
        out.mkdir(parents=True, exist_ok=True)
        answers = context.Queue()
        process = context.Process(target=measure, args=(out, frames, args.batch, answers))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{frames} frames: the process ended with {process.exitcode}")
        seconds, largest, early, file = answers.get()
        print(f"| {frames} | {largest:.0f} | {early:.0f} | {file:.0f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
