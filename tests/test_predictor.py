"""The public API: sizes, types and batches in, arrays in the input's pixels out, on one device and on eight."""

import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny

from bridgedepth_jax import InputError, Prediction, Predictor
from bridgedepth_jax.inference import stereo as module
from bridgedepth_jax.inference.compiled import find_devices, keep_compilations
from bridgedepth_jax.inference.stereo import as_rgb, find_occluded, resize_images
from bridgedepth_jax.store.checkpoint import Checkpoint, save_checkpoint
from bridgedepth_jax.systems.bridgedepth import parity
from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth

TOLERANCE = 1e-4  # pixels; one device against eight


@pytest.fixture(scope="module")
def params():
    return tiny.model_params()


@pytest.fixture(scope="module")
def predictor(params):
    return Predictor(tiny.MODEL, params)


@pytest.fixture(scope="module")
def pair():
    return tiny.images(60, 90)


def test_equals_the_network(predictor, params, pair):
    left, right = pair
    out = jax.jit(BridgeDepth(tiny.MODEL).apply)(
        {"params": params}, left[None].astype(np.float32), right[None].astype(np.float32)
    )
    result = predictor(left, right)
    assert isinstance(result, Prediction) and result.occluded is None
    for value in (result.disparity, result.confidence):
        assert type(value) is np.ndarray and value.dtype == np.float32 and value.shape == (60, 90)
    np.testing.assert_allclose(result.disparity, out.disparity[0], atol=1e-4)
    np.testing.assert_allclose(result.confidence, out.confidence[0], atol=1e-5)
    assert result.confidence.min() >= 0.5 and result.confidence.max() <= 1  # the larger of two
    assert result.disparity.std() > 0.1  # the tests below would pass on a constant


def test_sizes_with_one_padded_size_compile_once(params):
    predictor = Predictor(tiny.MODEL, params)
    for height, width in [(64, 96), (60, 90), (49, 81), (64, 96)]:
        assert predictor(*tiny.images(height, width)).disparity.shape == (height, width)
    left, right = tiny.images(64, 96)
    predictor(left.astype(np.float64), right[..., 0])
    assert predictor._run._forward._cache_size() == 1


def test_a_bucket_takes_many_sizes_in_one_compilation(params, predictor, pair):
    bucket = Predictor(tiny.MODEL, params, bucket=96)
    for height, width in [(60, 90), (70, 65), (96, 96)]:
        assert bucket(*tiny.images(height, width)).disparity.shape == (height, width)
    assert bucket._run._forward._cache_size() == 1
    padded = [np.pad(image, ((36, 0), (0, 6), (0, 0)), "edge") for image in pair]  # what the bucket stands for
    np.testing.assert_array_equal(bucket(*pair).disparity, bucket(*padded).disparity[36:, :90])
    assert not np.array_equal(bucket(*pair).disparity, predictor(*pair).disparity)
    with pytest.raises(InputError, match=r"bucket 40, expected a multiple of 16, at least 16"):
        Predictor(tiny.MODEL, params, bucket=40)


def test_pickles_without_its_devices_and_says_what_it_is(params, predictor, pair):
    there = Predictor(tiny.MODEL, params, devices=2, batch=2, bucket=32, check_order=False, dtype="bfloat16")
    data = pickle.dumps(there)
    back = pickle.loads(data)
    assert back.devices == jax.devices()[:1] and len(there.devices) == 2
    assert (back.config, back.batch, back.bucket, back.check_order) == (there.config, 2, 32, False)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert len(data) == pytest.approx(4 * count, rel=0.5)
    assert repr(back) == f"Predictor(bridgedepth, {count:,} parameters, bfloat16, on cpu:0, batch=2, bucket=32)"
    again = pickle.loads(pickle.dumps(predictor))
    np.testing.assert_array_equal(again(*pair).disparity, predictor(*pair).disparity)


def test_kinds_of_images(predictor, pair):
    left, right = pair
    expected = predictor(left, right).disparity
    alpha = np.full((60, 90, 1), 7, np.uint8)
    for a, b in [
        (left.astype(np.float32), right.astype(np.float64)),
        (np.concatenate([left, alpha], -1), np.concatenate([right, alpha], -1)),
        (np.asfortranarray(left), right),
    ]:
        np.testing.assert_array_equal(predictor(a, b).disparity, expected)
    grey = [np.repeat(image[..., :1], 3, -1) for image in pair]
    expected = predictor(*grey).disparity
    for a, b in [(left[..., 0], right[..., :1]), (np.concatenate([left[..., :1], alpha], -1), grey[1])]:
        np.testing.assert_array_equal(predictor(a, b).disparity, expected)


def test_batch_equals_single_pairs(predictor):
    pairs = [tiny.images(60, 90, seed=seed) for seed in range(3)]
    left, right = (np.stack(images) for images in zip(*pairs, strict=True))
    batch = predictor(left, right)
    assert batch.disparity.shape == batch.confidence.shape == (3, 60, 90)
    for i, pair in enumerate(pairs):
        np.testing.assert_allclose(batch.disparity[i], predictor(*pair).disparity, atol=TOLERANCE)
    one = predictor(left[:1], right[:1])
    assert one.disparity.shape == (1, 60, 90)


@pytest.fixture(scope="module")
def eight():
    pairs = [tiny.images(60, 90, seed=seed) for seed in range(8)]
    return tuple(np.stack(images) for images in zip(*pairs, strict=True))


def test_eight_devices_equal_one(predictor, params, eight):
    spread = Predictor(tiny.MODEL, params, devices="all")
    assert len(spread.devices) == 8
    expected = predictor(*eight)
    result = spread(*eight)
    np.testing.assert_allclose(result.disparity, expected.disparity, atol=TOLERANCE)
    np.testing.assert_allclose(result.confidence, expected.confidence, atol=TOLERANCE)
    assert len({tuple(image.ravel()[:50]) for image in result.disparity}) == 8
    # A batch that does not divide is filled up, and the filling removed, without another compilation.
    some = spread(eight[0][:3], eight[1][:3])
    assert some.disparity.shape == (3, 60, 90)
    np.testing.assert_allclose(some.disparity, expected.disparity[:3], atol=TOLERANCE)
    assert spread._run._forward._cache_size() == 1


def test_batches_of_a_fixed_size(predictor, params, eight):
    fixed = Predictor(tiny.MODEL, params, batch=3)
    whole = fixed(*eight).disparity
    for start in range(0, 8, 3):  # two whole passes, and one that is filled up: the same program each time
        part = fixed(eight[0][start : start + 3], eight[1][start : start + 3]).disparity
        np.testing.assert_array_equal(whole[start : start + 3], part)
    # Another program rounds in another way, and where random weights are undecided single pixels take another candidate.
    difference = np.abs(whole - predictor(*eight).disparity)
    assert np.median(difference) < parity.DISPARITY_MEDIAN
    assert (difference > parity.DISPARITY_FAR).mean() < parity.DISPARITY_FAR_SHARE
    assert fixed(eight[0][0], eight[1][0]).disparity.shape == (60, 90)
    assert fixed._run._forward._cache_size() == 1


def test_scale_gives_input_pixels(predictor):
    left, right = tiny.images(120, 181)
    result = predictor(left, right, scale=0.5)
    assert result.disparity.shape == result.confidence.shape == (120, 181)
    small = predictor(resize_images(left[None], (90, 60)), resize_images(right[None], (90, 60))).disparity[0]
    # The true factor counts: 181 pixels at 0.5 are 90.
    assert result.disparity.mean() / small.mean() == pytest.approx(181 / 90, rel=0.002)
    coarse = result.disparity[:, :180].reshape(60, 2, 90, 2).mean((1, 3))
    assert np.corrcoef(coarse.ravel(), small.ravel())[0, 1] > 0.9


def test_resize_keeps_colours():
    image = np.full((1, 40, 60, 3), 200, np.uint8)
    for size in [(60, 40), (30, 20), (90, 61)]:
        resized = resize_images(image, size)
        assert resized.shape == (1, *size[::-1], 3)
        np.testing.assert_allclose(resized, 200, atol=1e-3)


def test_consistency_runs_the_mirrored_swapped_pair(predictor, pair):
    left, right = pair
    result = predictor(left, right, check_consistency=True, threshold=2.0)
    other = predictor(right[:, ::-1], left[:, ::-1]).disparity[:, ::-1]
    assert result.occluded.dtype == bool and result.occluded.shape == (60, 90)
    np.testing.assert_array_equal(result.occluded, find_occluded(result.disparity[None], other[None], 2.0)[0])
    scaled = predictor(*tiny.images(120, 181), scale=0.5, check_consistency=True)
    assert scaled.occluded.shape == (120, 181) and scaled.occluded.dtype == bool


def test_left_right_check_on_a_known_scene():
    # A wall at 4 px, and a box at 10 px in columns 20..29 of the left image.
    left, right = np.full((2, 1, 1, 50), 4, np.float32)
    left[..., 20:30] = 10
    right[..., 10:20] = 10
    hidden = np.zeros(50, bool)
    hidden[:4] = True  # outside the right image
    hidden[14:20] = True  # behind the box as the right camera sees it: x - 4 in 10..15
    np.testing.assert_array_equal(find_occluded(left, right, 1.0)[0, 0], hidden)
    assert not find_occluded(left, right, 7.0)[0, 0, 4:].any()


def test_swapped_pairs_warn(predictor, params):
    left, right = tiny.images(60, 90, disparity=10)
    with pytest.warns(UserWarning, match="left and right look swapped:"):
        predictor(right, left)
    with pytest.warns(UserWarning, match=r"swapped \(pairs \[1\] of the batch\)"):
        predictor(np.stack([left, right]), np.stack([right, left]))
    Predictor(tiny.MODEL, params, check_order=False)(right, left)  # warnings are errors here


def image(*shape, dtype=np.uint8, value=100):
    return np.full(shape, value, dtype)


@pytest.mark.parametrize(
    ("left", "right", "options", "message"),
    [
        (image(40, 50, 3), image(40, 51, 3), {}, r"left has shape \(40, 50, 3\) and right \(40, 51, 3\)"),
        (image(2, 40, 50, 3), image(40, 50, 3), {}, "expected the same size"),
        (image(31, 50, 3), image(31, 50, 3), {}, "images of 50x31 pixels, expected at least 32x32"),
        (image(60, 60, 3), image(60, 60, 3), {"scale": 0.5}, "60x60 pixels, 30x30 at scale 0.5"),
        (image(60, 60, 3), image(60, 60, 3), {"scale": -1.0}, "scale -1"),
        (image(60, 60, 3), image(60, 60, 3), {"scale": np.nan}, "scale nan"),
        (image(60, 60, 5), image(60, 60, 5), {}, r"left has shape \(60, 60, 5\)"),
        (image(60), image(60), {}, r"left has shape \(60,\)"),
        (image(1, 2, 60, 60, 3), image(60, 60, 3), {}, "left has shape"),
        (image(0, 60, 3), image(0, 60, 3), {}, "an empty image"),
        (image(0, 60, 60, 3), image(0, 60, 60, 3), {}, "an empty image"),
        (image(60, 60, 3, dtype=np.uint16), image(60, 60, 3), {}, "left has dtype uint16"),
        (image(60, 60, 3), image(60, 60, 3, dtype=bool), {}, "right has dtype bool"),
        (image(60, 60, 3), image(60, 60, 3, dtype=np.float32, value=-1), {}, r"right has values -1\.\.-1"),
        (image(60, 60, 3), image(60, 60, 3, dtype=np.float32, value=300), {}, "expected 0..255"),
        (image(60, 60, 3), image(60, 60, 3, dtype=np.float32, value=np.nan), {}, r"nan\.\.nan"),
        (image(60, 60, 3), image(60, 60, 3, dtype=np.float32, value=0.5), {}, "multiply images in 0..1 by 255"),
    ],
)  # fmt: skip
def test_bad_input(predictor, left, right, options, message):
    with pytest.raises(InputError, match=message):
        predictor(left, right, **options)


def test_grey_image_three_pixels_wide_is_no_special_case():
    assert as_rgb(image(50, 60), "left").shape == (50, 60, 3)
    assert as_rgb(image(5, 50, 60, 1), "left").shape == (5, 50, 60, 3)


def test_dtype(params, pair):
    predictor = Predictor(tiny.MODEL, params, dtype="bfloat16")
    assert predictor.config.dtype == "bfloat16" and tiny.MODEL.dtype == "float32"
    result = predictor(*pair)
    assert result.disparity.dtype == np.float32 and np.isfinite(result.disparity).all()
    assert {leaf.dtype for leaf in jax.tree.leaves(predictor._run._params)} == {np.dtype(np.float32)}
    with pytest.raises(InputError, match="dtype 'int8', expected one of"):
        Predictor(tiny.MODEL, params, dtype="int8")


def test_devices():
    every = jax.devices()
    assert find_devices(None) == every[:1] and find_devices(3) == every[:3] and find_devices(every[5:7]) == every[5:7]
    assert find_devices("all") == find_devices("cpu") == every
    for devices, message in [("tpu", "'tpu'"), (0, "devices 0"), (9, r"1\.\.8"), ([], "at least one")]:
        with pytest.raises(InputError, match=message):
            find_devices(devices)


def test_load(tmp_path, params, predictor, pair):
    path = tmp_path / "checkpoint"
    save_checkpoint(path, Checkpoint("bridgedepth", params, tiny.MODEL, {}))
    loaded = Predictor.load(path, check_order=False)
    assert loaded.config == tiny.MODEL and not loaded.check_order
    np.testing.assert_array_equal(loaded(*pair).disparity, predictor(*pair).disparity)

    save_checkpoint(path, Checkpoint("depth-anything", tiny.mono_params(), tiny.MONO, {}))
    with pytest.raises(InputError, match="holds depth-anything, expected bridgedepth"):
        Predictor.load(path)


def test_unknown_name():
    with pytest.raises(
        InputError, match=r"nanno: neither .* nor a published name, did you mean nano\? Known: nano, sf, "
    ) as end:
        Predictor.load("nanno")
    assert "depth_anything" not in str(end.value)  # which a Predictor would refuse
    with pytest.raises(InputError, match="xyz: neither a checkpoint folder nor a published name, expected one of nano, sf, "):
        Predictor.load("xyz")


def test_no_default_model(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "DEFAULT_MODEL", tmp_path / "none")
    with pytest.raises(InputError, match="without a default model"):
        Predictor.load()


@pytest.fixture
def cache_setting():
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_compilation_cache_leaves_a_users_own_alone(monkeypatch, tmp_path, cache_setting):
    monkeypatch.setenv("BRIDGEDEPTH_CACHE", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", "own")
    keep_compilations()
    assert jax.config.jax_compilation_cache_dir == "own"
    jax.config.update("jax_compilation_cache_dir", None)
    keep_compilations()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "xla")


RUN = """
import jax, tiny
from bridgedepth_jax import Predictor
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
predictor = Predictor(tiny.MODEL, tiny.model_params())
print(predictor(*tiny.images(64, 96)).disparity.sum(), len(hits))
"""


@pytest.mark.slow
def test_compilations_are_kept_between_runs(tmp_path):
    environment = dict(
        os.environ, BRIDGEDEPTH_CACHE=str(tmp_path), PYTHONPATH=os.pathsep.join([os.getcwd(), "tests"]), XLA_FLAGS=""
    )
    del environment["JAX_COMPILATION_CACHE_DIR"]
    first, second = (
        subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    )
    assert first[0] == second[0] and first[1] == "0" and int(second[1]) >= 1


def test_import_is_fast_and_touches_no_device():
    program = (
        "import sys, time; start = time.perf_counter(); import bridgedepth_jax; seconds = time.perf_counter() - start\n"
        "assert 'jax' not in sys.modules\n"
        "import bridgedepth_jax.inference.stereo, jax._src.xla_bridge as bridge\n"
        "assert not bridge._backends, bridge._backends\n"
        "print(seconds)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 1.5
