"""The viewer in a real headless browser (Debian's chromium and chromium-driver), and what it refuses."""

import asyncio
import base64
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from bridgedepth_jax.commands import view
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.geometry import Calibration
from bridgedepth_jax.inference import viewer
from bridgedepth_jax.inference.run import LoadedPair
from bridgedepth_jax.inference.stereo import Prediction

ROOT = Path(__file__).parents[1]
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1400,1400",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip


def png(height: int, width: int) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def pair(calibration: Calibration | None = None) -> LoadedPair:
    image = np.full((40, 60, 3), 128, np.uint8)
    return LoadedPair("pair", image, image, ("left", "right"), calibration)


def test_uploads_are_checked():
    limits = viewer.Limits(upload=100_000, pixels=3000)
    assert viewer.read_upload(png(40, 60), "a.png", limits).image.shape == (40, 60, 3)
    with pytest.raises(InputError, match=r"b.png: 70x50 pixels, expected at most 3000"):
        viewer.read_upload(png(50, 70), "b.png", limits)
    huge = bytearray(png(40, 60))
    huge[16:24] = struct.pack(">II", 30_000, 30_000)  # what its header says counts, before anything is unpacked
    with pytest.raises(InputError, match=r"huge.png: 30000x30000 pixels"):
        viewer.read_upload(bytes(huge), "huge.png", limits)
    with pytest.raises(InputError, match=r"c.png: not a complete image"):
        viewer.read_upload(b"no image", "c.png", limits)
    with pytest.raises(InputError, match=r"d.png: 100001 bytes"):
        viewer.read_upload(bytes(100_001), "d.png", limits)


@pytest.mark.parametrize("declared", [False, True])
def test_a_body_is_cut_off_at_the_limit(declared):
    received, answers = [], []

    async def inner(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            received.append(len(message["body"]))
            if not message["more_body"]:
                break

    parts = iter([{"type": "http.request", "body": bytes(60), "more_body": True}] * 3)

    async def receive():
        return next(parts)

    async def send(message):
        answers.append(message)

    headers = [(b"content-length", b"180")] if declared else []
    asyncio.run(viewer.LimitUploads(inner, 100)({"type": "http", "headers": headers}, receive, send))
    assert sum(received) <= 100
    assert [answer.get("status") for answer in answers][:1] == ([413] if declared else [])


def test_words_under_the_mouse_and_the_cloud():
    disparity = np.full((40, 60), 8, np.float32)
    prediction = Prediction(disparity, np.full((40, 60), 0.5, np.float32))
    camera = Calibration.from_focal(100, 0.2, (60, 40))
    assert viewer.describe(pair(camera), prediction, 3.7, 1.2) == "(3, 1): 8.00 px, confidence 0.50, 2.500 m"
    assert viewer.describe(pair(), prediction, 1e9, -5) == "(59, 0): 8.00 px, confidence 0.50, no calibration for metres"
    words = viewer.describe(pair(camera), prediction, 3.7, 1.2, calibrated=True)
    assert words == "(3, 1): 8.00 px, right within 2 px with 50 %, 2.500 m"
    points, colors = viewer.cloud_of(pair(camera), disparity)
    assert points.shape == colors.shape == (40 * 60, 3)
    assert np.ptp(points[:, 1]) < 1e-4  # a plane across the viewing direction
    assert points[0, 2] > points[-1, 2]  # the first row of the image is on top
    assert viewer.cloud_of(pair(), np.zeros((40, 60), np.float32))[0].shape == (0, 3)


def test_a_port_that_cannot_be_had_is_refused():
    with pytest.raises(InputError, match="--port 70000, expected 1 to 65535"):
        view.check_port("127.0.0.1", 70000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: .*, expected an address that is free"):
            view.check_port("127.0.0.1", port)
    view.check_port("127.0.0.1", port)


@pytest.fixture
def page(tmp_path):
    """The viewer as its own process, in a browser."""
    missing = [str(file) for file in (CHROMIUM, DRIVER) if not file.exists()]
    assert not missing, f"{missing[0]} is missing: apt-get install chromium chromium-driver"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "scripts/viewer.py", "--port", str(port), "--max-upload", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BRIDGEDEPTH_CACHE": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    environment.pop("PYTEST_CURRENT_TEST", None)  # NiceGUI behaves otherwise under it
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    browser = None
    try:
        wait_for(port, server)
        browser = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
        browser.get(f"http://127.0.0.1:{port}/")
        yield browser
    finally:
        if browser:
            browser.quit()
        server.send_signal(signal.SIGINT)
        try:
            server.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()


def wait_for(port: int, server: subprocess.Popen) -> None:
    for _ in range(600):
        assert server.poll() is None, f"the viewer ended: {server.stdout and server.stdout.read()}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("the viewer does not answer after two minutes")


def find(browser, name):
    return browser.find_element(By.CSS_SELECTOR, f"[data-test={name}]")


def wait_status(browser, words: str, seconds: int) -> str:
    seen = ""

    def there(_):
        nonlocal seen
        seen = find(browser, "status").text
        return words in seen

    WebDriverWait(browser, seconds, ignored_exceptions=()).until(there, f"{words!r} did not appear")
    return seen


def fits(browser, width: int, file: Path) -> None:
    """At that width nothing lies beside the page or on another thing; its picture is written, to be looked at."""
    metrics = dict(width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    time.sleep(1)
    inner, wide = browser.execute_script("return [window.innerWidth, document.documentElement.scrollWidth]")
    assert inner == width and wide <= width, (inner, wide)
    names = ("left", "right", "run", "picture", "scene", "disparity")
    boxes = {name: find(browser, name).rect for name in names}
    assert all(box["width"] > 40 and box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes.values()), boxes
    below = boxes["picture"]["y"] > boxes["disparity"]["y"] + boxes["disparity"]["height"]
    assert below == (width < 700), boxes  # stacked where there is no room
    height = browser.execute_script("return document.documentElement.scrollHeight")
    options = dict(captureBeyondViewport=True, clip=dict(x=0, y=0, width=width, height=height, scale=1))
    file.write_bytes(base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", options)["data"]))
    shown = cv2.imread(str(file))
    assert shown.shape[:2] == (height, width) and height > 900


def colors_of(element) -> int:
    picture = cv2.imdecode(np.frombuffer(element.screenshot_as_png, np.uint8), cv2.IMREAD_COLOR)
    return len(np.unique(picture.reshape(-1, 3), axis=0))


@pytest.mark.slow
def test_in_a_browser(page, tmp_path):
    wait = WebDriverWait(page, 180)
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "[data-test=scene] canvas"))
    empty = colors_of(find(page, "scene"))

    bad = tmp_path / "bad.png"
    bad.write_text("this is no image")
    page.find_element(By.CSS_SELECTOR, "[data-test=left] input[type=file]").send_keys(str(bad))
    assert "bad.png: not a complete image" in wait_status(page, "refused", 180)
    large = tmp_path / "large.png"
    large.write_bytes(bytes(2**20 + 1))
    page.find_element(By.CSS_SELECTOR, "[data-test=right] input[type=file]").send_keys(str(large))
    wait_status(page, "larger than 1 MiB", 180)

    assert find(page, "given-left").text == find(page, "given-right").text == ""
    assert not [icon for icon in page.find_elements(By.CSS_SELECTOR, ".q-uploader__file") if icon.is_displayed()]
    text = tmp_path / "notes.txt"
    text.write_text("no image by its name")
    page.find_element(By.CSS_SELECTOR, "[data-test=right] input[type=file]").send_keys(str(text))
    wait_status(page, "refused: no image (.png", 180)
    assert all(find(page, kind).get_attribute("disabled") for kind in ("disparity", "color", "cloud"))

    find(page, "sample").click()
    words = wait_status(page, "done", 900)
    assert int(words.split("cloud of ")[1].split()[0]) > 10_000
    wait.until(lambda b: colors_of(find(b, "scene")) > empty + 500, "the scene shows no cloud")
    webdriver.ActionChains(page).move_to_element(find(page, "picture")).perform()
    wait.until(lambda b: " px, right within 2 px with " in find(b, "value").text and find(b, "value").text.endswith(" m"))

    assert not any(find(page, kind).get_attribute("disabled") for kind in ("disparity", "color", "cloud"))
    shots = Path(os.environ.get("BRIDGEDEPTH_SCREENSHOTS") or tmp_path)
    for width in (400, 1280):
        fits(page, width, shots / f"viewer_{width}.png")

    # A connection that was lost for a while takes nothing with it.
    lost = dict(offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
    page.execute_cdp_cmd("Network.emulateNetworkConditions", lost)
    time.sleep(6)
    page.execute_cdp_cmd(
        "Network.emulateNetworkConditions", lost | dict(offline=False, downloadThroughput=-1, uploadThroughput=-1)
    )
    time.sleep(3)
    assert "done" in find(page, "status").text and not find(page, "disparity").get_attribute("disabled")
    assert find(page, "given-left").text == "the sample pair, 741x500"

    # The sample's camera is not that of the user's images.
    for side in ("left", "right"):
        good = tmp_path / f"good_{side}.png"
        good.write_bytes(png(64, 96))
        page.find_element(By.CSS_SELECTOR, f"[data-test={side}] input[type=file]").send_keys(str(good))
        wait_status(page, f"{side}: good_{side}.png, 96x64", 180)
        assert find(page, f"given-{side}").text == f"good_{side}.png, 96x64"
    find(page, "run").click()
    wait_status(page, "good_left: done", 900)
    webdriver.ActionChains(page).move_to_element(find(page, "value")).move_to_element(find(page, "picture")).perform()
    wait.until(lambda b: find(b, "value").text.endswith("no calibration for metres"))
