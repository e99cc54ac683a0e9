"""The programs in the README of export: run, and compiled and run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from bridgedepth_jax.export import onnx, onnx_graph

ROOT = Path(__file__).parents[1]
HEADERS = Path(__file__).parent / "reference" / "export"
HEIGHT, WIDTH = 6, 9


def example(language: str) -> str:
    text = (ROOT / "bridgedepth_jax" / "export" / "README.md").read_text()
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.S)
    return found


@pytest.fixture
def files(tmp_path):
    """A model of two images, and the images; its disparity is what channels and places weigh."""
    kind = jax.ShapeDtypeStruct((1, 3, HEIGHT, WIDTH), np.float32)
    weights = np.arange(3 * HEIGHT * WIDTH, dtype=np.float32).reshape(1, 3, HEIGHT, WIDTH)

    def function(weights, left, right):
        disparity = (weights * (2 * left - right)).sum(1, keepdims=True)
        return disparity, 1 - disparity

    graph = onnx.to_graph(function, weights, {"left": kind, "right": kind}, ("disparity", "confidence"))
    onnx_graph.write(tmp_path / "model.onnx", graph, {})
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    for name, image in zip(("left", "right"), images, strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        image.transpose(2, 0, 1).astype(np.float32).tofile(tmp_path / f"{name}.raw")
    left, right = images.transpose(0, 3, 1, 2).astype(np.float32)
    return tmp_path, function(weights, left[None], right[None])[0][0, 0]


def test_python(files):
    folder, expected = files
    subprocess.run([sys.executable, "-c", example("python")], cwd=folder, check=True)
    np.testing.assert_allclose(np.load(folder / "disparity.npy"), expected, rtol=1e-5)


def test_cpp(files):
    folder, expected = files
    assert shutil.which("g++"), "no g++: apt-get install g++"
    (folder / "stereo.cpp").write_text(example("cpp"))
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*")
    (folder / "libonnxruntime.so.1").symlink_to(library)  # as it calls itself
    words = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{HEADERS}", "stereo.cpp", str(library), "-Wl,-rpath,$ORIGIN"]
    subprocess.run(["g++", *words, "-o", "stereo"], cwd=folder, check=True)
    sides = ["left.raw", "right.raw"]
    run = lambda *words: subprocess.run(["./stereo", *map(str, words)], cwd=folder, capture_output=True, text=True)
    done = run("model.onnx", *sides, "out.raw", HEIGHT, WIDTH)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.fromfile(folder / "out.raw", np.float32).reshape(HEIGHT, WIDTH), expected, rtol=1e-5)
    refused = run("missing.onnx", *sides, "out.raw", HEIGHT, WIDTH)
    assert refused.returncode == 1 and "missing.onnx" in refused.stderr
