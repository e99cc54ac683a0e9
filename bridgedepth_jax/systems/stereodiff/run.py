"""A video to its depth, resumable (spec `video.md` sections 3 and 6): first stage, perhaps the second, then files and a report.

All that lies in OUT/.partial belongs to a run that has not ended: arrays on disk, the recipe, and how far it has come. A run
with the same recipe goes on from there; with another one it is refused. T frames, H W pixels.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.video import Flicker
from bridgedepth_jax.files import replacing
from bridgedepth_jax.inference.outputs import write_npy
from bridgedepth_jax.inference.video import video_writer
from bridgedepth_jax.systems.stereodiff.config import RefineOptions
from bridgedepth_jax.systems.stereodiff.refine import VideoDiffusion, frame_size, nearest, refine, resize_frame
from bridgedepth_jax.systems.stereodiff.sources import Done, FirstStage, PairSource, Video
from bridgedepth_jax.visualize import colorize

SAVES = ("npy", "color", "video16")
PARTIAL = ".partial"
SAVE_EVERY = 5.0  # seconds between two marks of a stream
COLOUR_SHARE = 0.995  # of a frame's pixels lie within the colours' range
LEAST = 1e-6  # of a disparity, before it becomes a depth
MILLIMETRES = 1000


@dataclasses.dataclass(frozen=True)
class Report:
    """What OUT/report.json says."""

    frames: int
    width: int
    height: int
    fps: float
    stage1: str
    stage2: bool
    unit: str  # "metres" or "relative"
    not_positive: int  # pixels of the first stage that are not positive
    not_finite: int  # pixels of the first stage that are no numbers
    flicker_stage1: float | None
    flicker: float | None
    seconds: float
    resumed_at: int
    about: dict[str, Any]
    video16: str | None = None  # what a grey level of the 16-bit video means


def run(
    video: Video,
    make_source: Callable[[Path], FirstStage],
    out: Path,
    *,
    stage1: str,
    recipe: dict[str, Any],
    saves: Sequence[str] = ("npy", "color"),
    model: VideoDiffusion | None = None,
    options: RefineOptions | None = None,
    progress: Done = lambda *_: None,
) -> Report:
    """Depth of a video into the folder `out`.

    Args:
      make_source: makes the first stage, given a folder for arrays that a resumed run finds again.
      recipe: what the result depends on, as JSON values; a partial run of another recipe is refused.
      model, options: the second stage, or None.

    Writes depth.npy (T, H, W) float32 (disparity.npy of a first stage in disparity alone), color.mp4, video16.mkv, poses.npy
    where the first stage has poses, and report.json.
    InputError: a folder that holds another run.
    """
    began = time.perf_counter()
    partial = out / PARTIAL
    state: dict[str, Any] = _left(partial, recipe)
    source = make_source(partial)  # what is wrong with it shows before anything is written
    if not state:
        state = {"first": 0}
        partial.mkdir(parents=True, exist_ok=True)
        _write_json(partial / "state.json", state)
        _write_json(partial / "recipe.json", recipe)
    shape = video.count, video.height, video.width
    first = _open(partial / "first.npy", shape)
    resumed = int(state["first"])
    if resumed < video.count:
        marks = _Marks(partial, state, first)

        def done(what: str, number: int, total: int) -> None:
            progress(what, number, total)
            if source.kind == "depth" and isinstance(source, PairSource):
                return  # its own arrays say how far it has come
            marks.at("first", number, last=number == total)

        source.write(first, resumed, done)
        state["about"] = source.about
        marks.at("first", video.count, last=True)
        if isinstance(source, PairSource) and source.result is not None:
            write_npy(out / "poses.npy", source.result.pose)
    final: Any = first
    kind = source.kind
    if model is not None:
        assert options is not None
        final, kind = _second(partial, state, video, first, source.kind, model, options, progress), "depth"
    report = _finish(video, source, first, final, kind, out, saves, stage1, model is not None, resumed, progress)
    report = dataclasses.replace(report, about=state.get("about", source.about), seconds=time.perf_counter() - began)
    with replacing(out / "report.json") as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(report), indent=1) + "\n")
    del first, final
    shutil.rmtree(partial, ignore_errors=True)
    return report


def _left(partial: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """The state that a run of this recipe has left in that folder; {} where there is none."""
    path = partial / "recipe.json"
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_text())
        state = json.loads((partial / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{partial}: what is left of a run is damaged, expected it whole or removed") from error
    for name in sorted({*known, *recipe}):
        if known.get(name) != recipe.get(name):
            raise InputError(
                f"{partial} holds a run with {name} {known.get(name)!r}, not {recipe.get(name)!r}: "
                "expected the same, another --out, or that folder removed"
            )
    return state


class _Marks:
    """Writes how far a stream has come, every few seconds, after its array is on the disk."""

    def __init__(self, partial: Path, state: dict[str, Any], array: Any) -> None:
        self.partial, self.state, self.array, self.last = partial, state, array, time.perf_counter()

    def at(self, name: str, number: int, *, last: bool) -> None:
        if last or time.perf_counter() - self.last > SAVE_EVERY:
            self.array.flush()
            self.state[name] = number
            _write_json(self.partial / "state.json", self.state)
            self.last = time.perf_counter()


def _write_json(path: Path, value: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value))


def _open(path: Path, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    if path.is_file():
        return np.load(path, mmap_mode="r+", allow_pickle=False)
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


class _Frames(Sequence):
    """Frames (H, W, 3) in 0..1 of an array on the disk."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, number: Any) -> Any:
        return np.asarray(self.array[number], np.float32) / 255


def _second(
    partial: Path,
    state: dict[str, Any],
    video: Video,
    first: np.ndarray,
    kind: str,
    model: VideoDiffusion,
    options: RefineOptions,
    progress: Done,
) -> np.ndarray:
    """The second stage's depth, at the video's size, on the first stage's scale (one scale and shift for the video)."""
    width, height = frame_size(video.width, video.height, model.config.multiple, options.longest)
    path = partial / "second.npy"
    if state.get("second"):
        return np.load(path, mmap_mode="r", allow_pickle=False)
    frames = _open(partial / "frames.npy", (video.count, height, width, 3), np.uint8)
    disparity = _open(partial / "disparity.npy", (video.count, height, width))
    farthest = _least_disparity(first, kind)
    for number, frame in enumerate(video.read()):
        frames[number] = resize_frame(frame, (width, height))
        disparity[number] = to_disparity(nearest(np.asarray(first[number]), (width, height)), kind, farthest)
        progress("frames for the second stage", number + 1, video.count)
    found = refine(model, _Frames(frames), disparity, options, progress=progress).disparity
    scale, shift = fit_streams(found, disparity)
    second = _open(path, (video.count, video.height, video.width))
    for number, here in enumerate(found):
        there = cv2.resize(here.astype(np.float32), (video.width, video.height), interpolation=cv2.INTER_LINEAR)
        second[number] = 1 / np.maximum(scale * there + shift, LEAST)
    second.flush()
    state["second"] = True
    _write_json(partial / "state.json", state)
    return second


def to_disparity(value: np.ndarray, kind: str, farthest: float) -> np.ndarray:
    """Disparity of a map of the first stage; what is not positive and finite is as far as anything in the video."""
    good = np.isfinite(value) & (value > 0)
    safe = np.where(good, value, 1)
    return np.where(good, 1 / safe if kind == "depth" else safe, farthest).astype(np.float32)


def _least_disparity(maps: np.ndarray, kind: str) -> float:
    """Of all pixels that are positive and finite. InputError: there is none."""
    least = np.inf
    for here in maps:
        good = here[np.isfinite(here) & (here > 0)]
        if len(good):
            least = min(least, 1 / float(good.max()) if kind == "depth" else float(good.min()))
    if not np.isfinite(least):
        raise InputError("the first stage has no pixel that is positive and finite, expected some")
    return least


def fit_streams(x: Sequence[Any] | np.ndarray, y: Sequence[Any] | np.ndarray) -> tuple[float, float]:
    """scale and shift of least squares from one sequence of maps to another, one map at a time."""
    sums = np.zeros(5)
    for a, b in zip(x, y, strict=True):
        a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
        sums += [len(a), a.sum(), b.sum(), a @ a, a @ b]
    n, sa, sb, saa, sab = sums
    spread = saa - sa * sa / n
    if spread <= 0:
        return 1.0, float((sb - sa) / n)
    scale = float((sab - sa * sb / n) / spread)
    return scale, float((sb - scale * sa) / n)


def _finish(
    video: Video,
    source: FirstStage,
    first: Any,
    final: Any,
    kind: str,
    out: Path,
    saves: Sequence[str],
    stage1: str,
    second: bool,
    resumed: int,
    progress: Done,
) -> Report:
    """One pass over the result for the range of the colours, the flicker and the counts, another one for the files."""
    before, after = Flicker(), Flicker()
    not_finite, not_positive, limit = 0, 0, 0.0
    for number in range(video.count):
        here = np.asarray(first[number])
        finite = np.isfinite(here)
        not_finite += int((~finite).sum())
        not_positive += int((here[finite] <= 0).sum())
        before.add(here)
        shown = np.asarray(final[number])
        after.add(shown)
        near = to_disparity(shown, kind, 0.0)
        limit = max(limit, float(np.quantile(near, COLOUR_SHARE)))
        progress("frames measured", number + 1, video.count)
    limit = limit or 1.0
    metric = source.metric
    meaning = None
    with contextlib.ExitStack() as stack:
        colour = stack.enter_context(video_writer(out / "color.mp4", video.fps)) if "color" in saves else None
        deep = stack.enter_context(writer16(out / "video16.mkv", video.fps)) if "video16" in saves else None
        if deep is not None:
            meaning = "millimetres of depth, 0 none" if metric else f"inverse depth in 1/{65535 / limit:.6g}, 0 none"
        for number in range(video.count) if colour or deep else ():
            shown = np.asarray(final[number])
            if colour:
                colour(colorize(to_disparity(shown, kind, 0.0), limit))
            if deep:
                level = shown * MILLIMETRES if metric else to_disparity(shown, kind, 0.0) * (65535 / limit)
                level = np.where(np.isfinite(level) & (level > 0), level, 0)
                deep(np.rint(np.clip(level, 0, 65535)).astype(np.uint16))
            progress("frames written", number + 1, video.count)
    if "npy" in saves:
        array: Any = final  # a memory map
        array.flush()
        name = "depth.npy" if kind == "depth" else "disparity.npy"
        with replacing(out / name) as temporary:
            try:
                os.link(array.filename, temporary)  # the array is whole on the disk: no copy of it is made
            except OSError:  # a file system without links
                shutil.copyfile(array.filename, temporary)
    return Report(
        frames=video.count,
        width=video.width,
        height=video.height,
        fps=video.fps,
        stage1=stage1,
        stage2=second,
        unit="metres" if metric else "relative",
        not_positive=not_positive,
        not_finite=not_finite,
        flicker_stage1=before.value(),
        flicker=after.value(),
        seconds=0.0,
        resumed_at=resumed,
        about={},
        video16=meaning,
    )


@contextlib.contextmanager
def writer16(path: Path, fps: float):
    """Yields a function that appends a frame (H, W) uint16 to a lossless grey video (FFV1 in Matroska)."""
    with replacing(path) as temporary:
        writer = cv2.VideoWriter()

        def append(frame: np.ndarray) -> None:
            if not writer.isOpened():
                options = [cv2.VIDEOWRITER_PROP_DEPTH, cv2.CV_16U, cv2.VIDEOWRITER_PROP_IS_COLOR, 0]
                size = frame.shape[1], frame.shape[0]
                code = cv2.VideoWriter.fourcc(*"FFV1")
                if not writer.open(str(temporary), cv2.CAP_FFMPEG, code, fps, size, options):
                    raise InputError(f"{path}: OpenCV cannot write a 16-bit video of {size[0]}x{size[1]} pixels here")
            writer.write(frame)

        try:
            yield append
        finally:
            writer.release()
