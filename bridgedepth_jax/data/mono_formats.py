"""Reading depth of single images in every format of the data sets (spec `mono-training.md` sections 2, 5 and 6).

A target is inverse depth in 1/m, float32, with a mask of what is valid: depth z > 0 becomes 1/z, sky 0 and valid; zero,
negative, NaN and infinity without sky are not valid and 0. Two formats are inverse depth up to scale and shift: `relative16`,
what `pseudo_label` writes, and `inverse_npy`.

Letters: H W the map's sides.
"""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from bridgedepth_jax.data.formats import decode_pfm
from bridgedepth_jax.errors import InputError

VKITTI2_SKY = 65535  # cm
TARTAN_AIR_SKY = 1000.0  # m, beyond
HYPERSIM = (511.5, 383.5, 886.81)  # centre and focal length, pixels, of 1024 x 768
SINTEL_TAG = 202021.25
ETH3D_SIZE = (4032, 6048)  # of its raw files, height and width

_Map = Float32[np.ndarray, "H W"]


class Target(NamedTuple):
    """Inverse depth and where it is valid."""

    inverse: _Map
    valid: Bool[np.ndarray, "H W"]


class Decoded(NamedTuple):
    """What a file holds: metres, or inverse depth if it says so; and which pixels are sky."""

    values: np.ndarray
    sky: np.ndarray | None = None


def _png16(data: bytes, name: str) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None or image.ndim != 2 or image.dtype != np.uint16:
        what = "no image" if image is None else f"{image.dtype} of shape {image.shape}"
        raise InputError(f"{name}: {what}, expected one channel of uint16")
    return image


def _png(unit: float) -> "Callable[[bytes, str], Decoded]":
    return lambda data, name: Decoded(_png16(data, name).astype(np.float64) * unit)


def _vkitti2(data: bytes, name: str) -> Decoded:
    image = _png16(data, name)
    return Decoded(image.astype(np.float64) / 100, image == VKITTI2_SKY)


def _npy_map(data: bytes, name: str) -> np.ndarray:
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{name}: not a whole NPY file ({' '.join(str(error).split())[:60]})") from None
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "fiu":
        raise InputError(f"{name}: {getattr(values, 'shape', type(values))}, expected numbers in two dimensions")
    return values.astype(np.float64)


def _tartan_air(data: bytes, name: str) -> Decoded:
    depth = _npy_map(data, name)
    return Decoded(depth, depth > TARTAN_AIR_SKY)


def _pfm(data: bytes, name: str) -> Decoded:
    values = decode_pfm(data, name)
    if values.ndim != 2:
        raise InputError(f"{name}: a PFM of three channels, expected one")
    return Decoded(values.astype(np.float64))


def _dpt(data: bytes, name: str) -> Decoded:
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(SINTEL_TAG):
        raise InputError(f"{name}: no depth file of Sintel, expected the tag {SINTEL_TAG} at its beginning")
    width, height = (int(n) for n in np.frombuffer(data, "<i4", 2, 4))
    if min(width, height) < 1 or len(data) < 12 + 4 * width * height:
        raise InputError(f"{name}: {len(data)} bytes, expected {12 + 4 * max(width, 0) * max(height, 0)} of {width}x{height}")
    return Decoded(np.frombuffer(data, "<f4", width * height, 12).reshape(height, width).astype(np.float64))


def _eth3d(data: bytes, name: str) -> Decoded:
    height, width = ETH3D_SIZE
    if len(data) != 4 * height * width:
        raise InputError(f"{name}: {len(data)} bytes, expected {4 * height * width} of {width}x{height} float32")
    return Decoded(np.frombuffer(data, "<f4").reshape(height, width).astype(np.float64))


def hypersim_depth(distance: np.ndarray) -> np.ndarray:
    """Distance along the ray to depth along the axis."""
    x0, y0, f = HYPERSIM
    y, x = np.mgrid[: distance.shape[0], : distance.shape[1]]
    return distance * f / np.sqrt((x - x0) ** 2 + (y - y0) ** 2 + f**2)


def _hypersim(data: bytes, name: str) -> Decoded:
    try:
        import h5py  # type: ignore[import-not-found]
    except ImportError as error:
        raise InputError(f"{name}: h5py is not installed, pip install 'bridgedepth-jax[hypersim]'") from error
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            distance = np.asarray(file["dataset"], np.float64)  # type: ignore[call-overload]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{name}: no whole HDF5 file with `dataset` ({' '.join(str(error).split())[:60]})") from None
    return Decoded(hypersim_depth(distance))


@dataclasses.dataclass(frozen=True)
class DepthFormat:
    """How a depth file is decoded, and what its values are."""

    decode: Callable[[bytes, str], Decoded]
    inverse: bool = False  # inverse depth up to scale and shift, every finite value valid
    pseudo: bool = False  # a network's guess, at the network's size


DEPTH_FORMATS: dict[str, DepthFormat] = {
    "png_mm": DepthFormat(_png(1e-3)),
    "png_cm": DepthFormat(_png(1e-2)),
    "png_256": DepthFormat(_png(1 / 256)),  # KITTI
    "npy": DepthFormat(lambda data, name: Decoded(_npy_map(data, name))),
    "pfm": DepthFormat(_pfm),  # BlendedMVS
    "dpt": DepthFormat(_dpt),  # Sintel
    "eth3d": DepthFormat(_eth3d),
    "hypersim": DepthFormat(_hypersim),
    "vkitti2": DepthFormat(_vkitti2),
    "tartan_air": DepthFormat(_tartan_air),
    "inverse_npy": DepthFormat(lambda data, name: Decoded(_npy_map(data, name)), inverse=True),
    "relative16": DepthFormat(_png(1 / 65535), inverse=True, pseudo=True),
}


def find_depth_format(name: str, where: str) -> DepthFormat:
    """A row of `DEPTH_FORMATS`. InputError, with `where`: there is none."""
    if name not in DEPTH_FORMATS:
        raise InputError(f"{where}: format {name!r}, expected one of {', '.join(DEPTH_FORMATS)}")
    return DEPTH_FORMATS[name]


def decode_depth(data: bytes, format: str, name: str) -> _Map:
    """Metres as a file has them, float32: 0, infinity or NaN where it knows none. For evaluation."""
    return find_depth_format(format, name).decode(data, name).values.astype(np.float32)


def decode_target(
    data: bytes, format: str, name: str, *, mask: np.ndarray | None = None, sky: np.ndarray | None = None
) -> Target:
    """What a network learns of a file; `mask` and `sky` (bool) come from files beside it."""
    row = find_depth_format(format, name)
    read = row.decode(data, name)
    for role, array in (("mask", mask), ("sky", sky)):
        if array is not None and array.shape != read.values.shape:
            raise InputError(f"{name}: depth {read.values.shape}, but its {role} is {array.shape}")
    if row.inverse:
        valid, inverse = np.isfinite(read.values), read.values
    else:
        far = np.zeros(read.values.shape, bool)
        for given in (read.sky, sky):
            far = far if given is None else far | given
        with np.errstate(invalid="ignore"):
            known = np.isfinite(read.values) & (read.values > 0) & ~far
        inverse = np.zeros(read.values.shape)
        np.divide(1, read.values, out=inverse, where=known)
        valid = known | far
    valid = valid if mask is None else valid & mask
    return Target(np.where(valid, inverse, 0).astype(np.float32), valid)


def decode_flags(data: bytes, name: str) -> Bool[np.ndarray, "H W"]:
    """A mask image, nonzero is set."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None or image.ndim != 2:
        raise InputError(f"{name}: not a complete image of one channel")
    return image > 0


def write_dpt(path: Path, depth: _Map) -> None:
    """A depth file as Sintel has them."""
    height, width = depth.shape
    head = np.float32(SINTEL_TAG).tobytes() + np.array([width, height], "<i4").tobytes()
    path.write_bytes(head + np.ascontiguousarray(depth, "<f4").tobytes())
