"""Files of jax.export: read in a process that has JAX alone."""

import argparse
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from bridgedepth_jax.commands import export_jax, export_onnx
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.export import pairs
from bridgedepth_jax.export.jax_export import LOADER
from bridgedepth_jax.store.checkpoint import Checkpoint, save_checkpoint
from bridgedepth_jax.system import find_system
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig

EXPORTED = Path(__file__).parent / "reference" / "export"
ELSEWHERE = """
import sys
import numpy as np
sys.modules["flax"] = sys.modules["bridgedepth_jax"] = None  # importing them fails
from model_loader import load
images = np.load("images.npz")
results = load("model.jax")(images["left"], images["right"])
np.savez("results.npz", *map(np.asarray, results))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(folder, Checkpoint("bridgedepth", tiny.model_params(), tiny.MODEL, {}))
    return folder


def run(module, *words):
    parser = argparse.ArgumentParser()
    module.arguments(parser)
    module.run(parser.parse_args(list(map(str, words))))


def test_the_default_model_takes_any_batch():
    """Semi-global matching and the last choice included: traced for a batch without a number."""
    system, model = find_system("bridgedepth"), ModelConfig.nano_sharp()
    weights = jax.eval_shape(lambda key: system.init(model, key), jax.random.key(0))
    image = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("b"), 96, 160, 3), np.float32)
    disparity, confidence = jax.eval_shape(pairs.nhwc(system, model), weights, image, image)
    assert disparity.shape == confidence.shape == (image.shape[0], 96, 160)


@pytest.mark.parametrize("beside", [("--beside",), pytest.param((), marks=pytest.mark.slow)])
def test_read_where_there_is_only_jax(beside, folder, tmp_path):
    run(export_jax, "--checkpoint", folder, "--height", 37, "--width", 50, "--out", tmp_path / "model.jax", *beside)
    assert (tmp_path / "model.jax.npz").exists() == bool(beside)
    images = [np.stack([image, image[::-1], image]).astype(np.float32) for image in tiny.images(37, 50)]
    np.savez(tmp_path / "images.npz", left=images[0], right=images[1])
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, check=True)
    expected = jax.jit(pairs.nhwc(find_system("bridgedepth"), tiny.MODEL))(tiny.model_params(), *images)
    with np.load(tmp_path / "results.npz") as results:
        for found, value in zip(results.values(), expected, strict=True):
            assert found.shape == (3, 37, 50)
            # Another program around the same operations rounds otherwise, and random weights amplify that.
            difference = pairs.compare(found, np.asarray(value))
            assert difference.median < 5e-5 and difference.beyond == 0
    with pytest.raises(InputError, match=r"model.jax exists"):
        run(export_jax, "--checkpoint", folder, "--size", "37x50", "--out", tmp_path / "model.jax", *beside)


@pytest.mark.parametrize("version", ["0.10.2", "0.12.0"])
def test_files_of_other_versions_of_jax_are_read(version, tmp_path):
    """Convolution, softmax, sort, look-up and loop, written by `save_function`; by the later version for a batch of 2."""
    left, right = np.random.default_rng(1).integers(0, 256, (2, 2, 8, 12, 3)).astype(np.float32)
    np.savez(tmp_path / "images.npz", left=left, right=right)
    (tmp_path / "model.jax").write_bytes((EXPORTED / f"jax_{version}.jax").read_bytes())
    (tmp_path / "model_loader.py").write_text(LOADER)
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, check=True)
    kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 8)).astype(np.float32)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(left - right, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2))
    x = 0.01 * np.einsum("byxcij,ijcd->byxd", around, kernel)
    x = np.exp(x - x.max(-1, keepdims=True))
    x /= x.sum(-1, keepdims=True)
    first = np.take_along_axis(np.sort(x, -1), x.argmax(-1)[..., None], -1)[..., 0]
    with np.load(tmp_path / "results.npz") as results:
        found = list(results.values())
    np.testing.assert_allclose(found[0], first, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[1], 0.5 * (np.cumsum(first, 1) - first + first[:, :1]), rtol=1e-4, atol=1e-6)


def test_without_flatbuffers(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(InputError, match="flatbuffers is not installed: pip install flatbuffers"):
        run(export_jax, "--checkpoint", folder, "--height", 37, "--width", 50, "--out", tmp_path / "model.jax")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no size given"),
        (("--height", 64), "--height and --width go together"),
        (("--size", "64"), "--size 64, expected HEIGHTxWIDTH"),
        (("--size", "64x64", "--left", "a.png"), "--left and --right go together"),
        (("--size", "64x64", "--checkpoint", "a", "--model_name", "rvc"), "both given"),
    ],
)
def test_bad_words(words, message):
    with pytest.raises(InputError, match=message):
        run(export_onnx, *words)
