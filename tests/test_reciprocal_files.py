"""StereoNet's and SingleNet's checkpoints: monodepth2's folders and torchvision's ResNet both ways, and what takes them."""

import functools

import jax
import numpy as np
import pytest

from bridgedepth_jax import DepthPredictor, commands
from bridgedepth_jax.convert.pth import read_pth, write_pth
from bridgedepth_jax.data.formats import write_png
from bridgedepth_jax.store.checkpoint import Checkpoint, expected_shapes, flatten, load_checkpoint, save_checkpoint, unflatten
from bridgedepth_jax.system import find_system
from bridgedepth_jax.systems.reciprocal.config import SingleNetConfig, StereoNetConfig

SINGLE = SingleNetConfig(depths=(1, 1), bottleneck=False, width=4, decoder=(4, 4, 6), size=(64, 96))
STEREO = StereoNetConfig(
    widths=(4, 4, 6), projected=4, radius=2, estimator=(6, 6, 6, 4, 4), context=(6, 4), dilations=(1, 2), finest=0
)


def drawn(kind, config, seed=0):
    """Weights of the right shapes, without a network."""
    rng = np.random.default_rng(seed)
    leaves = {
        name: rng.uniform(0.1, 1, shape).astype(np.float32) if name.endswith("var") else rng.normal(0, 0.1, shape).astype("f4")
        for name, shape in expected_shapes(kind, config).items()
    }
    return unflatten(leaves)


@pytest.fixture(scope="module")
def monodepth2(tmp_path_factory):
    """A folder as monodepth2 publishes them, with what our checkpoint does not hold."""
    folder = tmp_path_factory.mktemp("monodepth2")
    config = SingleNetConfig.named("resnet18")
    save_checkpoint(folder / "drawn", Checkpoint("singlenet", drawn("singlenet", config), config, {"source": "a test"}))
    commands.main(["convert", "to-torch", str(folder / "drawn"), str(folder / "published")])
    encoder = read_pth(folder / "published" / "encoder.pth")
    encoder |= {"height": 192, "width": 640, "use_stereo": False}
    write_pth(folder / "published" / "encoder.pth", encoder)
    return folder


def test_a_folder_of_monodepth2_there_and_back(monodepth2):
    commands.main(["convert", "singlenet", str(monodepth2 / "published"), str(monodepth2 / "ours")])
    loaded = load_checkpoint(monodepth2 / "ours")
    assert loaded.config == SingleNetConfig(depths=(2, 2, 2, 2), bottleneck=False, size=(192, 640), metric=False)
    expected = flatten(load_checkpoint(monodepth2 / "drawn").params)
    found = flatten(loaded.params)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    commands.main(["convert", "to-torch", str(monodepth2 / "ours"), str(monodepth2 / "back")])
    for name in ("encoder.pth", "depth.pth"):
        before, after = read_pth(monodepth2 / "published" / name), read_pth(monodepth2 / "back" / name)
        assert list(before) == list(after)
        for key, value in before.items():
            np.testing.assert_array_equal(value, after[key], err_msg=key)
    assert after["decoder.0.conv.conv.weight"].shape == (256, 512, 3, 3)


def test_torchvisions_resnet_there_and_back(monodepth2, tmp_path):
    rng = np.random.default_rng(3)
    state = read_pth(monodepth2 / "published" / "encoder.pth")
    state = {
        name.removeprefix("encoder."): rng.normal(0, 0.1, np.shape(value)).astype(np.float32)
        for name, value in state.items()
        if isinstance(value, np.ndarray) and not name.endswith("num_batches_tracked")
    }
    write_pth(tmp_path / "resnet18.pth", state)
    commands.main(["convert", "singlenet", str(tmp_path / "resnet18.pth"), str(tmp_path / "ours")])
    loaded = load_checkpoint(tmp_path / "ours")
    assert loaded.provenance["rest"] == "initial weights, not trained"
    np.testing.assert_array_equal(flatten(loaded.params)["depth/decoder_10/conv/bias"], -4)
    commands.main(["convert", "to-torch", str(tmp_path / "ours"), str(tmp_path / "back.pth"), "--backbone"])
    back = read_pth(tmp_path / "back.pth")
    assert {name for name in state if not name.startswith("fc.")} == {name for name in back if "tracked" not in name}
    for name, value in back.items():
        if "tracked" not in name:
            np.testing.assert_array_equal(value, state[name], err_msg=name)


def test_one_file_of_two_and_other_networks_are_refused(monodepth2, tmp_path, capsys):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "encoder.pth").write_bytes((monodepth2 / "published" / "encoder.pth").read_bytes())
    write_pth(tmp_path / "vgg.pth", {"features.0.weight": np.zeros((4, 3, 3, 3), np.float32)})
    save_checkpoint(tmp_path / "stereo", Checkpoint("stereonet", drawn("stereonet", STEREO), STEREO, {"source": "a test"}))
    for words, *arguments in (
        ("has no depth.pth, expected a folder with encoder.pth and depth.pth", "singlenet", "half", "out"),
        ("expected a folder with encoder.pth and depth.pth", "singlenet", "half/encoder.pth", "out"),
        ("a ResNet of (0, 0, 0, 0) blocks, expected one of resnet18", "singlenet", "vgg.pth", "out"),
        ("stereonet has no encoder of torchvision, expected singlenet", "to-torch", "stereo", "out", "--backbone"),
    ):
        paths = [str(tmp_path / word) if not word.startswith("-") and i else word for i, word in enumerate(arguments)]
        with pytest.raises(SystemExit) as caught:
            commands.main(["convert", *paths])
        assert caught.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and words in lines[0]
        assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for kind, config in (("stereonet", STEREO), ("singlenet", SINGLE)):
        init = jax.jit(functools.partial(find_system(kind).init, config))
        save_checkpoint(folder / kind, Checkpoint(kind, jax.device_get(init(jax.random.key(0))), config, {"source": "a test"}))
    rng = np.random.default_rng(0)
    for side in ("left", "right"):
        write_png(folder / f"{side}.png", rng.integers(0, 256, (70, 130, 3), np.uint8))
    return folder


def test_infer_and_depth_take_them(checkpoints, tmp_path, capsys):
    left, right = (str(checkpoints / f"{side}.png") for side in ("left", "right"))
    stereo, single = (str(checkpoints / kind) for kind in ("stereonet", "singlenet"))
    out = ["--out", str(tmp_path / "out"), "--save", "disparity-npy"]
    commands.main(["infer", "--checkpoint", stereo, "--left", left, "--right", right, *out])
    found = np.load(tmp_path / "out" / "left_disparity.npy")
    assert found.shape == (70, 130) and found.min() >= 0
    commands.main(["depth", "--checkpoint", single, "--image", left, *out])
    found = np.load(tmp_path / "out" / "left_disparity.npy")
    low, high = (SINGLE.factor * 130 * value for value in (SINGLE.smallest, SINGLE.largest))  # in pixels of the image
    assert found.shape == (70, 130) and low <= found.min() < found.max() <= high
    for words, *arguments in (
        ("sees one image, expected a system for pairs", "infer", "--checkpoint", single, "--left", left, "--right", right),
        (
            "holds stereonet, expected depth-anything or another network of one view",
            "depth",
            "--checkpoint",
            stereo,
            "--image",
            left,
        ),
        ("this network sees 64x96", "depth", "--checkpoint", single, "--image", left, "--size", "300"),
        ("computes in float32 alone", "depth", "--checkpoint", single, "--image", left, "--dtype", "bfloat16"),
        ("computes in float32 alone", "infer", "--checkpoint", stereo, "--left", left, "--right", right, "--dtype", "bfloat16"),
    ):
        with pytest.raises(SystemExit) as caught:
            commands.main([*arguments, *out])
        assert caught.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert len(lines) == 1 and words in lines[0]


def test_a_monocular_disparity_follows_the_images_width(checkpoints):
    predictor = DepthPredictor.load(checkpoints / "singlenet")
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    one, two = predictor(image), predictor(image.repeat(2, 0).repeat(2, 1))
    np.testing.assert_allclose(two[1::2, 1::2][:-1, :-1], 2 * (one[:-1, :-1] * 9 + one[1:, :-1] * 3 + one[:-1, 1:] * 3 + one[1:, 1:]) / 16, rtol=1e-4)  # fmt: skip  # noqa: E501
