"""Where a video and its first stage come from (spec `video.md` section 6): frames in, depth or disparity out, one at a time.

T frames, H W pixels, E directed pairs. Frames are uint8 RGB.
"""

import functools
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bridgedepth_jax.data.formats import read_image
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.inference.inputs import find_files
from bridgedepth_jax.inference.run import Calibrate
from bridgedepth_jax.inference.stereo import Predictor
from bridgedepth_jax.inference.video import is_video, read_frames, video_info
from bridgedepth_jax.networks.croco.config import PairConfig
from bridgedepth_jax.networks.croco.network import PairNetwork
from bridgedepth_jax.systems.stereodiff import fusion, preprocess

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's own lines about a broken file: ours says it in one

Kind = Literal["depth", "disparity"]
Done = Callable[[str, int, int], None]  # (what, how many are done, of how many): each call is a point to resume from
FOLDER_FPS = 25.0  # of images in a folder


class Video:
    """A video file, or a folder of images in the order of their names (numbers by value).

    Raises InputError: nothing there, no readable frame; while reading: frames of differing size, or fewer than were counted.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._files: list[Path] = []
        if is_video(path):
            self.fps, _ = video_info(path)
            self.count = _count(self.path)
        else:
            if self.path.is_file():
                raise InputError(f"{path}: not a video by its ending, expected a video or a folder of images")
            self._files = [file for _, file in sorted(find_files(str(path)).items(), key=lambda row: _by_number(row[0]))]
            self.fps, self.count = FOLDER_FPS, len(self._files)
        first = next(self.read())
        self.height, self.width = first.shape[:2]

    @property
    def name(self) -> str:
        return self.path.stem

    def read(self, start: int = 0) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) from number `start` on."""
        number, size = start, None
        frames = (read_image(file) for file in self._files[start:]) if self._files else read_frames(self.path)
        for frame in frames if self._files else itertools.islice(frames, start, None):
            size = size or frame.shape
            if frame.shape != size:
                found = f"{frame.shape[1]}x{frame.shape[0]}"
                raise InputError(f"{self.path}: frame {number} has {found} pixels, expected {size[1]}x{size[0]} as the first")
            yield frame
            number += 1
        if number != self.count:
            raise InputError(f"{self.path}: {number} frames could be read, expected {self.count}")


def _count(path: Path) -> int:
    """Frames that can be decoded; what a file states of itself may be wrong."""
    capture = cv2.VideoCapture(str(path))
    try:
        count = 0
        while capture.grab():
            count += 1
    finally:
        capture.release()
    if not count:
        raise InputError(f"{path}: a video without a readable frame")
    return count


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (-1, name)


class FirstStage(Protocol):
    """A source of depth. `write` fills `out` (T, H, W) from frame `start` on, in order, and tells what is done."""

    kind: Kind
    metric: bool  # metres, or an unknown unit
    about: dict[str, Any]  # for the report; complete when `write` has returned

    def write(self, out: np.ndarray, start: int, done: Done) -> None: ...


class StereoSource:
    """BridgeDepth on each pair of a stereo video: metres, one scale already, no fusion; constant memory."""

    kind: Kind = "depth"
    metric = True

    def __init__(self, left: Video, right: Video, calibrate: Calibrate, predictor: Predictor, batch: int, scale: float) -> None:
        if left.count != right.count:
            raise InputError(
                f"{left.path} has {left.count} frames and {right.path} {right.count}, expected views of the same length"
            )
        if (left.width, left.height) != (right.width, right.height):
            raise InputError(
                f"{left.path} has {left.width}x{left.height} pixels and {right.path} {right.width}x{right.height}, "
                "expected the same size"
            )
        self.left, self.right, self.predictor, self.batch, self.scale = left, right, predictor, batch, scale
        camera = calibrate(left.name, left.width, left.height)
        if camera is None:
            raise InputError("a stereo video without calibration, expected --calib, --intrinsics, or --focal and --baseline")
        self.camera = camera
        self.about: dict[str, Any] = {"focal": camera.fx, "baseline_metres": camera.baseline, "doffs": camera.doffs}

    def write(self, out: np.ndarray, start: int, done: Done) -> None:
        pairs = zip(self.left.read(start), self.right.read(start), strict=True)
        while group := list(itertools.islice(pairs, self.batch)):
            left, right = (np.stack(side) for side in zip(*group, strict=True))
            disparity = self.predictor(left, right, scale=self.scale).disparity + np.float32(self.camera.doffs)
            depth = np.full(disparity.shape, np.nan, np.float32)
            np.divide(np.float32(self.camera.fx * self.camera.baseline), disparity, out=depth, where=disparity > 0)
            out[start : start + len(group)] = depth
            start += len(group)
            done("stereo pairs", start, self.left.count)


class MonoSource:
    """Depth Anything V2 on each frame alone: a baseline that flickers."""

    kind: Kind = "disparity"
    metric = False

    def __init__(self, video: Video, predict: Callable[[np.ndarray], np.ndarray]) -> None:
        self.video, self.predict, self.about = video, predict, {}

    def write(self, out: np.ndarray, start: int, done: Done) -> None:
        for number, frame in enumerate(self.video.read(start), start):
            out[number] = self.predict(frame)
            done("frames", number + 1, self.video.count)


class FileSource:
    """A .npy of any method, (T, H, W); another size is brought to the video's by nearest."""

    metric = False

    def __init__(self, video: Video, path: Path, kind: Kind) -> None:
        self.video, self.path = video, path
        self.kind: Kind = kind
        self.about: dict[str, Any] = {"file": path.name}
        try:
            self.maps = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as .npy ({' '.join(str(error).split())[:80]})") from error
        if self.maps.ndim != 3 or self.maps.dtype.kind != "f" or 0 in self.maps.shape:
            raise InputError(f"{path}: {self.maps.dtype} of shape {self.maps.shape}, expected floats (frames, height, width)")
        if len(self.maps) != video.count:
            raise InputError(f"{path}: {len(self.maps)} frames, expected {video.count} as in {video.path}")

    def write(self, out: np.ndarray, start: int, done: Done) -> None:
        size = self.video.width, self.video.height
        for number in range(start, self.video.count):
            here = np.asarray(self.maps[number], np.float32)
            out[number] = here if here.shape == size[::-1] else nearest(here, size)
            done("frames", number + 1, self.video.count)


class PairModel:
    """A pair network with its weights on the device; each half compiles once for a size."""

    def __init__(self, config: PairConfig, params: Any) -> None:
        self.config, self._params, network = config, jax.device_put(params), PairNetwork(config)
        self._encode = jax.jit(lambda p, x: network.apply({"params": p}, x, method="encode"))
        self._decode = jax.jit(
            lambda p, a, b, grid: network.apply({"params": p}, a, b, grid, method="decode"), static_argnums=3
        )

    def encode(self, image: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "N D"]:
        """Tokens of an image in -1..1."""
        with jax.default_matmul_precision("highest"):
            return np.asarray(self._encode(self._params, jnp.asarray(image[None])))[0]

    def decode(self, one: np.ndarray, two: np.ndarray, grid: tuple[int, int]) -> Any:
        """`PairPoints` of two images' tokens, without the batch's axis."""
        with jax.default_matmul_precision("highest"):
            found = self._decode(self._params, jnp.asarray(one)[None], jnp.asarray(two)[None], grid)
        return jax.tree.map(lambda leaf: np.asarray(leaf[0]), found)


class PairMaps(NamedTuple):
    """What the pair network says of every directed pair, in camera i; arrays may lie on a disk."""

    edges: np.ndarray  # (E, 2)
    points_i: Any  # (E, h, w, 3)
    points_j: Any
    conf_i: Any  # (E, h, w)
    conf_j: Any


class PairSource:
    """A pair network over near frames, fused in closed form. Each frame is encoded once; maps lie in files of `folder`."""

    kind: Kind = "depth"
    metric = False

    def __init__(
        self,
        video: Video,
        model: PairModel,
        folder: Path,
        *,
        reach: int = 2,
        pose: Literal["procrustes", "pnp"] = "procrustes",
        fit: preprocess.Fit = "resize",
    ) -> None:
        self.video, self.model, self.folder, self.reach = video, model, folder, reach
        self.pose: Literal["procrustes", "pnp"] = pose
        self.fit: preprocess.Fit = fit
        config = model.config
        self.side = max(config.img_size)
        self.size = preprocess.network_size(video.width, video.height, self.side, fit)
        if min(self.size) < config.patch:
            raise InputError(f"{video.path}: frames of {video.width}x{video.height} leave nothing at a side of {self.side}")
        self.about: dict[str, Any] = {"network_size": list(self.size), "pairs_reach": reach, "pose": pose}
        self.encoded = 0  # frames that the encoder has seen
        self.result: fusion.Fused | None = None
        self._grid = self.size[1] // config.patch, self.size[0] // config.patch

    def maps(self, done: Done) -> PairMaps:
        """Runs the network where it has not been run yet."""
        width, height = self.size
        edges = fusion.pairs_of(self.video.count, self.reach)
        tokens = self._open("tokens.npy", (self.video.count, self._grid[0] * self._grid[1], self.model.config.enc_embed_dim))
        maps = self._open("maps.npy", (len(edges), height, width, 8))
        marks = self._open("marks.npy", (2,))  # frames encoded, pairs decoded
        for number, frame in enumerate(self.video.read(int(marks[0])), int(marks[0])):
            tokens[number] = self.model.encode(preprocess.normalized(preprocess.prepare(frame, self.side, self.fit)))
            self.encoded += 1
            marks[0] = number + 1
            done("frames encoded", number + 1, self.video.count)
        for number in range(int(marks[1]), len(edges)):
            one, two = (np.asarray(tokens[k]) for k in edges[number])
            found = self.model.decode(one, two, self._grid)
            maps[number, ..., :3], maps[number, ..., 3:6] = found.points1, found.points2
            maps[number, ..., 6], maps[number, ..., 7] = found.confidence1, found.confidence2
            marks[1] = number + 1
            done("pairs", number + 1, len(edges))
        return PairMaps(edges, maps[..., :3], maps[..., 3:6], maps[..., 6], maps[..., 7])

    def write(self, out: np.ndarray, start: int, done: Done) -> None:
        maps = self.maps(done)
        scores = fusion.scores_of(maps.conf_i, maps.conf_j)
        self.result = found = fusion.fuse(*maps, pose=self.pose, scores=scores)
        self.about |= {
            "frames_encoded": self.encoded,
            "hidden_pixels": found.hidden,
            "equal_confidences": fusion.equal_confidences(scores),
            "focals": [float(f) for f in found.focal],
            "scale_factor": found.scale_factor,
        }
        for number, depth in enumerate(found.depth):
            out[number] = nearest(self._whole(depth), (self.video.width, self.video.height))
        done("frames fused", self.video.count, self.video.count)

    def _whole(self, depth: np.ndarray) -> np.ndarray:
        """A map of the network's crop at the frame's shape: what was cut away repeats the edge."""
        width, height = preprocess.first_size(self.video.width, self.video.height, self.side)
        left, top, right, bottom = preprocess.window_of(width, height, self.side, self.fit)
        if (left, top, right, bottom) == (0, 0, width, height):
            return depth
        return np.pad(depth, ((top, height - bottom), (left, width - right)), mode="edge")

    def _open(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        path = self.folder / name
        if path.is_file():
            return np.load(path, mmap_mode="r+", allow_pickle=False)
        return np.lib.format.open_memmap(path, "w+", np.float32, shape)


@functools.lru_cache(maxsize=4)
def _indices(size: int, out: int) -> np.ndarray:
    return np.arange(out) * size // out


def nearest(value: Float[np.ndarray, "H W"], size: tuple[int, int]) -> Float[np.ndarray, "H2 W2"]:
    """To (width, height), source floor(i in / out)."""
    return value[_indices(value.shape[0], size[1])[:, None], _indices(value.shape[1], size[0])]
