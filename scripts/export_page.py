"""The page of `bridgedepth export web` in Chromium: the pair motorcycle, a screenshot, time, and how its disparity compares.

python scripts/export_page.py --size 480x640 --screenshot page.png

Beside it: the `Predictor`, onnxruntime outside the browser, and the network in float64, from which all of them are off by
their roundings. Needs selenium, chromium and chromedriver.
"""

import argparse
import functools
import http.server
import shutil
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np
from selenium import webdriver
from selenium.webdriver.common.by import By

from bridgedepth_jax.commands.options import size
from bridgedepth_jax.data.formats import read_pfm, write_png
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.export import pairs
from bridgedepth_jax.export.web import export_web
from bridgedepth_jax.inference import demo
from bridgedepth_jax.inference.stereo import DEFAULT_MODEL, Predictor
from bridgedepth_jax.store.checkpoint import load_checkpoint

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--window-size=960,1300",
    "--force-device-scale-factor=0.75",
)
CLOSE = 1e-4  # pixels


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, to a page that may use threads."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *words: object) -> None:
        pass


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="480x640", help="HEIGHTxWIDTH of images and model")
    parser.add_argument("--runs", type=int, default=3, help="times that the page computes")
    parser.add_argument("--screenshot", type=Path, help="PNG to write")
    args = parser.parse_args()
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        raise InputError("chromium and chromedriver are needed, and one of them is not installed")
    shape = size("--size", args.size)
    sample, _ = demo.motorcycle()
    pair = pairs.resized(sample.left, sample.right, *shape, 1)
    checkpoint = load_checkpoint(DEFAULT_MODEL)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        export_web(checkpoint, DEFAULT_MODEL, folder / "page", "nano", (sample.left, sample.right), (shape,), None)
        for name, image in zip(("left", "right"), pair, strict=True):
            write_png(folder / f"{name}.png", image[0].transpose(1, 2, 0))
        found["page"] = computed(folder, programs, args.runs, args.screenshot)
        (model,) = (folder / "page").glob("*.onnx")
        found["onnxruntime"] = pairs.run_onnx(model, pair)[0][0, 0]
    found["Predictor"] = Predictor.load()(*(image[0].transpose(1, 2, 0) for image in pair)).disparity
    jax.config.update("jax_enable_x64", True)
    double = load_checkpoint(DEFAULT_MODEL, dtype="float64")
    forward = jax.jit(pairs.stereo(double).estimate(double.config.replace(dtype="float64")))
    found["float64"] = np.asarray(forward(double.params, *(image.transpose(0, 2, 3, 1) for image in pair)).disparity)[0]
    print(f"| | beside | median px | largest px | beyond {CLOSE} px | beyond {pairs.BEYOND} px |\n|---|---|---|---|---|---|")
    for one, other in (("page", "Predictor"), ("onnxruntime", "Predictor"), *((n, "float64") for n in list(found)[:3])):
        apart = pairs.compare(found[one], found[other])
        share = 100 * np.mean(np.abs(found[one] - found[other]) > CLOSE)
        print(f"| {one} | {other} | {apart.median:.1e} | {apart.largest:.1e} | {share:.2f} % | {100 * apart.beyond:.2f} % |")


def computed(folder: Path, programs: list[str], runs: int, screenshot: Path | None) -> np.ndarray:
    """Disparity (H, W) that FOLDER/page makes of FOLDER/left.png and right.png."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder / "page")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    browser = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    try:
        browser.get(f"http://127.0.0.1:{server.server_port}/")
        for name in ("left", "right"):
            browser.find_element(By.ID, name).send_keys(str(folder / f"{name}.png"))
        for _ in range(runs):
            wait(lambda: browser.find_element(By.ID, "run").is_enabled())
            browser.execute_script("document.body.dataset.seconds = ''")
            browser.find_element(By.ID, "run").click()
            wait(lambda: browser.execute_script("return document.body.dataset.seconds"))
            print(f"page: {browser.find_element(By.ID, 'status').text}", flush=True)
        if screenshot is not None:
            browser.save_screenshot(str(screenshot))
        browser.find_element(By.ID, "save-pfm").click()
        wait((folder / "disparity.pfm").exists)
        return read_pfm(folder / "disparity.pfm")
    finally:
        browser.quit()
        server.shutdown()
        server.server_close()


def wait(condition, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise InputError(f"the page did not get ready within {seconds:.0f} s")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
