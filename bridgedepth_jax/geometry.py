"""From disparity to metres: camera calibration, depth, point clouds and PLY files. Plain numpy.

Letters: H W size of the image, P points. Pixel (x, y) = (0, 0) is the centre of the top left pixel. Camera axes: x right,
y down, z forward. A rectified pair: the left camera's matrix, the distance of the two cameras (`baseline`), and `doffs`, the
difference of the two principal points (right minus left): z = fx * baseline / (disparity + doffs).
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A rectified stereo pair. fx, fy, cx, cy and doffs in pixels, baseline in metres.

    `size` is the (width, height) of the images that it belongs to, where the source says so.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    baseline: float
    doffs: float = 0.0
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("fx", "fy", "cx", "cy", "baseline", "doffs"):
            value = getattr(self, name)
            if not np.isfinite(value):
                raise InputError(f"{name} {value}, expected a finite number")
            if name in ("fx", "fy", "baseline") and value <= 0:
                raise InputError(f"{name} {value}, expected a positive number")

    @classmethod
    def from_middlebury(cls, path: str | os.PathLike) -> Self:
        """Reads a Middlebury calib.txt: cam0, doffs (pixels), baseline (millimetres), and width, height where given.

        Raises InputError: the file cannot be read, a key is missing, a number is none.
        """
        rows = (line.partition("=") for line in _read_text(path).splitlines() if "=" in line)
        entries = {key.strip(): value.strip() for key, _, value in rows}
        missing = [key for key in ("cam0", "doffs", "baseline") if key not in entries]
        if missing:
            raise InputError(f"{path}: no {', '.join(missing)}, expected a Middlebury calib.txt with cam0, doffs and baseline")
        fx, fy, cx, cy = _camera_matrix(entries["cam0"].strip("[]").replace(";", " "), f"{path}: cam0")
        (doffs,) = _numbers(entries["doffs"], 1, f"{path}: doffs")
        (baseline,) = _numbers(entries["baseline"], 1, f"{path}: baseline")
        size = None
        if "width" in entries and "height" in entries:
            width, height = (_numbers(entries[key], 1, f"{path}: {key}")[0] for key in ("width", "height"))
            if width < 1 or height < 1:
                raise InputError(f"{path}: width {width:g} and height {height:g}, expected positive numbers")
            size = (round(width), round(height))
        return cls._named(path, fx, fy, cx, cy, baseline / 1000, doffs, size)

    @classmethod
    def from_intrinsics(cls, path: str | os.PathLike) -> Self:
        """Reads a text file: line 1 the nine numbers of the camera matrix K, row by row, line 2 the baseline in metres.

        Raises InputError: the file cannot be read, or has other numbers.
        """
        lines = [line for line in _read_text(path).splitlines() if line.strip()]
        if len(lines) != 2:
            raise InputError(f"{path}: {len(lines)} lines, expected two: nine numbers of K, then the baseline in metres")
        fx, fy, cx, cy = _camera_matrix(lines[0], f"{path}: line 1")
        (baseline,) = _numbers(lines[1], 1, f"{path}: line 2")
        return cls._named(path, fx, fy, cx, cy, baseline)

    @classmethod
    def from_focal(cls, focal: float, baseline: float, size: tuple[int, int], doffs: float = 0.0) -> Self:
        """Focal length in pixels, baseline in metres; the principal point is the centre of an image of (width, height)."""
        width, height = size
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2, baseline, doffs, (width, height))

    @classmethod
    def _named(cls, path: str | os.PathLike, *values) -> Self:
        try:
            return cls(*values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def scaled(self, sx: float, sy: float) -> Self:
        """The same camera after its images were resized by (sx, sy), half-pixel centres: x -> (x + 0.5) * sx - 0.5."""
        return dataclasses.replace(
            self,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
            doffs=self.doffs * sx,
            size=None if self.size is None else (round(self.size[0] * sx), round(self.size[1] * sy)),
        )

    def fitted(self, width: int, height: int) -> Self:
        """The same camera for images of (width, height): those of `size` resized as a whole. Without `size`, itself.

        Raises InputError: another aspect ratio (by more than 1 %), so these images are no resized version.
        """
        if self.size is None or self.size == (width, height):
            return self
        sx, sy = width / self.size[0], height / self.size[1]
        if abs(sx / sy - 1) > 0.01:
            raise InputError(
                f"calibration of {self.size[0]}x{self.size[1]} images, but this image has {width}x{height}, not the same shape"
            )
        return self.scaled(sx, sy)

    def depth(self, disparity: np.ndarray) -> np.ndarray:
        """Disparity (..., H, W) in pixels -> distance along the optical axis in metres, float32, same shape.

        Infinite where disparity + doffs <= 0 (at or behind infinity); not a number where the disparity is none.
        """
        shifted = np.asarray(disparity, np.float64) + self.doffs
        with np.errstate(divide="ignore"):
            depth = self.fx * self.baseline / np.where(shifted <= 0, 0.0, shifted)
        return depth.astype(np.float32)

    def points(self, depth: np.ndarray) -> np.ndarray:
        """Depth (H, W) in metres -> points (H, W, 3) in metres, float32, in the left camera's axes."""
        height, width = depth.shape
        z = np.asarray(depth, np.float64)
        x = (np.arange(width) - self.cx)[None, :] * z / self.fx
        y = (np.arange(height) - self.cy)[:, None] * z / self.fy
        return np.stack([x, y, z], axis=-1).astype(np.float32)


def point_cloud(
    disparity: np.ndarray,
    image: np.ndarray,
    calibration: Calibration,
    *,
    z_far: float | None = None,
    valid: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The visible surface as coloured points.

    Args:
      disparity: (H, W) pixels of `image`.
      image: (H, W, 3) uint8 RGB, the left image.
      calibration: of images of this size.
      z_far: metres; points beyond are left out. None keeps all that are finite.
      valid: (H, W) bool, pixels to keep; None keeps all.

    Returns:
      points (P, 3) float32 in metres, colours (P, 3) uint8 RGB.

    Raises:
      ValueError: shapes that differ.
    """
    if image.shape != (*disparity.shape, 3) or (valid is not None and valid.shape != disparity.shape):
        shapes = disparity.shape, image.shape, None if valid is None else valid.shape
        raise ValueError("shapes of disparity, image and valid {}, {}, {}, expected (H, W), (H, W, 3), (H, W)".format(*shapes))
    depth = calibration.depth(disparity)
    keep = np.isfinite(depth) & (depth > 0) & (depth <= (np.inf if z_far is None else z_far))
    if valid is not None:
        keep &= valid
    return calibration.points(np.where(keep, depth, 0))[keep], image[keep]


def write_ply(path: str | os.PathLike, points: np.ndarray, colors: np.ndarray) -> None:
    """Writes points (P, 3) float and colours (P, 3) uint8 RGB as a binary little-endian PLY file, whole or not at all."""
    if points.shape != colors.shape or points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points of shape {points.shape} and colours of shape {colors.shape}, expected (P, 3) twice")
    floats, bytes_ = ("x", "y", "z"), ("red", "green", "blue")
    vertices = np.empty(len(points), [(name, "<f4") for name in floats] + [(name, "u1") for name in bytes_])
    for i in range(3):
        vertices[floats[i]], vertices[bytes_[i]] = points[:, i], colors[:, i]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property float {name}" for name in floats] + [f"property uchar {name}" for name in bytes_] + ["end_header"]
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write("".join(f"{line}\n" for line in header).encode("ascii"))
        file.write(vertices.tobytes())


def _read_text(path: str | os.PathLike) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}, expected a calibration file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file, expected a calibration file") from None


def _numbers(text: str, count: int, where: str) -> list[float]:
    words = re.split(r"[\s,]+", text.strip())
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != count or not np.all(np.isfinite(values)):
        raise InputError(f"{where} = {text.strip()!r}, expected {count} number{'s' * (count > 1)}")
    return values


def _camera_matrix(text: str, where: str) -> Sequence[float]:
    k = _numbers(text, 9, where)
    if [k[1], k[3], *k[6:]] != [0, 0, 0, 0, 1]:
        raise InputError(f"{where} = {text.strip()!r}, expected a camera matrix fx 0 cx 0 fy cy 0 0 1")
    return k[0], k[4], k[2], k[5]
