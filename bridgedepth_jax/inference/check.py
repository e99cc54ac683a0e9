"""Can depth come of this pair? What is wrong with images as cameras and tools deliver them, named with its number and remedy.

A network answers whatever it is given, so what it cannot work with is looked for before: images that are not rectified
(sparse matches, `data.epipolar`), swapped, shifted so that disparities are negative, black, twice the same, of two scenes,
stored in few of 16 bits, or turned by a tag that decoders ignore. `Repair` undoes in memory what can be undone safely; no file
is changed.

Letters: H W size of the images. Disparities in pixels, x of the left minus x of the right image.
"""

import dataclasses
import itertools
import struct
from typing import NamedTuple

import cv2
import numpy as np

from bridgedepth_jax.data.epipolar import ENOUGH, Alignment, align
from bridgedepth_jax.data.formats import decode_image

LIMIT = 0.4  # pixels, of a vertical offset at the centre, and of what rotation and stretch add at the borders
CONTRAST = 8  # grey levels between the 1st and the 99th percentile, below which an image shows nothing
NEGATIVE = -1.0  # pixels, below which a match lies on the wrong side
SHARE = 0.03  # of the matches, and at least
FEW = 5  # of them, on the wrong side: a finding
SAME = 0.5  # pixels, within which nine in ten disparities are those of one image seen twice
SURE = 0.6  # share of the matches that agree with a plane, above which it is removed safely
VOTES = 0.2  # mean vote of the half-occluded strips, -1..1, beyond which the order is certain
_TURNS = {
    2: (None, True), 3: (cv2.ROTATE_180, False), 4: (cv2.ROTATE_180, True), 5: (cv2.ROTATE_90_CLOCKWISE, True),
    6: (cv2.ROTATE_90_CLOCKWISE, False), 7: (cv2.ROTATE_90_COUNTERCLOCKWISE, True), 8: (cv2.ROTATE_90_COUNTERCLOCKWISE, False),
}  # fmt: skip  # the EXIF tag's value -> a turn, then whether columns are mirrored


class Picture(NamedTuple):
    """An image (H, W, 3) uint8 RGB as it is decoded, and what its file says of itself."""

    image: np.ndarray
    orientation: int = 1  # the EXIF tag: 1 is as stored, 3 upside down, 6 and 8 lie on a side
    values: np.ndarray | None = None  # (H, W, 3) uint16 RGB, where it has 16 bits


class Finding(NamedTuple):
    """Something wrong with a pair."""

    kind: str
    words: str  # with its number
    remedy: str
    fixed: bool  # by the `Repair` that comes with it

    def __str__(self) -> str:
        return f"{self.words}: {self.remedy}"


@dataclasses.dataclass(frozen=True)
class Repair:
    """What is done to both images, in this order; nothing by default."""

    bits: int = 8  # of 16 that are used; 8: the image as decoded
    orientation: int = 1
    swap: bool = False
    plane: tuple[float, float, float] = (
        0.0,
        0.0,
        0.0,
    )  # of the right image, removed: offset, slope, stretch
    shift: int = 0  # pixels, by which the right image is moved to the left: what `restore` takes off again

    def apply(self, left: Picture, right: Picture) -> tuple[np.ndarray, np.ndarray]:
        """The two images (H, W, 3) uint8 RGB."""
        images = [turn(_scaled(source, self.bits), self.orientation) for source in (left, right)]
        first, second = images[::-1] if self.swap else images
        return first, _moved(second, self.plane, self.shift)

    def restore(self, disparity: np.ndarray) -> np.ndarray:
        """Of the repaired pair -> of the pair as it was, where it may be negative."""
        return disparity - np.float32(self.shift) if self.shift else disparity


class Verdict(NamedTuple):
    """Of a pair: what is wrong, and what of it can be undone."""

    findings: tuple[Finding, ...]
    repair: Repair
    largest: float | None = None  # pixels, disparity that one in a hundred matches exceeds, after the repair; None: unknown


def read_picture(data: bytes, name: str) -> Picture:
    """Of an encoded image. Raises InputError, with `name`, where it is none."""
    values = None
    if data[:4] in (b"II*\0", b"MM\0*") or data[:2] in (b"P5", b"P6") or (data[:4] == b"\x89PNG" and data[24:25] == b"\x10"):
        deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if deep is not None and deep.dtype == np.uint16:
            values = np.repeat(deep[..., None], 3, -1) if deep.ndim == 2 else deep[..., 2::-1]
    return Picture(decode_image(data, name), orientation(data), values)


def orientation(data: bytes) -> int:
    """The EXIF tag 0x0112 of an encoded JPEG, PNG or TIFF image, 1..8; 1 where there is none."""
    if data[:2] == b"\xff\xd8":
        start = data.find(b"Exif\0\0", 0, data.find(b"\xff\xda")) + 6
        if start == 5:
            return 1
    elif data[:4] == b"\x89PNG":
        start = data.find(b"eXIf") + 4
        if start == 3:
            return 1
    else:
        start = 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[start : start + 4])
    if order is None:
        return 1
    try:
        (first,) = struct.unpack_from(f"{order}I", data, start + 4)
        (count,) = struct.unpack_from(f"{order}H", data, start + first)
        for i in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", data, start + first + 2 + 12 * i)
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (H, W, 3) as its EXIF tag wants it shown."""
    rotation, mirrored = _TURNS.get(orientation, (None, False))
    image = image if rotation is None else cv2.rotate(image, rotation)
    return np.ascontiguousarray(image[:, ::-1]) if mirrored else image


def check(left: Picture, right: Picture) -> Verdict:
    """What is wrong with a pair. An image whose values or tag are a finding is looked at further as if that were mended."""
    findings: list[Finding] = []
    repair = Repair()
    bits = _bits(left, right)
    if bits < 16:
        top = max(int(source.values.max()) for source in (left, right) if source.values is not None)
        words = f"values up to {top} of 65535, {bits} of 16 bits are used, so the images are nearly black"
        findings.append(Finding("bits", words, f"multiply them by {2 ** (16 - bits)}, or --fix", True))
        repair = dataclasses.replace(repair, bits=bits)
    tags = left.orientation, right.orientation
    if tags != (1, 1):
        same = tags[0] == tags[1]
        words = f"EXIF orientation {tags[0]} and {tags[1]} (1 is upright), which is ignored, as calibrations want it"
        remedy = (
            "turn both images and remove the tag, or --fix" if same else "the cameras were not mounted alike, or one was turned"
        )
        findings.append(Finding("orientation", words, remedy, same))
        repair = dataclasses.replace(repair, orientation=tags[0] if same else 1)
    images = repair.apply(left, right)
    if images[0].shape != images[1].shape:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in images]
        words = f"left has {sizes[0]} pixels and right {sizes[1]}"
        return Verdict((*findings, Finding("size", words, "expected the same size", False)), repair)
    for side, image in zip(("left", "right"), images, strict=True):
        low, high = np.quantile(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[::2, ::2], [0.01, 0.99])
        if high - low < CONTRAST:
            words = f"the {side} image shows nothing (98 % of its values within {low:.0f}..{high:.0f} of 0..255)"
            findings.append(Finding("blank", words, "check the camera, its cap, exposure and file", False))
    if any(finding.kind == "blank" for finding in findings):
        return Verdict(tuple(findings), repair)
    if np.array_equal(*images):
        words = "left and right are the same image, all disparities are 0"
        return Verdict((*findings, Finding("identical", words, "give the images of both cameras", False)), repair)
    found = align(*images)
    if found is None:
        return Verdict((*findings, _unmatched(*images)), repair)
    if np.mean(np.abs(found.disparity) < SAME) > 0.9:
        words = f"left and right show the same view ({found.matches} matches, nine in ten within {SAME} px of disparity 0)"
        return Verdict((*findings, Finding("identical", words, "give the images of both cameras", False)), repair)
    vertical = _vertical(found, *images[0].shape[:2])
    if vertical:
        findings += vertical
        if vertical[0].fixed:
            repair = dataclasses.replace(repair, plane=(found.offset, found.slope, found.stretch))
    low, high = (float(value) for value in np.quantile(found.disparity, [0.01, 0.99]))
    sided = _sides(found, *Repair(plane=repair.plane).apply(Picture(images[0]), Picture(images[1])))
    if sided:
        finding, swap, shift = sided
        findings.append(finding)
        plane = tuple(-value for value in repair.plane) if swap else repair.plane
        repair = dataclasses.replace(repair, swap=swap, shift=shift, plane=plane)
    return Verdict(tuple(findings), repair, -low if repair.swap else high + repair.shift)


def _bits(left: Picture, right: Picture) -> int:
    """16, or the fewer that hold the largest value of both images, where both have 16."""
    if left.values is None or right.values is None:
        return 16
    top = max(int(left.values.max()), int(right.values.max()))
    return next(bits for bits in (8, 10, 12, 14, 16) if top < 2**bits)


def _scaled(source: Picture, bits: int) -> np.ndarray:
    if source.values is None or (bits == 8 and source.values.max() > 255):
        return source.image
    return np.clip(source.values >> (bits - 8), 0, 255).astype(np.uint8)


def _unmatched(left: np.ndarray, right: np.ndarray) -> Finding:
    """Of images in which too little agrees: how the right one would fit, if it does."""
    for words, other in (("upside down", right[::-1, ::-1]), ("mirrored", right[:, ::-1])):
        found = align(left, np.ascontiguousarray(other))
        if found is not None and found.share > 0.3:
            return Finding(
                "turned", f"the right image is {words} ({found.matches} matches agree once it is not)", "turn it", False
            )
    words = f"fewer than {ENOUGH} matches agree, so whether this is a rectified pair cannot be told"
    return Finding("unmatched", words, "expected two views of one scene, with texture, in focus", False)


def _vertical(found: Alignment, height: int, width: int) -> list[Finding]:
    """Of a pair whose matches are not in the same rows."""
    rotation, stretch = found.slope * width / 2, found.stretch * height / 2
    # A standard error of the offset is one of the mean of a slope at a border, times the square root of three.
    sure = 3 * found.error
    parts = {
        "offset": (found.offset, sure, f"{abs(found.offset):.2f} px {'lower' if found.offset > 0 else 'higher'}"),
        "rotation": (
            rotation, 2 * sure,
            f"turned by {np.rad2deg(found.slope):+.3f} degrees clockwise ({abs(rotation):.2f} px at the left and right border)",
        ),
        "stretch": (
            stretch, 2 * sure, f"{100 * found.stretch:+.2f} % taller ({abs(stretch):.2f} px at the upper and lower border)"
        ),
    }  # fmt: skip
    wrong = {kind: words for kind, (value, error, words) in parts.items() if abs(value) > LIMIT and abs(value) > error}
    safe = found.share > SURE and found.matches > 3 * ENOUGH
    remedy = "calibrate with `bridgedepth rectify`" + (", or --fix moves it" if safe else "")
    return [Finding(kind, f"not rectified, the right image is {words}", remedy, safe) for kind, words in wrong.items()]


def _sides(found: Alignment, left: np.ndarray, right: np.ndarray) -> tuple[Finding, bool, int] | None:
    """Matches that lie where no disparity is positive: the finding, and the swap or shift that mends it."""
    disparity = found.disparity
    wrong = disparity < NEGATIVE
    share = float(wrong.mean())
    if wrong.sum() < FEW or share < SHARE:
        return None
    low, high = np.quantile(disparity, [0.01, 0.99])
    numbers = f"{100 * share:.0f} % of {found.matches} matches have a negative disparity, {low:.1f}..{high:.1f} px"
    vote = order(left, right, float(low), float(high)) if share > 0.9 else 1.0
    if vote < -VOTES:
        return Finding("swapped", f"left and right look swapped ({numbers})", "swap them, or --fix", True), True, 0
    shift = int(np.ceil(4 - disparity.min() if wrong.sum() < 2 * FEW else 4 - low))
    words = f"negative disparities, the right image is shifted or the cameras converge ({numbers})"
    if share > 0.9 and vote < VOTES:
        return Finding("negative", f"{words}, or left and right are swapped", "swap them, or give --doffs", False), False, 0
    remedy = f"shift the right image by {shift} px to the left and give --doffs, or --fix, which takes it off the result"
    return Finding("negative", words, remedy, True), False, shift


def order(left: np.ndarray, right: np.ndarray, low: float, high: float) -> float:
    """Which way is near: 1 if larger disparities are, -1 if smaller ones are, and so left and right are swapped; 0 unclear.

    Geometry alone cannot tell a swapped pair from a shifted one. Half-occluded strips can: in the left image they lie where the
    disparity rises from left to right, and continue the farther one of the two surfaces beside them. So the colours of each are
    compared with both. `low`, `high`: pixels, the range of disparities.
    """
    width = left.shape[1]
    seen = min(1.0, 480 / width)
    first, second = (cv2.resize(image, None, fx=seen, fy=seen, interpolation=cv2.INTER_AREA) for image in (left, right))
    least = int(np.floor(low * seen)) - 8
    levels = -(-(int(np.ceil(high * seen)) + 8 - least) // 16) * 16
    matcher = cv2.StereoSGBM.create(least, levels, 3, 72, 288, 1, 0, 5, 50, 2, cv2.STEREO_SGBM_MODE_HH)
    pads = max(levels + least, 0), max(-least, 0)  # columns that the matcher would leave out
    wide = (cv2.copyMakeBorder(image, 0, 0, *pads, cv2.BORDER_REPLICATE) for image in (first, second))
    disparity = matcher.compute(*wide)[:, pads[0] : pads[0] + first.shape[1]] / np.float32(16)
    known = disparity >= least
    colors = cv2.GaussianBlur(first, (1, 3), 0).astype(np.float32)
    votes = []
    for y in range(0, len(first), 2):
        edges = np.flatnonzero(np.diff(known[y].astype(np.int8)))
        for a, b in itertools.pairwise(edges):  # known up to a, unknown a+1 .. b, known from b+1
            gap = b - a
            if known[y, a + 1] or not 3 <= gap <= 60 or a < 6 or b + 7 > first.shape[1]:
                continue
            rise = disparity[y, b + 1] - disparity[y, a]
            if not max(2.0, 0.5 * gap) <= rise <= 2 * gap + 2:
                continue
            strip = colors[y, a + 1 : b + 1].mean(0)
            before, after = (np.abs(strip - colors[y, part].mean(0)).sum() for part in (slice(a - 4, a), slice(b + 3, b + 7)))
            if max(before, after) > 12:
                votes.append((after - before) / (after + before))
    return float(np.mean(votes)) if len(votes) >= 8 else 0.0


def _moved(image: np.ndarray, plane: tuple[float, float, float], shift: int) -> np.ndarray:
    """The right image without the offset, slope and stretch of an `Alignment`, then moved to the left."""
    height, width = image.shape[:2]
    offset, slope, stretch = plane
    if any(plane):
        cosine = np.sqrt(1 - slope**2)
        turn = np.array([[cosine, -slope], [slope, cosine]]) @ np.diag([1.0, 1 + stretch])
        centre = (np.array([width, height]) - 1) / 2
        matrix = np.column_stack([turn, centre + np.array([0, offset]) - turn @ centre])  # of the mended to the given image
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        image = cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    if shift:
        image = cv2.copyMakeBorder(image[:, shift:], 0, 0, 0, min(shift, width), cv2.BORDER_REPLICATE)
    return image
