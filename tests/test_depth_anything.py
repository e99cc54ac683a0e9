"""Depth Anything V2 on its own: its protocol, its API and its command, with a tiny network."""

import cv2
import jax
import numpy as np
import pytest
import tiny

from bridgedepth_jax import DepthPredictor, InputError, commands
from bridgedepth_jax.data.formats import read_pfm, write_png
from bridgedepth_jax.inference.depth import network_size
from bridgedepth_jax.networks.depth_anything import DepthAnything
from bridgedepth_jax.ops.resize import resize_map
from bridgedepth_jax.store.checkpoint import Checkpoint, save_checkpoint
from bridgedepth_jax.visualize import colorize


def main(arguments):
    commands.main(["depth", *arguments])


@pytest.fixture(scope="module")
def params():
    params = tiny.mono_params()
    # The last layers end in a relu, which random weights might never pass.
    params["depth_head"]["scratch"]["output_conv2_2"]["bias"] += 3
    return params


@pytest.fixture(scope="module")
def predictor(params):
    return DepthPredictor(tiny.MONO, params)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, params):
    path = tmp_path_factory.mktemp("mono") / "tiny"
    save_checkpoint(path, Checkpoint("depth-anything", params, tiny.MONO, {}))
    return path


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((741, 497), (770, 518)),  # 772.3 is nearest to 55 x 14
        ((640, 480), (686, 518)),
        ((480, 640), (518, 686)),
        ((518, 518), (518, 518)),
        ((100, 101), (518, 518)),  # 523.2 is nearest to 37 x 14
        ((1000, 100), (5180, 518)),
    ],
)
def test_protocol_sizes(size, expected):
    assert network_size(*size) == expected


def test_other_sizes():
    assert network_size(200, 100, 56) == (112, 56)
    assert network_size(201, 100, 60) == (126, 70)  # never below what was asked for
    with pytest.raises(InputError, match="size 13"):
        network_size(200, 100, 13)


def test_aligned_resize_keeps_the_corners():
    plane = np.add.outer(np.arange(5.0), 10 * np.arange(7.0)).astype(np.float32)
    large = resize_map(plane, 9, 25)
    np.testing.assert_allclose(large, np.add.outer(np.arange(9) / 2, np.arange(25) * 2.5), rtol=1e-5)


def test_equals_the_network(predictor, params):
    image, _ = tiny.images(40, 65)
    resized = cv2.resize(image / 255.0, (84, 56), interpolation=cv2.INTER_CUBIC)
    normalised = ((resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)
    depth = jax.jit(DepthAnything(tiny.MONO).apply)({"params": params}, normalised[None])[0]
    result = predictor(image, size=56)
    assert type(result) is np.ndarray and result.dtype == np.float32 and result.shape == (40, 65) and result.std() > 1e-3
    np.testing.assert_allclose(result, resize_map(np.asarray(depth), 40, 65), atol=1e-4)
    batch = predictor(np.stack([image, image[::-1]]), size=56)
    np.testing.assert_allclose(batch[0], result, atol=1e-4)
    assert batch.shape == (2, 40, 65) and np.abs(batch[1] - result).max() > 1e-3
    grey = np.repeat(image[..., :1], 3, -1)
    np.testing.assert_array_equal(predictor(image[..., 0], size=56), predictor(grey, size=56))


def test_command(checkpoint, predictor, tmp_path, capsys):
    for i in range(2):
        write_png(tmp_path / "photos" / f"{i}.png", tiny.images(40, 65, seed=i)[0])
    arguments = ["--checkpoint", checkpoint, "--image", tmp_path / "photos", "--out", tmp_path / "out", "--size", 56]
    main([str(a) for a in [*arguments, "--save", "disparity,disparity-npy,color"]])
    out = tmp_path / "out"
    assert len(list(out.iterdir())) == 6
    for i in range(2):
        expected = predictor(tiny.images(40, 65, seed=i)[0], size=56)
        np.testing.assert_array_equal(read_pfm(out / f"{i}_disparity.pfm"), expected)
        np.testing.assert_array_equal(np.load(out / f"{i}_disparity.npy"), expected)
        np.testing.assert_array_equal(cv2.imread(str(out / f"{i}_color.png"))[..., ::-1], colorize(expected))
    assert capsys.readouterr().err == "relative depth\n"  # progress is for terminals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--save", "depth"], "--save depth: expected any of disparity,disparity-npy"),
        (["--image", "none.png"], "none.png: no such file"),
        (["--image", "TEXT"], "text.png"),
        (["--size", "5"], "size 5, expected at least 14"),
        (["--checkpoint", "vitx"], "vitx: neither a checkpoint folder nor a published name"),
        (["--dtype", "float64"], "argument --dtype: invalid choice: 'float64'"),
        (["--out", "TEXT"], "is a file, expected a folder"),
    ],
)
def test_bad_input(checkpoint, tmp_path, capsys, arguments, message):
    (tmp_path / "text.png").write_text("no image")
    write_png(tmp_path / "photo.png", tiny.images(40, 65)[0])
    before = sorted(tmp_path.rglob("*"))
    all_ = ["--checkpoint", checkpoint, "--image", tmp_path / "photo.png", "--out", tmp_path / "out"]
    all_ += [tmp_path / "text.png" if a == "TEXT" else a for a in arguments]
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in all_])
    assert caught.value.code == 2 and message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_kind_of_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "stereo", Checkpoint("bridgedepth", tiny.model_params(), tiny.MODEL, {}))
    with pytest.raises(InputError, match="holds bridgedepth, expected depth-anything"):
        DepthPredictor.load(tmp_path / "stereo")
