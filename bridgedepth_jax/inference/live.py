"""Depth of a camera while it films: frames in, a small page out. One HTTP server of the standard library, no other dependency.

Letters: H W size of an image. `Live` takes pairs of frames as they come and keeps the newest answer; the page shows it as a
stream of JPEGs and asks for the values under the mouse.
"""

import functools
import http.server
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.geometry import Calibration
from bridgedepth_jax.inference.stereo import Prediction
from bridgedepth_jax.inference.video import read_frames
from bridgedepth_jax.visualize import colorize

Frames = tuple[np.ndarray, np.ndarray]  # left and right, (H, W, 3) uint8 RGB
RATES = 10  # frames over which the rate is a mean
PAGE = """<!doctype html><meta charset=utf-8><meta name=viewport content="width=device-width"><title>bridgedepth live</title>
<style>body{font-family:sans-serif;margin:1em}img{width:100%;max-width:1280px;cursor:crosshair}p{min-height:1.2em}</style>
<p id=at>move the mouse over the pictures: left image, disparity</p><img id=picture src=stream alt="left image and disparity">
<p id=status></p><script>
const words=(id,text)=>{document.getElementById(id).textContent=text};
const ask=(where,id)=>fetch(where).then(r=>r.json()).then(a=>words(id,a.words)).catch(()=>words(id,'no connection'));
const picture=document.getElementById('picture');let at=null;
picture.addEventListener('mousemove',e=>{const r=picture.getBoundingClientRect();
at='at?x='+2*(e.clientX-r.left)/r.width%1+'&y='+(e.clientY-r.top)/r.height});
setInterval(()=>{ask('status','status');if(at)ask(at,'at')},300)</script>"""


class Answer(NamedTuple):
    """What is shown of one pair."""

    number: int  # of the frame, from 1
    picture: bytes  # JPEG, the left image beside the disparity
    prediction: Prediction
    calibration: Calibration | None
    rate: float  # pairs a second


class Live:
    """The newest answer of a running camera.

    Args:
      frames: pairs as they come; the run ends with them.
      predict: (left, right) -> `Prediction`.
      calibrate: (width, height) -> the camera, or None.
      limit: pixels, the end of the colours; None: the largest disparity of the first frame.
    """

    def __init__(
        self,
        frames: Iterable[Frames],
        predict: Callable[[np.ndarray, np.ndarray], Prediction],
        calibrate: Callable[[int, int], Calibration | None],
        limit: float | None = None,
    ) -> None:
        self._frames, self._predict, self._calibrate, self._limit = frames, predict, calibrate, limit
        self._changed = threading.Condition()
        self.newest: Answer | None = None
        self.ended = False

    def run(self) -> int:
        """Until the frames end, or `stop`; the number of pairs."""
        times: list[float] = []
        number = 0
        try:
            for number, (left, right) in enumerate(self._frames, 1):
                if self.ended:
                    break
                prediction = self._predict(left, right)
                if self._limit is None:
                    self._limit = float(prediction.disparity.max()) or 1.0
                times = [*times[-RATES:], time.perf_counter()]
                rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
                both = np.concatenate([left, colorize(prediction.disparity, self._limit)], 1)
                picture = cv2.imencode(".jpg", both[..., ::-1])[1].tobytes()
                answer = Answer(number, picture, prediction, self._calibrate(left.shape[1], left.shape[0]), rate)
                with self._changed:
                    self.newest = answer
                    self._changed.notify_all()
        finally:
            self.stop()
        return number

    def stop(self) -> None:
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def after(self, number: int, timeout: float = 5.0) -> Answer | None:
        """The newest answer once it is later than that frame; None where there will be none, or not yet."""
        there = lambda: self.ended or (self.newest is not None and self.newest.number > number)
        with self._changed:
            self._changed.wait_for(there, timeout)
            return self.newest if self.newest is not None and self.newest.number > number else None

    def at(self, x: float, y: float) -> dict[str, float | str | None]:
        """The values at (x, y), shares 0..1 of the width and height."""
        answer = self.newest
        if answer is None:
            return {"words": "no frame yet"}
        height, width = answer.prediction.disparity.shape
        column, row = (min(max(int(share * side), 0), side - 1) for share, side in ((x, width), (y, height)))
        disparity = float(answer.prediction.disparity[row, column])
        confidence = float(answer.prediction.confidence[row, column])
        metres = None if answer.calibration is None else float(answer.calibration.depth(np.array(disparity)))
        words = f"({column}, {row}): {disparity:.2f} px, confidence {confidence:.2f}, "
        words += "no calibration for metres" if metres is None else f"{metres:.3f} m"
        finite = metres if metres is not None and np.isfinite(metres) else None
        return dict(x=column, y=row, disparity=disparity, confidence=confidence, metres=finite, words=words)

    def status(self) -> dict[str, float | bool | str]:
        answer = self.newest
        number, rate = (answer.number, answer.rate) if answer else (0, 0.0)
        words = f"frame {number}, {rate:.1f} frames per second{', ended' if self.ended else ''}"
        return dict(frame=number, rate=rate, ended=self.ended, words=words)


class Server(http.server.ThreadingHTTPServer):
    """The page of a `Live` at an address."""

    daemon_threads = True

    def __init__(self, live: Live, host: str, port: int) -> None:
        names = {"127.0.0.1", "localhost", "[::1]"} if host in ("127.0.0.1", "localhost", "::1") else None
        super().__init__((host, port), functools.partial(_Handler, live, names))


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, live: Live, names: set[str] | None, *arguments) -> None:
        self.live, self.names = live, names
        super().__init__(*arguments)

    def do_GET(self) -> None:
        # Under no other name, so no page of another site can look through the camera.
        if self.names is not None and self.headers.get("Host", "").rpartition(":")[0] not in self.names:
            return self.send_error(403)
        where = urllib.parse.urlparse(self.path)
        try:
            if where.path == "/":
                self._send(PAGE.encode(), "text/html")
            elif where.path == "/status":
                self._send(json.dumps(self.live.status()).encode(), "application/json")
            elif where.path == "/at":
                asked = urllib.parse.parse_qs(where.query)
                values = self.live.at(*(float(asked[name][0]) for name in "xy"))
                self._send(json.dumps(values).encode(), "application/json")
            elif where.path == "/stream":
                self._stream()
            else:
                self.send_error(404)
        except (KeyError, ValueError, OverflowError):
            self.send_error(400)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the page was closed

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        number = 0
        while not self.live.ended or (self.live.newest is not None and self.live.newest.number > number):
            answer = self.live.after(number)
            if answer is not None:
                number = answer.number
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(answer.picture)}\r\n\r\n"
                self.wfile.write(head.encode() + answer.picture + b"\r\n")

    def log_message(self, format: str, *args) -> None:
        pass


def side_by_side(source: str, *, loop: bool = False) -> Iterator[Frames]:
    """Of one device that gives both images in one frame, the left one in the left half."""
    for frame in _frames(source, loop):
        half = frame.shape[1] // 2
        yield np.ascontiguousarray(frame[:, :half]), np.ascontiguousarray(frame[:, half : 2 * half])


def two_devices(left: str, right: str, *, loop: bool = False) -> Iterator[Frames]:
    """Of two devices, or two video files. InputError: frames of two sizes."""
    for first, second in zip(_frames(left, loop), _frames(right, loop), strict=False):
        if first.shape != second.shape:
            sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (first, second)]
            raise InputError(f"{left} gives {sizes[0]} pixels and {right} {sizes[1]}, expected the same size")
        yield first, second


def _frames(source: str, loop: bool) -> Iterator[np.ndarray]:
    """RGB frames of a device by its number, or of a video file."""
    if not source.isdigit():
        if not Path(source).is_file():
            raise InputError(f"{source}: neither the number of a camera nor a video file")
        while True:
            yield from read_frames(source)
            if not loop:
                return
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong is said below, in one line
    try:
        capture = cv2.VideoCapture(int(source))
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise InputError(f"camera {source}: cannot be opened, expected the number of one that is there and free")
    newest = _Newest(capture)
    try:
        yield from newest
    finally:
        newest.close()


class _Newest:
    """The newest frame of a device, which films on while the network computes."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture, self._frame = capture, None
        self._changed, self._open = threading.Condition(), True
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while self._open:
            ok, frame = self._capture.read()
            with self._changed:
                self._open, self._frame = self._open and ok, frame if ok else self._frame
                self._changed.notify_all()
        self._capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frame is not None or not self._open)
                frame, self._frame = self._frame, None
            if frame is None:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        self._open = False
        self._thread.join(5)
