"""The examples do what they say: the notebook is executed, the ROS 2 node gets made messages, the Dockerfiles are read."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.inference.stereo import Prediction

EXAMPLES = Path(__file__).parents[1] / "scripts" / "examples"
NOTEBOOK = json.loads((EXAMPLES / "point_cloud.ipynb").read_text())
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def node():
    spec = importlib.util.spec_from_file_location("ros2_depth", EXAMPLES / "ros2_depth.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def message(image: np.ndarray, encoding: str, pad: int = 0):
    rows = image.reshape(len(image), -1)
    data = np.pad(rows, ((0, 0), (0, pad)))
    height, width = image.shape[:2]
    fields = dict(header="stamp", encoding=encoding, height=height, width=width, step=data.shape[1], data=data.tobytes())
    return types.SimpleNamespace(**fields)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_images_of_every_encoding(encoding):
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    alpha = np.full((4, 6, 1), 9, np.uint8)
    stored = {
        "rgb8": rgb, "bgr8": rgb[..., ::-1], "rgba8": np.concatenate([rgb, alpha], -1),
        "bgra8": np.concatenate([rgb[..., ::-1], alpha], -1), "mono8": rgb[..., :1],
    }[encoding]  # fmt: skip
    expected = np.repeat(rgb[..., :1], 3, -1) if encoding == "mono8" else rgb
    np.testing.assert_array_equal(node().image_of(message(stored, encoding, pad=5)), expected)


def test_the_node_gives_metres():
    module = node()
    image = np.zeros((4, 6, 3), np.uint8)
    asked = []

    def predictor(left, right, *, scale):
        asked.append((left.shape, right.shape, scale))
        return Prediction(np.array([[0.0, 2.0, 4.0] * 2] * 4, np.float32), np.ones((4, 6), np.float32))

    # Twice the size of the images: the camera is that of the sensor.
    info = types.SimpleNamespace(p=[200.0, 0, 6, -24.0, 0, 200.0, 4, 0, 0, 0, 1, 0], width=12, height=8)
    sides = message(image, "rgb8"), message(image, "rgb8")
    depth = module.Converter(predictor, 0.5)(*sides, info, types.SimpleNamespace())
    assert asked == [((4, 6, 3), (4, 6, 3), 0.5)]
    assert (depth.encoding, depth.step, depth.height, depth.width, depth.header) == ("32FC1", 24, 4, 6, "stamp")
    values = np.frombuffer(depth.data, "<f4").reshape(4, 6)
    np.testing.assert_allclose(values[0, :3], [np.inf, 100 * 0.12 / 2, 100 * 0.12 / 4], rtol=1e-6)


def test_what_the_node_refuses():
    module = node()
    good = message(np.zeros((4, 6, 3), np.uint8), "rgb8")
    good.encoding = "yuv422"
    with pytest.raises(InputError, match="encoding 'yuv422', expected one of rgb8"):
        module.image_of(good)
    good.encoding, good.data = "rgb8", good.data[:-1]
    with pytest.raises(InputError, match="6x4 with 71 bytes"):
        module.image_of(good)
    with pytest.raises(InputError, match=r"baseline -0\.12"):
        module.camera_of(types.SimpleNamespace(p=[200.0, 0, 6, 24.0, 0, 200.0, 4, 0, 0, 0, 1, 0], width=12, height=8))


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_dockerfiles(name):
    """By a linter, where no engine runs; what it does not know: no root at the end, and extras that there are."""
    linter = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([linter, "--no-color", EXAMPLES / name], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, ""), found
    text = re.sub(r"(?m)^\s*#.*\n", "", (EXAMPLES / name).read_text()).replace("\\\n", " ")
    rows = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    assert [row[1] for row in rows if row[0] == "USER"][-1] not in ("root", "0")
    extras = re.search(r"\.\[([\w,]+)\]", text)
    assert extras is not None
    project = (EXAMPLES.parents[1] / "pyproject.toml").read_text()
    assert all(re.search(rf"(?m)^{extra} = \[", project) for extra in extras[1].split(","))


def test_the_notebook_is_python():
    assert NOTEBOOK["nbformat"] == 4 and not any(cell.get("outputs") for cell in NOTEBOOK["cells"])
    for source in CODE:
        ast.parse(source)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"SCALE": 0.5}  # half the size: less to compile
    for source in CODE:
        exec(compile(source, "cell", "exec"), names)
    assert not names["verdict"].findings and names["epe"] < 4
    assert (tmp_path / "motorcycle.ply").stat().st_size > 15 * len(names["points"]) > 1_000_000
    assert 1 < np.median(names["depth"]) < 8 and (tmp_path / "motorcycle.png").is_file()
