"""Two cameras as they stand: calibrated from pictures of a board, rectified so that a network can match along rows.

Lengths in metres, pixels for the rest. A point X of the left camera is `rotation` X + `translation` in the right one (OpenCV's
convention). Letters: H W size of the images, N corners of a board.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing
from bridgedepth_jax.geometry import Calibration

LOOKS = 3  # pairs, in which another board is looked for
FEWEST = 3  # pairs of pictures of the board
WEAK = 1.0  # pixels, reprojection error beyond which a pair of pictures is left out


@dataclasses.dataclass(frozen=True, eq=False)
class Rig:
    """What a calibration says of two cameras, of images of `size`."""

    left_matrix: np.ndarray  # (3, 3)
    left_distortion: np.ndarray  # (4..14,), as OpenCV orders them
    right_matrix: np.ndarray
    right_distortion: np.ndarray
    rotation: np.ndarray  # (3, 3)
    translation: np.ndarray  # (3,) metres
    size: tuple[int, int]  # width, height
    fisheye: bool = False  # OpenCV's model of that name, also called equidistant

    def __post_init__(self) -> None:
        for name, shape in (("left_matrix", (3, 3)), ("right_matrix", (3, 3)), ("rotation", (3, 3)), ("translation", (3,))):
            value = getattr(self, name)
            if value.shape != shape or not np.isfinite(value).all():
                raise InputError(f"{name} {value.tolist()}, expected finite numbers {shape}")
        if not np.allclose(self.rotation @ self.rotation.T, np.eye(3), atol=1e-3):
            raise InputError(f"rotation {self.rotation.tolist()}, expected an orthogonal matrix")
        if not np.linalg.norm(self.translation) > 0:
            raise InputError("translation 0, expected the distance of the two cameras in metres")

    def rectification(self, crop: float = 0.0) -> "Rectification":
        """How to resample both images. crop: 0 shows no pixel that was not seen, 1 all that were seen."""
        arguments = (self.left_matrix, self.left_distortion, self.right_matrix, self.right_distortion, self.size)
        if self.fisheye:
            turns_and_cameras = cv2.fisheye.stereoRectify(
                *arguments, self.rotation, self.translation[:, None], cv2.CALIB_ZERO_DISPARITY, balance=crop
            )
        else:
            turns_and_cameras = cv2.stereoRectify(
                *arguments, self.rotation, self.translation[:, None], flags=cv2.CALIB_ZERO_DISPARITY, alpha=crop
            )
        turns, cameras = turns_and_cameras[:2], turns_and_cameras[2:4]
        model: Any = cv2.fisheye if self.fisheye else cv2
        maps = [
            model.initUndistortRectifyMap(matrix, distortion, turn, camera[:, :3], self.size, cv2.CV_32FC1)
            for matrix, distortion, turn, camera in zip(arguments[0:4:2], arguments[1:4:2], turns, cameras, strict=True)
        ]
        first, second = cameras
        if abs(second[1, 3]) > abs(second[0, 3]):
            raise InputError("the cameras stand one above the other, expected them side by side: turn all images by 90 degrees")
        baseline = -second[0, 3] / second[0, 0]
        if baseline <= 0:
            raise InputError(f"the right camera stands {-baseline:.4f} m to the left of the left one: swap left and right")
        camera = Calibration(
            float(first[0, 0]), float(first[1, 1]), float(first[0, 2]), float(first[1, 2]), float(baseline),
            float(second[0, 2] - first[0, 2]), self.size,
        )  # fmt: skip
        return Rectification(maps[0], maps[1], camera)

    def write(self, path: str | os.PathLike) -> None:
        """As OpenCV's YAML, which `calibration.read_rig` reads."""
        with replacing(path) as temporary:
            file = cv2.FileStorage(str(temporary), cv2.FILE_STORAGE_WRITE)
            file.write("image_width", self.size[0])
            file.write("image_height", self.size[1])
            for name, value in (
                ("K1", self.left_matrix), ("D1", self.left_distortion), ("K2", self.right_matrix),
                ("D2", self.right_distortion), ("R", self.rotation), ("T", self.translation),
            ):  # fmt: skip
                file.write(name, value)
            file.write("model", "fisheye" if self.fisheye else "pinhole")
            file.release()


class Rectification(NamedTuple):
    """Where the pixels of both rectified images come from, and the camera of these images."""

    left: tuple[np.ndarray, np.ndarray]  # (H, W) twice: x and y in the image as taken
    right: tuple[np.ndarray, np.ndarray]
    calibration: Calibration

    def apply(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both images (H, W, 3), black where a camera saw nothing."""
        first, second = (cv2.remap(image, *maps, cv2.INTER_CUBIC) for image, maps in ((left, self.left), (right, self.right)))
        return first, second


class Board(NamedTuple):
    """What is in the pictures: a chessboard, or a ChArUco board where `marker` is given."""

    columns: int  # inner corners of a chessboard; squares of a ChArUco board
    rows: int
    square: float  # metres, side of a square
    marker: float | None = None  # metres, side of a marker
    dictionary: str = "DICT_4X4_50"  # OpenCV's name

    def find(self, image: np.ndarray) -> dict[int, np.ndarray]:
        """Corners by number -> (2,) pixels of a grey image (H, W); nothing where no board is seen."""
        if self.marker is None:
            flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_ACCURACY
            found, corners = cv2.findChessboardCornersSB(image, (self.columns, self.rows), flags=flags)
            return dict(enumerate(corners.reshape(-1, 2))) if found else {}
        corners, numbers, _, _ = cv2.aruco.CharucoDetector(self._charuco()).detectBoard(image)
        if numbers is None:
            return {}
        return {int(number): corner for number, corner in zip(numbers.ravel(), corners.reshape(-1, 2), strict=True)}

    def points(self, numbers: Sequence[int]) -> np.ndarray:
        """(N, 3) float32 metres, on the board."""
        columns = self.columns - (self.marker is not None)
        at = np.array(numbers)
        plane = np.stack([at % columns, at // columns, np.zeros_like(at)], -1)
        return (plane * self.square).astype(np.float32)

    def _charuco(self) -> Any:
        names = [name for name in dir(cv2.aruco) if name.startswith("DICT_")]
        if self.dictionary not in names:
            raise InputError(f"--dictionary {self.dictionary}, expected one of {', '.join(names)}")
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))
        return cv2.aruco.CharucoBoard((self.columns, self.rows), self.square, self.marker or 0.0, dictionary)


class Calibrated(NamedTuple):
    """A rig, and how well it explains the pictures."""

    rig: Rig
    error: float  # pixels, root mean square of the reprojection
    used: tuple[str, ...]  # names of the pictures
    unseen: tuple[str, ...]  # in which the board was not found by both cameras
    weak: tuple[str, ...]  # left out, since they fit much worse than the others


def calibrate(names: Sequence[str], pictures: Sequence[tuple[np.ndarray, np.ndarray]], board: Board) -> Calibrated:
    """From pictures (H, W) uint8 grey of the board, left and right at the same moment (Zhang, PAMI 2000, as OpenCV has it).

    Raises InputError: the board is seen in fewer than FEWEST pairs.
    """
    size = pictures[0][0].shape[1], pictures[0][0].shape[0]
    views: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
    unseen = []
    for name, (left, right) in zip(names, pictures, strict=True):
        first, second = board.find(left), board.find(right)
        common = sorted(first.keys() & second.keys())
        if len(common) < 8:
            unseen.append(name)
            continue
        corners = [np.array([found[number] for number in common], np.float32) for found in (first, second)]
        views.append((name, board.points(common), corners[0], corners[1]))
    if len(views) < FEWEST:
        what = f"{board.columns}x{board.rows} {'inner corners' if board.marker is None else 'squares'}"
        raise InputError(
            f"a board of {what} is seen by both cameras in {len(views)} of {len(names)} pairs, expected {FEWEST};"
            f" {_hint(pictures, board)}"
        )
    weak: list[str] = []
    while True:
        rig, error, each = _fit(views, size)
        worst = int(np.argmax(each))
        if each[worst] < max(WEAK, 3 * np.median(each)) or len(views) == FEWEST:
            break
        weak.append(views.pop(worst)[0])
    return Calibrated(rig, error, tuple(name for name, *_ in views), tuple(unseen), tuple(weak))


def _hint(pictures: Sequence[tuple[np.ndarray, np.ndarray]], board: Board) -> str:
    """What may be wrong where no board is found."""
    if board.marker is not None:
        return "count the squares, and name the --dictionary of the markers"
    other = board._replace(columns=board.columns - 1, rows=board.rows - 1)
    looked = [bool(other.find(image)) for pair in pictures[:LOOKS] for image in pair] if min(other[:2]) >= 3 else [False]
    if np.mean(looked) > 0.5:  # a part of a larger board is found here and there
        return f"one of {other.columns}x{other.rows} is: --board counts inner corners, one less than squares"
    return "count the inner corners, one less than squares in each direction; all of them have to be seen"


def _fit(views: Sequence[tuple], size: tuple[int, int]) -> tuple[Rig, float, np.ndarray]:
    points, left, right = ([view[i] for view in views] for i in (1, 2, 3))
    cameras = []
    for corners in (left, right):
        guess = cv2.initCameraMatrix2D(points, corners, size)
        _, matrix, distortion, *_ = cv2.calibrateCamera(points, corners, size, guess, np.zeros(5), flags=cv2.CALIB_FIX_K3)
        cameras += [matrix, distortion]
    extended: Any = cv2.stereoCalibrateExtended
    error, *found = extended(
        points, left, right, *cameras, size, np.eye(3), np.zeros(3),
        flags=cv2.CALIB_USE_INTRINSIC_GUESS | cv2.CALIB_FIX_K3,
    )  # fmt: skip
    k1, d1, k2, d2, rotation, translation = found[:6]
    each = np.sqrt((np.asarray(found[-1]) ** 2).mean(1))  # (views, 2) of both cameras
    return Rig(k1, d1.ravel(), k2, d2.ravel(), rotation, translation.ravel(), size), float(error), each


def write_middlebury(path: str | os.PathLike, camera: Calibration) -> None:
    """A calib.txt, which `Calibration.from_middlebury` and `bridgedepth infer --calib` read."""
    matrices = (
        f"cam{i}=[{camera.fx:.6f} 0 {cx:.6f}; 0 {camera.fy:.6f} {camera.cy:.6f}; 0 0 1]"
        for i, cx in enumerate((camera.cx, camera.cx + camera.doffs))
    )
    lines = [*matrices, f"doffs={camera.doffs:.6f}", f"baseline={1000 * camera.baseline:.6f}"]
    if camera.size is not None:
        lines += [f"width={camera.size[0]}", f"height={camera.size[1]}"]
    with replacing(path) as temporary:
        Path(temporary).write_text("\n".join(lines) + "\n")
