"""Calibration files: of data sets, and of cameras as other tools write them.

Two tables: `READERS` give the camera of rectified pairs, `RIGS` two cameras as they stand (`rig.Rig`), which `bridgedepth
rectify` makes rectified pairs of. A format that holds a rig gives the camera that these pairs have.
"""

import configparser
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from bridgedepth_jax.data.rig import Rig
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.geometry import Calibration

_CAMERAS = (("P_rect_02", "P_rect_03"), ("P2", "P3"))  # left and right colour camera, by year
_OPENCV = {  # names that tools give to the same matrix
    "K1": ("K1", "M1", "cameraMatrix1", "camera_matrix_1", "left_camera_matrix"),
    "D1": ("D1", "distCoeffs1", "dist_coeffs_1", "left_distortion_coefficients"),
    "K2": ("K2", "M2", "cameraMatrix2", "camera_matrix_2", "right_camera_matrix"),
    "D2": ("D2", "distCoeffs2", "dist_coeffs_2", "right_distortion_coefficients"),
    "R": ("R", "rotation", "rotation_matrix"),
    "T": ("T", "translation", "translation_vector"),
    "P1": ("P1", "projection_matrix_1"),
    "P2": ("P2", "projection_matrix_2"),
    "Q": ("Q",),
}
_SIZES = (("image_width", "image_height"), ("width", "height"), ("imageWidth", "imageHeight"))
_ZED = {"2K": (2208, 1242), "FHD": (1920, 1080), "HD": (1280, 720), "VGA": (672, 376)}  # its modes: crops, not resized
SUFFIXES = (".txt", ".yaml", ".yml", ".json", ".xml", ".conf")


def kitti_calibration(path: Path) -> Calibration:
    """Of KITTI's rectified colour cameras, from calib/NNNNNN.txt (2012) or calib_cam_to_cam/NNNNNN.txt (2015).

    From the 3x4 projection matrices of the file (pixels and metres). InputError where it has none of the names.
    """
    try:
        lines = [line.partition(":") for line in path.read_text().splitlines()]
        entries = {name.strip(): values.split() for name, _, values in lines}
        names = next(names for names in _CAMERAS if set(names) <= set(entries))
        left, right = (np.array(entries[name], np.float64).reshape(3, 4) for name in names)
    except (OSError, UnicodeDecodeError, StopIteration, ValueError) as error:
        expected = " or ".join(" and ".join(names) for names in _CAMERAS)
        raise InputError(f"{path}: no calibration of KITTI ({error or type(error).__name__}), expected {expected}") from None
    return _of_projections(path, left, right)


def kitti_rig(path: Path, size: tuple[int, int] | None = None) -> Rig:
    """The colour cameras of calib_cam_to_cam.txt before rectification: K, D, R, T and S of cameras 02 and 03."""
    try:
        lines = [line.partition(":") for line in path.read_text().splitlines()]
        entries = {name.strip(): values for name, _, values in lines}
        k, d, r, t, s = (
            [np.array(entries[f"{name}_{camera}"].split(), np.float64) for camera in ("02", "03")] for name in "KDRTS"
        )
    except (OSError, UnicodeDecodeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: no raw calibration of KITTI ({error}), expected K_02, D_02, R_02, T_02 and S_02") from None
    turns = [part.reshape(3, 3) for part in r]  # of camera 0 to each
    rotation = turns[1] @ turns[0].T
    given = round(float(s[0][0])), round(float(s[0][1]))
    return _rig(path, (k[0], d[0], k[1], d[1]), rotation, t[1] - rotation @ t[0], given)


def ros_calibration(path: Path) -> Calibration:
    """From the camera_info YAML of the right camera, or of the left one with the right one's beside it.

    The projection matrices hold it (`P[0, 3]` of the right one is -fx * baseline).
    """
    entries = [(_ros(file), file) for file in _ros_files(path)]
    first, second = (_ros_matrix(entry, file, "projection_matrix", (3, 4)) for entry, file in entries)
    return _of_projections(path, first, second, _ros_size(entries[0][0], path))


def ros_rig(path: Path, size: tuple[int, int] | None = None) -> Rig:
    """As `ros_calibration`: matrices, distortions, and the rotation that both rectifications leave between the cameras."""
    files = _ros_files(path)
    entries = [_ros(file) for file in files]
    parts = []
    for entry, file in zip(entries, files, strict=True):
        distortion = np.array(entry.get("distortion_coefficients", {}).get("data", []), np.float64)
        parts += [_ros_matrix(entry, file, "camera_matrix", (3, 3)), distortion]
    turns = [_ros_matrix(entry, file, "rectification_matrix", (3, 3)) for entry, file in zip(entries, files, strict=True)]
    projection = _ros_matrix(entries[1], files[1], "projection_matrix", (3, 4))
    rotation = turns[1].T @ turns[0]
    translation = turns[1].T @ np.array([projection[0, 3] / projection[0, 0], projection[1, 3] / projection[1, 1], 0])
    model = str(entries[0].get("distortion_model", "plumb_bob"))
    return _rig(path, parts, rotation, translation, _ros_size(entries[0], path), model in ("equidistant", "fisheye"))


def opencv_calibration(path: Path) -> Calibration:
    """From YAML, JSON or XML of OpenCV's FileStorage: P1 and P2, or Q, or a rig (K1, D1, K2, D2, R, T)."""
    found, size = _opencv(path)
    if "P1" in found and "P2" in found:
        return _of_projections(path, found["P1"].reshape(3, 4), found["P2"].reshape(3, 4), size)
    if "Q" in found:
        q = found["Q"].reshape(4, 4)
        if not (q[3, 2] and q[2, 3]):
            raise InputError(f"{path}: Q without a focal length or a baseline")
        baseline, doffs = _metres(abs(1 / q[3, 2])), float(q[3, 3] / q[3, 2])
        return _named(path, float(q[2, 3]), float(q[2, 3]), float(-q[0, 3]), float(-q[1, 3]), baseline, doffs, size)
    return opencv_rig(path).rectification().calibration


def opencv_rig(path: Path, size: tuple[int, int] | None = None) -> Rig:
    """From K1, D1, K2, D2, R and T, by any of the names that tools give them; T in metres, or in millimetres if above 10."""
    found, stated = _opencv(path)
    missing = [name for name in ("K1", "D1", "K2", "D2", "R", "T") if name not in found]
    if missing:
        raise InputError(f"{path}: no {', '.join(missing)}, expected the calibration of two cameras with K1, D1, K2, D2, R, T")
    size = stated or size
    if size is None:
        raise InputError(f"{path}: no image_width and image_height, expected the size of the images that it belongs to")
    translation = found["T"].ravel()
    length = float(np.linalg.norm(translation))
    translation = translation * (_metres(length) / length if length else 1)
    fisheye = found.get("model") == "fisheye"
    return _rig(path, [found[name] for name in ("K1", "D1", "K2", "D2")], found["R"], translation, size, fisheye)


def zed_calibration(path: Path) -> Calibration:
    """The camera of the pairs that `rectify` makes of HD images (1280x720); other modes have other numbers."""
    return zed_rig(path, _ZED["HD"]).rectification().calibration


def zed_rig(path: Path, size: tuple[int, int] | None = None) -> Rig:
    """From a factory calibration as ZED cameras have it: sections LEFT_CAM_HD, RIGHT_CAM_HD, STEREO, one a mode of `size`."""
    mode = next((mode for mode, known in _ZED.items() if known == (size or _ZED["HD"])), None)
    if mode is None:
        raise InputError(f"{path}: images of {size}, expected one of {', '.join(f'{w}x{h}' for w, h in _ZED.values())}")
    parser = configparser.ConfigParser()
    try:
        parser.read_string(path.read_text())
        parts = []
        for side in ("LEFT", "RIGHT"):
            camera = parser[f"{side}_CAM_{mode}"]
            fx, fy, cx, cy = (camera.getfloat(name) for name in ("fx", "fy", "cx", "cy"))
            distortion = [camera.getfloat(name, fallback=0.0) for name in ("k1", "k2", "p1", "p2", "k3")]
            parts += [np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64), np.array(distortion)]
        stereo = parser["STEREO"]
        turn = np.array([stereo.getfloat(f"{name}_{mode}", fallback=0.0) for name in ("RX", "CV", "RZ")])
        move = [stereo.getfloat("Baseline"), stereo.getfloat("TY", fallback=0.0), stereo.getfloat("TZ", fallback=0.0)]
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}, expected a calibration with LEFT_CAM_{mode}, RIGHT_CAM_{mode} and STEREO") from None
    rotation = cv2.Rodrigues(turn)[0]  # of the right camera in the left one's axes
    position = np.array(move) / 1000
    return _rig(path, parts, rotation.T, -rotation.T @ position, _ZED[mode])


READERS: dict[str, Callable[[Path], Calibration]] = {
    "kitti": kitti_calibration,
    "middlebury": Calibration.from_middlebury,
    "ros": ros_calibration,
    "opencv": opencv_calibration,
    "zed": zed_calibration,
}
RIGS: dict[str, Callable[[Path, tuple[int, int] | None], Rig]] = {
    "kitti": kitti_rig,
    "ros": ros_rig,
    "opencv": opencv_rig,
    "zed": zed_rig,
}
# What tells a format, in the text of a file; the first that is there.
_SIGNS = (
    ("opencv", r"opencv-matrix"),
    ("ros", r"(?m)^\s*(projection_matrix|camera_matrix)\s*:"),
    ("zed", r"(?mi)^\s*\[LEFT_CAM_"),
    ("kitti", r"(?m)^(P_rect_0[23]|P[23]|K_02)\s*:"),
    ("middlebury", r"(?m)^\s*(cam0|cam1|doffs|baseline)\s*="),
)


def format_of(path: Path) -> str:
    """Which of the formats a calibration file has, by what is in it. InputError: none of them, or no file."""
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}, expected a calibration file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file, expected a calibration file") from None
    found = next((name for name, sign in _SIGNS if re.search(sign, text)), None)
    if found is None:
        known = "cam0= (Middlebury), P_rect_02: (KITTI), camera_matrix: (ROS), opencv-matrix (OpenCV), [LEFT_CAM_HD] (ZED)"
        numbers = not re.search(r"[^\d\s.,;eE+-]", text) and text.strip()
        hint = "; a file of K and the baseline is one of --intrinsics" if numbers else ""
        raise InputError(f"{path}: no calibration of a known form, expected one with {known}{hint}")
    return found


def read_calibration_file(path: Path) -> Calibration:
    """The camera of rectified pairs from a file of any format. InputError: it cannot be read."""
    return READERS[format_of(path)](path)


def read_rig(path: Path, size: tuple[int, int] | None = None) -> Rig:
    """Two cameras as they stand, from a file of any format that holds them; `size` of the images where the file says none."""
    name = format_of(path)
    if name not in RIGS:
        raise InputError(
            f"{path}: a calibration of {name}, whose images are rectified already, expected one of {', '.join(RIGS)}"
        )
    return RIGS[name](path, size)


def _of_projections(path: Path, left: np.ndarray, right: np.ndarray, size: tuple[int, int] | None = None) -> Calibration:
    """From two rectified projection matrices (3, 4)."""
    fx = float(left[0, 0])
    baseline = _metres(float(left[0, 3] - right[0, 3]) / fx) if fx else 0.0
    fy, cx, cy, doffs = left[1, 1], left[0, 2], left[1, 2], right[0, 2] - left[0, 2]
    return _named(path, fx, float(fy), float(cx), float(cy), baseline, float(doffs), size)


def _named(path: Path, *values: Any) -> Calibration:
    try:
        return Calibration(*values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _rig(path: Path, cameras: Sequence[Any], rotation: Any, translation: Any, size: Any, fisheye: bool = False) -> Rig:
    """`cameras`: matrix and distortion of the left one, then of the right one."""
    k1, d1, k2, d2 = cameras
    try:
        matrices = k1.reshape(3, 3), d1.ravel(), k2.reshape(3, 3), d2.ravel(), rotation.reshape(3, 3)
        return Rig(*matrices, translation, size, fisheye)
    except (InputError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None


def _metres(length: float) -> float:
    """Of a baseline in metres or millimetres: no rig has ten metres, and none ten millimetres written as metres above 10."""
    return length / 1000 if abs(length) > 10 else length


def _opencv(path: Path) -> tuple[dict[str, Any], tuple[int, int] | None]:
    """Matrices by our names, and the size where it is stated."""
    try:
        file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
        opened = file.isOpened()
    except cv2.error as error:
        raise InputError(f"{path}: cannot be read by OpenCV ({error.err})") from None
    if not opened:
        raise InputError(f"{path}: cannot be read, expected a YAML, JSON or XML file of OpenCV")
    found: dict[str, Any] = {}
    for name, spellings in _OPENCV.items():
        for spelling in spellings:
            value = file.getNode(spelling).mat()
            if value is not None:
                found[name] = np.asarray(value, np.float64)
                break
    model = file.getNode("model")
    if model.isString():
        found["model"] = model.string()
    size = None
    for names in _SIZES:
        nodes = [file.getNode(name) for name in names]
        if all(node.isInt() or node.isReal() for node in nodes):
            size = int(nodes[0].real()), int(nodes[1].real())
            break
    file.release()
    return found, size


def _ros_files(path: Path) -> tuple[Path, Path]:
    """The files of the left and of the right camera, from either."""
    name = path.name
    for this, other in (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT")):
        if other in name:
            return path.with_name(name.replace(other, this)), path
        if this in name:
            return path, path.with_name(name.replace(this, other))
    raise InputError(f"{path}: one camera of two, expected `left` or `right` in the name, and the other file beside it")


def _ros(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"{path}: {getattr(error, 'strerror', None) or 'no YAML'}, expected camera_info of one camera"
        ) from None
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: no mapping, expected camera_info of one camera")
    return found


def _ros_matrix(entry: Mapping[str, Any], path: Path, name: str, shape: Sequence[int]) -> np.ndarray:
    try:
        return np.array(entry[name]["data"], np.float64).reshape(shape)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: no {name} of {shape[0]}x{shape[1]} numbers, expected camera_info of one camera") from None


def _ros_size(entry: Mapping[str, Any], path: Path) -> tuple[int, int]:
    try:
        return int(entry["image_width"]), int(entry["image_height"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: no image_width and image_height, expected camera_info of one camera") from None
