"""Videos with true depth: Bonn, KITTI, ScanNet, Sintel, and our own clips (spec `video.md` section 5).

T frames, H W the ground truth's sides. Depths in metres; 0 where there is none.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from bridgedepth_jax.data.formats import read_bytes, read_image
from bridgedepth_jax.data.procedural.clips import ClipConfig, SyntheticClips
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.video import FAR
from bridgedepth_jax.geometry import Calibration
from bridgedepth_jax.systems.stereodiff.sources import Video

SINTEL_TAG = 202021.25
CLIP_SEED = 170_000  # of held-out clips: training takes others
CLIP_SIZE, CLIP_VIEWS, CLIP_FAR = (96, 128), 64, 70.0
CLIPS = {"clips": 0.0, "clips-hazy": 1.0}  # the sets that are made here, and their share of haze
BONN_CRAFTER = ("synchronous", "person_tracking", "crowd2", "crowd3", "balloon2")
SCANNET = ("scene0078_00", "scene0192_01", "scene0348_00", "scene0556_01")


class Frames(Video):
    """Frames that lie in memory or are read one by one, as a `Video`."""

    def __init__(self, name: str, frames: Sequence[Any], fps: float = 25.0) -> None:
        self.path, self.fps, self.count = Path(name), fps, len(frames)
        self._read = frames
        first = self._frame(0)
        self.height, self.width = first.shape[:2]

    def _frame(self, number: int) -> np.ndarray:
        frame = self._read[number]
        return read_image(frame) if isinstance(frame, Path) else frame

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self, start: int = 0) -> Iterator[np.ndarray]:
        for number in range(start, self.count):
            frame = self._frame(number)
            if frame.shape[:2] != (self.height, self.width):
                raise InputError(f"{self.path}: frame {number} has another size than the first")
            yield frame


class VideoTruth(NamedTuple):
    """A video, its true depth, and what else is known of it."""

    name: str
    video: Frames
    truth: np.ndarray  # (T, H, W) float32 metres, 0 none
    far: float  # metres
    moving: np.ndarray | None = None  # (T, H, W) bool
    right: Frames | None = None
    camera: Calibration | None = None


def _depth_png(path: Path, unit: float) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(read_bytes(path), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 2:
        raise InputError(f"{path}: expected a 16-bit image of one channel")
    return image.astype(np.float32) / np.float32(unit)


def _dpt(path: Path) -> np.ndarray:
    data = read_bytes(path)
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(SINTEL_TAG):
        raise InputError(f"{path}: expected a Sintel .dpt file")
    width, height = np.frombuffer(data, "<i4", 2, 4).tolist()
    if width < 1 or height < 1 or len(data) != 12 + 4 * width * height:
        raise InputError(f"{path}: {len(data)} bytes for {width} x {height} pixels, expected {12 + 4 * width * height}")
    return np.frombuffer(data, "<f4", width * height, 12).reshape(height, width)


def _one(
    name: str, images: Sequence[Path], depths: Sequence[Path], read: Callable[[Path], np.ndarray], far: float
) -> VideoTruth:
    count = min(len(images), len(depths))
    if not count:
        raise InputError(f"{name}: {len(images)} images and {len(depths)} depth maps, expected some of both")
    return VideoTruth(name, Frames(name, images[:count]), np.stack([read(path) for path in depths[:count]]), far)


def _sorted(folder: Path, pattern: str) -> list[Path]:
    """By the first number in the name, time stamps too."""
    number = lambda path: float(found[0]) if (found := re.search(r"\d+(\.\d+)?", path.stem)) else 0.0
    return sorted(folder.glob(pattern), key=lambda path: (number(path), path.name))


def bonn(root: Path) -> Iterator[VideoTruth]:
    """Whole videos, every one that is there."""
    for folder in sorted(root.glob("rgbd_bonn_*")):
        images, depths = _sorted(folder / "rgb", "*.png"), _sorted(folder / "depth", "*.png")
        yield _one(folder.name, images, depths, lambda path: _depth_png(path, 5000), FAR["bonn"])


def bonn_crafter(root: Path) -> Iterator[VideoTruth]:
    """DepthCrafter's: frames 30 to 139 of five videos."""
    for name in BONN_CRAFTER:
        folder = root / f"rgbd_bonn_{name}"
        images, depths = (_sorted(folder / part, "*.png")[30:140] for part in ("rgb", "depth"))
        yield _one(folder.name, images, depths, lambda path: _depth_png(path, 5000), FAR["bonn"])


def kitti(root: Path) -> Iterator[VideoTruth]:
    """The drives of the validation split, frames that have ground truth."""
    for drive in sorted((root / "data_depth_annotated" / "val").glob("*_sync")):
        depths = _sorted(drive / "proj_depth" / "groundtruth" / "image_02", "*.png")
        images = [root / "raw" / drive.name[:10] / drive.name / "image_02" / "data" / path.name for path in depths]
        missing = [path for path in images if not path.is_file()]
        if missing:
            raise InputError(f"{missing[0]}: missing, expected an image for each depth map of {drive.name}")
        yield _one(drive.name, images, depths, lambda path: _depth_png(path, 256), FAR["kitti"])


def scannet(root: Path) -> Iterator[VideoTruth]:
    """The paper's four scenes, whole."""
    for name in SCANNET:
        images, depths = _sorted(root / name / "color", "*.jpg"), _sorted(root / name / "depth", "*.png")
        yield _one(name, images, depths, lambda path: _depth_png(path, 1000), FAR["scannet"])


def sintel(root: Path, kind: str = "final") -> Iterator[VideoTruth]:
    """All scenes of the training set."""
    for folder in sorted((root / "training" / "depth").iterdir() if (root / "training" / "depth").is_dir() else ()):
        images = _sorted(root / "training" / kind / folder.name, "frame_*.png")
        yield _one(folder.name, images, _sorted(folder, "frame_*.dpt"), _dpt, FAR["sintel"])


def clips(
    count: int = 20,
    *,
    views: int = CLIP_VIEWS,
    size: tuple[int, int] = CLIP_SIZE,
    seed: int = CLIP_SEED,
    haze: float = 0.0,
) -> Iterator[VideoTruth]:
    """Held-out procedural stereo clips with exact masks of what moves; `haze` is the share that is seen through haze."""
    made = SyntheticClips(*size, views, seed=seed, stereo=True, photos=False, config=ClipConfig(haze=haze))
    for index in range(count):
        clip = made[index]
        focal = float(clip["K"][0, 0])
        yield VideoTruth(
            clip["name"],
            Frames(clip["name"], list(clip["image"])),
            clip["depth"],
            CLIP_FAR,
            clip["moving"],
            Frames(clip["name"], list(clip["right"])),
            Calibration.from_focal(focal, float(clip["baseline"]), (size[1], size[0])),
        )


READERS: dict[str, Callable[[Path], Iterator[VideoTruth]]] = {
    "bonn": bonn,
    "bonn-depthcrafter": bonn_crafter,
    "kitti": kitti,
    "scannet": scannet,
    "sintel": sintel,
    "sintel-clean": lambda root: sintel(root, "clean"),
}
