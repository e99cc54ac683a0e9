"""Single images with depth: where the files of each set lie, and how a training sample is made of one.

Spec `mono-training.md` sections 2 and 5. A set is a row of `MONO_DATASETS`; `mono:FILE.csv` is a list of the user's own images;
`synthetic` is the left view of the rendered pairs, its disparity as inverse depth. Letters: H W an image's sides, h w
the crop's.
"""

import dataclasses
import glob
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np

from bridgedepth_jax.data.formats import decode_image, read_bytes, read_csv
from bridgedepth_jax.data.mono_formats import decode_depth, decode_flags, decode_target, find_depth_format
from bridgedepth_jax.data.sources import SyntheticOptions, SyntheticSource
from bridgedepth_jax.data.table import Swap
from bridgedepth_jax.errors import InputError, unknown


class MonoSample(TypedDict):
    """One image with its target. H, W are the same for all arrays."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    inverse: np.ndarray  # (H, W) float32, 1/m, or up to scale and shift; 0 where not valid, and at sky
    valid: np.ndarray  # (H, W) bool
    pseudo: bool  # a network's guess
    name: str


@dataclasses.dataclass(frozen=True)
class MonoFile:
    """The files of one image."""

    dataset: str
    name: str
    image: Path
    depth: Path
    format: str
    mask: Path | None = None  # nonzero is valid
    sky: Path | None = None  # nonzero is sky


@dataclasses.dataclass(frozen=True)
class MonoDataset:
    """A row: a glob of images under the data directory, and how to get the depth file from one."""

    image: str
    depth: Swap
    format: str
    origin: str
    images: int | None = None
    sparse: bool = False  # images without depth are no error


_VKITTI = "https://europe.naverlabs.com/proxy-virtual-worlds-vkitti-2/ (VKITTI2; rgb and depth)"
TRAINING: dict[str, MonoDataset] = {
    "hypersim": MonoDataset(
        "Hypersim/*/images/scene_cam_*_final_preview/frame.*.tonemap.jpg",
        (("_final_preview/", "_geometry_hdf5/"), (r"\.tonemap\.jpg$", ".depth_meters.hdf5")),
        "hypersim",
        "https://github.com/apple/ml-hypersim (Hypersim; final_preview and geometry_hdf5)",
    ),
    "vkitti2": MonoDataset(
        "VKITTI2/Scene*/*/frames/rgb/Camera_*/rgb_*.jpg",
        (("/rgb/", "/depth/"), (r"/rgb_(?=[^/]*$)", "/depth_"), (r"\.jpg$", ".png")),
        "vkitti2",
        _VKITTI,
        42520,
    ),
    "tartan_air": MonoDataset(
        "TartanAir/*/*/*/image_left/*_left.png",
        (("/image_left/", "/depth_left/"), (r"_left\.png$", "_left_depth.npy")),
        "tartan_air",
        "https://theairlab.org/tartanair-dataset/ (TartanAir; left images and depth)",
    ),
    "blendedmvs": MonoDataset(
        "BlendedMVS/*/blended_images/[0-9]*[0-9].jpg",
        (("/blended_images/", "/rendered_depth_maps/"), (r"\.jpg$", ".pfm")),
        "pfm",
        "https://github.com/YoYo000/BlendedMVS (BlendedMVS; blended_images and rendered_depth_maps)",
    ),
}
EVALUATION: dict[str, MonoDataset] = {
    "nyuv2": MonoDataset(
        "NYUv2/test/*/rgb_*.png",
        ((r"/rgb_(?=[^/]*$)", "/depth_"),),
        "png_mm",
        "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html (NYUv2/test/<scene>/rgb_NNNN.png, depth_NNNN.png: raw)",
        654,
    ),
    "nyuv2_filled": MonoDataset(
        "NYUv2/test/*/rgb_*.png",
        ((r"/rgb_(?=[^/]*$)", "/filled_"),),
        "png_mm",
        "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html (NYUv2/test/<scene>/rgb_NNNN.png, filled_NNNN.png)",
        654,
    ),
    "kitti_eigen": MonoDataset(
        "KITTI_Eigen/*/*/image_02/data/*.png",
        ((r"/[^/]+/([^/]+)/image_02/data/", r"/\1/proj_depth/groundtruth/image_02/"),),
        "png_256",
        "https://www.cvlibs.net/datasets/kitti/eval_depth.php (KITTI_Eigen/<date>/<drive>/image_02/data, <drive>/proj_depth)",
        652,
        sparse=True,
    ),
    "scannet": MonoDataset(
        "ScanNet/*/color/*.jpg",
        (("/color/", "/depth/"), (r"\.jpg$", ".png")),
        "png_mm",
        "http://www.scan-net.org (ScanNet/<scene>/color, depth)",
        1400,
    ),
    "eth3d_depth": MonoDataset(
        "ETH3D_depth/*/images/dslr_images/*.JPG",
        (("/images/", "/ground_truth_depth/"),),
        "eth3d",
        "https://www.eth3d.net/datasets (high-res multi-view; ETH3D_depth/<scene>/images, ground_truth_depth)",
        454,
    ),
    "sintel_depth": MonoDataset(
        "Sintel_depth/training/final/*/frame_*.png",
        (("/final/", "/depth/"), (r"\.png$", ".dpt")),
        "dpt",
        "http://sintel.is.tue.mpg.de/depth (Sintel_depth/training/final, depth)",
        1064,
    ),
}
MONO_DATASETS = TRAINING | EVALUATION
DA2K = "DA-2K/annotations.json"
DA2K_ORIGIN = "https://huggingface.co/datasets/depth-anything/DA-2K (DA-2K/annotations.json, images)"


def find_images(name: str, root: str | Path) -> tuple[MonoFile, ...]:
    """All images of a set under the data directory, sorted by path.

    InputError: unknown name, nothing found (says what was looked for and where it comes from), depth missing.
    """
    root = Path(root)
    if name.startswith("mono:"):
        return _listed(name, root / name.removeprefix("mono:"))
    if name not in MONO_DATASETS:
        raise unknown("monocular data set", name, [*MONO_DATASETS, "synthetic", "mono:FILE.csv"])
    row = MONO_DATASETS[name]
    found, missing = [], []
    for image in sorted(glob.glob(row.image, root_dir=root)):
        depth = image
        for pattern, text in row.depth:
            depth = re.sub(pattern, text, depth)
        if (root / depth).is_file():
            found.append(MonoFile(name, image, root / image, root / depth, row.format))
        elif not row.sparse:
            missing.append(f"{root / depth} is missing")
    if missing:
        raise InputError(f"{name}: {'; '.join(missing[:3])}{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}")
    if not found:
        raise InputError(f"{name}: no file matches {root / row.image}; it comes from {row.origin}")
    return tuple(found)


COLUMNS = ("image", "depth", "format", "mask", "sky")


def _listed(name: str, table: Path) -> tuple[MonoFile, ...]:
    """Images of a CSV file with the columns image, depth, format [, mask] [, sky]; paths are relative to its folder."""
    rows = read_csv(table, "image, depth, format [, mask] [, sky]", ("image", "depth", "format"), COLUMNS)
    return tuple(_row(name, table, line, row) for line, row in enumerate(rows, 2))


def _row(name: str, table: Path, line: int, row: Mapping[str, str | None]) -> MonoFile:
    where = f"{table}, line {line}"
    cells = {key: (row.get(key) or "").strip() for key in COLUMNS}
    find_depth_format(cells["format"], where)
    paths = {key: table.parent / cells[key] for key in ("image", "depth", "mask", "sky") if cells[key]}
    for key in ("image", "depth"):
        if key not in paths:
            raise InputError(f"{where}: {key} is empty")
    for key, path in paths.items():
        if not path.is_file():
            raise InputError(f"{where}: {key} {path} is missing")
    return MonoFile(name, cells["image"], paths["image"], paths["depth"], cells["format"], paths.get("mask"), paths.get("sky"))


def read_mono(file: MonoFile) -> MonoSample:
    """An image with its target. InputError: a broken file, no valid pixel, or an image and depth of different size.

    A pseudo-label has the size that its network saw, and the image comes at that size.
    """
    image = decode_image(read_bytes(file.image), str(file.image))
    flags = {
        role: decode_flags(read_bytes(path), str(path))
        for role, path in (("mask", file.mask), ("sky", file.sky))
        if path is not None
    }
    target = decode_target(read_bytes(file.depth), file.format, str(file.depth), **flags)
    pseudo = find_depth_format(file.format, str(file.depth)).pseudo
    size = target.inverse.shape
    if size != image.shape[:2]:
        if not pseudo:
            raise InputError(f"{file.depth}: depth {size}, but the image {file.image} is {image.shape[:2]}")
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
    if not target.valid.any():
        raise InputError(f"{file.depth}: no valid pixel")
    return MonoSample(image=image, inverse=target.inverse, valid=target.valid, pseudo=pseudo, name=file.name)


def read_truth(file: MonoFile) -> tuple[np.ndarray, np.ndarray]:
    """(image, metres) for evaluation: depth as the file has it, 0, infinity or NaN where it knows none."""
    image = decode_image(read_bytes(file.image), str(file.image))
    return image, decode_depth(read_bytes(file.depth), file.format, str(file.depth))


class MonoSource(Sequence[MonoSample]):
    """Samples read from files as they were downloaded."""

    def __init__(self, files: Sequence[MonoFile], root: str | Path) -> None:
        self.files = tuple(files)
        lines = [[file.name, file.format, *(path.stat().st_size for path in (file.image, file.depth))] for file in self.files]
        self.fingerprint = hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> MonoSample:  # type: ignore[override]
        return read_mono(self.files[index])


class SyntheticMono(Sequence[MonoSample]):
    """Left views of rendered pairs: disparity is inverse depth up to its scale."""

    def __init__(self, options: SyntheticOptions) -> None:
        self._pairs = SyntheticSource(options)
        self.fingerprint = self._pairs.fingerprint

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> MonoSample:  # type: ignore[override]
        pair = self._pairs[index]
        valid = pair["valid"]
        inverse = np.where(valid, pair["disparity"], 0).astype(np.float32)
        return MonoSample(image=pair["left"], inverse=inverse, valid=valid, pseudo=False, name=pair["name"])


def open_mono(name: str, root: str | Path, synthetic: SyntheticOptions | None = None) -> Sequence[MonoSample]:
    """The set `name` under `root`; sources have a `fingerprint`. InputError where files are missing."""
    if name == "synthetic":
        options = synthetic or SyntheticOptions()
        return SyntheticMono(dataclasses.replace(options, height=options.height or 384, width=options.width or 640))
    return MonoSource(find_images(name, root), root)


@dataclasses.dataclass(frozen=True)
class MonoAugment:
    """What is done to a training image. Colours and blur are for pseudo-labelled images alone, as in Depth Anything."""

    flip: float = 0.5  # probability
    colours: bool = True  # jitter and blur of pseudo-labelled images
    jitter: float = 0.8  # probability
    strength: float = 0.5  # of brightness, contrast, saturation: factors 1 plus or minus
    hue: float = 0.25  # turns, either way
    blur: float = 0.5  # probability
    sigma: tuple[float, float] = (0.1, 2.0)  # pixels

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"data.mono.{name} = {getattr(self, name)}, expected a probability")


def make_example(sample: MonoSample, crop: tuple[int, int], config: MonoAugment, rng: np.random.Generator) -> dict[str, Any]:
    """Resized until its shorter side (relative to the crop) fits, cropped at random, flipped, recoloured.

    All draws are made first, in a fixed order, so that options change nothing but what they name.
    """
    height, width = crop
    image, inverse, valid = sample["image"], sample["inverse"], sample["valid"]
    draws = rng.random(10)
    order = rng.permutation(4)
    scale = max(height / image.shape[0], width / image.shape[1])
    size = max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale))
    if size != image.shape[:2]:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
        inverse, valid = (cv2.resize(x, size[::-1], interpolation=cv2.INTER_NEAREST) for x in (inverse, valid.astype(np.uint8)))
        valid = valid > 0
    top, left = (int(draw * (side - part + 1)) for draw, side, part in zip(draws[:2], size, crop, strict=True))
    window = slice(top, top + height), slice(left, left + width)
    image, inverse, valid = image[window], inverse[window], valid[window]
    if draws[2] < config.flip:
        image, inverse, valid = image[:, ::-1], inverse[:, ::-1], valid[:, ::-1]
    if sample["pseudo"] and config.colours:
        if draws[3] < config.jitter:
            image = jitter(image, 1 + config.strength * (2 * draws[4:7] - 1), config.hue * (2 * draws[7] - 1), order)
        if draws[8] < config.blur:
            low, high = config.sigma
            image = cv2.GaussianBlur(np.ascontiguousarray(image), (0, 0), low + draws[9] * (high - low))
    return {
        "image": np.ascontiguousarray(image),
        "inverse": np.ascontiguousarray(inverse, np.float32),
        "valid": np.ascontiguousarray(valid),
        "pseudo": np.bool_(sample["pseudo"]),
    }


def jitter(image: np.ndarray, factors: np.ndarray, turn: float, order: np.ndarray) -> np.ndarray:
    """Brightness, contrast, saturation (by `factors`) and hue (by `turn` of the circle) in an order; uint8 RGB."""
    x = image.astype(np.float32)
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    for what in order:
        if what == 0:
            x = x * factors[0]
        elif what == 1:
            x = (x - (x @ weights).mean()) * factors[1] + (x @ weights).mean()
        elif what == 2:
            grey = (x @ weights)[..., None]
            x = grey + (x - grey) * factors[2]
        else:
            hsv = cv2.cvtColor(np.clip(x, 0, 255).astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
            hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
            x = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
        x = np.clip(x, 0, 255).astype(np.float32)
    return np.round(x).astype(np.uint8)
