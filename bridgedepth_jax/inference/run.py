"""Pairs from files or videos, through the predictor, to results. Letters: H W size of the images."""

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bridgedepth_jax.data.formats import read_image
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.geometry import Calibration
from bridgedepth_jax.inference import inputs, outputs, video
from bridgedepth_jax.inference.stereo import Prediction, Predictor, scaled_size
from bridgedepth_jax.inference.swapped import looks_swapped
from bridgedepth_jax.visualize import colorize

FRAMES_FOR_RANGE = 16  # of a video, when the end of the colours is not given
Calibrate = Callable[[str, int, int], Calibration | None]  # name of the pair, width, height


@dataclasses.dataclass(frozen=True)
class LoadedPair:
    """Images (H, W, 3) uint8 RGB of one size, where they come from, and the calibration of images of this size."""

    name: str
    left: np.ndarray
    right: np.ndarray
    files: tuple[str, str]
    calibration: Calibration | None


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
      calib: a Middlebury calib.txt for all pairs, or a folder or glob of them, paired by name as the images are.
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
        camera = Calibration.from_focal(focal, baseline, (1, 1), doffs or 0.0)
        return lambda _, width, height: Calibration.from_focal(camera.fx, camera.baseline, (width, height), camera.doffs)
    if intrinsics is not None:
        camera = Calibration.from_intrinsics(intrinsics)
        return lambda *_: camera
    if calib is None:
        return None
    files = inputs.find_files(calib, (".txt",)) if inputs.is_many(calib) else dict.fromkeys(names, Path(calib))
    missing = [name for name in names if name not in files]
    if missing:
        raise InputError(f"no calibration named {missing[0]!r} in {calib}")
    cameras = {name: Calibration.from_middlebury(files[name]) for name in names}

    def fitted(name: str, width: int, height: int) -> Calibration:
        try:
            return cameras[name].fitted(width, height)
        except InputError as error:
            raise InputError(f"{files[name]}: {error}") from None

    return fitted


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


def image_pairs(files: Iterable[inputs.PairFiles], *, scale: float, calibrate: Calibrate | None) -> Iterator[LoadedPair]:
    """Read one after the other, with their cameras. InputError: images or a camera that cannot be read or used."""
    for pair in files:
        images = read_image(pair.left), read_image(pair.right)
        yield make_pair(pair.name, *images, (str(pair.left), str(pair.right)), scale=scale, calibrate=calibrate)


def video_pairs(left: str, right: str, *, scale: float, calibrate: Calibrate | None) -> Iterator[LoadedPair]:
    """Frame by frame, as long as both last; named <name of the left file>_<number of the frame>."""
    name = Path(left).stem
    for i, images in enumerate(zip(video.read_frames(left), video.read_frames(right), strict=False)):
        pair = make_pair(name, *images, (left, right), scale=scale, calibrate=calibrate)
        yield dataclasses.replace(pair, name=f"{name}_{i:06d}")


def predict(
    predictor: Predictor, source: Iterable[LoadedPair], *, batch: int, scale: float, consistency: bool
) -> Iterator[tuple[LoadedPair, Prediction]]:
    """Runs up to `batch` pairs of one size together; warns on stderr about pairs that look swapped.

    Raises InputError, naming the file, for images that are too small for the network.
    """
    for group in inputs.in_batches(source, lambda pair: pair.left.shape, batch):
        check_size(group[0], scale, predictor.minimum)
        left, right = np.stack([pair.left for pair in group]), np.stack([pair.right for pair in group])
        whole = predictor(left, right, scale=scale, check_consistency=consistency)
        for i, pair in enumerate(group):
            if looks_swapped(pair.left, pair.right, whole.disparity[i]):
                message = "left and right look swapped, the other order explains the images better"
                tqdm.write(f"warning: {pair.files[0]}, {pair.files[1]}: {message}", file=sys.stderr)
            yield pair, whole.pair(i)


def write_images(folder: Path, results: Iterable[outputs.PredictedPair], kinds: Sequence[str]) -> None:
    """Names each file on stdout."""
    for result in results:
        _save(folder, result, kinds)


def write_video(folder: Path, results: Iterable[outputs.PredictedPair], kinds: Sequence[str], name: str, fps: float) -> None:
    """One colour video <name>_color.mp4 with one range; all other kinds frame by frame, as for images.

    Without `max_disparity` in the results, the range ends at the largest disparity of the first FRAMES_FOR_RANGE frames.
    """
    per_frame = [kind for kind in kinds if kind != "color"]
    results = iter(results)
    first = list(itertools.islice(results, FRAMES_FOR_RANGE))
    limit = first[0].max_disparity
    if limit is None and "color" in kinds:
        limit = max(float(result.prediction.disparity.max()) for result in first) or 1.0
        tqdm.write(f"colours from 0 to {limit:.1f} px, the largest of the first {len(first)} frames", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        append = stack.enter_context(video.video_writer(folder / f"{name}_color.mp4", fps)) if "color" in kinds else None
        for result in itertools.chain(first, results):
            _save(folder, result, per_frame)
            if append:
                append(colorize(result.prediction.disparity, limit))
    if append:
        print(folder / f"{name}_color.mp4")


def _save(folder: Path, result: outputs.PredictedPair, kinds: Sequence[str]) -> None:
    for path in outputs.save(folder, result, kinds):
        tqdm.write(str(path))
