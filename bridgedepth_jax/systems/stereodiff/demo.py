"""`bridgedepth video --demo`: a held-out procedural stereo clip, the model of the package, and its errors over time.

With `--diffusion` also the second stage, in windows and at the size that the tiny model learnt from.

T frames, H W pixels.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bridgedepth_jax.data.formats import write_png
from bridgedepth_jax.evaluation import video as measures
from bridgedepth_jax.files import make_folder
from bridgedepth_jax.inference.stereo import Predictor
from bridgedepth_jax.inference.video import video_writer
from bridgedepth_jax.systems.stereodiff import run as runner
from bridgedepth_jax.systems.stereodiff.config import RefineOptions
from bridgedepth_jax.systems.stereodiff.refine import VideoDiffusion
from bridgedepth_jax.systems.stereodiff.sets import CLIP_SEED, VideoTruth, clips
from bridgedepth_jax.systems.stereodiff.sources import FileSource, StereoSource
from bridgedepth_jax.visualize import colorize

VIEWS, SIZE = 32, (192, 256)
REFINE = RefineOptions(window=16, overlap=4, longest=128)  # as configs/stereodiff/video_tiny.py
BAR_HEIGHT, BAR_WIDTH = 160, 28  # pixels of the spectrum picture
MARGIN = 24


def run(
    out: Path, *, devices: Any = 1, views: int = VIEWS, size: tuple[int, int] = SIZE, diffusion: VideoDiffusion | None = None
) -> list[str]:
    """Writes what `bridgedepth video` writes, and clip.mp4 (left view, true and estimated depth) and spectrum.png.

    With a second stage OUT/stage1 has what the first one says.
    """
    (sample,) = clips(1, views=views, size=size, seed=CLIP_SEED + 1)
    assert sample.right is not None
    predictor = Predictor.load(None, devices=devices, check_order=False)
    right, camera = sample.right, sample.camera
    first = out if diffusion is None else out / "stage1"
    make_folder(first, "--out")
    recipe = {"demo": views, "size": list(size)}
    source = lambda _: StereoSource(sample.video, right, lambda *_: camera, predictor, 1, 1.0)
    report = runner.run(sample.video, source, first, stage1="stereo", recipe=recipe)
    lines = [f"{report.frames} frames of {report.width}x{report.height}, depth in {report.unit}, {report.seconds:.0f} s"]
    lines += said("stage 1", np.load(first / "depth.npy"), sample, report.flicker)
    if diffusion is None:
        lines.append("no second stage: the package has no video diffusion model of its own (--diffusion names one)")
    else:
        again = FileSource(sample.video, first / "depth.npy", "depth")
        again.metric = True  # metres of the run before
        report = runner.run(sample.video, lambda _: again, out, stage1="stereo", recipe=recipe, model=diffusion, options=REFINE)
        lines += said("both", np.load(out / "depth.npy"), sample, report.flicker)
    shown = in_range(np.load(out / "depth.npy"), sample)
    errors = measured(shown, sample)
    write_png(out / "spectrum.png", spectrum_picture(measures.spectrum_of(errors.absrel).amplitude, errors.absrel))
    limit = float(np.quantile(1 / sample.truth, runner.COLOUR_SHARE))
    with video_writer(out / "clip.mp4", sample.video.fps) as append:
        for frame, true, found in zip(sample.video.read(), sample.truth, shown, strict=True):
            append(np.concatenate([frame, colorize(1 / true, limit), colorize(1 / found, limit)], axis=1))
    return lines + [str(out / name) for name in ("clip.mp4", "color.mp4", "depth.npy", "spectrum.png", "report.json")]


def in_range(depth: np.ndarray, sample: VideoTruth) -> np.ndarray:
    """What has no depth is as far as the clip goes."""
    return np.where(np.isfinite(depth), np.clip(depth, measures.NEAR, sample.far), sample.far).astype(np.float64)


def measured(depth: np.ndarray, sample: VideoTruth) -> measures.FrameErrors:
    """Metres against metres: nothing is fitted."""
    return measures.frame_errors(depth, sample.truth, measures.valid_truth(sample.truth, sample.far))


def said(name: str, depth: np.ndarray, sample: VideoTruth, flicker: float | None) -> list[str]:
    """Errors of a stage, and their amplitudes over time."""
    errors = measured(in_range(depth, sample), sample)
    means, bands = errors.means(), measures.spectrum_of(errors.absrel).amplitude
    words = "" if flicker is None else f"; flicker {flicker:.4f}"
    return [
        f"{name}: AbsRel {means['absrel']:.4f}, delta1 {means['delta1']:.4f} in metres, nothing fitted{words}",
        "F0..F10 " + " ".join(f"{a:.5f}" for a in bands),
    ]


def spectrum_picture(amplitude: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """F1 to F10 as bars, and above them the error of each frame as a line; (H, W, 3) uint8."""
    width = MARGIN * 2 + BAR_WIDTH * 10
    picture = np.full((2 * (BAR_HEIGHT + MARGIN) + MARGIN, width, 3), 255, np.uint8)
    top = max(float(errors.max()), 1e-9)
    x = np.linspace(MARGIN, width - MARGIN, len(errors))
    points = np.stack([x, MARGIN + BAR_HEIGHT * (1 - errors / top)], 1)
    cv2.polylines(picture, [np.round(points).astype(np.int32)], False, (40, 90, 180), 2, cv2.LINE_AA)
    cv2.putText(picture, f"AbsRel of each frame, top {top:.4f}", (MARGIN, 16), 0, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    base, most = picture.shape[0] - MARGIN, max(float(amplitude[1:].max()), 1e-12)
    for band in range(1, 11):
        left = MARGIN + BAR_WIDTH * (band - 1)
        height = int(BAR_HEIGHT * amplitude[band] / most)
        cv2.rectangle(picture, (left + 3, base - height), (left + BAR_WIDTH - 3, base), (180, 90, 40), -1)
        cv2.putText(picture, f"F{band}", (left + 4, base + 14), 0, 0.35, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(picture, f"amplitude, top {most:.5f}", (MARGIN, base - BAR_HEIGHT - 6), 0, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return picture
