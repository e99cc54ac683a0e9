"""A folder of photographs to a set of stereo pairs (spec `zerostereo.md` section 6).

    SET/recipe.json       every option, the photographs' list, versions: another recipe is refused
    SET/data/<key>/       left, right, disparity, confidence, nonocc, inpaint, sample.json; the key is the path below PHOTOS
    SET/.rejected/        a file for each photograph that cannot be used
    SET/pairs.csv, rejected.csv, contact.png    written when every photograph is one or the other

All randomness is drawn from (seed, SHA-256 of the key), and a sample is renamed into place when it is whole. So the number of
processes, their order and how often they are killed change no byte. Photographs are read only.
"""

import collections
import concurrent.futures
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import scipy

from bridgedepth_jax.data.formats import decode_image, write_kitti_png, write_pfm, write_png
from bridgedepth_jax.data.pairs import find_pairs, read_sample
from bridgedepth_jax.data.preview import contact_sheet
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing
from bridgedepth_jax.ops.forward_warp import forward_warp
from bridgedepth_jax.systems.zerostereo import labels
from bridgedepth_jax.systems.zerostereo.depth import DepthSource
from bridgedepth_jax.systems.zerostereo.fillers import Filler, Scene

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
SMALLEST = 64  # pixels of a side
SHOWN = 12  # samples on the contact sheet
WAITING = 4  # batches' worth of samples that may wait for others of their size
COLUMNS = ("left", "right", "disparity", "format", "nonocc", "confidence", "inpaint", "kind")
STREAMS = ("scale", "depth", "other", "noise")  # random streams of a photograph


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a set is made by."""

    depth: str  # field | files:FOLDER | a checkpoint
    inpaint: str  # a row of `FILLERS`, or a checkpoint
    seed: int = 0
    max_side: int | None = 1024  # larger photographs are shrunk first
    dilate: int = 1  # of the depth edges, pixels

    def __post_init__(self) -> None:
        if self.max_side is not None and self.max_side < SMALLEST:
            raise InputError(f"--max-side {self.max_side}, expected at least {SMALLEST}")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}, expected 0 or more")


class Rejected(Exception):
    """A photograph that cannot be used, and why."""


def find_photographs(folder: Path, out: Path) -> list[str]:
    """Keys of the photographs below a folder, sorted. InputError: none, or the set would lie among them."""
    if not folder.is_dir():
        raise InputError(f"PHOTOS {folder} is no folder")
    if out.resolve() == folder.resolve() or folder.resolve() in out.resolve().parents:
        raise InputError(f"--out {out} lies inside PHOTOS {folder}, expected another place: photographs are never written to")
    keys = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not keys:
        raise InputError(f"PHOTOS {folder} holds no photograph, expected {', '.join(sorted(SUFFIXES))}")
    return keys


class Refused(NamedTuple):
    key: str
    reason: str


class Draft(NamedTuple):
    """A sample but for its right view."""

    key: str
    scene: Scene
    source: bytes | None  # of the photograph, where the left view is its file
    disparity: np.ndarray  # (H, W) float32
    kitti: bool  # as a KITTI PNG, else PFM
    trust: np.ndarray  # (H, W) 0..1
    nonocc: np.ndarray  # (H, W) bool
    about: dict[str, Any]


class Synthesis:
    """A set in the making; several processes may work on one, each on keys of its own."""

    def __init__(
        self, photos: Path, out: Path, recipe: Recipe, depth: DepthSource, fill: Filler, about: dict[str, Any] | None = None
    ) -> None:
        self.photos, self.out, self.recipe, self.depth, self.fill = photos, out, recipe, depth, fill
        self.keys = find_photographs(photos, out)
        self._describe(about or {})

    def missing(self, process: int = 0, count: int = 1) -> list[str]:
        """Keys of this process, k, k + n, ..., that are neither made nor rejected."""
        return [key for key in self.keys[process::count] if not self._folder(key).is_dir() and not self._reason(key).exists()]

    def make(self, keys: Sequence[str], threads: int = 2) -> Iterator[str]:
        """Makes samples, and gives their keys as they are done; threads read the next and write the last meanwhile."""
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            drafts = _in_turn(pool, self._draft, keys, threads)
            for made in _in_turn(pool, self._complete, self._together(drafts), threads):
                yield from made

    def verify(self, keys: Iterable[str]) -> None:
        """Hashes the files of samples that are there. InputError names the first that differs."""
        for key in keys:
            folder = self._folder(key)
            if not folder.is_dir():
                continue
            try:
                files = json.loads((folder / "sample.json").read_text())["files"]
            except (OSError, ValueError, KeyError) as error:
                raise InputError(f"{folder / 'sample.json'} is damaged, remove its folder to make the sample again") from error
            for name, digest in files.items():
                if not (folder / name).is_file() or _sha256((folder / name).read_bytes()) != digest:
                    raise InputError(f"{folder / name} is damaged, remove its folder to make the sample again")

    def finish(self) -> tuple[int, int]:
        """Writes the lists and the contact sheet; (pairs, rejected). InputError: some are missing, or none is usable."""
        left = self.missing()
        if left:
            raise InputError(
                f"{self.out}: {len(left)} of {len(self.keys)} photographs are not done yet, the first is {left[0]}"
            )
        made = [key for key in self.keys if self._folder(key).is_dir()]
        refused = [(key, self._reason(key).read_text()) for key in self.keys if not self._folder(key).is_dir()]
        _write_csv(self.out / "rejected.csv", ("key", "reason"), refused)
        if not made:
            key, reason = refused[0]
            raise InputError(f"none of {len(self.keys)} photographs can be used, the first is {key}: {reason}")
        _write_csv(self.out / "pairs.csv", COLUMNS, map(self._row, made))
        shutil.rmtree(self.out / ".partial", ignore_errors=True)
        pairs = find_pairs("custom:pairs.csv", self.out)
        shown = pairs[:: max(1, len(pairs) // SHOWN)][:SHOWN]
        write_png(self.out / "contact.png", contact_sheet(read_sample(pair) for pair in shown))
        return len(made), len(refused)

    def _describe(self, about: dict[str, Any]) -> None:
        sizes = "".join(f"{key}\0{(self.photos / key).stat().st_size}\n" for key in self.keys)
        versions = {"numpy": np.__version__, "opencv": cv2.__version__, "scipy": scipy.__version__}
        recipe = dataclasses.asdict(self.recipe) | about
        recipe |= {"photographs": len(self.keys), "list_sha256": _sha256(sizes.encode()), "versions": versions}
        path = self.out / "recipe.json"
        if path.exists():
            try:
                old = json.loads(path.read_text())
            except ValueError as error:
                raise InputError(f"{path} is damaged, expected JSON") from error
            for name in sorted(old.keys() | recipe.keys()):
                was, now = old.get(name), recipe.get(name)
                if was != now:
                    raise InputError(f"{self.out} was made with {name} {was}, not {now}: expected the same, or a new --out")
            return
        if self.out.exists() and any(self.out.iterdir()):
            raise InputError(f"--out {self.out} holds other things and no recipe.json, expected a new or empty folder")
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(recipe, indent=1, sort_keys=True) + "\n")

    def _draft(self, key: str) -> Draft | Refused:
        try:
            return self._read_and_warp(key)
        except Rejected as error:
            return Refused(key, str(error))

    def _together(self, drafts: Iterable[Draft | Refused]) -> Iterator[list[Any]]:
        """Groups of one padded size, as many as the filler takes at once; if too many wait, the largest group goes as it is."""
        waiting: dict[tuple[int, ...], list[Draft]] = {}
        for draft in drafts:
            if isinstance(draft, Refused):
                yield [draft]
                continue
            size = tuple(-(-side // self.fill.factor) for side in draft.scene.hole.shape)
            waiting.setdefault(size, []).append(draft)
            if sum(map(len, waiting.values())) >= WAITING * self.fill.batch:
                size = max(waiting, key=lambda size: len(waiting[size]))
                yield waiting.pop(size)
            elif len(waiting[size]) == self.fill.batch:
                yield waiting.pop(size)
        yield from waiting.values()

    def _read_and_warp(self, key: str) -> Draft:
        source = (self.photos / key).read_bytes()
        native = read_photograph(source)
        image = shrink(native, self.recipe.max_side)
        scale = labels.scale_of(*self._rng(key, "scale").random(2))
        try:
            depth = self.depth(key, native if self.depth_is_native else image, self._rng(key, "depth"))
            expected = native.shape[:2] if self.depth_is_native else image.shape[:2]
            for name, value in (("depth", depth.plain), ("mirrored depth", depth.mirrored)):
                if value is not None and value.shape != expected:
                    raise ValueError(
                        f"{name} is {value.shape[0]} x {value.shape[1]}, the photograph {expected[0]} x {expected[1]}"
                    )
            plain, mirrored = (None if value is None else _to_size(value, image) for value in depth)
            assert plain is not None
            near = labels.normalise(plain)
            trust = np.ones(near.shape) if mirrored is None else labels.confidence(plain, mirrored)
        except (ValueError, InputError) as error:
            raise Rejected(" ".join(str(error).split())) from error
        largest = scale * image.shape[1]
        disparity = labels.sharpen((near * largest).astype(np.float32), self.recipe.dilate)
        kitti = largest < 255
        if kitti:  # what is warped is what is stored
            disparity = np.round(disparity * 256) / np.float32(256)
        warped = forward_warp(image, disparity.astype(np.float64))
        scene = Scene(warped.right, warped.inpaint, image, lambda: self._other(key), self._rng(key, "noise"))
        about = {"key": key, "scale": scale, "size": list(image.shape[:2]), "native_size": list(native.shape[:2])}
        about |= {"holes": round(float(warped.inpaint.mean()), 6), "source_sha256": _sha256(source)}
        kept = source if image is native and _reads_as(source, native) else None
        return Draft(key, scene, kept, disparity, kitti, trust, warped.nonocc, about)

    def _complete(self, group: Sequence[Draft | Refused]) -> list[str]:
        drafts = [draft for draft in group if isinstance(draft, Draft)]
        for draft in group:
            if isinstance(draft, Refused):
                with replacing(self._reason(draft.key)) as temporary:
                    temporary.write_text(draft.reason)
        for draft, right in zip(drafts, self.fill.fill([draft.scene for draft in drafts]) if drafts else (), strict=True):
            partial = self.out / ".partial" / _sha256(draft.key.encode())[:32]
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
            partial.mkdir(parents=True)
            _write_sample(partial, draft, right)
            self._folder(draft.key).parent.mkdir(parents=True, exist_ok=True)
            partial.rename(self._folder(draft.key))
        return [draft.key for draft in group]

    @property
    def depth_is_native(self) -> bool:
        """Depth that lies in files has the photograph's own size."""
        return self.recipe.depth.startswith("files:")

    def _other(self, key: str) -> np.ndarray:
        """Another photograph of the set, that can be read, by this one's random stream; itself where there is none."""
        order = self._rng(key, "other").permutation(len(self.keys))
        others = (self.keys[number] for number in order)
        for other in itertools.chain((name for name in others if name != key), (key,)):
            try:
                return shrink(read_photograph((self.photos / other).read_bytes()), self.recipe.max_side)
            except Rejected:
                continue
        raise AssertionError("the photograph itself was read before")

    def _rng(self, key: str, stream: str) -> np.random.Generator:
        digest = int(_sha256(key.encode()), 16)
        return np.random.default_rng((self.recipe.seed, STREAMS.index(stream), digest))

    def _folder(self, key: str) -> Path:
        return self.out / "data" / key

    def _reason(self, key: str) -> Path:
        return self.out / ".rejected" / _sha256(key.encode())[:32]

    def _row(self, key: str) -> tuple[str, ...]:
        names = {path.stem: path.name for path in self._folder(key).iterdir()}
        paths = {stem: f"data/{key}/{name}" for stem, name in names.items()}
        kitti = names["disparity"].endswith(".png")
        fields = paths | {"format": "kitti" if kitti else "pfm", "kind": "dense"}
        return tuple(fields[column] for column in COLUMNS)


def read_photograph(data: bytes) -> np.ndarray:
    """RGB uint8 (H, W, 3) as it is meant to be seen: orientation applied, grey repeated, alpha dropped. Rejected: no such."""
    flags = cv2.IMREAD_COLOR
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise Rejected(f"not a complete image file ({len(data)} bytes)")
    if min(image.shape[:2]) < SMALLEST:
        raise Rejected(f"{image.shape[0]} x {image.shape[1]} pixels, expected at least {SMALLEST} of each side")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def shrink(image: np.ndarray, max_side: int | None) -> np.ndarray:
    """The image itself, or with an area filter to at most `max_side` pixels."""
    height, width = image.shape[:2]
    ratio = 1.0 if max_side is None else max_side / max(height, width)
    if ratio >= 1:
        return image
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _in_turn(
    pool: concurrent.futures.Executor, function: Callable[[Any], Any], items: Iterable[Any], ahead: int
) -> Iterator[Any]:
    """`function` of each item, in order, at most `ahead` begun beyond the one that is waited for."""
    waiting: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _write_sample(folder: Path, draft: Draft, right: np.ndarray) -> None:
    if draft.source is not None:
        (folder / f"left{Path(draft.key).suffix.lower()}").write_bytes(draft.source)
    else:
        write_png(folder / "left.png", draft.scene.left)
    write_png(folder / "right.png", right)
    if draft.kitti:
        write_kitti_png(folder / "disparity.png", draft.disparity)
    else:
        write_pfm(folder / "disparity.pfm", draft.disparity)
    write_png(folder / "confidence.png", np.round(draft.trust * 65535).astype(np.uint16))
    write_png(folder / "nonocc.png", draft.nonocc.astype(np.uint8) * 255)
    write_png(folder / "inpaint.png", draft.scene.hole.astype(np.uint8) * 255)
    files = {path.name: _sha256(path.read_bytes()) for path in sorted(folder.iterdir())}
    (folder / "sample.json").write_text(json.dumps(draft.about | {"files": files}, indent=1) + "\n")


def _to_size(depth: np.ndarray, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if depth.shape == (height, width):
        return depth
    return cv2.resize(depth, (width, height), interpolation=cv2.INTER_AREA)


def _reads_as(data: bytes, image: np.ndarray) -> bool:
    """Whether the data sets' reader, which ignores orientation, sees the same pixels in the file."""
    try:
        return np.array_equal(decode_image(data, "photograph"), image)
    except InputError:
        return False


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
