"""The page of `bridgedepth view`: two images in; disparity, confidence, distances and a point cloud to look at.

NiceGUI (extra `viewer`) does the page. What leaves this module towards the network or the disk has been checked before:
uploads are limited in bytes while they arrive, and in pixels; what is not an image is refused with a message on the page.
"""

import base64
import dataclasses
import functools
import re
import struct
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from nicegui import app, events, run, ui
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.geometry import Calibration, point_cloud
from bridgedepth_jax.inference import demo
from bridgedepth_jax.inference.check import Picture, Repair, check, read_picture
from bridgedepth_jax.inference.inputs import SUFFIXES
from bridgedepth_jax.inference.outputs import OUTPUTS, PredictedPair
from bridgedepth_jax.inference.run import LoadedPair, announce, check_size, choose_scale, make_pair, mended
from bridgedepth_jax.inference.stereo import Prediction, Predictor
from bridgedepth_jax.inference.swapped import looks_swapped
from bridgedepth_jax.visualize import colorize

POINTS = 60_000  # of the cloud on the page; the file has all
DEFAULT = "default"  # the model that comes with the package
MEND = "mend what the check finds"  # the page's --fix
# Of an upload's box its head is enough: what was taken is said below it.
STYLE = ".q-uploader__subtitle, .q-uploader__list { display: none }  .q-uploader { min-height: 0 }"
NOMINAL = 0.1  # metres, baseline of the cloud's shape where there is no calibration


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the page accepts."""

    upload: int = 32 * 2**20  # bytes of a file
    pixels: int = 4_000_000  # of an image


class LimitUploads:
    """ASGI: a request's body may have so many bytes and no more; counted as it comes, whatever its header says."""

    def __init__(self, inner: Callable, limit: int) -> None:
        self.inner, self.limit = inner, limit

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            return await self.inner(scope, receive, send)
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.limit:
            return await PlainTextResponse("too large", 413)(scope, receive, send)
        seen = 0

        async def counted() -> dict:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            return {"type": "http.disconnect"} if seen > self.limit else message

        await self.inner(scope, counted, send)


class Models:
    """Predictors by name, loaded when first asked for; one runs at a time."""

    def __init__(self, devices: str) -> None:
        self._lock = threading.Lock()
        self._announced: set[tuple[int, int]] = set()
        load = functools.partial(Predictor.load, devices=devices, check_order=False)  # the page says it, see `_predict`
        self._load = functools.lru_cache(2)(lambda name: load(None if name == DEFAULT else name))

    def __call__(self, name: str, pair: LoadedPair, scale: float | None) -> tuple[Prediction, float]:
        """The prediction and the scale it was made at: None chooses one. InputError: more memory than there is."""
        with self._lock:
            predictor = self._load(name)
            chosen = scale or choose_scale(pair, predictor)
            check_size(pair, chosen, predictor.minimum)
            announce(predictor, pair, chosen, None, 1, self._announced)
            found = predictor(pair.left, pair.right, scale=chosen)
            restored = found.disparity if pair.repair is None else pair.repair.restore(found.disparity)
            return dataclasses.replace(found, disparity=restored), chosen

    def calibrated(self, name: str) -> bool:
        """Whether a model's confidence was trained to be the probability of an error below 2 px."""
        return bool(getattr(self._load(name).config, "learned_confidence", False))


def read_upload(data: bytes, name: str, limits: Limits) -> Picture:
    """An uploaded file. InputError: no image, or a larger one than the limits allow."""
    if len(data) > limits.upload:
        raise InputError(f"{name}: {len(data)} bytes, expected at most {limits.upload}")
    if data.startswith(b"\x89PNG") and len(data) >= 24:  # its optional decoder, unlike OpenCV, has no limit of its own
        _check_pixels(*struct.unpack(">II", data[16:24]), name, limits)
    try:
        picture = read_picture(data, name)
    except cv2.error:  # more pixels than OpenCV decodes
        raise InputError(f"{name}: not an image that can be read here") from None
    height, width = picture.image.shape[:2]
    _check_pixels(width, height, name, limits)
    return picture


def _check_pixels(width: int, height: int, name: str, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise InputError(f"{name}: {width}x{height} pixels, expected at most {limits.pixels} in all")


def cloud_of(pair: LoadedPair, disparity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS points (P, 3) for the page, z up, and their colours (P, 3) in 0..1; the far tenth is left out."""
    height, width = disparity.shape
    camera = pair.calibration or Calibration.from_focal(width, NOMINAL, (width, height))
    depth = camera.depth(disparity)
    far = float(np.quantile(depth[np.isfinite(depth)], 0.9)) if np.isfinite(depth).any() else None
    points, colors = point_cloud(disparity, pair.left, camera, z_far=far)
    chosen = np.linspace(0, max(len(points) - 1, 0), min(POINTS, len(points))).astype(int)
    points, colors = points[chosen], colors[chosen]
    size = float(np.median(points[:, 2])) / 4 if len(points) else 1.0
    x, y, z = (points / size).T
    return np.stack([x, z, -y], -1), colors / 255


def describe(pair: LoadedPair, prediction: Prediction, x: float, y: float, calibrated: bool = False) -> str:
    """The words for a pixel under the mouse; `calibrated`: the confidence is the probability of an error below 2 px."""
    height, width = prediction.disparity.shape
    column, row = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
    disparity, confidence = prediction.disparity[row, column], prediction.confidence[row, column]
    trust = f"right within 2 px with {100 * confidence:.0f} %" if calibrated else f"confidence {confidence:.2f}"
    words = f"({column}, {row}): {disparity:.2f} px, {trust}"
    if pair.calibration is None:
        return f"{words}, no calibration for metres"
    return f"{words}, {float(pair.calibration.depth(disparity)):.3f} m"


def start(
    models: Sequence[str], *, host: str, port: int, devices: str = "cpu", limits: Limits | None = None, timeout: float = 600
) -> None:
    """Serves the page until stopped.

    models: names or folders to choose from, the first is chosen at the beginning.
    timeout: seconds for which a page that lost its connection keeps what was uploaded, and its result.
    """
    limits = limits or Limits()
    predict = Models(devices)
    app.add_middleware(LimitUploads, limit=limits.upload + 2**16)  # and what a form adds
    if host in ("127.0.0.1", "localhost", "::1"):  # no other name may be used to reach it, so no web page can
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    ui.page("/", title="bridgedepth_jax")(lambda: _Page(models, predict, limits))
    ui.run(host=host, port=port, reload=False, show=False, title="bridgedepth_jax", reconnect_timeout=timeout)


class _Page:
    """One browser tab."""

    def __init__(self, models: Sequence[str], predict: Models, limits: Limits) -> None:
        self.predict, self.limits = predict, limits
        self.images: dict[str, Picture] = {}
        self.names: dict[str, str] = {}
        self.sample: Calibration | None = None  # while the images are the sample pair
        self.pair: LoadedPair | None = None
        self.prediction: Prediction | None = None
        self.picture = "disparity"
        self.calibrated = False
        ui.add_css(STYLE)
        with ui.row().classes("w-full items-start"):  # two columns where there is room, else one below the other
            with ui.column().style("flex: 1 1 270px; min-width: 0"):
                self._controls(models)
            with ui.column().style("flex: 1000 1 400px; min-width: 0"):
                self._pictures()

    def _controls(self, models: Sequence[str]) -> None:
        ui.label("bridgedepth_jax").classes("text-h5")
        self.given: dict[str, Any] = {}
        for side in ("left", "right"):
            upload = ui.upload(
                label=f"{side} image: drop or choose",
                auto_upload=True,
                max_file_size=self.limits.upload,
                on_upload=functools.partial(self._uploaded, side),
                on_rejected=functools.partial(self._rejected, side),
            )
            accepted = ",".join(SUFFIXES)
            upload.props(f"flat bordered hide-upload-btn accept={accepted} data-test={side}").classes("w-full")
            self.given[side] = ui.label("").props(f"data-test=given-{side}").style("overflow-wrap: anywhere")
        with ui.expansion("calibration, for metres").classes("w-full"):
            self.camera = {
                name: ui.number(label, min=smallest, on_change=self._recalibrate)
                for name, label, smallest in (
                    ("focal", "focal length, pixels", 0),
                    ("baseline", "baseline, metres", 0),
                    ("doffs", "offset of principal points, pixels", None),
                )
            }
        self.model = ui.select(list(models), value=models[0], label="model").classes("w-full")
        scales = {None: "auto: by size and disparities"} | {i / 4: f"{i / 4:g}" for i in range(1, 7)}
        self.scale = ui.select(scales, value=None, label="scale of what the network sees").classes("w-full")
        self.fix = ui.switch(MEND).props("data-test=fix")
        with ui.row():
            self.run_button = ui.button("run", on_click=self._run).props("data-test=run")
            ui.button("run the sample pair", on_click=self._run_sample).props("outline data-test=sample")
        self.status = ui.label("").props("data-test=status").style("overflow-wrap: anywhere")
        self.found = ui.label("").props("data-test=found").style("overflow-wrap: anywhere; white-space: pre-line")
        self.downloads = {}
        with ui.row():
            for kind, label in (("disparity", "PFM"), ("color", "PNG"), ("cloud", "PLY")):
                button = ui.button(label, on_click=functools.partial(self._download, kind))
                self.downloads[kind] = button.props(f"outline data-test={kind}")
        self._offer()

    def _pictures(self) -> None:
        ui.toggle(["disparity", "confidence"], value="disparity", on_change=lambda e: self._show(e.value))
        ui.label("left image ... result")
        self.blend = ui.slider(min=0, max=1, step=0.01, value=1, on_change=lambda e: self._blend(e.value or 0.0))
        self.blend.style("max-width: 900px")
        with ui.element("div").style("position: relative; width: 100%; max-width: 900px"):
            self.left = ui.interactive_image(on_mouse=self._hover, events=["mousemove"], cross=True)
            self.left.props("data-test=picture").style("width: 100%")
            self.over = ui.image().style("position: absolute; inset: 0; width: 100%; pointer-events: none")
        self.value = ui.label("").props("data-test=value")
        eye = ui.scene.perspective_camera(fov=40)
        self.scene = ui.scene(width=900, height=500, grid=False, background_color="#222", camera=eye).props("data-test=scene")
        self.scene.style("width: 100%; max-width: 900px; height: 500px; max-height: 100vw; overflow: hidden")

    async def _uploaded(self, side: str, event: events.UploadEventArguments) -> None:
        name = event.file.name
        upload: Any = event.sender
        upload.reset()  # the next one takes its place; its tick would say that a refused file was taken
        if self.sample:  # its other image and its camera do not belong to the user's
            self.images.clear()
            for label in self.given.values():
                label.set_text("")
            self._take_sample(None)
        self.images.pop(side, None)
        try:
            self.images[side] = read_upload(await event.file.read(), name, self.limits)
        except InputError as error:
            self._refuse(side, str(error))
            return
        self.names[side] = name
        height, width = self.images[side].image.shape[:2]
        self._say(f"{side}: {name}, {width}x{height}")
        self.given[side].set_text(f"{name}, {width}x{height}")
        if side == "left":
            self.left.set_source(_png(self.images[side].image))
            self.over.set_source("")
            self.pair = self.prediction = None
            self._offer()

    def _rejected(self, side: str) -> None:
        self._refuse(side, f"no image ({' '.join(SUFFIXES)}), or larger than {self.limits.upload / 2**20:g} MiB")

    def _refuse(self, side: str, words: str) -> None:
        self.images.pop(side, None)
        self.given[side].set_text("")
        self._say(f"refused: {words}")

    def _offer(self) -> None:
        """Downloads of what there is."""
        there = self.prediction is not None and self.pair is not None
        for kind, button in self.downloads.items():
            metric = self.pair is not None and self.pair.calibration is not None
            button.set_enabled(there and (metric or not OUTPUTS[kind].needs_calibration))

    async def _run(self) -> None:
        if set(self.images) != {"left", "right"}:
            self._say("expected a left and a right image, or the sample pair")
            return
        files = self.names["left"], self.names["right"]
        try:
            name = re.sub(r"[^\w-]", "_", Path(files[0]).stem)[:60] or "pair"
            left, right = self.images["left"], self.images["right"]
            pair = make_pair(name, left.image, right.image, files, scale=self.scale.value or 1.0, calibrate=None)
            self._say("looking at the pair")
            verdict = await run.io_bound(check, left, right)
            if verdict is None:  # the server is ending
                return
            mending = verdict if self.fix.value else verdict._replace(repair=Repair())
            pair = mended(pair, left, right, mending)
        except InputError as error:
            self._say(f"refused: {error}")
            return
        await self._predict(pair)

    async def _run_sample(self) -> None:
        try:
            pair, _ = demo.motorcycle()
        except InputError as error:
            self._say(str(error))
            return
        self._take_sample(pair.calibration)
        self.images = {"left": Picture(pair.left), "right": Picture(pair.right)}
        self.names = dict.fromkeys(("left", "right"), pair.name)
        for label in self.given.values():
            label.set_text(f"the sample pair, {pair.left.shape[1]}x{pair.left.shape[0]}")
        await self._predict(pair)

    def _take_sample(self, camera: Calibration | None) -> None:
        """The sample's camera, or none, in place of the one on the page, and of the last result."""
        self.pair = self.prediction = None
        self.sample = camera
        self._offer()
        for name, attribute in (("focal", "fx"), ("baseline", "baseline"), ("doffs", "doffs")):
            self.camera[name].value = getattr(camera, attribute) if camera else None

    async def _predict(self, pair: LoadedPair) -> None:
        self._say("working; the first run of a size compiles")
        self.run_button.disable()
        try:
            name = self.model.value
            answer = await run.io_bound(self.predict, name, pair, self.scale.value)
            if answer is None:  # the server is ending
                return
            prediction, scale = answer
            self.calibrated = self.predict.calibrated(name)
        except InputError as error:
            self._say(f"refused: {error}")
            return
        except Exception as error:  # the page must not look busy for ever; the server's log has the rest
            self._say(f"failed: {type(error).__name__}: {str(error)[:200]}")
            raise
        finally:
            self.run_button.enable()
        self.pair, self.prediction = pair, prediction
        self.left.set_source(_png(pair.left))
        self._show(self.picture)
        self._recalibrate()
        self._say(f"{self.status.text}, at scale {scale:g}")
        words = [str(finding).replace("--fix", f"“{MEND}”") for finding in pair.findings]
        if pair.repair != Repair():
            words = [f"{finding.words}: mended" if finding.fixed else str(finding) for finding in pair.findings]
        if not words and looks_swapped(pair.left, pair.right, prediction.disparity):
            words = ["left and right look swapped"]
        self.found.set_text("\n".join(words))

    def _recalibrate(self) -> None:
        if self.pair is None or self.prediction is None:
            return
        try:
            self.pair = dataclasses.replace(self.pair, calibration=self._calibration(self.pair))
        except InputError as error:
            self._say(f"refused: {error}")
            return
        self._offer()
        points, colors = cloud_of(self.pair, self.prediction.disparity)
        self.scene.clear()
        with self.scene:
            self.scene.point_cloud(points.tolist(), colors.tolist(), point_size=0.03)
        x, _, z = np.median(points, 0).tolist() if len(points) else (0.0, 0.0, 0.0)
        self.scene.move_camera(x=x, y=-1.5, z=z + 0.5, look_at_x=x, look_at_y=4, look_at_z=z, duration=0)
        self._say(f"{self.pair.name}: done, cloud of {len(points)} points")

    def _calibration(self, pair: LoadedPair) -> Calibration | None:
        focal, baseline, doffs = (self.camera[name].value for name in ("focal", "baseline", "doffs"))
        if not focal or not baseline:
            return None
        sample = self.sample
        if sample and (focal, baseline, doffs) == (sample.fx, sample.baseline, sample.doffs):
            return sample  # which also knows its principal point
        height, width = pair.left.shape[:2]
        return Calibration.from_focal(focal, baseline, (width, height), doffs or 0.0)

    def _show(self, picture: str) -> None:
        self.picture = picture
        if self.prediction is not None:
            values = self.prediction.disparity if picture == "disparity" else self.prediction.confidence
            self.over.set_source(_png(colorize(values, None if picture == "disparity" else 1.0)))

    def _blend(self, opacity: float) -> None:
        self.over.style(f"opacity: {opacity}")

    def _hover(self, event: events.MouseEventArguments) -> None:
        if self.pair is not None and self.prediction is not None:
            self.value.set_text(describe(self.pair, self.prediction, event.image_x, event.image_y, self.calibrated))

    def _download(self, kind: str) -> None:
        if self.pair is None or self.prediction is None:
            self._say("nothing to download yet")
            return
        if OUTPUTS[kind].needs_calibration and self.pair.calibration is None:
            self._say("a point cloud in metres needs the calibration")
            return
        result = PredictedPair(self.pair.name, self.pair.left, self.prediction, self.pair.calibration)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{self.pair.name}_{OUTPUTS[kind].ending}"
            OUTPUTS[kind].write(path, result)
            ui.download.content(path.read_bytes(), path.name)

    def _say(self, words: str) -> None:
        self.status.set_text(words)


def _png(image: np.ndarray) -> Any:
    """A data address of an RGB image (H, W, 3)."""
    _, data = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return f"data:image/png;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
