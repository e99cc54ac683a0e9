"""Pairs from files or videos, through the predictor, to results. Letters: H W size of the images."""

import contextlib
import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bridgedepth_jax.data.calibration import SUFFIXES, read_calibration_file
from bridgedepth_jax.data.epipolar import align
from bridgedepth_jax.data.formats import read_bytes
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.geometry import Calibration
from bridgedepth_jax.inference import cost, inputs, outputs, video
from bridgedepth_jax.inference.check import Finding, Picture, Repair, Verdict, check, read_picture
from bridgedepth_jax.inference.recording import recorder
from bridgedepth_jax.inference.stereo import Prediction, Predictor, scaled_size
from bridgedepth_jax.inference.swapped import looks_swapped
from bridgedepth_jax.visualize import colorize

FRAMES_FOR_RANGE = 16  # of a video, when the end of the colours is not given
SHORTEST, LONGEST = 1e-3, 10.0  # metres, of baselines; `data.calibration` takes longer ones for millimetres, too
CHECKS = ("warn", "error", "off")
Calibrate = Callable[[str, int, int], Calibration | None]  # name of the pair, width, height


@dataclasses.dataclass(frozen=True)
class LoadedPair:
    """Images (H, W, 3) uint8 RGB of one size, where they come from, and the calibration of images of this size."""

    name: str
    left: np.ndarray
    right: np.ndarray
    files: tuple[str, str]
    calibration: Calibration | None
    findings: tuple[Finding, ...] = ()  # of the check
    repair: Repair | None = None  # that was applied
    largest: float | None = None  # pixels, of the disparities that the check saw


class Checks:
    """Looks at pairs before the network does, as `inference.check`.

    mode: "warn": `predict` tells; "error" raises InputError at the first finding; "off" looks at nothing.
    fix: applies what can be undone safely.
    """

    def __init__(self, mode: str = "warn", fix: bool = False) -> None:
        if mode not in CHECKS:
            raise InputError(f"--check {mode}, expected one of {', '.join(CHECKS)}")
        if fix and mode == "off":
            raise InputError("--fix mends what --check finds, expected another --check than off")
        self.mode, self.fix = mode, fix

    def __call__(self, left: Picture, right: Picture, files: tuple[str, str], *, calibrated: bool) -> Verdict:
        """The findings of a pair, and the repair to apply: none without `fix`."""
        if self.mode == "off":
            return Verdict((), Repair())
        report = check(left, right)
        if self.fix and calibrated and report.repair.orientation != 1:
            words = "a calibration was given, which belongs to the pixels as stored, expected images without the tag"
            raise InputError(f"{files[0]}, {files[1]}: {report.findings[0].words}, and --fix cannot turn them: {words}")
        for finding in report.findings:
            if self.mode == "error" and not (self.fix and finding.fixed):
                raise InputError(f"{files[0]}, {files[1]}: {finding}")
        return report if self.fix else Verdict(report.findings, Repair(), report.largest)


def calibrations(
    names: Sequence[str],
    *,
    calib: str | None = None,
    intrinsics: str | None = None,
    focal: float | None = None,
    baseline: float | None = None,
    doffs: float | None = None,
) -> Calibrate | None:
    """How to get the calibration of a pair from what the user gave; None if nothing. All files are read here.

    Args:
      names: of all pairs, for `calib` as a glob.
      calib: a file of any format of `data.calibration` for all pairs, or a folder or glob of them, paired by name as the
        images are.
      intrinsics: a file for all pairs, see `Calibration.from_intrinsics`.
      focal, baseline, doffs: pixels, metres, pixels; the principal point is the image's centre.

    Raises InputError: more than one source, half of one, or a file that is missing or wrong.
    """
    sources = {"calib": calib, "intrinsics": intrinsics, "focal": focal}
    given = [f"--{name}" for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)}: expected one of them")
    if focal is None and (baseline, doffs) != (None, None):
        raise InputError("--baseline and --doffs belong to --focal, which is missing")
    if focal is not None:
        if baseline is None:
            raise InputError(f"--focal {focal:g}: needs --baseline, in metres")
        camera = plausible(Calibration.from_focal(focal, baseline, (1, 1), doffs or 0.0), "--baseline")
        return lambda _, width, height: Calibration.from_focal(camera.fx, camera.baseline, (width, height), camera.doffs)
    if intrinsics is not None:
        camera = plausible(Calibration.from_intrinsics(intrinsics), intrinsics)
        return lambda *_: camera
    if calib is None:
        return None
    files = inputs.find_files(calib, SUFFIXES) if inputs.is_many(calib) else dict.fromkeys(names, Path(calib))
    missing = [name for name in names if name not in files]
    if missing:
        raise InputError(f"no calibration named {missing[0]!r} in {calib}")
    read = functools.cache(read_calibration_file)
    cameras = {name: plausible(read(files[name]), str(files[name])) for name in names}

    def fitted(name: str, width: int, height: int) -> Calibration:
        try:
            return cameras[name].fitted(width, height)
        except InputError as error:
            raise InputError(f"{files[name]}: {error}") from None

    return fitted


def plausible(camera: Calibration, where: str) -> Calibration:
    """The same. InputError: a baseline in another unit than the source of the calibration has."""
    if not SHORTEST <= camera.baseline <= LONGEST:
        unit = "millimetres were read as metres" if camera.baseline > LONGEST else "metres were read as millimetres"
        factor = 1e-3 if camera.baseline > LONGEST else 1e3
        raise InputError(
            f"{where}: a baseline of {camera.baseline:g} m, expected {SHORTEST:g}..{LONGEST:g} m;"
            f" if {unit}, it is {factor * camera.baseline:g} m"
        )
    return camera


def make_pair(
    name: str, left: np.ndarray, right: np.ndarray, files: tuple[str, str], *, scale: float, calibrate: Calibrate | None
) -> LoadedPair:
    """Raises InputError, naming the files, for sizes that differ, or of which `scale` leaves nothing."""
    sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (left, right)]
    if sizes[0] != sizes[1]:
        raise InputError(f"{files[0]} has {sizes[0]} pixels and {files[1]} {sizes[1]}, expected the same size")
    height, width = left.shape[:2]
    pair = LoadedPair(name, left, right, files, None)
    check_size(pair, scale)
    return dataclasses.replace(pair, calibration=calibrate and calibrate(name, width, height))


def check_size(pair: LoadedPair, scale: float, minimum: int = 1) -> None:
    """Raises InputError, naming the left file, where a side is below `minimum` (`Predictor.minimum`) pixels once scaled."""
    height, width = pair.left.shape[:2]
    try:
        scaled_size(width, height, scale, minimum)
    except InputError as error:
        raise InputError(f"{pair.files[0]}: {error}") from None


def image_pairs(
    files: Iterable[inputs.PairFiles], *, scale: float, calibrate: Calibrate | None, checks: Checks | None = None
) -> Iterator[LoadedPair]:
    """Read one after the other, with their cameras, each checked. InputError: images or a camera that cannot be used."""
    for pair in files:
        paths = str(pair.left), str(pair.right)
        left, right = (read_picture(read_bytes(path), path) for path in paths)
        given = make_pair(pair.name, left.image, right.image, paths, scale=scale, calibrate=calibrate)
        report = (checks or Checks("off"))(left, right, paths, calibrated=given.calibration is not None)
        yield mended(given, left, right, report)


def video_pairs(
    left: str, right: str, *, scale: float, calibrate: Calibrate | None, checks: Checks | None = None
) -> Iterator[LoadedPair]:
    """Frame by frame, as long as both last; named <name of the left file>_<number of the frame>. The first one is checked."""
    name, report = Path(left).stem, None
    for i, images in enumerate(zip(video.read_frames(left), video.read_frames(right), strict=False)):
        pair = make_pair(name, *images, (left, right), scale=scale, calibrate=calibrate)
        first, second = (Picture(image) for image in images)
        report = report or (checks or Checks("off"))(first, second, (left, right), calibrated=pair.calibration is not None)
        found = mended(pair, first, second, report)
        yield dataclasses.replace(found, name=f"{name}_{i:06d}", findings=found.findings if i == 0 else ())


def mended(pair: LoadedPair, first: Picture, second: Picture, report: Verdict) -> LoadedPair:
    """The pair of both pictures with what was found, and its images after the repair."""
    left, right = report.repair.apply(first, second) if report.repair != Repair() else (pair.left, pair.right)
    return dataclasses.replace(
        pair, left=left, right=right, findings=report.findings, repair=report.repair, largest=report.largest
    )


def tell(pair: LoadedPair) -> None:
    """What the check found, on stderr."""
    for finding in pair.findings:
        mended = finding.fixed and pair.repair not in (None, Repair())
        words = f"{finding.words}: mended" if mended else str(finding)
        tqdm.write(f"{'note' if mended else 'warning'}: {pair.files[0]}, {pair.files[1]}: {words}", file=sys.stderr)


def predict(
    predictor: Predictor,
    source: Iterable[LoadedPair],
    *,
    batch: int,
    scale: float | None,
    consistency: bool,
    tiles: tuple[int, int] | None = None,
) -> Iterator[tuple[LoadedPair, Prediction]]:
    """Runs up to `batch` pairs of one size together; tells on stderr what was found, and of pairs that look swapped.

    scale: None chooses one for each pair, `cost.auto_scale`. What a pass over large images takes is said before the first.

    Raises InputError: images that are too small for the network, by the file's name, or too large for the machine.
    """
    announced: set[tuple[int, int]] = set()
    scaled = ((pair, scale or choose_scale(pair, predictor)) for pair in source)
    for group in inputs.in_batches(scaled, lambda item: (item[0].left.shape, item[1]), batch):
        pairs, chosen = [pair for pair, _ in group], group[0][1]
        check_size(pairs[0], chosen, predictor.minimum)
        announce(predictor, pairs[0], chosen, tiles, len(pairs), announced, automatic=scale is None)
        left, right = np.stack([pair.left for pair in pairs]), np.stack([pair.right for pair in pairs])
        whole = predictor(left, right, scale=chosen, check_consistency=consistency, tiles=tiles)
        for i, pair in enumerate(pairs):
            tell(pair)
            tell_range(predictor, pair, whole.disparity[i], chosen, tiles)
            known = any(finding.kind == "swapped" for finding in pair.findings)
            if not known and looks_swapped(pair.left, pair.right, whole.disparity[i]):
                message = "left and right look swapped, the other order explains the images better"
                tqdm.write(f"warning: {pair.files[0]}, {pair.files[1]}: {message}", file=sys.stderr)
            one = whole.pair(i)
            yield pair, one if pair.repair is None else dataclasses.replace(one, disparity=pair.repair.restore(one.disparity))


def choose_scale(pair: LoadedPair, predictor: Predictor) -> float:
    """For a pair, by its size and the disparities of its matches."""
    height, width = pair.left.shape[:2]
    largest = pair.largest
    if largest is None and (found := align(pair.left, pair.right)) is not None:
        largest = float(np.quantile(found.disparity, 0.99))
    return cost.auto_scale(width, height, largest, predictor.reach, predictor.minimum)


def announce(
    predictor: Predictor,
    pair: LoadedPair,
    scale: float,
    tiles: tuple[int, int] | None,
    batch: int,
    announced: set[tuple[int, int]],
    *,
    automatic: bool = False,
) -> None:
    """Says once a size, on stderr, what a pass will take. Raises InputError where the machine has not that much memory."""
    height, width = pair.left.shape[:2]
    seen = scaled_size(width, height, scale, predictor.minimum)
    if seen in announced:
        return
    announced.add(seen)
    if automatic and scale != 1:
        tqdm.write(f"{pair.name}: {width}x{height}, scale {scale:g}: the network sees {seen[0]}x{seen[1]}", file=sys.stderr)
    if seen[0] * seen[1] < cost.LARGE:
        return
    needed = predictor.cost(*seen[::-1], batch=batch, tiles=tiles)
    left = cost.available(predictor.devices[0])
    words = f"{pair.files[0]}: the network sees {seen[0]}x{seen[1]}"
    words += f" in {needed.passes} tiles" if tiles else ""
    words += f", which takes {needed.memory / 2**30:.1f} GiB"
    if left is not None and needed.memory > left:
        raise InputError(f"{words}, but {left / 2**30:.1f} GiB are free: expected --scale auto, a smaller --scale, or --tiles")
    if left is not None:
        words += f" of {left / 2**30:.1f} GiB free"
    if needed.work and predictor.devices[0].platform == "cpu":
        words += f", about {needed.seconds():.0f} s a pair"
    tqdm.write(words, file=sys.stderr)


def tell_range(
    predictor: Predictor, pair: LoadedPair, disparity: np.ndarray, scale: float, tiles: tuple[int, int] | None
) -> None:
    """Warns on stderr of disparities that are beyond what the network looks for, or reach it."""
    if predictor.reach is None:
        return
    limit = predictor.reach / scale
    at = float(np.mean(disparity > 0.98 * limit))
    if pair.largest is not None and pair.largest > limit and not tiles:
        found = f"matches have disparities up to {pair.largest:.0f} px"
    elif at > 0.01 and not tiles:
        found = f"{100 * at:.0f} % of the disparities reach the end of the search range"
    else:
        return
    height, width = pair.left.shape[:2]
    fitting = cost.auto_scale(width, height, pair.largest or limit / cost.HEADROOM, predictor.reach, predictor.minimum)
    remedy = f"expected --scale {min(fitting, 0.75 * scale):.2g} or auto"
    words = f"{found}, the model looks for {limit:.0f} px at scale {scale:g}: {remedy}"
    tqdm.write(f"warning: {pair.files[0]}: {words}", file=sys.stderr)


def write_images(folder: Path, results: Iterable[outputs.PredictedPair], kinds: Sequence[str]) -> None:
    """Names each file on stdout."""
    for result in results:
        _save(folder, result, kinds)


def write_video(folder: Path, results: Iterable[outputs.PredictedPair], kinds: Sequence[str], name: str, fps: float) -> None:
    """One colour video <name>_color.mp4 with one range, one <name>_recording.rrd; other kinds frame by frame, as for images.

    Without `max_disparity` in the results, the range ends at the largest disparity of the first FRAMES_FOR_RANGE frames.
    """
    per_frame = [kind for kind in kinds if kind not in ("color", "recording")]
    results = iter(results)
    first = list(itertools.islice(results, FRAMES_FOR_RANGE))
    limit = first[0].max_disparity
    if limit is None and len(per_frame) < len(kinds):
        limit = max(float(result.prediction.disparity.max()) for result in first) or 1.0
        tqdm.write(f"colours from 0 to {limit:.1f} px, the largest of the first {len(first)} frames", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        whole: dict[Path, Callable[[outputs.PredictedPair], None]] = {}
        if "color" in kinds:
            append = stack.enter_context(video.video_writer(folder / f"{name}_color.mp4", fps))
            whole[folder / f"{name}_color.mp4"] = lambda result: append(colorize(result.prediction.disparity, limit))
        if "recording" in kinds:
            record = stack.enter_context(recorder(folder / f"{name}_recording.rrd"))
            whole[folder / f"{name}_recording.rrd"] = lambda result: outputs.record(record, result, limit)
        for result in itertools.chain(first, results):
            _save(folder, result, per_frame)
            for append_to in whole.values():
                append_to(result)
    for path in whole:
        print(path)


def _save(folder: Path, result: outputs.PredictedPair, kinds: Sequence[str]) -> None:
    for path in outputs.save(folder, result, kinds):
        tqdm.write(str(path))
