"""The check of pairs, on pairs that are wrong in known ways: what it names, how exactly, and how often it is wrong.

python scripts/check_pairs.py
python scripts/check_pairs.py --pairs pairs.csv --rendered 40

Twenty perturbations of ten pairs each (the pair of scikit-image, the rows of --pairs, and rendered ones); then the pairs as
they are, and --rendered more. Exit status 1 if a perturbation passes in silence. The error of a number is that beside what was
made and the pair's own, which no rectification leaves at zero.
"""

import argparse
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from bridgedepth_jax.data.epipolar import align
from bridgedepth_jax.data.formats import read_image
from bridgedepth_jax.data.pairs import find_pairs
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.errors import command
from bridgedepth_jax.inference import check, demo

COUNT = 10  # pairs of each perturbation
SIZE = (288, 384)  # of rendered ones
Images = tuple[np.ndarray, np.ndarray]


class Given(NamedTuple):
    """A pair as it should be, with the median of its disparities and how well it is rectified, pixels."""

    name: str
    left: np.ndarray
    right: np.ndarray
    median: float
    own: dict[str, float]  # what its findings would name: offset at the centre, rotation and stretch at the borders


class Made(NamedTuple):
    """A pair as it was made: the two files, and the number that its finding should name, in pixels or bits."""

    left: bytes
    right: bytes
    number: float | None = None


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def jpeg(image: np.ndarray, orientation: int) -> bytes:
    """With an EXIF tag, as a camera writes it."""
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def moved(image: np.ndarray, offset: float = 0, degrees: float = 0, stretch: float = 0, shift: float = 0) -> np.ndarray:
    """Content lower by `offset` pixels, turned clockwise, taller by a share, further right by `shift`."""
    height, width = image.shape[:2]
    a, centre = np.deg2rad(degrees), (np.array([width, height]) - 1) / 2
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.diag([1, 1 + stretch])
    matrix = np.column_stack([turn, centre + np.array([shift, offset]) - turn @ centre])
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def misplaced(**by: float) -> Callable[[Given, Given], Made]:
    def make(pair: Given, _: Given) -> Made:
        number = by.get("offset") or np.sin(np.deg2rad(by.get("degrees", 0))) * pair.right.shape[1] / 2
        return Made(png(pair.left), png(moved(pair.right, **by)), number or by["stretch"] * pair.right.shape[0] / 2)

    return make


def shallow(bits: int) -> Callable[[Given, Given], Made]:
    def make(pair: Given, _: Given) -> Made:
        greys = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint16) << (bits - 8) for image in (pair.left, pair.right))
        left, right = (cv2.imencode(".png", image)[1].tobytes() for image in greys)
        return Made(left, right, bits)

    return make


def dark(image: np.ndarray) -> bytes:
    noise = np.random.default_rng(0).normal(2, 1, image.shape)
    return png(np.clip(noise, 0, 255).astype(np.uint8))


def tagged(tag: int, stored: int) -> Callable[[Given, Given], Made]:
    """Pixels lie as a camera with that tag stores them: turned the other way."""
    return lambda pair, _: Made(jpeg(check.turn(pair.left, stored), tag), jpeg(check.turn(pair.right, stored), tag), tag)


def shifted(factor: float) -> Callable[[Given, Given], Made]:
    return lambda pair, _: Made(png(pair.left), png(moved(pair.right, shift=round(factor * pair.median) + 3)))


# Name -> how it is made of a pair (and another one), and the kinds of finding that name it.
PERTURBATIONS: dict[str, tuple[Callable[[Given, Given], Made], tuple[str, ...]]] = {
    "right 0.75 px lower": (misplaced(offset=0.75), ("offset",)),
    "right 1.5 px higher": (misplaced(offset=-1.5), ("offset",)),
    "right 8 px lower": (misplaced(offset=8), ("offset",)),
    "right turned by 0.3 degrees": (misplaced(degrees=0.3), ("rotation",)),
    "right turned by -1 degree": (misplaced(degrees=-1), ("rotation",)),
    "right turned by 3 degrees": (misplaced(degrees=3), ("rotation",)),
    "right 1 % taller": (misplaced(stretch=0.01), ("stretch",)),
    "the same image twice": (lambda pair, _: Made(png(pair.left), png(pair.left)), ("identical",)),
    "the same, compressed": (lambda pair, _: Made(png(pair.left), jpeg(pair.left, 1)), ("identical",)),
    "left black": (lambda pair, _: Made(png(0 * pair.left), png(pair.right)), ("blank",)),
    "both black but for noise": (lambda pair, _: Made(dark(pair.left), dark(pair.right)), ("blank",)),
    "swapped": (lambda pair, _: Made(png(pair.right), png(pair.left)), ("swapped", "negative")),
    "half of the disparities negative": (shifted(1), ("negative",)),
    "all disparities negative": (shifted(4), ("negative", "swapped")),
    "grey in 12 of 16 bits": (shallow(12), ("bits",)),
    "grey in 10 of 16 bits": (shallow(10), ("bits",)),
    "EXIF: upside down": (tagged(3, 3), ("orientation",)),
    "EXIF: on its side": (tagged(6, 8), ("orientation",)),
    "right of another scene": (lambda pair, other: Made(png(pair.left), png(other.right)), ("unmatched", "size")),
    "right upside down": (lambda pair, _: Made(png(pair.left), png(pair.right[::-1, ::-1])), ("turned",)),
}


def given(csv: Path | None, count: int) -> list[Given]:
    pair, _ = demo.motorcycle()
    pairs = [measured(pair.name, pair.left, pair.right)]
    for row in find_pairs(f"custom:{csv.name}", csv.parent) if csv else ():
        pairs.append(measured(row.name, read_image(row.left), read_image(row.right)))
    return pairs + rendered(count - len(pairs), 0)


def measured(name: str, left: np.ndarray, right: np.ndarray) -> Given:
    found = align(left, right)
    if found is None:
        return Given(name, left, right, 0.0, dict.fromkeys(("offset", "rotation", "stretch"), 0.0))
    height, width = left.shape[:2]
    own = dict(offset=found.offset, rotation=found.slope * width / 2, stretch=found.stretch * height / 2)
    return Given(name, left, right, float(np.median(found.disparity)), own)


def rendered(count: int, first: int) -> list[Given]:
    scenes = SyntheticStereo(*SIZE, config=SyntheticConfig().clean(), seed=10_007)
    samples = (scenes[i] for i in range(first, first + count))
    return [measured(s["name"], s["left"], s["right"]) for s in samples]


def report(made: Made, names: tuple[str, str]) -> check.Verdict:
    return check.check(check.read_picture(made.left, names[0]), check.read_picture(made.right, names[1]))


def number(found: check.Finding, kind: str) -> float | None:
    """The pixels that a finding of `_vertical` names."""
    words = found.words.replace("(", "").split()
    return float(words[words.index("px") - 1]) if kind in ("offset", "rotation", "stretch") else None


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, help="CSV file with rectified pairs: left, right; default: none")
    parser.add_argument("--rendered", type=int, default=50, help="further pairs without a perturbation; default: 50")
    args = parser.parse_args()
    pairs = given(args.pairs, COUNT)
    columns = ("perturbation", "pairs", "named rightly", "otherwise", "in silence", "largest error", "fine after --fix")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    silent = 0
    for name, (make, kinds) in PERTURBATIONS.items():
        rightly, otherwise, none, errors, mended = 0, 0, 0, [0.0], 0
        for i, pair in enumerate(pairs):
            made = make(pair, pairs[(i + 1) % len(pairs)])
            found = report(made, ("left", "right"))
            named = [finding for finding in found.findings if finding.kind in kinds]
            rightly += bool(named)
            otherwise += not named and bool(found.findings)
            none += not found.findings
            if named and made.number and (said := number(named[0], named[0].kind)) is not None:
                errors.append(abs(said - abs(made.number + pair.own[named[0].kind])))
            sources = (check.read_picture(data, "image") for data in made[:2])
            again = check.check(*map(check.Picture, found.repair.apply(*sources)))
            mended += not again.findings
        silent += none
        error = f"{max(errors):.2f} px" if max(errors) else ""
        print(f"| {name} | {len(pairs)} | {rightly} | {otherwise} | {none} | {error} | {mended} |", flush=True)
    print(f"\n{len(PERTURBATIONS) * len(pairs)} perturbations, {silent} in silence")
    alarms = []
    fine = pairs + rendered(args.rendered, 1000)
    for pair in fine:
        alarms += [
            f"{pair.name}: {finding}" for finding in report(Made(png(pair.left), png(pair.right)), ("left", "right")).findings
        ]
    print(f"{len(fine)} pairs as they are, {len(alarms)} alarms", *alarms, sep="\n  ")
    if silent:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
