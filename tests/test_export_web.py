"""The page that computes in the browser, in a real headless one (Debian's chromium and chromium-driver)."""

import functools
import http.server
import json
import tarfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from bridgedepth_jax import commands
from bridgedepth_jax.commands import export_web
from bridgedepth_jax.data.formats import read_pfm, write_png
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.export import web
from bridgedepth_jax.inference.stereo import Predictor
from bridgedepth_jax.store.checkpoint import Checkpoint, save_checkpoint
from bridgedepth_jax.visualize import colorize

HEIGHT, WIDTH = 40, 56
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1200,1200",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A page with a tiny network in two sizes."""
    folder = tmp_path_factory.mktemp("web")
    save_checkpoint(folder / "tiny", Checkpoint("bridgedepth", tiny.model_params(), tiny.MODEL, {"licence": "MIT"}))
    for name, image in zip(("left", "right"), tiny.images(HEIGHT, WIDTH), strict=True):
        write_png(folder / f"{name}.png", image)
    words = ["--checkpoint", folder / "tiny", "--left", folder / "left.png", "--right", folder / "right.png"]
    words += ["--size", f"{HEIGHT}x{WIDTH}", "--size", "32x48"]
    commands.parse_and_run(export_web, "export web", list(map(str, [folder / "page", *words])))
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, as a page that may use threads is served."""

    def end_headers(self):
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def browser(folder, tmp_path_factory):
    missing = [str(file) for file in (CHROMIUM, DRIVER) if not file.exists()]
    assert not missing, f"{missing[0]} is missing: apt-get install chromium chromium-driver"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder / "page")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (folder / "saved").mkdir()
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "saved")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    try:
        browser.get(f"http://127.0.0.1:{server.server_port}/")
        yield browser
    finally:
        browser.quit()
        server.shutdown()
        server.server_close()


def wait(browser, condition, what, seconds=120):
    def stated(driver):
        status = driver.find_element(By.ID, "status")
        assert "error" not in status.get_attribute("class"), status.text
        return condition(status.text)

    WebDriverWait(browser, seconds, poll_frequency=0.1).until(stated, what)


def saved(folder, button, browser, name):
    file = folder / "saved" / name
    file.unlink(missing_ok=True)
    browser.find_element(By.ID, button).click()
    for _ in range(300):
        if file.exists():
            return file
        time.sleep(0.1)
    raise AssertionError(f"{name} was not saved")


def compute(browser, folder, left="left.png", right="right.png"):
    wait(browser, lambda text: text.startswith("Ready") or " s (" in text, "the model is not loaded")
    browser.execute_script("document.body.dataset.seconds = ''")
    for side, name in (("left", left), ("right", right)):
        browser.find_element(By.ID, side).send_keys(str(folder / name))
    WebDriverWait(browser, 30).until(lambda driver: driver.find_element(By.ID, "run").is_enabled())
    browser.find_element(By.ID, "run").click()
    wait(browser, lambda _: browser.execute_script("return document.body.dataset.seconds") != "", "nothing was computed")


@pytest.mark.slow
def test_disparity_is_the_predictors(folder, browser):
    compute(browser, folder)
    images = [cv2.imread(str(folder / f"{side}.png"))[..., ::-1] for side in ("left", "right")]
    expected = Predictor.load(folder / "tiny", check_order=False)(*images)
    found = read_pfm(saved(folder, "save-pfm", browser, "disparity.pfm"))
    assert found.shape == (HEIGHT, WIDTH)
    difference = np.abs(found - expected.disparity)
    assert np.median(difference) < 1e-4 and np.mean(difference > 0.05) <= 0.02  # random weights amplify roundings

    top = float(browser.find_element(By.ID, "top").get_attribute("value"))
    assert top == np.ceil(found.max())
    color = cv2.imread(str(saved(folder, "save-png", browser, "disparity.png")))[..., ::-1]
    assert np.mean(color != colorize(found, top)) < 0.01  # halves round otherwise
    grey = cv2.imread(str(saved(folder, "save-confidence", browser, "confidence.png")), cv2.IMREAD_GRAYSCALE)
    assert np.abs(grey / 255 - expected.confidence).max() < 0.01

    output = browser.find_element(By.ID, "output")
    ActionChains(browser).move_to_element_with_offset(
        output, 10 - output.size["width"] // 2, 5 - output.size["height"] // 2
    ).perform()
    text = browser.find_element(By.ID, "value").text
    x, y = (int(number) for number in text[1 : text.index(")")].split(","))
    assert text.endswith(f"): {found[y, x]:.2f} px, confidence {expected.confidence[y, x]:.2f}") and (x, y) != (0, 0)


@pytest.mark.slow
def test_nothing_leaves_the_page(folder, browser):
    wait(browser, lambda text: text.startswith("Ready") or " s (" in text, "the model is not loaded")
    asked = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    own = browser.current_url
    assert any(url.endswith("worker.mjs") for url in asked)
    assert not [url for url in asked if url.startswith(("http", "ws", "ftp")) and not url.startswith(own)]
    # And it could not: another port of this machine is another origin.
    blocked = "fetch('http://127.0.0.1:1/').then(() => arguments[0]('sent'), (error) => arguments[0](String(error)))"
    assert "Content Security Policy" in str(browser.execute_async_script(blocked)) + str(browser.get_log("browser"))


@pytest.mark.slow
def test_other_sizes_are_resized(folder, browser):
    """Disparity of a smaller model is in pixels of the images and has their size."""
    Select(browser.find_element(By.ID, "size")).select_by_visible_text("32x48")
    compute(browser, folder)
    found = read_pfm(saved(folder, "save-pfm", browser, "disparity.pfm"))
    assert found.shape == (HEIGHT, WIDTH)
    images = [cv2.imread(str(folder / f"{side}.png"))[..., ::-1] for side in ("left", "right")]
    small = [cv2.resize(image, (48, 32), interpolation=cv2.INTER_AREA) for image in images]
    seen = Predictor.load(folder / "tiny", check_order=False)(*small).disparity
    assert abs(np.median(found) - np.median(seen) * WIDTH / 48) < 2  # the browser resizes in its own way; 6 without the factor
    Select(browser.find_element(By.ID, "size")).select_by_visible_text(f"{HEIGHT}x{WIDTH}")
    wait(browser, lambda text: text.startswith("Ready"), "the model is not loaded")


@pytest.mark.slow
def test_a_camera(folder, browser):
    """Chromium's own test camera, whose picture is taken as two halves."""
    wait(browser, lambda text: text.startswith("Ready") or " s (" in text, "the model is not loaded")
    browser.find_element(By.ID, "camera").click()
    playing = "const v = document.getElementById('video-left'); return v.videoWidth && v.currentTime > 0"
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(playing))
    browser.execute_script("document.body.dataset.seconds = ''")
    browser.find_element(By.ID, "take").click()
    wait(browser, lambda _: browser.execute_script("return document.body.dataset.seconds") != "", "nothing was computed")
    width, height = browser.execute_script(
        "const v = document.getElementById('video-left'); return [v.videoWidth / 2, v.videoHeight]"
    )
    found = read_pfm(saved(folder, "save-pfm", browser, "disparity.pfm"))
    assert found.shape == (height, width) and np.isfinite(found).all()
    browser.find_element(By.ID, "stop").click()


@pytest.mark.slow
def test_what_cannot_be_used_is_said(folder, browser):
    for name, content, said in (
        ("text.png", b"no image", "text.png: not an image"),
        (
            "small.png",
            cv2.imencode(".png", np.zeros((20, 40, 3), np.uint8))[1].tobytes(),
            "40x20 pixels, expected at least 32x32",
        ),
    ):
        (folder / name).write_bytes(content)
        browser.find_element(By.ID, "left").send_keys(str(folder / name))
        WebDriverWait(browser, 30).until(lambda driver, said=said: said in driver.find_element(By.ID, "status").text)
    write_png(folder / "other.png", np.zeros((64, 64, 3), np.uint8))
    browser.find_element(By.ID, "left").send_keys(str(folder / "other.png"))
    browser.find_element(By.ID, "right").send_keys(str(folder / "right.png"))
    WebDriverWait(browser, 30).until(lambda driver: driver.find_element(By.ID, "run").is_enabled())
    time.sleep(0.2)
    browser.find_element(By.ID, "run").click()
    WebDriverWait(browser, 30).until(lambda driver: "64x64" in driver.find_element(By.ID, "status").text)


def test_the_runtime_is_the_one_that_was_tested(tmp_path):
    with pytest.raises(InputError, match=r"expected onnxruntime-web 1\.\d+\.0, packed or as a folder"):
        web.runtime_files(tmp_path)
    with tarfile.open(tmp_path / "x.tgz", "w:gz"):
        pass
    with pytest.raises(InputError, match="expected onnxruntime-web"):
        web.runtime_files(tmp_path / "x.tgz")
    for name in web.RUNTIME:
        (tmp_path / "dist").mkdir(exist_ok=True)
        (tmp_path / "dist" / name).write_bytes(b"something else")
    with pytest.raises(InputError, match=r"is not that of onnxruntime-web"):
        web.runtime_files(tmp_path)


def test_without_npm(tmp_path, monkeypatch):
    monkeypatch.setenv("BRIDGEDEPTH_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        InputError, match=r"there is no npm: get it elsewhere with `npm pack onnxruntime-web@.*` and give --runtime"
    ):
        web.fetch_runtime()
    assert not list(tmp_path.iterdir())


def test_bad_words(tmp_path):
    run = lambda *words: commands.parse_and_run(export_web, "export web", list(map(str, words)))
    (tmp_path / "page").mkdir()
    with pytest.raises(InputError, match="page exists, expected a new folder"):
        run(tmp_path / "page")
    (tmp_path / "page").rmdir()
    with pytest.raises(InputError, match="size 16x64, expected at least 32x32"):
        run(tmp_path / "page", "--size", "16x64")
    assert not list(tmp_path.iterdir())
