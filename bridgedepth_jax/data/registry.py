"""The data sets by the names that configs use: where their files lie, how they pair, how they are read (spec: data, table).

One row of `DATASETS` is one data set; to add one, add a row (and, for a new disparity format, a reader in `formats`).
Files are found in sorted order and paired by name. A partner that is missing, or a right image that nothing asks for, is
an InputError with the path. `synthetic` has no files; `custom` (or `custom:FILE.csv`) is a list of the user's own pairs.
"""

import csv
import dataclasses
import glob
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import cv2
import numpy as np

from bridgedepth_jax.data import formats
from bridgedepth_jax.errors import InputError

Kind = Literal["dense", "sparse", "masked"]  # masked: dense, but the mask given with it is kept


class Sample(TypedDict):
    """One stereo pair. H, W are the same for all arrays."""

    left: np.ndarray  # (H, W, 3) uint8 RGB
    right: np.ndarray  # (H, W, 3) uint8 RGB
    disparity: np.ndarray  # (H, W) float32, pixels of the left image, x_right = x_left - d; 0 where unknown, never inf or nan
    valid: np.ndarray  # (H, W) bool: what training and masked metrics look at
    name: str  # path of the left image under the data directory, unique in its set
    kind: NotRequired[Kind]  # how augmentation treats disparity and valid; absent: masked
    nonocc: NotRequired[np.ndarray]  # (H, W) bool: seen by both cameras, where the set says so
    right_disparity: NotRequired[np.ndarray]  # (H, W) float32, of the right view, x_left = x_right + d; 0 where unknown


@dataclasses.dataclass(frozen=True)
class Pair:
    """The files of one sample. `disparity` and `format` are None for test splits."""

    dataset: str
    name: str
    kind: Kind
    left: Path
    right: Path
    disparity: Path | None = None
    format: str | None = None
    valid: Path | None = None  # extra mask, nonzero is valid
    nonocc: Path | None = None  # mask (255) or disparity (> 0) of non-occluded pixels
    right_disparity: Path | None = None
    calib: Path | None = None  # of Middlebury or KITTI, where it is there, for metric depth

    def files(self, *, right_disparity: bool = False) -> dict[str, Path]:
        """Every file that reading the sample needs, by role; what a packed set stores."""
        roles = ("left", "right", "disparity", "valid", "nonocc", *(("right_disparity",) if right_disparity else ()))
        found = {role: path for role in roles if (path := getattr(self, role)) is not None}
        if self.disparity is not None and self.format is not None:
            for name in formats.files_beside(self.format, self.disparity.name):
                found[f"beside/{name}"] = self.disparity.with_name(name)
        return found


def read_sample(pair: Pair, *, right_disparity: bool = False) -> Sample:
    """Reads a pair. A test pair has disparity 0 and nothing valid. Raises InputError naming the file that is missing or broken.

    right_disparity: also read the right view's disparity, which the 'h' flip needs.
    """
    files = pair.files(right_disparity=right_disparity)
    return decode_sample(pair, {role: formats.read_bytes(path) for role, path in files.items()})


def decode_sample(pair: Pair, files: Mapping[str, bytes]) -> Sample:
    """As `read_sample`, from the content of `pair.files()`; paths of `pair` are used for names and errors only."""
    left, right = (formats.decode_image(files[role], str(getattr(pair, role))) for role in ("left", "right"))
    shape = left.shape[:2]
    beside = {role.removeprefix("beside/"): data for role, data in files.items() if role.startswith("beside/")}
    if "disparity" in files and pair.format is not None:
        disparity, valid = formats.decode_disparity(files["disparity"], pair.format, str(pair.disparity), beside)
    else:
        disparity, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)
    if "valid" in files:
        mask = formats.decode_mask(files["valid"], str(pair.valid))
        _same_shape(pair, "valid", mask, disparity)
        valid = valid & (mask > 0)
    sample = Sample(left=left, right=right, disparity=disparity, valid=valid, name=pair.name, kind=pair.kind)
    if "nonocc" in files:
        sample["nonocc"] = _nonocc(files["nonocc"], str(pair.nonocc))
    if "right_disparity" in files and pair.format is not None:
        sample["right_disparity"] = formats.decode_disparity(
            files["right_disparity"], pair.format, str(pair.right_disparity), beside
        )[0]
    for role, array in sample.items():
        if isinstance(array, np.ndarray) and role != "valid":
            _same_shape(pair, role, array, left)
    return sample


def _nonocc(data: bytes, name: str) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None or image.ndim != 2:
        raise InputError(f"{name}: not a complete image of one channel")
    return image == 255 if image.dtype == np.uint8 else image > 0


def _same_shape(pair: Pair, role: str, array: np.ndarray, left: np.ndarray) -> None:
    if array.shape[:2] != left.shape[:2]:
        raise InputError(f"{getattr(pair, role)}: {array.shape[:2]}, but its left image {pair.left} is {left.shape[:2]}")


# Replacements in a path (regular expression, text), applied one after another; written so that they fit the glob as well.
Swap = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Source:
    """Some pairs of a data set: a glob of left images under the data directory, and how to get the other files from one."""

    left: str
    right: Swap
    disparity: Swap | None = None
    frames: frozenset[str] | None = None  # only left images with these file names
    cross: Literal["product", "zip"] | None = None  # rights of a folder: every one with every left, or in order
    nonocc: Swap | None = None  # these three are used where the file is there
    right_disparity: Swap | None = None
    calib: Swap | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A row: sources, disparity format, kind (spec: data), and for `check_data` its origin and full size."""

    sources: tuple[Source, ...]
    format: str
    kind: Kind
    origin: str
    pairs: int | None = None


_KITTI_VAL = {
    2012: frozenset([*range(0, 195, 5), 193]),
    2015: frozenset(range(0, 200, 5)),
}
_KITTI_FRAMES = {2012: 194, 2015: 200}
_KITTI_FOLDERS = {
    2012: ("colored_0", "colored_1", "disp_occ", "disp_noc", "calib"),
    2015: ("image_2", "image_3", "disp_occ_0", "disp_noc_0", "calib_cam_to_cam"),
}


def _kitti(year: int, split: str) -> Source:
    """A split of KITTI: train, val, trainval or test."""
    left, right, disparity, nonocc, calib = _KITTI_FOLDERS[year]
    folder = f"KITTI/KITTI_{year}/" + ("testing" if split == "test" else "training")
    source = Source(f"{folder}/{left}/*_10.png", ((left, right),), calib=((rf"{left}/([^/]*)_10\.png$", rf"{calib}/\1.txt"),))
    if split == "test":
        return source
    everything, val = frozenset(range(_KITTI_FRAMES[year])), _KITTI_VAL[year]
    frames = {"train": everything - val, "val": val, "trainval": everything}[split]
    return dataclasses.replace(
        source,
        disparity=((left, disparity),),
        frames=frozenset(f"{frame:06d}_10.png" for frame in frames),
        nonocc=((left, nonocc),),
    )


def _sceneflow(left: str) -> Source:
    disparity = (("frames_finalpass", "disparity"), (r"\.png$", ".pfm"))
    sides = (("/left/", "/right/"),)
    return Source(left, sides, disparity, right_disparity=disparity + sides)


def _beside(name: str) -> Swap:
    """The file of that name in the folder of the left image."""
    return ((r"/[^/]*$", f"/{name}"),)


def _middlebury(size: str) -> Source:
    return Source(
        f"Middlebury/MiddEval3/training{size}/*/im0.png",
        _beside("im1.png"),
        _beside("disp0GT.pfm"),
        nonocc=_beside("mask0nocc.png"),
        calib=_beside("calib.txt"),
    )


def _middlebury_test(size: str) -> Source:
    return Source(f"Middlebury/MiddEval3/test{size}/*/im0.png", _beside("im1.png"), calib=_beside("calib.txt"))


def _middlebury_old(year: int) -> Source:
    return Source(
        f"Middlebury/{year}/*/Illum[1-3]/Exp[0-2]/view1.png",
        (("view1", "view5"),),
        ((r"/Illum[^/]*/Exp[^/]*/view1\.png$", "/disp1.png"),),
    )


_KITTI_PAGE = "https://www.cvlibs.net/datasets/kitti/eval_stereo_flow.php?benchmark=stereo"
_ORIGINS = {
    "sceneflow": "https://lmb.informatik.uni-freiburg.de/resources/datasets/SceneFlowDatasets.en.html (finalpass, disparity)",
    "kitti_2012": f"{_KITTI_PAGE} (KITTI/KITTI_2012)",
    "kitti_2015": f"{_KITTI_PAGE.replace('stereo_flow.php', 'scene_flow.php')} (KITTI/KITTI_2015)",
    "eth3d": "https://www.eth3d.net/datasets#low-res-two-view (ETH3D/two_view_{training,training_gt,testing})",
    "middlebury": "https://vision.middlebury.edu/stereo/submit3/ (Middlebury/MiddEval3)",
    "middlebury_old": "https://vision.middlebury.edu/stereo/data/ (Middlebury/2005, 2006, 2014, 2021)",
    "sintel": "http://sintel.is.tue.mpg.de/stereo (SintelStereo)",
    "falling_things": "https://research.nvidia.com/publication/2018-06_Falling-Things (FallingThings)",
    "tartan_air": "https://theairlab.org/tartanair-dataset/ (TartanAir; left and right images, left depth)",
    "crestereo": "https://github.com/megvii-research/CREStereo, dataset_download.sh (CREStereo)",
    "vkitti2": "https://europe.naverlabs.com/proxy-virtual-worlds-vkitti-2/ (VKITTI2; rgb and depth)",
    "carla": "CARLA high resolution, released with HSMNet: https://github.com/gengshan-y/high-res-stereo (carla-highres)",
    "in_stereo2k": "https://github.com/YuhuaXu/StereoDataset (InStereo2K)",
    "booster": "https://cvlab-unibo.github.io/booster-web/ (booster; the balanced setup)",
}

DATASETS: dict[str, Dataset] = {
    "sceneflow": Dataset(
        (
            _sceneflow("SceneFlow/FlyingThings3D/frames_finalpass/TRAIN/*/*/left/*.png"),
            _sceneflow("SceneFlow/Monkaa/frames_finalpass/*/left/*.png"),
            _sceneflow("SceneFlow/Driving/frames_finalpass/*/*/*/left/*.png"),
        ),
        "pfm", "dense", _ORIGINS["sceneflow"], 35454,
    ),
    "things": Dataset(
        (_sceneflow("FlyingThings3D/frames_finalpass/TEST/*/*/left/*.png"),), "pfm", "dense", _ORIGINS["sceneflow"], 4370
    ),
    "kitti_2012_train": Dataset((_kitti(2012, "train"),), "kitti", "sparse", _ORIGINS["kitti_2012"], 154),
    "kitti_2012_val": Dataset((_kitti(2012, "val"),), "kitti", "sparse", _ORIGINS["kitti_2012"], 40),
    "kitti_2012_trainval": Dataset((_kitti(2012, "trainval"),), "kitti", "sparse", _ORIGINS["kitti_2012"], 194),
    "kitti_2012_test": Dataset((_kitti(2012, "test"),), "kitti", "sparse", _ORIGINS["kitti_2012"], 195),
    "kitti_2015_train": Dataset((_kitti(2015, "train"),), "kitti", "sparse", _ORIGINS["kitti_2015"], 160),
    "kitti_2015_val": Dataset((_kitti(2015, "val"),), "kitti", "sparse", _ORIGINS["kitti_2015"], 40),
    "kitti_2015_trainval": Dataset((_kitti(2015, "trainval"),), "kitti", "sparse", _ORIGINS["kitti_2015"], 200),
    "kitti_2015_test": Dataset((_kitti(2015, "test"),), "kitti", "sparse", _ORIGINS["kitti_2015"], 200),
    "kitti_mix": Dataset(
        (_kitti(2012, "trainval"), _kitti(2015, "trainval")), "kitti", "sparse", _ORIGINS["kitti_2015"], 394
    ),
    "kitti_mix_2012_train": Dataset(
        (_kitti(2012, "train"), _kitti(2015, "trainval")), "kitti", "sparse", _ORIGINS["kitti_2015"], 354
    ),
    "kitti_mix_2015_train": Dataset(
        (_kitti(2012, "trainval"), _kitti(2015, "train")), "kitti", "sparse", _ORIGINS["kitti_2015"], 354
    ),
    "eth3d": Dataset(
        (
            Source(
                "ETH3D/two_view_training/*/im0.png",
                ((r"im0\.png$", "im1.png"),),
                (("two_view_training", "two_view_training_gt"), (r"im0\.png$", "disp0GT.pfm")),
                nonocc=(("two_view_training", "two_view_training_gt"), (r"im0\.png$", "mask0nocc.png")),
                calib=((r"im0\.png$", "calib.txt"),),
            ),
        ),
        "pfm", "sparse", _ORIGINS["eth3d"], 27,
    ),
    "eth3d_test": Dataset(
        (Source("ETH3D/two_view_testing/*/im0.png", ((r"im0\.png$", "im1.png"),)),), "pfm", "sparse", _ORIGINS["eth3d"], 20
    ),
    **{f"middlebury_{s}": Dataset((_middlebury(s),), "middlebury", "sparse", _ORIGINS["middlebury"], 15) for s in "FHQ"},
    **{
        f"middlebury_{s}_test": Dataset((_middlebury_test(s),), "middlebury", "sparse", _ORIGINS["middlebury"], 15)
        for s in "FHQ"
    },
    "middlebury_2005": Dataset((_middlebury_old(2005),), "middlebury", "sparse", _ORIGINS["middlebury_old"], 54),
    "middlebury_2006": Dataset((_middlebury_old(2006),), "middlebury", "sparse", _ORIGINS["middlebury_old"], 189),
    "middlebury_2014": Dataset(
        tuple(
            Source("Middlebury/2014/*/im0.png", _beside(right), _beside("disp0.pfm"), calib=_beside("calib.txt"))
            for right in ("im1E.png", "im1L.png", "im1.png")
        ),
        "middlebury", "sparse", _ORIGINS["middlebury_old"], 69,
    ),
    "middlebury_2021": Dataset(
        (
            Source(
                "Middlebury/2021/data/*/im0.png", _beside("im1.png"), _beside("disp0.pfm"), calib=_beside("calib.txt")
            ),
            Source(
                "Middlebury/2021/data/*/ambient/L0/im0e[0-3].png",
                ((r"/im0(?=e[^/]*$)", "/im1"),),
                ((r"/ambient/L0/im0[^/]*$", "/disp0.pfm"),),
                calib=((r"/ambient/L0/im0[^/]*$", "/calib.txt"),),
            ),
        ),
        "middlebury", "sparse", _ORIGINS["middlebury_old"],
    ),
    "sintel_stereo": Dataset(
        (
            Source(
                "SintelStereo/training/*_left/*/frame_*.png",
                (("_left/", "_right/"),),
                ((r"/[^/]*_left/", "/disparities/"),),
            ),
        ),
        "sintel", "sparse", _ORIGINS["sintel"], 2128,
    ),
    "falling_things": Dataset(
        tuple(
            Source(pattern, ((r"\.left\.jpg$", ".right.jpg"),), ((r"\.left\.jpg$", ".left.depth.png"),))
            for pattern in ("FallingThings/single/*/*/*.left.jpg", "FallingThings/mixed/*/*.left.jpg")
        ),
        "falling_things", "dense", _ORIGINS["falling_things"], 61500,
    ),
    "tartan_air": Dataset(
        (
            Source(
                "TartanAir/*/*/*/image_left/*_left.png",
                (("/image_left/", "/image_right/"), (r"_left\.png$", "_right.png")),
                (("/image_left/", "/depth_left/"), (r"_left\.png$", "_left_depth.npy")),
            ),
        ),
        "tartan_air", "dense", _ORIGINS["tartan_air"],
    ),
    "crestereo": Dataset(
        tuple(
            Source(f"CREStereo/{part}/*_left.jpg", ((r"_left\.jpg$", "_right.jpg"),), ((r"_left\.jpg$", "_left.disp.png"),))
            for part in ("shapenet", "reflective", "tree", "hole")
        ),
        "crestereo", "dense", _ORIGINS["crestereo"], 200000,
    ),
    "vkitti2": Dataset(
        tuple(
            Source(
                f"VKITTI2/Scene{scene}/*/frames/rgb/Camera_0/rgb_*.jpg",
                (("/Camera_0/", "/Camera_1/"),),
                (("/rgb/", "/depth/"), (r"/rgb_(?=[^/]*$)", "/depth_"), (r"\.jpg$", ".png")),
            )
            for scene in ("01", "02", "06", "18", "20")
        ),
        "vkitti2", "dense", _ORIGINS["vkitti2"], 21260,
    ),
    "carla_highres": Dataset(
        (Source("carla-highres/trainingF/*/im0.png", _beside("im1.png"), _beside("disp0GT.pfm")),),
        "pfm", "dense", _ORIGINS["carla"],
    ),
    "in_stereo2k": Dataset(
        tuple(
            Source(f"InStereo2K/{folder}/*/left.png", _beside("right.png"), _beside("left_disp.png"))
            for folder in ("part[1-5]", "train", "test")
        ),
        "in_stereo2k", "sparse", _ORIGINS["in_stereo2k"], 2060,
    ),
    "booster": Dataset(
        (
            Source(
                "booster/train/balanced/*/camera_00/im*.png",
                (("/camera_00/", "/camera_02/"),),
                ((r"/camera_00/[^/]*$", "/disp_00.npy"),),
                cross="product",
            ),
        ),
        "booster", "sparse", _ORIGINS["booster"],
    ),
    "booster_test": Dataset(
        (Source("booster/test/balanced/*/camera_00/im*.png", (("/camera_00/", "/camera_02/"),), cross="zip"),),
        "booster", "sparse", _ORIGINS["booster"],
    ),
}  # fmt: skip

NAMES = (*DATASETS, "synthetic", "custom")  # what a config may say; also "custom:FILE.csv"


def find_pairs(name: str, root: str | Path) -> tuple[Pair, ...]:
    """All pairs of a data set under the data directory `root`, sorted by path.

    InputError: unknown name, nothing found (says what was looked for and where it comes from), partners missing (lists them).
    """
    root = Path(root)
    if name == "custom" or name.startswith("custom:"):
        return _custom_pairs(name, root / (name.partition(":")[2] or "custom.csv"))
    if name not in DATASETS:
        raise InputError(f"no files belong to the data set {name!r}, expected one of {', '.join(DATASETS)} or custom:FILE.csv")
    dataset = DATASETS[name]
    pairs: list[Pair] = []
    missing: list[str] = []
    for source in dataset.sources:
        found, lost = _source_pairs(name, dataset, source, root)
        pairs += found
        missing += lost
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{name}: {'; '.join(sorted(missing)[:3])}{more}")
    if not pairs:
        looked = ", ".join(str(root / source.left) for source in dataset.sources)
        raise InputError(f"{name}: no file matches {looked}; it comes from {dataset.origin}")
    pairs.sort(key=lambda pair: (pair.left, pair.right))
    several = {a.left for a, b in itertools.pairwise(pairs) if a.left == b.left}
    return tuple(
        dataclasses.replace(pair, name=f"{pair.name}+{pair.right.name}") if pair.left in several else pair for pair in pairs
    )


def fingerprint(pairs: Sequence[Pair], root: str | Path) -> str:
    """Hash of the file list: the paths under `root`, not the contents."""
    digest, prefix = hashlib.sha256(), f"{Path(root).as_posix()}/"
    for pair in pairs:
        for role, path in sorted(pair.files().items()):
            digest.update(f"{role}\0{path.as_posix().removeprefix(prefix)}\0".encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def _source_pairs(name: str, dataset: Dataset, source: Source, root: Path) -> tuple[list[Pair], list[str]]:
    """Pairs of one source, and a line for every file that has no partner."""
    swaps = {
        role: swap
        for role in ("disparity", "nonocc", "right_disparity", "calib")
        if (swap := getattr(source, role)) is not None
    }
    there = {role: set(_glob(root, _swapped(source.left, swap))) for role, swap in swaps.items()}
    lefts = [path for path in _glob(root, source.left) if source.frames is None or Path(path).name in source.frames]
    rights = _glob(root, _swapped(source.left, source.right))
    couples, missing = (_cross if source.cross else _by_name)(source, lefts, rights, root)
    pairs = []
    for left, right in couples:
        files = {role: path for role, swap in swaps.items() if (path := _swapped(left, swap)) in there[role]}
        if source.disparity is not None and "disparity" not in files:
            missing.append(f"{root / _swapped(left, source.disparity)} is missing, the disparity of {root / left}")
        pairs.append(
            Pair(
                name, left, dataset.kind, root / left, root / right,
                format=dataset.format if source.disparity is not None else None,
                **{role: root / path for role, path in files.items()},
            )
        )  # fmt: skip
    return pairs, list(dict.fromkeys(missing))


def _by_name(source: Source, lefts: list[str], rights: list[str], root: Path) -> tuple[list[tuple[str, str]], list[str]]:
    couples = [(left, _swapped(left, source.right)) for left in lefts]
    there, wanted = set(rights), {right for _, right in couples}
    missing = [f"{root / right} is missing, the right image of {root / left}" for left, right in couples if right not in there]
    if source.frames is not None:
        rights = [right for right in rights if Path(right).name in source.frames]
    missing += [f"{root / right} has no left image" for right in rights if right not in wanted]
    return [couple for couple in couples if couple[1] in there], missing


def _cross(source: Source, lefts: list[str], rights: list[str], root: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs of scenes whose two cameras took several images each."""
    couples: list[tuple[str, str]] = []
    missing: list[str] = []
    folders = dict.fromkeys(_swapped(str(Path(left).parent) + "/", source.right) for left in lefts)
    folders |= dict.fromkeys(str(Path(right).parent) + "/" for right in rights)
    for folder in folders:
        here = [right for right in rights if right.startswith(folder)]
        mine = [left for left in lefts if _swapped(str(Path(left).parent) + "/", source.right) == folder]
        if not here or not mine:
            missing.append(f"{root / folder} has {len(here)} right images for {len(mine)} left images")
        elif source.cross == "product":
            couples += [(left, right) for left in mine for right in here]
        elif len(here) != len(mine):
            missing.append(f"{root / folder} has {len(here)} right images for {len(mine)} left images")
        else:
            couples += zip(mine, here, strict=True)
    return couples, missing


def _glob(root: Path, pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, root_dir=root))


def _swapped(path: str, swap: Swap) -> str:
    for pattern, text in swap:
        path = re.sub(pattern, text, path)
    return path


_COLUMNS = ("left", "right", "disparity", "format", "valid", "kind")


def _custom_pairs(name: str, table: Path) -> tuple[Pair, ...]:
    """Pairs of a CSV file with a header: left, right, disparity, format [, valid] [, kind]; paths relative to its folder."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read as CSV ({error})") from None
    if not set(_COLUMNS[:4]) <= set(header) <= set(_COLUMNS):
        raise InputError(
            f"{table}: columns {', '.join(map(str, header))}, expected left, right, disparity, format [, valid] [, kind]"
        )
    if not rows:
        raise InputError(f"{table}: no rows")
    return tuple(_custom_pair(name, table, line, row) for line, row in enumerate(rows, 2))


def _custom_pair(name: str, table: Path, line: int, row: Mapping[str, str | None]) -> Pair:
    cells = {key: (value or "").strip() for key, value in row.items() if key in _COLUMNS}
    where = f"{table}, line {line}"
    if cells["format"] not in formats.FORMATS:
        raise InputError(f"{where}: format {cells['format']!r}, expected one of {', '.join(formats.FORMATS)}")
    kind = cells.get("kind") or "sparse"
    if kind not in ("dense", "sparse", "masked"):
        raise InputError(f"{where}: kind {kind!r}, expected dense, sparse or masked")
    paths = {key: table.parent / cells[key] for key in ("left", "right", "disparity", "valid") if cells.get(key)}
    for key in ("left", "right", "disparity"):
        if key not in paths:
            raise InputError(f"{where}: {key} is empty")
    for key, path in paths.items():
        if not path.is_file():
            raise InputError(f"{where}: {key} {path} is missing")
    return Pair(name, cells["left"], kind, format=cells["format"], **paths)  # type: ignore[arg-type]
