"""A recording for the Rerun viewer (extra `rerun`): left image, disparity, and the cloud in metres, frame by frame.

`rerun FILE.rrd` shows it. Letters: H W size of the images.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing
from bridgedepth_jax.geometry import Calibration

POINTS = 200_000  # of a frame's cloud, at most; `--save cloud` has all
Cloud = tuple[np.ndarray, np.ndarray]  # points (P, 3) in metres, colours (P, 3) uint8
# Of the left image (H, W, 3) uint8, its disparity in colours (H, W, 3) uint8, the camera and the cloud, where there is one.
Append = Callable[[np.ndarray, np.ndarray, Calibration | None, Cloud | None], None]


def require() -> Any:
    """The module of Rerun. InputError: it is not installed."""
    try:
        import rerun
    except ModuleNotFoundError:
        raise InputError("--save recording: rerun is not installed: pip install 'bridgedepth-jax[rerun]'") from None
    return rerun


@contextlib.contextmanager
def recorder(path: Path) -> Iterator[Append]:
    """Yields a function that appends a frame, see `Append`; the file appears when all went well.

    On the timeline `frame` it holds `image` and `disparity`, and with a camera `world/camera` and `world/points`.
    Raises InputError: Rerun is not installed, or the folder cannot be written.
    """
    rerun, frame = require(), 0
    with replacing(path) as temporary:
        stream = rerun.RecordingStream("bridgedepth")
        stream.save(str(temporary))
        stream.log("world", rerun.ViewCoordinates.RDF, static=True)  # x right, y down, z forward

        def append(left: np.ndarray, colors: np.ndarray, camera: Calibration | None, cloud: Cloud | None) -> None:
            nonlocal frame
            stream.set_time("frame", sequence=frame)
            stream.log("image", rerun.Image(left))
            stream.log("disparity", rerun.Image(colors))
            if camera is not None:
                size = dict(zip(("height", "width"), left.shape[:2], strict=True))
                matrix = dict(focal_length=(camera.fx, camera.fy), principal_point=(camera.cx, camera.cy))
                stream.log("world/camera", rerun.Pinhole(**matrix, **size))
                stream.log("world/camera/image", rerun.Image(left))
            if cloud is not None:
                chosen = slice(None, None, max(1, -(-len(cloud[0]) // POINTS)))
                points, colors = (np.ascontiguousarray(values[chosen]) for values in cloud)
                stream.log("world/points", rerun.Points3D(points, colors=colors))
            frame += 1

        try:
            yield append
        finally:
            stream.flush()
            stream.disconnect()
