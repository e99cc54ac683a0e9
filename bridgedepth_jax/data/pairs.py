"""Finding, pairing and reading the data sets of `datasets` by the names that configs use.

Files are found in sorted order and paired by name. A partner that is missing, or a right image that nothing asks for, is
an InputError with the path. `synthetic` has no files; `custom` (or `custom:FILE.csv`) is a list of the user's own pairs.
"""

import dataclasses
import glob
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import cv2
import numpy as np

from bridgedepth_jax.data import formats, kitti_raw
from bridgedepth_jax.data.calibration import READERS
from bridgedepth_jax.data.table import DATASETS, LISTED, Dataset, Kind, Source, Swap
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.geometry import Calibration


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
    confidence: NotRequired[np.ndarray]  # (H, W) float32, 0..1: trust in the disparity, where the set says so
    inpaint: NotRequired[np.ndarray]  # (H, W) bool, of the right view: not seen but made up


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
    confidence: Path | None = None  # 16-bit, 65535 is 1
    inpaint: Path | None = None  # mask (255) of the right view
    calib: Path | None = None  # where it is there, for metric depth: `read_calibration`
    calibration: str = "middlebury"  # its format, a row of `calibration.READERS`

    def files(self, *, right_disparity: bool = False) -> dict[str, Path]:
        """Every file that reading the sample needs, by role; what a packed set stores."""
        roles = (*_PATHS, *(("right_disparity",) if right_disparity else ()))
        found = {role: path for role in roles if (path := getattr(self, role)) is not None}
        if self.disparity is not None and self.format is not None:
            for path in formats.find_beside(self.format, self.disparity):
                found[f"beside/{path.name}"] = path
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
        if "nonocc" in files:  # metrics then count all that has a disparity, occluded or not
            disparity = np.where(mask > 0, disparity, np.float32(0))
    sample = Sample(left=left, right=right, disparity=disparity, valid=valid, name=pair.name, kind=pair.kind)
    if "nonocc" in files:
        sample["nonocc"] = _nonocc(files["nonocc"], str(pair.nonocc))
    if "inpaint" in files:
        sample["inpaint"] = _nonocc(files["inpaint"], str(pair.inpaint))
    if "confidence" in files:
        sample["confidence"] = formats.decode_confidence(files["confidence"], str(pair.confidence))
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


def read_calibration(pair: Pair) -> Calibration | None:
    """Of a pair whose set has calibration files. Raises InputError where it cannot be read."""
    return None if pair.calib is None else READERS[pair.calibration](pair.calib)


def find_pairs(name: str, root: str | Path) -> tuple[Pair, ...]:
    """All pairs of a data set under the data directory `root`, sorted by path.

    InputError: unknown name, nothing found (says what was looked for and where it comes from), partners missing (lists them).
    """
    root = Path(root)
    if name == "custom" or name.startswith("custom:"):
        return _custom_pairs(name, custom_file(name, root))
    if name == "synthetic":
        raise InputError("the data set 'synthetic' is rendered while training and has no files, expected one that has")
    if name.startswith(kitti_raw.PREFIX):
        found = kitti_raw.find_images(name, root)
        return tuple(Pair(name, left, "sparse", root / left, root / right) for _, left, right in found)
    if name not in DATASETS:
        meant = f", did you mean custom:{name}?" if name.endswith(".csv") else ""
        known = f"{', '.join(DATASETS)} or custom:FILE.csv"
        raise InputError(f"no files belong to the data set {name!r}{meant or f', expected one of {known}'}")
    dataset = DATASETS[name]
    pairs: list[Pair] = []
    missing: list[str] = []
    if dataset.listing:
        pairs, missing = _listed_pairs(name, dataset, root)
    for source in dataset.sources:
        found, lost = _source_pairs(name, dataset, source, root)
        pairs += found
        missing += lost
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{name}: {'; '.join(sorted(missing)[:3])}{more}")
    if not pairs:
        looked = ", ".join(str(root / glob) for glob in (dataset.listing, *(s.left for s in dataset.sources)) if glob)
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
                calibration=source.calibration,
                **{role: root / path for role, path in files.items()},
            )
        )  # fmt: skip
    return pairs, list(dict.fromkeys(missing))


def _listed_pairs(name: str, dataset: Dataset, root: Path) -> tuple[list[Pair], list[str]]:
    """Pairs of the set's text files, and a line for every file that is missing."""
    pairs, missing = [], []
    for listing in _glob(root, dataset.listing):
        folder = Path(listing).parent
        for number, line in enumerate((root / listing).read_text().splitlines(), 1):
            words = [word for word in re.split(r"[\s,]+", line) if word]
            if not words:
                continue
            if len(words) != len(LISTED):
                raise InputError(f"{root / listing}, line {number}: {len(words)} files, expected {', '.join(LISTED)}")
            paths = {role: (folder / word).as_posix() for role, word in zip(LISTED, words, strict=True)}
            lost = [path for path in paths.values() if not (root / path).is_file()]
            missing += [f"{root / path} is missing, listed with the right image {root / paths['right']}" for path in lost]
            files: dict[str, Any] = {role: root / path for role, path in paths.items()}
            pairs.append(Pair(name, paths["left"], dataset.kind, format=dataset.format, **files))
    return pairs, missing


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


_PATHS = ("left", "right", "disparity", "valid", "nonocc", "confidence", "inpaint")
_COLUMNS = (*_PATHS, "format", "kind")


def custom_file(name: str, root: Path) -> Path:
    """The list of `custom` or `custom:FILE.csv`."""
    return root / (name.partition(":")[2] or "custom.csv")


def _custom_pairs(name: str, table: Path) -> tuple[Pair, ...]:
    """Pairs of a CSV file with the columns left, right [, disparity, format] [, valid] [, nonocc] [, confidence] [, inpaint]
    [, kind]; paths are relative to its folder."""
    words = "left, right [, disparity, format] [, valid] [, nonocc] [, confidence] [, inpaint] [, kind]"
    rows = formats.read_csv(table, words, ("left", "right"), _COLUMNS)
    if ("disparity" in rows[0]) != ("format" in rows[0]):
        raise InputError(f"{table}: columns {', '.join(rows[0])}, expected disparity and format together, or neither")
    return tuple(_custom_pair(name, table, line, row) for line, row in enumerate(rows, 2))


def _custom_pair(name: str, table: Path, line: int, row: Mapping[str, str | None]) -> Pair:
    cells = {key: (value or "").strip() for key, value in row.items() if key in _COLUMNS}
    where = f"{table}, line {line}"
    labelled = bool(cells.get("disparity") or cells.get("format"))  # both empty: a pair without ground truth
    if labelled and not formats.known(cells["format"]):
        raise InputError(f"{where}: format {cells['format']!r}, expected one of {formats.EXPECTED}")
    kind = cells.get("kind") or "sparse"
    if kind not in ("dense", "sparse", "masked"):
        raise InputError(f"{where}: kind {kind!r}, expected dense, sparse or masked")
    paths = {key: table.parent / cells[key] for key in _PATHS if cells.get(key)}
    for key in ("left", "right", *(("disparity",) if labelled else ())):
        if key not in paths:
            raise InputError(f"{where}: {key} is empty")
    if labelled:  # as in the sets of Middlebury
        beside = formats.find_beside(cells["format"], paths["disparity"])
        for path in beside:
            if path.name == "mask0nocc.png":
                paths.setdefault("nonocc", path)
    for key, path in paths.items():
        if not path.is_file():
            raise InputError(f"{where}: {key} {path} is missing")
    return Pair(name, cells["left"], kind, format=cells["format"] if labelled else None, **paths)  # type: ignore[arg-type]
