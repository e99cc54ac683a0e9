"""KITTI raw: published splits, calibration, scans as depth maps, improved depth (spec `self-supervised.md` section 5).

Under the data directory: KITTI/raw/<date>/<drive>_sync/image_0{2,3}/data/<frame>.{png,jpg}, velodyne_points/data/<frame>.bin
and KITTI/raw/<date>/calib_{cam_to_cam,velo_to_cam}.txt. H, W the image's sides; metres.
"""

import csv
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from bridgedepth_jax.data import formats
from bridgedepth_jax.errors import InputError

FOLDER = Path(__file__).parent / "kitti_raw_splits"
PREFIX = "kitti_raw_"
ORIGIN = "https://www.cvlibs.net/datasets/kitti/raw_data.php (KITTI/raw; synced and rectified drives, and their calibration)"
# Pairs of each split; those of the tests keep the order of their lists.
SPLITS = {
    "eigen_train": 22600,
    "eigen_val": 888,
    "eigen_test": 697,
    "eigen_test_improved": 652,
    "stereo_train": 29000,
    "stereo_val": 1159,
    "kitti_2015": 12223,
}
SETS = tuple(f"{PREFIX}{split}" for split in SPLITS if split != "kitti_2015")  # the last is what the stereo lists leave out


class Frame(NamedTuple):
    """One moment of a drive."""

    drive: str  # 2011_09_26_drive_0001
    number: int

    @property
    def folder(self) -> str:
        """Of the drive, under the data directory."""
        return f"KITTI/raw/{self.date}/{self.drive}_sync"

    @property
    def date(self) -> str:
        return self.drive[:10]


class Drive(NamedTuple):
    name: str
    frames: int
    kitti2015: bool  # scenes of KITTI 2015 come from it
    eigen: str  # train, test or empty


@functools.cache
def drives() -> tuple[Drive, ...]:
    """All drives that a split knows, each complete from frame 0."""
    with (FOLDER / "drives.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(Drive(row["drive"], int(row["frames"]), row["kitti2015"] == "1", row["eigen"]) for row in rows)


@functools.cache
def frames(split: str) -> tuple[Frame, ...]:
    """The frames of one of `SPLITS`, by drive and number, those of the tests in the protocol's order."""
    if split == "eigen_train":
        return _but(_listed("eigen_val"), lambda drive: drive.eigen == "train")
    if split == "stereo_train":
        return _but(_listed("stereo_val"), lambda drive: not drive.kitti2015)
    if split == "kitti_2015":
        return _but((), lambda drive: drive.kitti2015)
    if split == "eigen_test_improved":
        without = set(map(int, (FOLDER / "eigen_test_without_improved.txt").read_text().split()))
        return tuple(frame for i, frame in enumerate(_listed("eigen_test")) if i not in without)
    found = _listed(split)
    return found if split == "eigen_test" else tuple(sorted(found))


def _listed(name: str) -> tuple[Frame, ...]:
    """A line of a list is a drive and its frames."""
    lines = (line.split() for line in (FOLDER / f"{name}.txt").read_text().splitlines() if line.strip())
    return tuple(Frame(drive, int(number)) for drive, *numbers in lines for number in numbers)


def _but(without: tuple[Frame, ...], chosen) -> tuple[Frame, ...]:
    left_out = set(without)
    every = (Frame(drive.name, number) for drive in sorted(drives()) if chosen(drive) for number in range(drive.frames))
    return tuple(frame for frame in every if frame not in left_out)


def find_frames(name: str) -> tuple[Frame, ...]:
    """Frames of a data set `kitti_raw_SPLIT`, or of some drives of it, `kitti_raw_SPLIT:DRIVE,DRIVE`.

    InputError: no such split, or a drive that is not in it.
    """
    split, _, chosen = name.removeprefix(PREFIX).partition(":")
    if f"{PREFIX}{split}" not in SETS:
        raise InputError(f"no data set {name!r}, expected one of {', '.join(SETS)}")
    found = frames(split)
    if not chosen:
        return found
    wanted, there = chosen.split(","), {frame.drive for frame in found}
    for drive in wanted:
        if drive not in there:
            raise InputError(f"{name}: no drive {drive!r} in {PREFIX}{split}, expected some of {', '.join(sorted(there))}")
    return tuple(frame for frame in found if frame.drive in wanted)


def find_images(name: str, root: Path) -> Iterator[tuple[Frame, str, str]]:
    """(frame, left, right) of a data set, paths under `root`, png or jpg. InputError: files that are missing."""
    missing, there = [], {}
    for frame in find_frames(name):
        couple = []
        for camera, side in (("image_02", "left"), ("image_03", "right")):
            folder = f"{frame.folder}/{camera}/data"
            if folder not in there:
                there[folder] = _stems(root / folder)
            suffix = there[folder].get(f"{frame.number:010d}")
            if suffix is None:
                missing.append(f"{root / folder / f'{frame.number:010d}'}.png or .jpg is missing, a {side} image")
            couple.append(f"{folder}/{frame.number:010d}{suffix}")
        if not missing:
            yield frame, couple[0], couple[1]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{name}: {'; '.join(missing[:3])}{more}; {ORIGIN}; some drives alone: {name}:DRIVE,DRIVE")


def _stems(folder: Path) -> dict[str, str]:
    """{name without suffix: suffix} of the images of a folder; png before jpg."""
    if not folder.is_dir():
        return {}
    found = [path for path in folder.iterdir() if path.suffix in (".png", ".jpg")]
    return {path.stem: path.suffix for path in sorted(found, key=lambda path: path.suffix)}


class RawCalibration(NamedTuple):
    """What a date's two files say."""

    size: tuple[int, int]  # W, H of the rectified left colour camera
    projection: Float[np.ndarray, "3 4"]  # of a point of the scan to that camera's pixels, times its depth
    focal: float  # pixels
    baseline: float  # metres, between the colour cameras


class Cameras(NamedTuple):
    """Of the colour cameras."""

    left: Float[np.ndarray, "3 4"]  # projection of the rectified left one
    focal: float  # pixels
    baseline: float  # metres


def read_cameras(folder: Path) -> Cameras:
    """Of a date's folder. InputError names the file and the entry that is missing or no matrix."""
    where = folder / "calib_cam_to_cam.txt"
    entries = _entries(where)
    left, right = (_matrix(where, entries, f"P_rect_0{camera}", (3, 4)) for camera in (2, 3))
    focal = float(left[0, 0])
    return Cameras(left, focal, float(left[0, 3] - right[0, 3]) / focal)


def read_calibration(folder: Path) -> RawCalibration:
    """Of a date's folder. InputError names the file and the entry that is missing or no matrix."""
    cameras, scanner = (_entries(folder / name) for name in ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt"))
    where = folder / "calib_cam_to_cam.txt"
    left, focal, baseline = read_cameras(folder)
    rectify = np.eye(4)
    rectify[:3, :3] = _matrix(where, cameras, "R_rect_00", (3, 3))
    move = np.eye(4)
    move[:3, :3] = _matrix(folder / "calib_velo_to_cam.txt", scanner, "R", (3, 3))
    move[:3, 3] = _matrix(folder / "calib_velo_to_cam.txt", scanner, "T", (3,))
    width, height = _matrix(where, cameras, "S_rect_02", (2,))
    return RawCalibration((int(width), int(height)), left @ rectify @ move, focal, baseline)


def _entries(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}), expected a calibration file of KITTI raw") from None
    return {name.strip(): values for name, colon, values in (line.partition(":") for line in lines) if colon}


def _matrix(path: Path, entries: dict[str, str], name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in entries:
        raise InputError(f"{path}: no {name}, expected {' x '.join(map(str, shape))} numbers")
    try:
        return np.array(entries[name].split(), np.float64).reshape(shape)
    except ValueError:
        raise InputError(
            f"{path}: {name} = {entries[name].strip():.60}, expected {' x '.join(map(str, shape))} numbers"
        ) from None


def read_scan(path: Path) -> Float[np.ndarray, "P 4"]:
    """x forward, y left, z up (metres) and reflectance of each point. InputError: no whole scan."""
    data = formats.read_bytes(path)
    if len(data) % 16:
        raise InputError(f"{path}: {len(data)} bytes, expected a multiple of 16 (points of four float32)")
    return np.frombuffer(data, "<f4").reshape(-1, 4)


def project(
    points: Float[np.ndarray, "P 4"], calibration: RawCalibration, *, depth: Literal["forward", "camera"] = "forward"
) -> Float[np.ndarray, "H W"]:
    """The depth map of a scan: the nearest point of each pixel, 0 where there is none.

    "forward" is the published protocol: a point's own x is what counts as its depth. "camera": along the optical axis.
    """
    columns = np.array(points.T, np.float64, order="C")  # a row a coordinate: three times as fast as point by point
    columns[3] = 1
    q = np.einsum("ij,jp->ip", calibration.projection, columns)
    width, height = calibration.size
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = np.rint(q[:2] / q[2]) - 1
        inside = (columns[0] >= 0) & (u >= 0) & (v >= 0) & (u < width) & (v < height)  # what is not finite is not inside
    pixel = (v[inside] * width + u[inside]).astype(np.intp)
    value = (columns[0] if depth == "forward" else q[2])[inside]
    found = np.full(height * width, np.inf)
    np.minimum.at(found, pixel, value)
    found[np.isinf(found)] = 0
    return np.maximum(found, 0).reshape(height, width)


def scan_path(frame: Frame, root: Path) -> Path:
    return root / frame.folder / f"velodyne_points/data/{frame.number:010d}.bin"


def read_depth(frame: Frame, root: Path, *, depth: Literal["forward", "camera"] = "forward") -> Float[np.ndarray, "H W"]:
    """The depth map of a frame's scan. InputError: a scan or calibration that is missing or damaged."""
    calibration = read_calibration(root / "KITTI/raw" / frame.date)
    return project(read_scan(scan_path(frame, root)), calibration, depth=depth)


def check_scans(frames: Iterable[Frame], root: Path) -> None:
    """InputError: calibrations or scans that are missing or damaged, before anything is computed."""
    frames = list(frames)
    for date in sorted({frame.date for frame in frames}):
        read_calibration(root / "KITTI/raw" / date)
    missing = []
    for path in (scan_path(frame, root) for frame in frames):
        if not path.is_file():
            missing.append(str(path))
        elif path.stat().st_size % 16:
            raise InputError(f"{path}: {path.stat().st_size} bytes, expected a multiple of 16 (points of four float32)")
    _complain(missing, "a scan")


def check_improved(frames: Iterable[Frame], root: Path) -> None:
    """InputError: improved depth maps that are missing."""
    places = [improved_places(frame, root) for frame in frames]
    _complain([str(rows[0]) for rows in places if not any(place.is_file() for place in rows)], "an improved depth map")


def _complain(missing: list[str], what: str) -> None:
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{', '.join(missing[:3])}{more}: missing, expected {what} each; {ORIGIN}")


def improved_places(frame: Frame, root: Path) -> list[Path]:
    """Where the improved depth of a frame may be."""
    name = f"proj_depth/groundtruth/image_02/{frame.number:010d}.png"
    return [
        root / frame.folder / name,
        *(root / "KITTI/depth" / part / f"{frame.drive}_sync" / name for part in ("train", "val")),
    ]


def read_improved(frame: Frame, root: Path) -> Float[np.ndarray, "H W"]:
    """The improved depth map of a frame, 0 where there is none. InputError: no file in any of its places."""
    places = improved_places(frame, root)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InputError(f"no improved depth of {frame.drive} {frame.number}, expected {' or '.join(map(str, places))}")
    return read_metres(path)


def read_metres(path: Path) -> Float[np.ndarray, "H W"]:
    """A 16-bit image of 1/256 metres. InputError: another kind of file."""
    data = formats.read_bytes(path)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None or image.ndim != 2 or image.dtype != np.uint16:
        raise InputError(f"{path}: expected a 16-bit image of one channel")
    return image / 256.0


def frame_of(path: str) -> Frame:
    """Of the path of one of its images. InputError: it is none of KITTI raw."""
    found = re.search(r"(\d{4}_\d\d_\d\d_drive_\d{4})_sync/image_0[23]/data/(\d{10})\.(?:png|jpg)$", path)
    if found is None:
        raise InputError(f"{path}: not an image of KITTI raw, expected .../<drive>_sync/image_02/data/<frame>.png")
    return Frame(found[1], int(found[2]))
