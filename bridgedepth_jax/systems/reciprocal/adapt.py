"""Adapting a trained stereo network to a camera without ground truth: stages 1 to 3 on a user's own rectified pairs.

Where the network says better things of enlarged images, it learns from these (`enlarged.py`) instead of stage 1's losses, and
is best where held-out pairs are nearest to theirs. Else, and always for whether the result is worth exporting, held-out pairs
decide by the photometric error where both the network before and the one after see with both cameras. H, W the sides that the
network works at.
"""

import csv
import dataclasses
import functools
import json
import logging
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.convert.published import load, of, resolve
from bridgedepth_jax.data.augment import AugmentConfig, whole_views
from bridgedepth_jax.data.epipolar import check_pair
from bridgedepth_jax.data.formats import write_png
from bridgedepth_jax.data.pairs import Pair, read_sample
from bridgedepth_jax.data.pipeline import DataConfig, make_train_dataset
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.depth import resize_disparity
from bridgedepth_jax.files import make_folder, replacing
from bridgedepth_jax.store.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bridgedepth_jax.system import Weights, find_system
from bridgedepth_jax.systems.reciprocal import losses
from bridgedepth_jax.systems.reciprocal.bridgedepth import supervised_task
from bridgedepth_jax.systems.reciprocal.config import ALPHA, ReciprocalTask, SingleNetConfig, Stage
from bridgedepth_jax.systems.reciprocal.enlarged import Enlarged, candidates, write_labels
from bridgedepth_jax.systems.reciprocal.networks import mirrored
from bridgedepth_jax.training import loop
from bridgedepth_jax.training.config import EvalConfig, RunConfig, SolverConfig
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.start import make_start
from bridgedepth_jax.visualize import colorize

log = logging.getLogger(__name__)
STUDENTS = {"bridgedepth": "bridgedepth-pairs", "stereonet": "stereonet"}  # kinds of checkpoints: who trains them
MONO = "singlenet"
WIDTH = 1024  # pixels, of the paper's images: smoothness counts differences a pixel, so narrower ones take less of it
KEEP = 0.1  # weight of what the network said before, where the views do not agree: there the pairs teach nothing
ALIKE = 0.2  # share of the pairs in which matches must be found: dark or small ones have few
CHECKED = 200  # pairs of a list that are looked at before training
BETTER = 0.99  # error after over error before, at most, to be worth exporting
MORE_OCCLUDED = 0.02  # by which the share of occluded pixels may rise: what is masked costs nothing
ENLARGED = 0.9  # the same ratio, below which it is worth learning from what the network says of enlarged images
NEARER = 0.9  # how far apart left and right are on these over that before, at most
LABEL_RATE = 20  # times the learning rate: labels are surer than photometric errors, and averaged weights forgive more
AVERAGE = 0.99  # decay of the average of the weights that learn from labels
MOST_HELD_OUT = 32
HELD_LABELS = "held_out.npy"


@dataclasses.dataclass(frozen=True)
class AdaptConfig:
    """How long and how fast. `None` sizes follow from the images."""

    stages: int = 1  # 1, or 3: then also a monocular network from the result, and both together teach the stereo network again
    steps: int = 600  # of each stage, at most
    every: int = 50  # steps between two looks at the held-out pairs
    patience: int = 4  # looks without a better result, after which a stage ends
    size: tuple[int, int] | None = None  # height and width that images are resized to
    batch: int = 2
    rate: float = 5e-5
    held_out: float = 0.2  # share of the pairs
    seed: int = 0
    imagenet: str = ""  # ImageNet weights of the monocular network's encoder

    def __post_init__(self) -> None:
        for name in ("steps", "every", "patience", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}, expected at least 1")
        if self.stages not in (1, 3):
            raise InputError(f"--stages {self.stages}, expected 1, or 3 for all")
        if not self.rate > 0:
            raise InputError(f"--rate {self.rate:g}, expected more than 0")
        if not 0 < self.held_out < 1:
            raise InputError(f"--held-out {self.held_out:g}, expected a share between 0 and 1")


class HeldOut(NamedTuple):
    """A pair that training does not see, at the network's size."""

    name: str
    left: np.ndarray  # (H, W, 3) uint8
    right: np.ndarray
    disparity: np.ndarray | None  # of its own size, where the list has it
    valid: np.ndarray | None


class Judgement(NamedTuple):
    """What a network says of a held-out pair."""

    disparity: np.ndarray  # (H, W) pixels
    occluded: np.ndarray  # (H, W) bool
    error: np.ndarray  # (H, W) photometric
    apart: float  # pixels, by which left and right disagree in view


def split_pairs(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """(to train on, held out): the last ones of each folder, so that neighbours in a sequence stay together.

    InputError: fewer than two pairs.
    """
    if len(pairs) < 2:
        raise InputError(f"{len(pairs)} pair, expected at least 2: one to train on and one to judge by")
    folders: dict[Path, list[Pair]] = {}
    for pair in pairs:
        folders.setdefault(pair.left.parent, []).append(pair)
    held: list[Pair] = []
    for rows in folders.values():
        held += rows[len(rows) - round(share * len(rows)) :]
    held = held or [pairs[-1]]
    labelled = [pair for pair in held if pair.disparity is not None]
    if len(held) > MOST_HELD_OUT:  # spread evenly, those with ground truth first
        rest = [pair for pair in held if pair.disparity is None]
        held = _spread(labelled, MOST_HELD_OUT) + _spread(rest, max(MOST_HELD_OUT - len(labelled), 0))
    names = {pair.left for pair in held}
    left = [pair for pair in pairs if pair.left not in names]
    if not left:
        raise InputError(f"--held-out {share:g} of {len(pairs)} pairs leaves none to train on")
    return left, held


def _spread(rows: list[Pair], count: int) -> list[Pair]:
    return rows if len(rows) <= count else [rows[i * len(rows) // count] for i in range(count)]


def check_pairs(pairs: Sequence[Pair]) -> None:
    """InputError: a pair that is not rectified or swapped, or images that mostly have nothing in common."""
    looked = _spread(list(pairs), CHECKED)
    alike = 0
    for pair in looked:
        sample = read_sample(pair)
        alike += check_pair(sample["left"], sample["right"], str(pair.left))
    if alike < ALIKE * len(looked):
        raise InputError(
            f"{pairs[0].dataset}: left and right have nothing in common in {len(looked) - alike} of {len(looked)} pairs,"
            " expected images of one scene"
        )


def working_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """Sides near the images' own, at most of the area of the paper's 320x1024, as multiples."""
    scale = min(1.0, (320 * WIDTH / (height * width)) ** 0.5)
    sides = (max(multiple, round(side * scale / multiple) * multiple) for side in (height, width))
    found_height, found_width = sides
    return found_height, found_width


class Judge:
    """The held-out pairs, and what the network said of them before."""

    def __init__(self, pairs: Sequence[HeldOut], kind: str, config: Any, weights: Weights) -> None:
        estimate = find_system(kind).estimate
        assert estimate is not None
        stereo = lambda weights, left, right: estimate(config)(weights, left, right).disparity
        self.stereo = stereo
        self._run = jax.jit(functools.partial(_both, stereo))
        self._measure = jax.jit(_measure)
        self.pairs = pairs
        self.labels: np.ndarray | None = None  # (pairs, H, W) disparity, where there is something to learn from
        self.before = self.look(weights)

    def look(self, weights: Weights) -> list[Judgement]:
        """Of a network."""
        return self.measure([self._run(weights, pair.left[None], pair.right[None]) for pair in self.pairs])

    def measure(self, found: Sequence[tuple[Any, Any]]) -> list[Judgement]:
        """Of the disparities (1, H, W) of both views of each pair."""
        judged = []
        for pair, (disparity, other) in zip(self.pairs, found, strict=True):
            measured = self._measure(pair.left[None], pair.right[None], disparity, other)
            disparity, (occluded, error, apart) = jax.device_get((disparity, measured))
            judged.append(Judgement(disparity[0], occluded[0], error[0], float(apart)))
        return judged

    def compare(self, after: Sequence[Judgement]) -> dict[str, float]:
        """Means over the pairs, before and after; `ratio` of the errors where both see, `wins` the share of pairs."""
        both = [~a.occluded & ~b.occluded for a, b in zip(self.before, after, strict=True)]
        old = [float(b.error[mask].mean()) if mask.any() else 1.0 for b, mask in zip(self.before, both, strict=True)]
        new = [float(a.error[mask].mean()) if mask.any() else 1.0 for a, mask in zip(after, both, strict=True)]
        values = {"photometric_before": float(np.mean(old)), "photometric_after": float(np.mean(new))}
        for word, rows in (("before", self.before), ("after", after)):
            values[f"apart_{word}"] = float(np.mean([row.apart for row in rows]))
            values[f"occluded_{word}"] = float(np.mean([row.occluded.mean() for row in rows]))
            if self.labels is not None:
                off = [np.abs(row.disparity - label).mean() for row, label in zip(rows, self.labels, strict=True)]
                values[f"label_{word}"] = float(np.mean(off))
            errors = [
                np.abs(resize_disparity(row.disparity, *pair.disparity.shape) - pair.disparity)[pair.valid]
                for row, pair in zip(rows, self.pairs, strict=True)
                if pair.disparity is not None and pair.valid is not None and pair.valid.any()
            ]
            if errors:
                values[f"epe_{word}"] = float(np.mean([error.mean() for error in errors]))
                values[f"bad-3_{word}"] = float(np.mean([100 * (error > 3).mean() for error in errors]))
        values["ratio"] = values["photometric_after"] / values["photometric_before"]
        if self.labels is not None:
            values["label_ratio"] = values["label_after"] / values["label_before"]
        values["wins"] = float(np.mean([a < b for a, b in zip(new, old, strict=True)]))
        return values


def _both(stereo: Callable, weights: Weights, left: Any, right: Any) -> tuple[Any, Any]:
    pair = left.astype(jnp.float32), right.astype(jnp.float32)
    return stereo(weights, *pair), mirrored(stereo)(weights, *pair)


def _measure(left: Any, right: Any, disparity: Any, other: Any) -> tuple[Any, Any, Any]:
    left, right = (view.astype(jnp.float32) / 255 for view in (left, right))
    there = losses.warp_rows(other[..., None], disparity)[..., 0]
    inside = ~losses.out_of_view(disparity)
    apart = jnp.sum(jnp.where(inside, jnp.abs(disparity - there), 0)) / jnp.maximum(jnp.sum(inside), 1)
    error = losses.photometric(left, losses.warp_rows(right, disparity))
    return losses.occlusion(disparity, other, ALPHA["photometric"]), error, apart


def verdict(values: dict[str, float]) -> str:
    """Why weights with these values are not worth exporting, or nothing."""
    if not values["ratio"] <= BETTER:
        return f"the photometric error is {values['ratio']:.3f} times that before, expected at most {BETTER:g}"
    if values["wins"] <= 0.5:
        return f"the error fell on {values['wins']:.0%} of the held-out pairs, expected most of them"
    if values["occluded_after"] > values["occluded_before"] + MORE_OCCLUDED:
        return (
            f"left and right disagree in {values['occluded_after']:.1%} of the pixels, {values['occluded_before']:.1%} before:"
            " the error fell where fewer pixels count"
        )
    return ""


class BrokenOff(Exception):
    """A stage was asked to stop before its end."""


class _Enough(Exception):
    """Held-out pairs have not become better for a while."""


class _Watch:
    """The loop's evaluation: keeps the best weights in `folder`, and ends a stage that does not get better.

    By the photometric error, or where there are labels by how far the disparities are from these: over that before, and `below`
    what an earlier stage reached.
    """

    def __init__(self, judge: Judge, folder: Path, config: AdaptConfig, kind: str, model: Any, below: float = 1.0) -> None:
        self.judge, self.folder, self.config, self.kind, self.model = judge, folder, config, kind, model
        self.file = folder / "best.json"
        self.state = json.loads(self.file.read_text()) if self.file.is_file() else {"ratio": below, "looks": 0, "best": 0}

    def __call__(self, weights: dict[str, Any]) -> dict[str, float]:
        values = self.judge.compare(self.judge.look(weights))
        self.state["looks"] += 1
        step = self.state["looks"] * self.config.every
        ratio = values.get("label_ratio", values["ratio"])
        allowed = values["occluded_before"] + MORE_OCCLUDED
        better = ratio < self.state["ratio"] and values["occluded_after"] <= allowed
        if better:
            provenance = {"source": f"adapted without ground truth, {self.folder.name}, step {step}", "held_out": values}
            checkpoint = Checkpoint(self.kind, jax.tree.map(np.asarray, weights), self.model, provenance)
            save_checkpoint(self.folder / "best", checkpoint)
            self.state |= {"ratio": ratio, "best": self.state["looks"]}
        with replacing(self.file) as temporary:
            temporary.write_text(json.dumps(self.state))
        mark = ", best" if better else ""
        label = f", {values['label_after']:.3f} px from their labels" if "label_after" in values else ""
        print(
            f"held-out pairs, step {step}: photometric error {values['photometric_after']:.4f}"
            f" ({values['photometric_before']:.4f} before), occluded {values['occluded_after']:.1%}{label}{mark}",
            file=sys.stderr,
            flush=True,
        )
        if self.state["looks"] - self.state["best"] >= self.config.patience:
            raise _Enough
        return {f"held_out/{name}": value for name, value in values.items()}


def adapt(pairs: Sequence[Pair], init: str | Path, workdir: Path, config: AdaptConfig) -> dict[str, Any]:
    """Trains, and exports to workdir/export what is better on the held-out pairs; the same call continues a broken-off one.

    Returns what workdir/adapt.json holds: `values` before and after, and `refused`, why nothing was exported, or "".
    InputError: a checkpoint of another kind; pairs that cannot be trained on. BrokenOff: by SIGTERM or Ctrl-C.
    """
    folder = resolve(init, of(*STUDENTS))
    loaded = load(folder, of(*STUDENTS))
    system = find_system(loaded.kind)
    training, held = split_pairs(pairs, config.held_out)
    check_pairs(pairs)
    first = read_sample(held[0])["left"].shape
    multiple = max(system.multiple, find_system(MONO).multiple if config.stages == 3 else 1)
    size = config.size or working_size(first[0], first[1], multiple)
    if any(side % multiple or side < system.minimum for side in size):
        raise InputError(f"--size {size[0]}x{size[1]}, expected multiples of {multiple}, at least {system.minimum}")
    make_folder(workdir, "--workdir")
    _write_list(workdir / "train.csv", training)
    judge = Judge([_hold_out(pair, size) for pair in held], loaded.kind, loaded.config, loaded.params)

    run = functools.partial(_stage, workdir=workdir, size=size, config=config)
    # Remains the best of all stages; a stage that did not help is left out.
    best = folder
    student = STUDENTS[loaded.kind]
    watch = functools.partial(_Watch, judge, config=config, kind=loaded.kind, model=loaded.config)
    labels, scales = (None, ())
    if loaded.kind == "bridgedepth":
        labels, scales = _labels(workdir / "labels", training, size, judge, folder, loaded)
    if labels:
        found = run("stage1", loaded.kind, loaded.config, supervised_task(loaded.config), best, watch=watch, labels=labels)
    else:
        task = _task("photometric", size, keep=KEEP)
        found = run("stage1", student, loaded.config, task, best, watch=watch, teachers={"stereo": folder})
    best = found or best
    if config.stages == 3:
        model = SingleNetConfig.named("resnet18")
        model = dataclasses.replace(model, size=size)
        mono = run("stage2", MONO, model, _task("distil", size), None, teachers={"stereo": best})
        assert mono is not None
        teachers = {"stereo": best, "mono": mono}
        file = workdir / "stage1" / "best.json"
        reached = json.loads(file.read_text())["ratio"] if file.is_file() else 1.0
        watch = functools.partial(watch, below=reached)
        found = run("stage3", student, loaded.config, _task("fusion", size), best, watch=watch, teachers=teachers)
        best = found or best
    after = judge.look(load_checkpoint(best).params)
    values = judge.compare(after)
    refused = verdict(values)
    _pictures(workdir / "pictures", judge, after)
    result = {
        "init": str(init),
        "pairs": {"trained": len(training), "held_out": len(held)},
        "size": list(size),
        "enlarged": list(scales),
        "values": values,
        "refused": refused,
    }
    with replacing(workdir / "adapt.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    with replacing(workdir / "adapt.md") as temporary:
        temporary.write_text(report(result))
    if refused:
        shutil.rmtree(workdir / "export", ignore_errors=True)
    else:
        chosen = load_checkpoint(best)
        provenance = {**loaded.provenance, "adapted": chosen.provenance}
        save_checkpoint(workdir / "export", Checkpoint(chosen.kind, chosen.params, chosen.config, provenance))
    return result


def _stage(
    name: str,
    student: str,
    model: Any,
    task: Any,
    init: Path | None,
    *,
    workdir: Path,
    size: tuple[int, int],
    config: AdaptConfig,
    watch: Callable[[Path], _Watch] | None = None,
    teachers: dict[str, Path] | None = None,
    labels: Path | None = None,
) -> Path | None:
    """Trains one stage; the folder of its best weights, or None where the held-out pairs never became better.

    From the pairs, or from a list with labels, whose weights are averaged.
    """
    folder = workdir / name
    pairs = (labels or workdir / "train.csv").absolute()
    augment = AugmentConfig(enabled=labels is None)  # labels are of whole images
    data = DataConfig(train=((f"custom:{pairs}", 1),), crop=size, whole=labels is None, augment=augment)
    experiment = Experiment(
        system=student,
        model=model,
        task=task,
        data=data,
        solver=SolverConfig(
            max_iter=config.steps,
            batch_size=config.batch,
            base_lr=(config.rate if init else 1e-4) * (LABEL_RATE if labels else 1),  # from nothing: the paper's
            schedule="one_cycle" if labels else "constant",
            weight_decay=0.0,
            weight_decay_norm=0.0,
            average=AVERAGE if labels else 0.0,
        ),
        run=RunConfig(latest_every=config.every, images_every=config.every, print_every=10),
        eval=EvalConfig(datasets=(), every=config.every if watch else 0),
        seed=config.seed,
        init=str(init or "random"),
        teachers=tuple((key, str(path)) for key, path in (teachers or {}).items()),
    )
    evaluate = watch(folder) if watch else None
    ended = folder / "ended"
    asked = json.dumps([experiment.to_dict(), pairs.read_text()])
    if ended.is_file() and ended.read_text() != asked:
        raise InputError(f"{folder} ended with other pairs or options, expected the same or another --workdir")
    if not ended.is_file():
        start = functools.partial(make_start, experiment, experiment.init, "" if init else config.imagenet)
        try:
            devices = jax.devices()[: math.gcd(config.batch, jax.device_count())]  # which share the batch evenly
            word = loop.train(experiment, folder, make_train_dataset(experiment.data), start, evaluate, devices)
            if not (folder / "export").is_dir():  # what a run writes at its end
                raise BrokenOff(f"{name} {word}")
        except _Enough:
            log.info("%s: no better for %d looks", name, config.patience)
        with replacing(ended) as temporary:
            temporary.write_text(asked)
    if watch is None:
        return folder / "export"
    return folder / "best" if (folder / "best").is_dir() else None


def _task(stage: Stage, size: tuple[int, int], keep: float = 0.0) -> ReciprocalTask:
    return ReciprocalTask(stage=stage, keep=keep, smoothness=losses.SMOOTHNESS * size[1] / WIDTH)


def _labels(
    folder: Path, pairs: Sequence[Pair], size: tuple[int, int], judge: Judge, init: Path, loaded: Checkpoint
) -> tuple[Path | None, tuple[float, ...]]:
    """A list of the pairs with labels of the network on enlarged images, and their scales; nothing where none is any better.

    What is there for the same pairs, size and weights stays.
    """
    files = (str(path.absolute()) for pair in pairs for path in (pair.left, pair.right))
    made_for = [str(init.absolute()), *size, *files, "held out", *(pair.name for pair in judge.pairs)]
    chosen = folder / "scales.json"
    teacher = Enlarged(judge.stereo, loaded.params, find_system(loaded.kind).multiple)
    known = json.loads(chosen.read_text()) if chosen.is_file() else {}
    if known.get("for") != made_for:
        shutil.rmtree(folder, ignore_errors=True)
        scales, found = choose_scales(judge, teacher, size)
        known = {"for": made_for, "scales": scales}
        with replacing(folder / HELD_LABELS) as temporary:
            np.save(temporary, found)
        with replacing(chosen) as temporary:
            temporary.write_text(json.dumps(known))
    scales = tuple(known["scales"])
    if not scales:
        return None, ()
    judge.labels = np.load(folder / HELD_LABELS)
    return write_labels(folder, pairs, size, scales, teacher), scales


def choose_scales(judge: Judge, teacher: Enlarged, size: tuple[int, int]) -> tuple[tuple[float, ...], np.ndarray]:
    """Those of `candidates` with the smallest photometric error on the held-out pairs, or () where it is not clearly smaller,
    and what the network says of these then, (pairs, H, W).

    Left and right must be clearly nearer than before, in as many pixels: the error alone also falls where repeated texture or
    noise is matched.
    """
    best, chosen, labels = ENLARGED, (), np.zeros((0, *size), np.float32)
    for scales in candidates(size):
        found = [teacher(pair.left, pair.right, scales) for pair in judge.pairs]
        values = judge.compare(judge.measure([(disparity[None], other[None]) for disparity, other in found]))
        words = ", ".join(f"{scale:.3g}" for scale in scales)
        agree = values["apart_after"] <= NEARER * values["apart_before"]
        seen = values["occluded_after"] <= values["occluded_before"] + MORE_OCCLUDED
        print(
            f"held-out pairs enlarged {words} times: photometric error {values['ratio']:.3f} times as large,"
            f" left and right {values['apart_after']:.3f} px apart ({values['apart_before']:.3f} before)",
            file=sys.stderr,
            flush=True,
        )
        if values["ratio"] < best and agree and seen:
            best, chosen, labels = values["ratio"], scales, np.stack([disparity for disparity, _ in found])
    return chosen, labels


def _write_list(path: Path, pairs: Sequence[Pair]) -> None:
    """What is trained on: images alone, whatever the user's list has."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["left", "right"])
        writer.writerows([pair.left.absolute(), pair.right.absolute()] for pair in pairs)


def _hold_out(pair: Pair, size: tuple[int, int]) -> HeldOut:
    sample = read_sample(pair)
    known = pair.disparity is not None
    truth = (sample["disparity"], sample["valid"]) if known else (None, None)
    views = whole_views(sample, size)
    return HeldOut(pair.name, views["left"], views["right"], *truth)


NAMES = {
    "photometric": "photometric error where both see",
    "apart": "left and right apart, px",
    "label": "from the labels, px",
    "occluded": "share of occluded",
    "epe": "EPE, px",
    "bad-3": "bad-3, %",
}


def report(result: dict[str, Any]) -> str:
    """The table before and after, and what became of it."""
    values = result["values"]
    lines = [f"# Adapted from {result['init']}", ""]
    lines += [f"{result['pairs']['trained']} pairs trained on, {result['pairs']['held_out']} held out; means over these.", ""]
    if result["enlarged"]:
        scales = ", ".join(f"{scale:.3g}" for scale in result["enlarged"])
        lines += [f"Labels: the median of what the network says of images enlarged {scales} times.", ""]
    lines += ["| | before | after |", "|---|---|---|"]
    lines += [
        f"| {words} | {values[f'{name}_before']:.4f} | {values[f'{name}_after']:.4f} |"
        for name, words in NAMES.items()
        if f"{name}_before" in values
    ]
    return "\n".join([*lines, "", f"Not exported: {result['refused']}." if result["refused"] else "Exported to `export/`.", ""])


def _pictures(folder: Path, judge: Judge, after: Sequence[Judgement]) -> None:
    """Left view, disparity before and after, of the first held-out pairs, one file each."""
    for i, (pair, old, new) in enumerate(zip(judge.pairs, judge.before, after, strict=True)):
        if i >= 4:
            break
        top = max(float(np.quantile(np.concatenate([old.disparity, new.disparity]), 0.99)), 1.0)
        rows = (pair.left, colorize(old.disparity, top), colorize(new.disparity, top))
        write_png(folder / f"{i}.png", np.concatenate(rows))
