"""`bridgedepth video --demo`: a held-out procedural stereo clip, the model of the package, and its errors over time.

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
from bridgedepth_jax.systems.stereodiff.sets import CLIP_SEED, clips
from bridgedepth_jax.systems.stereodiff.sources import StereoSource
from bridgedepth_jax.visualize import colorize

VIEWS, SIZE = 32, (192, 256)
BAR_HEIGHT, BAR_WIDTH = 160, 28  # pixels of the spectrum picture
MARGIN = 24


def run(out: Path, *, devices: Any = 1, views: int = VIEWS, size: tuple[int, int] = SIZE) -> list[str]:
    """Writes what `bridgedepth video` writes, and clip.mp4 (left view, true and estimated depth) and spectrum.png."""
    (sample,) = clips(1, views=views, size=size, seed=CLIP_SEED + 1)
    assert sample.right is not None
    predictor = Predictor.load(None, devices=devices, check_order=False)
    right, camera = sample.right, sample.camera
    make_folder(out, "--out")
    report = runner.run(
        sample.video,
        lambda _: StereoSource(sample.video, right, lambda *_: camera, predictor, 1, 1.0),
        out,
        stage1="stereo",
        recipe={"demo": views, "size": list(size)},
    )
    depth = np.load(out / "depth.npy")
    valid = measures.valid_truth(sample.truth, sample.far)
    shown = np.where(np.isfinite(depth), np.clip(depth, measures.NEAR, sample.far), sample.far).astype(np.float64)
    errors = measures.frame_errors(shown, sample.truth, valid)  # metres against metres: nothing is fitted
    spectrum = measures.spectrum_of(errors.absrel)
    write_png(out / "spectrum.png", spectrum_picture(spectrum.amplitude, errors.absrel))
    limit = float(np.quantile(1 / sample.truth, runner.COLOUR_SHARE))
    with video_writer(out / "clip.mp4", sample.video.fps) as append:
        for frame, true, found in zip(sample.video.read(), sample.truth, shown, strict=True):
            append(np.concatenate([frame, colorize(1 / true, limit), colorize(1 / found, limit)], axis=1))
    means = errors.means()
    lines = [
        f"{report.frames} frames of {report.width}x{report.height}, depth in {report.unit}, {report.seconds:.0f} s",
        f"AbsRel {means['absrel']:.4f}, delta1 {means['delta1']:.4f} in metres, nothing fitted; flicker {report.flicker:.4f}",
        "F0..F10 " + " ".join(f"{a:.5f}" for a in spectrum.amplitude),
        "no second stage: the package has no video diffusion model of its own (--diffusion names one)",
    ]
    return lines + [str(out / name) for name in ("clip.mp4", "color.mp4", "depth.npy", "spectrum.png", "report.json")]


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
