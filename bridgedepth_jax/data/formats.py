"""Reading and writing images and disparity in every format of the data sets (spec: data, table and "Submission files").

Disparity is float32 in pixels of the left image, x_right = x_left - d. Whatever a file marks as unknown (infinity, NaN, zero
depth) comes back as disparity 0 with `valid` False, so neither infinity nor NaN ever reaches a batch; a finite value outside
`valid` (an occluded pixel of Middlebury, say) is kept. H, W are the image's height and width.

A format decodes bytes, not paths: packed sets hold the very bytes of the original files and go through the same code.
To add one, write a `_decode_x(data, name, beside)` and a row of `FORMATS`.
"""

import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing

try:
    from imagecodecs import PngError, png_decode
except ImportError:  # the extra `fast` is not installed
    png_decode = None

Disparity = tuple[Float32[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]

MAX_DISPARITY = 512.0  # pfm: at or beyond this is "unknown" in the sets that use it
MAX_DISPARITY_MIDDLEBURY = 1000.0
VKITTI2_BASELINE_FOCAL = 725.0087 * 0.532725 * 100  # pixels x centimetres
VKITTI2_MIN_DISPARITY = 0.59  # sky is stored as 655.35 m
FALLING_THINGS_BASELINE = 6.0 * 100  # centimetres x the 1/100 cm of the depth files
TARTAN_AIR_BASELINE_FOCAL = 80.0  # pixels x metres

# The usual PNG: 8 bits, RGB or RGBA, not interlaced. The optional decoder reads it a quarter faster, to the same pixels.
_PNG_RGB = re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR.{8}\x08[\x02\x06]\x00\x00\x00", re.DOTALL)
_PNG_SCALE = re.compile(r"png(?::(0*[1-9]\d*(?:\.\d+)?|0*\.\d*[1-9]\d*|0+\.\d*[1-9]\d*))?")
_PFM_HEADER = re.compile(rb"(P[fF])\s+(\d+)\s+(\d+)\s+(\S+)[ \t]*\r?\n")


def read_image(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """RGB of an image file: first three channels, grey repeated to three. A missing or broken file is an InputError."""
    return decode_image(read_bytes(path), str(path))


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """RGB of an encoded image; `name` is for the error."""
    if png_decode is not None and _PNG_RGB.match(data):
        try:
            image = png_decode(data)
        except PngError as error:
            raise InputError(f"{name}: not a complete image file ({error})") from None
        return image if image.shape[2] == 3 else cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)
    # A camera's orientation tag is ignored: ground truth belongs to the pixels as stored.
    return cv2.cvtColor(_decode(data, name, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION), cv2.COLOR_BGR2RGB)


def decode_mask(data: bytes, name: str) -> UInt8[np.ndarray, "H W"]:
    """A mask image as stored, one channel."""
    return _decode(data, name, cv2.IMREAD_GRAYSCALE)


def decode_confidence(data: bytes, name: str) -> Float32[np.ndarray, "H W"]:
    """0..1 of a 16-bit image, or of an NPY file."""
    if data.startswith(b"\x93NUMPY"):
        values = _npy(data, name)
        if not (values.min(initial=0) >= 0 and values.max(initial=0) <= 1):
            raise InputError(f"{name}: {values.min()} to {values.max()}, expected confidence in 0..1")
        return values
    return _grey(data, name, np.uint16) / np.float32(65535)


def read_disparity(path: str | Path, format: str) -> Disparity:
    """Disparity (H, W) float32 in pixels and valid (H, W) bool of a ground-truth file.

    format: one of `FORMATS`: pfm, kitti, middlebury, vkitti2, sintel, falling_things, tartan_air, booster, crestereo,
    in_stereo2k, npy; or png and png:SCALE, a grey PNG of 8 or 16 bits that holds SCALE times the disparity (1 by default),
    0 where it is unknown. `path` is the disparity or depth file of that data set. Files that belong to it are found beside it:
    `_camera_settings.json` (falling_things), and where it is there `mask0nocc.png` (middlebury, for disp0GT.pfm): valid is then
    what both cameras see, as in training; whatever has a disparity counts as "all" in every evaluation.
    Raises InputError for an unknown format and for a missing, broken or unfit file.
    """
    path = Path(path)
    beside = {file.name: read_bytes(file) for file in find_beside(format, path)}
    return decode_disparity(read_bytes(path), format, str(path), beside)


def decode_disparity(data: bytes, format: str, name: str, beside: Mapping[str, bytes]) -> Disparity:
    """As `read_disparity`, from the bytes of the file `name` and of those `files_beside` lists (by file name)."""
    disparity, valid = _format(format).decode(data, name, beside)
    unknown = ~np.isfinite(disparity)
    if unknown.any():
        disparity = np.where(unknown, np.float32(0), disparity)
        valid = valid & ~unknown
    return np.ascontiguousarray(disparity, np.float32), valid


def files_beside(format: str, name: str) -> tuple[str, ...]:
    """Names of the files in the same folder that decoding a file called `name` needs."""
    return _format(format).beside(name)


def find_beside(format: str, path: Path) -> list[Path]:
    """The files of `files_beside` in the folder of `path`; those that a format can do without only where they are there."""
    files = [path.with_name(name) for name in files_beside(format, path.name)]
    return [file for file in files if file.name not in _format(format).optional or file.is_file()]


def read_bytes(path: str | Path) -> bytes:
    """A file's content; InputError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_csv(path: Path, words: str, needed: tuple[str, ...], known: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header; `words` name its columns.

    Raises InputError: no file, none of text, a column that is `needed` and not there or that is none of those `known`, no rows.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header, rows = list(reader.fieldnames or []), list(reader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected a CSV file with the columns {words}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as CSV ({reason}), expected the columns {words}") from None
    if not set(needed) <= set(header) <= set(known):
        raise InputError(f"{path}: columns {', '.join(map(str, header))}, expected {words}")
    if not rows:
        raise InputError(f"{path}: no rows")
    return rows


def read_pfm(path: str | Path) -> Float32[np.ndarray, "H W *C"]:
    """A portable float map, top row first: (H, W), or (H, W, 3) for a coloured one. Both byte orders; infinity is kept."""
    return decode_pfm(read_bytes(path), str(path))


def decode_pfm(data: bytes, name: str) -> Float32[np.ndarray, "H W *C"]:
    """The content of a PFM file, (H, W) or (H, W, 3), rows top down. InputError, with `name`, where it is not a whole one."""
    header = _PFM_HEADER.match(data)
    try:
        if header is None:
            raise ValueError
        kind, width, height, scale = header[1], int(header[2]), int(header[3]), float(header[4])
    except ValueError:
        raise InputError(f"{name}: not a PFM file (header {data[:24]!r})") from None
    shape = (height, width, 3) if kind == b"PF" else (height, width)
    if len(data) - header.end() < 4 * math.prod(shape):
        raise InputError(f"{name}: truncated, {len(data)} bytes where {header.end() + 4 * math.prod(shape)} were expected")
    values = np.frombuffer(data, "<f4" if scale < 0 else ">f4", math.prod(shape), header.end()).reshape(shape)
    return values[::-1].astype(np.float32, order="C")


def write_pfm(path: str | Path, values: Float32[np.ndarray, "H W *C"]) -> None:
    """Writes (H, W) or (H, W, 3) float32 as a little-endian PFM; `read_pfm` gives the same values back."""
    values = np.asarray(values)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise ValueError(f"a PFM holds (H, W) or (H, W, 3), not {values.shape}")
    kind = "Pf" if values.ndim == 2 else "PF"
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(f"{kind}\n{values.shape[1]} {values.shape[0]}\n-1.0\n".encode())
        file.write(np.ascontiguousarray(values[::-1], "<f4").tobytes())


def write_kitti_png(path: str | Path, disparity: Float32[np.ndarray, "H W"]) -> None:
    """Writes KITTI's uint16 PNG, round(256 d). Unknown, negative and NaN become 0, which KITTI reads as "no disparity"."""
    scaled = np.round(np.nan_to_num(np.asarray(disparity, np.float32), nan=0.0, posinf=0.0, neginf=0.0) * 256)
    write_png(path, np.clip(scaled, 0, 65535).astype(np.uint16))


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Writes (H, W) or RGB (H, W, 3), uint8 or uint16."""
    image = np.asarray(image)
    ok, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image)
    if not ok:
        raise ValueError(f"no PNG can hold {image.dtype} {image.shape}")
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def write_kitti_submission(folder: str | Path, dataset: str, name: str, disparity: Float32[np.ndarray, "H W"]) -> Path:
    """<dataset>_submission/<name of the left image>; returns the file."""
    path = Path(folder) / f"{dataset}_submission" / name
    write_kitti_png(path, disparity)
    return path


def write_eth3d_submission(folder: str | Path, scene: str, disparity: Float32[np.ndarray, "H W"], seconds: float) -> Path:
    """low_res_two_view/<scene>.pfm, clipped at 64 px, and <scene>.txt with the run time; returns the PFM."""
    path = Path(folder) / "low_res_two_view" / f"{scene}.pfm"
    write_pfm(path, np.minimum(disparity, np.float32(64)))
    with replacing(path.with_suffix(".txt")) as temporary:
        temporary.write_text(f"runtime {seconds:.4f}\n")
    return path


def write_middlebury_submission(
    folder: str | Path, split: str, scene: str, method: str, disparity: Float32[np.ndarray, "H W"], seconds: float
) -> Path:
    """<split>/<scene>/disp0<method>.pfm, clipped at 400 px, and time<method>.txt; split: testF ... trainingQ."""
    path = Path(folder) / split / scene / f"disp0{method}.pfm"
    write_pfm(path, np.minimum(disparity, np.float32(400)))
    with replacing(path.with_name(f"time{method}.txt")) as temporary:
        temporary.write_text(f"{seconds:.4f}\n")
    return path


def _decode(data: bytes, name: str, flags: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise InputError(f"{name}: not a complete image file ({len(data)} bytes)")
    return image


def _grey(data: bytes, name: str, dtype: type) -> np.ndarray:
    image = _decode(data, name, cv2.IMREAD_UNCHANGED)
    if image.ndim != 2 or image.dtype != dtype:
        raise InputError(f"{name}: {image.dtype} image of shape {image.shape}, expected one channel of {np.dtype(dtype)}")
    return image


def _npy(data: bytes, name: str) -> Float32[np.ndarray, "H W"]:
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{name}: not a whole NPY file ({error})") from None
    if not isinstance(values, np.ndarray) or values.ndim != 2:
        raise InputError(f"{name}: {getattr(values, 'shape', type(values))}, expected an array of two dimensions")
    return values.astype(np.float32)


def _pfm(data: bytes, name: str) -> Float32[np.ndarray, "H W"]:
    values = decode_pfm(data, name)
    if values.ndim != 2:
        raise InputError(f"{name}: a PFM of three channels, expected one")
    return values


def _per_depth(numerator: float, depth: np.ndarray) -> Disparity:
    """numerator / depth; no disparity where depth is not positive and finite."""
    known = (depth > 0) & np.isfinite(depth)
    disparity = np.zeros(depth.shape, np.float32)
    np.divide(numerator, depth, out=disparity, where=known, casting="unsafe")
    return disparity, known


def _decode_pfm_disparity(data: bytes, name: str, beside: Mapping[str, bytes]) -> Disparity:
    disparity = _pfm(data, name)
    return disparity, disparity < MAX_DISPARITY


def _decode_kitti(data: bytes, name: str, beside: Mapping[str, bytes]) -> Disparity:
    disparity = _grey(data, name, np.uint16) / np.float32(256)
    return disparity, disparity > 0


def _decode_middlebury(data: bytes, name: str, beside: Mapping[str, bytes]) -> Disparity:
    """disp0GT.pfm of MiddEval3, disp0.pfm of 2014 and 2021, 8-bit disp1.png of 2005 and 2006."""
    if name.endswith(".png"):
        disparity = _grey(data, name, np.uint8).astype(np.float32)
        return disparity, disparity > 0
    disparity = _pfm(data, name)
    if "mask0nocc.png" not in beside:
        return disparity, disparity < MAX_DISPARITY_MIDDLEBURY
    mask = decode_mask(beside["mask0nocc.png"], f"mask0nocc.png beside {name}")
    if mask.shape != disparity.shape:
        raise InputError(f"{name}: {disparity.shape}, but mask0nocc.png beside it is {mask.shape}")
    return disparity, mask == 255


def _decode_vkitti2(data: bytes, name: str, beside: Mapping[str, bytes]) -> Disparity:
    disparity, known = _per_depth(VKITTI2_BASELINE_FOCAL, _grey(data, name, np.uint16))
    return disparity, known & (disparity > VKITTI2_MIN_DISPARITY)


def _decode_sintel(data: bytes, name: str, beside: Mapping[str, bytes]) -> Disparity:
    image = _decode(data, name, cv2.IMREAD_UNCHANGED)
    if image.ndim != 3 or image.dtype != np.uint8:
        raise InputError(f"{name}: {image.dtype} image of shape {image.shape}, expected uint8 RGB")
    blue, green, red = (image[..., i].astype(np.float32) for i in range(3))
    disparity = red * 4 + green / 2**6 + blue / 2**14
    return disparity, disparity > 0


def _decode_falling_things(data: bytes, name: str, beside: Mapping[str, bytes]) -> Disparity:
    settings = beside["_camera_settings.json"]
    try:
        focal = float(json.loads(settings)["camera_settings"][0]["intrinsic_settings"]["fx"])
    except (ValueError, LookupError, TypeError):
        raise InputError(f"_camera_settings.json beside {name}: no camera_settings[0].intrinsic_settings.fx") from None
    disparity, known = _per_depth(focal * FALLING_THINGS_BASELINE, _grey(data, name, np.uint16))
    return disparity, known & (disparity > 0)


def _decode_tartan_air(data: bytes, name: str, beside: Mapping[str, bytes]) -> Disparity:
    return _per_depth(TARTAN_AIR_BASELINE_FOCAL, _npy(data, name))


def _decode_booster(data: bytes, name: str, beside: Mapping[str, bytes]) -> Disparity:
    disparity = _npy(data, name)
    return disparity, disparity > 0


def _decode_scaled_png(scale: int) -> "_Decode":
    def decode(data: bytes, name: str, beside: Mapping[str, bytes]) -> Disparity:
        disparity = _grey(data, name, np.uint16) / np.float32(scale)
        return disparity, disparity > 0

    return decode


def _decode_npy(data: bytes, name: str, beside: Mapping[str, bytes]) -> Disparity:
    disparity = _npy(data, name)
    known = np.isfinite(disparity) & (disparity > 0)
    return np.where(known, disparity, np.float32(0)), known


def _decode_any_png(scale: float) -> "_Decode":
    def decode(data: bytes, name: str, beside: Mapping[str, bytes]) -> Disparity:
        image = _decode(data, name, cv2.IMREAD_UNCHANGED)
        if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
            raise InputError(f"{name}: {image.dtype} image of shape {image.shape}, expected one channel of uint8 or uint16")
        return image / np.float32(scale), image > 0

    return decode


_Decode = Callable[[bytes, str, Mapping[str, bytes]], Disparity]


@dataclasses.dataclass(frozen=True)
class Format:
    """How a disparity file is decoded, and the names of the files beside it that this needs."""

    decode: _Decode
    beside: Callable[[str], tuple[str, ...]] = lambda name: ()
    optional: tuple[str, ...] = ()  # of the files beside


FORMATS: dict[str, Format] = {
    "pfm": Format(_decode_pfm_disparity),
    "kitti": Format(_decode_kitti),
    "middlebury": Format(
        _decode_middlebury, lambda name: ("mask0nocc.png",) if name == "disp0GT.pfm" else (), ("mask0nocc.png",)
    ),
    "vkitti2": Format(_decode_vkitti2),
    "sintel": Format(_decode_sintel),
    "falling_things": Format(_decode_falling_things, lambda name: ("_camera_settings.json",)),
    "tartan_air": Format(_decode_tartan_air),
    "booster": Format(_decode_booster),
    "crestereo": Format(_decode_scaled_png(32)),
    "in_stereo2k": Format(_decode_scaled_png(100)),
    "npy": Format(_decode_npy),
}

EXPECTED = f"{', '.join(FORMATS)}, png, or png:SCALE such as png:16"


def known(format: str) -> bool:
    """Whether it is a row of `FORMATS`, png, or png:SCALE."""
    return format in FORMATS or _PNG_SCALE.fullmatch(format) is not None


def _format(name: str) -> Format:
    if name in FORMATS:
        return FORMATS[name]
    if (scaled := _PNG_SCALE.fullmatch(name)) is not None:
        return Format(_decode_any_png(float(scaled[1] or 1)))
    raise InputError(f"unknown disparity format {name!r}, expected one of {EXPECTED}")
