"""Video files, frame by frame, through OpenCV."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg")


def is_video(path: str | os.PathLike) -> bool:
    """By the ending of its name alone."""
    return Path(path).suffix.lower() in SUFFIXES


def video_info(path: str | os.PathLike) -> tuple[float, int]:
    """Frames per second, and the number of frames as the file states it. InputError if it is no readable video."""
    with _open(path) as capture:
        return capture.get(cv2.CAP_PROP_FPS) or 25.0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))


def check_together(left: str, right: str) -> tuple[float, int]:
    """Frames per second of the left video and the number of pairs, as the files state them; tells if they differ."""
    (fps, frames), (_, others) = video_info(left), video_info(right)
    if frames != others:
        text = f"{left} states {frames} frames and {right} {others}: the first {min(frames, others)} of both are used"
        print(text, file=sys.stderr)
    return fps, min(frames, others)


def read_frames(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 RGB. InputError if it is no readable video, or has no frame."""
    with _open(path) as capture:
        ok, frame = capture.read()
        if not ok:
            raise InputError(f"{path}: a video without a readable frame")
        while ok:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            ok, frame = capture.read()


@contextlib.contextmanager
def video_writer(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields a function that appends a frame (H, W, 3) uint8 RGB; the MP4 file appears when all went well."""
    with replacing(path) as temporary:
        writer = cv2.VideoWriter()

        def append(frame: np.ndarray) -> None:
            if not writer.isOpened():
                size = frame.shape[1], frame.shape[0]
                if not writer.open(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, size):
                    raise InputError(f"{path}: OpenCV cannot write an MP4 video of {size[0]}x{size[1]} pixels here")
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

        try:
            yield append
        finally:
            writer.release()


@contextlib.contextmanager
def _open(path: str | os.PathLike) -> Iterator[cv2.VideoCapture]:
    capture = cv2.VideoCapture(str(path)) if Path(path).is_file() else None
    if capture is None or not capture.isOpened():
        raise InputError(f"{path}: not a readable video file")
    try:
        yield capture
    finally:
        capture.release()
