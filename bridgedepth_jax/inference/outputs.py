"""What `bridgedepth infer` writes for a pair: one row of `OUTPUTS` for each value of `--save`."""

import dataclasses
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bridgedepth_jax.data.formats import write_kitti_png, write_pfm, write_png
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing
from bridgedepth_jax.geometry import Calibration, point_cloud, write_ply
from bridgedepth_jax.inference.recording import Append, Cloud, recorder
from bridgedepth_jax.inference.stereo import Prediction
from bridgedepth_jax.visualize import colorize

KITTI_LIMIT = 65535 / 256  # pixels


@dataclasses.dataclass(frozen=True)
class PredictedPair:
    """A pair and what was predicted for it. `left` is (H, W, 3) uint8 RGB."""

    name: str
    left: np.ndarray
    prediction: Prediction
    calibration: Calibration | None = None  # of images of this size
    max_disparity: float | None = None  # pixels, the end of the colours
    z_far: float | None = None  # metres


def _disparity(path: Path, result: PredictedPair) -> None:
    write_pfm(path, result.prediction.disparity)


def _disparity_npy(path: Path, result: PredictedPair) -> None:
    write_npy(path, result.prediction.disparity)


def _disparity_png(path: Path, result: PredictedPair) -> None:
    above = int((result.prediction.disparity > KITTI_LIMIT).sum())
    if above:
        text = f"{above} pixels above {KITTI_LIMIT:.2f} px, the most that KITTI's format holds, are clipped"
        tqdm.write(f"{result.name}: {text}", file=sys.stderr)
    # 0 would read back as "no disparity", so the smallest value is 1/256 px.
    write_kitti_png(path, np.clip(result.prediction.disparity, 1 / 256, KITTI_LIMIT))


def _color(path: Path, result: PredictedPair) -> None:
    write_png(path, colorize(result.prediction.disparity, result.max_disparity))


def _confidence(path: Path, result: PredictedPair) -> None:
    write_png(path, np.rint(np.clip(result.prediction.confidence, 0, 1) * 65535).astype(np.uint16))


def _occlusion(path: Path, result: PredictedPair) -> None:
    assert result.prediction.occluded is not None
    write_png(path, result.prediction.occluded.astype(np.uint8) * 255)


def _depth(path: Path, result: PredictedPair) -> None:
    assert result.calibration is not None
    write_npy(path, result.calibration.depth(result.prediction.disparity))


def _cloud(path: Path, result: PredictedPair) -> None:
    write_ply(path, *cloud_of(result))


def cloud_of(result: PredictedPair) -> Cloud:
    """Points (P, 3) in metres and their colours (P, 3) uint8, without what is occluded if that is known."""
    assert result.calibration is not None
    visible = None if result.prediction.occluded is None else ~result.prediction.occluded
    return point_cloud(result.prediction.disparity, result.left, result.calibration, z_far=result.z_far, valid=visible)


def _recording(path: Path, result: PredictedPair) -> None:
    with recorder(path) as append:
        record(append, result, result.max_disparity)


def record(append: Append, result: PredictedPair, limit: float | None) -> None:
    """A frame of a `recorder`; `limit`: pixels, the end of the colours, None for the largest."""
    cloud = None if result.calibration is None else cloud_of(result)
    append(result.left, colorize(result.prediction.disparity, limit), result.calibration, cloud)


@dataclasses.dataclass(frozen=True)
class Output:
    """One kind of file that is written for a pair."""

    ending: str  # of the file: <name>_<ending>
    write: Callable[[Path, PredictedPair], None]
    needs_calibration: bool = False
    needs_occlusion: bool = False


OUTPUTS = {
    "disparity": Output("disparity.pfm", _disparity),  # float32 pixels
    "disparity-npy": Output("disparity.npy", _disparity_npy),  # float32 pixels
    "disparity-png": Output("disparity.png", _disparity_png),  # KITTI: uint16, pixels times 256
    "color": Output("color.png", _color),  # Turbo
    "confidence": Output("confidence.png", _confidence),  # uint16, probability times 65535
    "occlusion": Output("occlusion.png", _occlusion, needs_occlusion=True),  # uint8, 255 = occluded
    "depth": Output("depth.npy", _depth, needs_calibration=True),  # float32 metres
    "cloud": Output("cloud.ply", _cloud, needs_calibration=True),  # metres, without what is occluded if that is known
    "recording": Output("recording.rrd", _recording),  # for the Rerun viewer; of a video one file
}


def parse_kinds(text: str, choices: Iterable[str]) -> list[str]:
    """A comma-separated list of output names, in order and once each; InputError for an unknown one."""
    kinds = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [kind for kind in kinds if kind not in choices]
    if unknown or not kinds:
        raise InputError(f"--save {text}: expected any of {','.join(choices)}")
    return kinds


def save(folder: Path, result: PredictedPair, kinds: Iterable[str]) -> list[Path]:
    """Writes <folder>/<name>_<ending> for each kind, each whole or not at all; returns the files."""
    paths = []
    for kind in kinds:
        output = OUTPUTS[kind]
        path = folder / f"{result.name}_{output.ending}"
        output.write(path, result)
        paths.append(path)
    return paths


def write_npy(path: Path, values: np.ndarray) -> None:
    """An array as a NumPy file, whole or not at all."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, values)
