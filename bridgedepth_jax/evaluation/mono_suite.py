"""Monocular networks on whole data sets (spec `mono-training.md` section 5): images, measures, tables, quoted rows.

Whatever predicts: a function of an image, and whether it gives metres; or of a pair, whose disparity gives metres where the
set has the other view and the cameras' focal length and baseline. Both AbsRel stand in every table.
"""

import csv
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from bridgedepth_jax.data.formats import decode_image, read_bytes
from bridgedepth_jax.data.kitti_raw import read_cameras
from bridgedepth_jax.data.mono import DA2K, DA2K_ORIGIN, EVALUATION, MonoFile, find_images, open_mono, read_truth
from bridgedepth_jax.data.sources import SyntheticOptions, SyntheticSource
from bridgedepth_jax.errors import InputError, unknown
from bridgedepth_jax.evaluation import mono
from bridgedepth_jax.files import replacing
from bridgedepth_jax.visualize import colorize

LOW = 0.001  # metres
FAR = 1e4  # metres of a pair's disparity of 0, beyond every cap
CAPS = {
    "nyuv2": 10.0, "nyuv2_filled": 10.0, "kitti_eigen": 80.0, "scannet": 10.0, "eth3d_depth": 72.0, "sintel_depth": 72.0,
    "synthetic": 80.0,
}  # fmt: skip
SETS = (*EVALUATION, "da2k", "synthetic")
PAIRS = ("kitti_eigen", "synthetic")  # sets with a second view

# delta1 / AbsRel of the paper's Table 1, and metric ones of Tables 4 and 5: never ours (spec section 11).
QUOTED: dict[str, dict[str, tuple[float, float]]] = {
    "nyuv2": {"BRIDGE (T1)": (0.982, 0.041), "Depth Anything V2 (T1)": (0.979, 0.045)},
    "kitti_eigen": {"BRIDGE (T1)": (0.938, 0.081), "Depth Anything V2 (T1)": (0.946, 0.075)},
    "scannet": {"BRIDGE (T1)": (0.981, 0.033), "Depth Anything V2 (T1)": (0.978, 0.043)},
    "eth3d_depth": {"BRIDGE (T1)": (0.991, 0.029), "Depth Anything V2 (T1)": (0.988, 0.038)},
    "sintel_depth": {"BRIDGE (T1)": (0.719, 0.513), "Depth Anything V2 (T1)": (0.672, 0.598)},
}
QUOTED_METRIC: dict[str, dict[str, tuple[float, float]]] = {
    "nyuv2": {"BRIDGE (T4, in-domain)": (0.986, 0.052), "Metric3Dv2 (T4)": (0.987, 0.046)},
    "kitti_eigen": {"BRIDGE (T5, in-domain)": (0.983, 0.045), "Metric3Dv2 (T5)": (0.985, 0.044)},
}
QUOTED_DA2K = {"BRIDGE (T1)": 97.3, "Depth Anything V2 (T1)": 97.1}


class MonoMethod(NamedTuple):
    """What is evaluated: `predict` takes an image (H, W, 3) uint8 and gives a map of any size, larger is nearer; or metres.

    With `pairs` it takes a left and a right image and gives the disparity (H, W) in their pixels, from which metres follow.
    """

    name: str
    identity: Mapping[str, Any]  # JSON values
    predict: Callable[..., np.ndarray]
    metric: bool
    pairs: bool = False

    def __call__(self, found: "Truth") -> np.ndarray:
        """The map of an image, metres if `metric`."""
        if not self.pairs:
            return self.predict(found.image)
        assert found.right is not None
        disparity = self.predict(found.image, found.right).astype(np.float64)
        depth = np.full(disparity.shape, np.inf)  # as far as can be where the disparity is 0
        np.divide(found.focal_baseline, disparity, out=depth, where=disparity > 0)
        return np.minimum(depth, FAR)


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which images of a set: those of a list, evenly spaced ones, the first ones, or all."""

    listed: Path | None = None  # a file of image paths, one a line
    count: int = 0
    limit: int = 0

    def of(self, names: Sequence[str], dataset: str) -> list[int]:
        """Numbers of the chosen. InputError: more than there are, or a name that is not there."""
        numbers = list(range(len(names)))
        if self.listed is not None:
            try:
                wanted = [line.strip() for line in self.listed.read_text().splitlines() if line.strip()]
            except OSError as error:
                raise InputError(f"--list {self.listed}: cannot be read ({error.strerror})") from error
            known = {name: number for number, name in enumerate(names)}
            if lost := [name for name in wanted if name not in known]:
                raise InputError(f"--list {self.listed}: {lost[0]} is no image of {dataset}, expected paths such as {names[0]}")
            numbers = sorted(known[name] for name in wanted)
        if self.count > len(numbers):
            raise InputError(f"--count {self.count}: {dataset} has {len(numbers)} images")
        if self.count:
            numbers = [numbers[i * len(numbers) // self.count] for i in range(self.count)]
        return numbers[: self.limit] if self.limit else numbers

    def words(self) -> str:
        if self.listed is not None:
            return f"those of {self.listed.name}"
        first = f", the first {self.limit}" if self.limit else ""
        return (f"{self.count} evenly spaced" if self.count else "all") + first


class Truth(NamedTuple):
    """An image with its truth, both already cut or resized as the set's protocol says."""

    name: str
    image: np.ndarray
    truth: np.ndarray  # metres
    right: np.ndarray | None = None  # the other view, where a pair is asked for
    focal_baseline: float = 0.0  # pixels times metres


def _read(dataset: str, file: MonoFile, *, pair: bool) -> Truth:
    image, truth = read_truth(file)
    if dataset == "scannet":  # colour to the depth's size
        image = cv2.resize(image, truth.shape[::-1], interpolation=cv2.INTER_LINEAR)
    if image.shape[:2] != truth.shape:
        raise InputError(f"{file.depth}: depth {truth.shape}, but the image {file.image} is {image.shape[:2]}")
    right, focal_baseline = None, 0.0
    if pair:
        drive = file.image.parents[2]  # KITTI raw's folders, the date's with its calibration
        cameras = read_cameras(drive.parent)
        other = drive / "image_03" / "data" / file.image.name
        right, focal_baseline = decode_image(read_bytes(other), str(other)), cameras.focal * cameras.baseline
        if right.shape != image.shape:
            raise InputError(f"{other}: {right.shape[:2]}, but {file.image} is {image.shape[:2]}")
    if dataset == "kitti_eigen":
        window = mono.kitti_window(*truth.shape)
        image, truth = image[window], truth[window]
        right = None if right is None else np.ascontiguousarray(right[window])
    return Truth(file.name, np.ascontiguousarray(image), np.ascontiguousarray(truth), right, focal_baseline)


def _readers(
    dataset: str, root: Path, choice: Choice, synthetic: SyntheticOptions | None, *, pairs: bool
) -> list[Callable[[], Truth]]:
    if dataset == "synthetic":
        options = synthetic or SyntheticOptions()
        if pairs:
            scenes = SyntheticSource(dataclasses.replace(options, height=options.height or 384, width=options.width or 640))

            def both(number: int) -> Truth:
                """Metres are the largest disparity over a pixel's, as below: focal length times baseline is that."""
                pair = scenes[number]
                known = pair["valid"] & (pair["disparity"] > 0)
                truth = np.where(known, options.max_disparity / np.where(known, pair["disparity"], 1), 0)
                return Truth(pair["name"], pair["left"], truth, pair["right"], options.max_disparity)

            numbers = choice.of([f"{n:08d}" for n in range(len(scenes))], dataset)
            return [functools.partial(both, number) for number in numbers]
        source = open_mono("synthetic", root, options)

        def rendered(number: int) -> Truth:
            sample = source[number]
            known = sample["valid"] & (sample["inverse"] > 0)
            truth = np.where(known, options.max_disparity / np.where(known, sample["inverse"], 1), 0)
            return Truth(sample["name"], sample["image"], truth)

        numbers = choice.of([f"{n:08d}" for n in range(len(source))], dataset)
        return [functools.partial(rendered, number) for number in numbers]
    files = find_images(dataset, root)
    numbers = choice.of([file.name for file in files], dataset)
    return [functools.partial(_read, dataset, files[number], pair=pairs) for number in numbers]


def check_pairs(method: MonoMethod, dataset: str) -> None:
    """InputError: a network of pairs and a set of single images."""
    if method.pairs and dataset not in PAIRS:
        raise InputError(f"{dataset} has single images, expected one of {', '.join(PAIRS)} for a network of pairs")


def evaluate_set(
    method: MonoMethod,
    dataset: str,
    root: Path,
    choice: Choice | None = None,
    *,
    synthetic: SyntheticOptions | None = None,
    progress: bool = False,
    consume: Callable[[Truth, np.ndarray, mono.Measured], None] | None = None,
) -> dict[str, Any]:
    """What `report compare` reads (per_image, protocol), means, problems by image, and how many fits have a scale up to 0."""
    choice = choice or Choice()
    check_pairs(method, dataset)
    if dataset == "da2k":
        return _evaluate_da2k(method, root, choice, progress=progress)
    if dataset not in CAPS:
        raise unknown("monocular evaluation set", dataset, SETS)
    images: dict[str, dict[str, float]] = {}
    problems: dict[str, str] = {}
    backwards = 0
    readers = _readers(dataset, root, choice, synthetic, pairs=method.pairs)
    for read in tqdm(readers, desc=dataset, unit="image", disable=None if progress else True, dynamic_ncols=True):
        try:
            found = read()
        except InputError as error:
            problems[str(error).split(":")[0]] = str(error)
            continue
        prediction = method(found)
        crop = mono.crop_of(dataset, *found.truth.shape)
        try:
            measured = mono.evaluate_image(prediction, found.truth, LOW, CAPS[dataset], crop, metric=method.metric)
        except InputError as error:
            problems[found.name] = str(error)
            continue
        row = dict(measured.measures) | {"pixels": float(measured.pixels)}
        if measured.fit is not None:
            row |= {"scale": measured.fit.scale, "shift": measured.fit.shift}
            backwards += measured.fit.scale <= 0
        images[found.name] = row
        if consume is not None:
            consume(found, prediction, measured)
    means = {name: float(np.mean([row[name] for row in images.values()])) for name in mono.NAMES} if images else {}
    fitted = "relative, scale and shift fitted in inverse depth"
    kind = "metric, of a pair" if method.pairs else "metric, without fit" if method.metric else fitted
    words = f"{kind}; {LOW:g} to {CAPS[dataset]:g} m; images: {choice.words()}"
    return _entry(images, problems, means, int(backwards), words)


def _entry(
    images: Mapping[str, Mapping[str, float]],
    problems: Mapping[str, str],
    means: Mapping[str, float],
    backwards: int,
    words: str,
) -> dict[str, Any]:
    return {
        "protocol": {"words": words},
        "images": len(images),
        "means": dict(means),
        "problems": dict(problems),
        "reversed": backwards,
        "per_image": {name: {"depth": dict(row)} for name, row in images.items()},
    }


def _evaluate_da2k(method: MonoMethod, root: Path, choice: Choice, *, progress: bool) -> dict[str, Any]:
    table = root / DA2K
    try:
        annotations = json.loads(table.read_text())
        names = sorted(annotations)
    except OSError as error:
        raise InputError(f"da2k: {table} cannot be read ({error.strerror}); it comes from {DA2K_ORIGIN}") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{table}: not a table of pairs by image ({error})") from error
    answers: dict[str, list[bool]] = {}
    numbers = choice.of(names, "da2k")
    for number in tqdm(numbers, desc="da2k", unit="image", disable=None if progress else True, dynamic_ncols=True):
        name = names[number]
        path = table.parent / name
        image = decode_image(read_bytes(path), str(path))
        found = mono.resize_map(method.predict(image), *image.shape[:2])
        answers[name] = mono.ordered(-found if method.metric else found, annotations[name], str(path))
    scenes = mono.accuracies(answers)
    means = {f"accuracy/{scene}": value for scene, (value, _) in scenes.items()}
    rows = {name: {"right": float(sum(right)), "pairs": float(len(right))} for name, right in answers.items()}
    words = f"per cent of pairs whose closer point is strictly nearer; images: {choice.words()}"
    return _entry(rows, {}, means, 0, words)


def evaluate_mono(
    method: MonoMethod,
    datasets: Sequence[str],
    root: Path,
    out: Path,
    choice: Choice,
    *,
    pictures: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Every set, and results.json, results.md, images.csv and pictures/ in `out`."""
    if wrong := [name for name in datasets if name not in SETS]:
        raise unknown("monocular evaluation set", wrong[0], SETS)
    for name in datasets:
        check_pairs(method, name)
    result: dict[str, Any] = {"method": method.name, "identity": dict(method.identity), "metric": method.metric, "datasets": {}}
    for dataset in datasets:
        drawn: list[int] = []

        def draw(
            found: Truth, prediction: np.ndarray, _: mono.Measured, dataset: str = dataset, drawn: list[int] = drawn
        ) -> None:
            if len(drawn) < pictures:
                drawn.append(1)
                _draw(out / "pictures" / f"{dataset}_{len(drawn):03d}.png", found, prediction, metric=method.metric)

        result["datasets"][dataset] = evaluate_set(method, dataset, root, choice, progress=progress, consume=draw)
    write(result, out)
    return result


def _draw(path: Path, found: Truth, prediction: np.ndarray, *, metric: bool) -> None:
    """Image, prediction and truth side by side, inverse depth."""
    height, width = found.truth.shape
    known = np.isfinite(found.truth) & (found.truth > 0)
    at = mono.resize_map(prediction, height, width)
    inverse = 1 / np.maximum(at, 1e-3) if metric else at
    truth = np.where(known, 1 / np.where(known, found.truth, 1), 0)
    panels = [found.image]
    for values, mask in ((inverse, np.ones(known.shape, bool)), (truth, known)):
        low, high = np.quantile(values[mask], (0.01, 0.99)) if mask.any() else (0.0, 1.0)
        panels.append(colorize(np.clip((values - low) / max(high - low, 1e-9), 0, 1).astype(np.float32), 1.0, mask))
    with replacing(path) as temporary:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(temporary), cv2.cvtColor(np.concatenate(panels, axis=1), cv2.COLOR_RGB2BGR))


def write(result: Mapping[str, Any], out: Path) -> None:
    """results.json, results.md and images.csv, each whole or not at all."""
    with replacing(out / "results.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    with replacing(out / "results.md") as temporary:
        temporary.write_text("\n".join(lines(result)) + "\n")
    with replacing(out / "images.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("dataset", "image", "measure", "value"))
        for dataset, entry in result["datasets"].items():
            for name, row in entry["per_image"].items():
                writer.writerows((dataset, name, measure, repr(value)) for measure, value in row["depth"].items())


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """results.md, line by line: ours first, published rows after it, marked as quoted."""
    yield f"# {result['method']}, {'metric' if result['metric'] else 'relative'} depth"
    for dataset, entry in result["datasets"].items():
        yield f"\n## {dataset}\n\n{entry['protocol']['words']}; {entry['images']} images"
        for name, why in entry["problems"].items():
            yield f"\nleft out: {name}: {why}"
        if entry["reversed"]:
            yield f"\n{entry['reversed']} fits with a scale of 0 or less"
        if dataset == "da2k":
            yield "\n| | " + " | ".join(name.removeprefix("accuracy/") for name in entry["means"]) + " |"
            yield "|---" * (len(entry["means"]) + 1) + "|"
            yield f"| {result['method']} | " + " | ".join(f"{value:.1f}" for value in entry["means"].values()) + " |"
            for model, value in QUOTED_DA2K.items():
                yield f"| {model}, quoted: {value} over all |" + " |" * len(entry["means"])
            continue
        yield "\n| | " + " | ".join(mono.NAMES) + " |"
        yield "|---" * (len(mono.NAMES) + 1) + "|"
        if entry["means"]:
            yield f"| {result['method']} | " + " | ".join(f"{entry['means'][name]:.4f}" for name in mono.NAMES) + " |"
        quoted = (QUOTED_METRIC if result["metric"] else QUOTED).get(dataset, {})
        for model, (delta, abs_rel) in quoted.items():
            cells = [
                f"{delta:.3f}" if name == "delta1" else f"{abs_rel:.3f}" if name == "abs_rel" else "" for name in mono.NAMES
            ]
            yield f"| {model}, quoted; AbsRel of which kind is open | " + " | ".join(cells) + " |"
