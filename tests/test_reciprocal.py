"""Networks, losses and protocols that need no ground truth: golden numbers, and properties with slow loops as oracles."""

import colorsys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import depth
from bridgedepth_jax.ops.warp import row_correlation, warp_rows
from bridgedepth_jax.system import Rows
from bridgedepth_jax.systems.reciprocal import losses, networks, parity
from bridgedepth_jax.systems.reciprocal.augment import augment, jitter, turn_hue
from bridgedepth_jax.systems.reciprocal.config import SingleNetConfig, StereoNetConfig
from bridgedepth_jax.systems.reciprocal.stereonet import normalize

TESTS = Path(__file__).parent
GOLDEN = TESTS / "reference" / "self_supervised"


@pytest.mark.parametrize("float64", [False, True])
@pytest.mark.parametrize("kind", parity.KINDS)
def test_golden(kind, float64):
    with jax.enable_x64(float64):
        rows = list(parity.compare(TESTS, GOLDEN, kinds=[kind], float64=float64))
    assert rows
    assert not [row for row in rows if not row.ok]


def random(*shape, low=0.0, high=1.0, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(low, high, shape), jnp.float32)


def linear(row, x):
    """A row read at x, columns clamped."""
    x = min(max(x, 0.0), len(row) - 1.0)
    low = int(np.floor(x))
    high = min(low + 1, len(row) - 1)
    return row[low] + (x - low) * (row[high] - row[low])


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0])
def test_occlusion_pixel_by_pixel(alpha, right):
    d, other = random(1, 3, 20, low=-2, high=8), random(1, 3, 20, low=-2, high=8, seed=1)
    found = np.asarray(losses.occlusion(d, other, alpha, right=right))
    d, other = np.asarray(d), np.asarray(other)
    for y in range(3):
        for x in range(20):
            there = x + d[0, y, x] if right else x - d[0, y, x]
            r = linear(other[0, y], there)
            apart = abs(d[0, y, x] - r) >= alpha * (abs(d[0, y, x]) + abs(r)) + 0.5
            assert found[0, y, x] == (apart or there < 0 or there > 19)


def test_a_disparity_that_leaves_the_image_gets_no_gradient():
    image = random(1, 1, 8, 3)
    d = jnp.asarray([[[0.0, 2.0, 0.5, -6.0, 1.5, 0.25, 0.5, 0.5]]])  # columns: 0, -1, 1.5, 9, 2.5, 4.75, 5.5, 6.5
    gradient = jax.grad(lambda d: jnp.sum(warp_rows(image, d)))(d)[0, 0]
    assert np.flatnonzero(np.asarray(gradient) == 0).tolist() == [0, 1, 3]


def test_correlation_by_loops():
    left, right = random(1, 2, 7, 3), random(1, 2, 7, 3, seed=1)
    found = np.asarray(row_correlation(left, right, 2))
    left, right = np.asarray(left), np.asarray(right)
    for x in range(7):
        for j in range(5):
            there = x - (j - 2)
            expected = (left[0, :, x] * right[0, :, there]).mean(-1) if 0 <= there < 7 else 0
            np.testing.assert_allclose(found[0, :, x, j], expected, rtol=1e-6)


def test_without_a_visible_pixel_the_data_terms_are_zero():
    left, right, d = random(1, 8, 16, 3), random(1, 8, 16, 3, seed=1), random(1, 8, 16)
    everything, none = jnp.ones((1, 8, 16), bool), jnp.zeros(())
    for data in (
        losses.photometric_data(left, right, everything, none),
        losses.distillation_data(random(1, 8, 16, seed=2), everything, none),
    ):
        value, gradient = jax.jit(jax.value_and_grad(data))(d)
        assert float(value) == 0 and np.array_equal(gradient, np.zeros_like(d))


def test_smoothness_of_parts_adds_up_and_ignores_scale():
    image, d = random(4, 8, 16, 3), random(4, 8, 16, low=1, high=5, seed=1)
    whole = losses.smoothness(d, image, 4)
    parts = [losses.smoothness(d[i : i + 2], image[i : i + 2], 4) for i in (0, 2)]
    np.testing.assert_allclose(whole, sum(parts), rtol=1e-6)
    np.testing.assert_allclose(whole, losses.smoothness(3 * d, image, 4), rtol=1e-5)


def test_hue_as_the_standard_library_has_it():
    image = random(2, 5, 3, high=255)
    found = np.asarray(turn_hue(image, jnp.float32(0.07)))
    for pixel, expected in zip(found.reshape(-1, 3), np.asarray(image).reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*expected)
        np.testing.assert_allclose(pixel, colorsys.hsv_to_rgb((h + 0.07) % 1, s, v), rtol=1e-4, atol=1e-3)


def test_colour_draws_in_the_middle_change_nothing():
    image = random(4, 6, 3, high=255)
    np.testing.assert_allclose(jitter(image, jnp.full(4, 0.5)), image, rtol=1e-4, atol=1e-3)


def test_augmentation_by_row_number():
    left, right = random(6, 4, 8, 3, high=255), random(6, 4, 8, 3, high=255, seed=1)
    keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(3), n))(jnp.arange(6))
    views = jax.jit(lambda a, b, k: augment(a, b, k, mirror=0.5, colour=0.5))(left, right, keys)
    kinds = []
    for i in range(6):
        mirrored = not np.array_equal(views.clean[0][i], left[i])
        expected = (right[i, :, ::-1], left[i, :, ::-1]) if mirrored else (left[i], right[i])
        for found, wanted in zip(views.clean, expected, strict=True):
            np.testing.assert_array_equal(found[i], wanted)
        changed = [not np.array_equal(a[i], b[i]) for a, b in zip(views.clean, views.seen, strict=True)]
        assert changed[0] == changed[1]
        kinds.append((mirrored, changed[0]))
    assert len(set(kinds)) >= 3
    later = augment(left[3:], right[3:], keys[3:], mirror=0.5, colour=0.5)
    np.testing.assert_allclose(later.seen[0], views.seen[0][3:], rtol=1e-5, atol=1e-3)
    same = augment(left, left, keys, mirror=0.0, colour=1.0)
    np.testing.assert_array_equal(*same.seen)


def test_a_relative_depth_is_fitted_where_both_see():
    r, d = np.array(random(4, 20, 20)), np.array(random(4, 20, 20, low=2, high=9, seed=1))
    occluded = np.array(random(4, 20, 20, seed=2)) < 0.3
    d[0] = 3 * r[0] + 2 + 0.1 * d[0]
    d[0][occluded[0]] = 1e3  # not looked at
    d[1] = 8 - 3 * r[1]  # the slope is not positive
    r[2] = 0.5  # nothing to fit
    occluded[3].flat[50:] = True  # too few
    found = np.asarray(jax.jit(networks.fit)(r, d, occluded))
    seen = ~occluded[0]
    slope, shift = np.polyfit(r[0][seen], d[0][seen], 1)
    np.testing.assert_allclose(found[0], slope * r[0] + shift, rtol=1e-3)
    seen = ~occluded[1]
    expected = d[1][seen].std() / r[1][seen].std() * (r[1] - r[1][seen].mean()) + d[1][seen].mean()
    np.testing.assert_allclose(found[1], np.maximum(expected, 0), rtol=1e-3)
    np.testing.assert_allclose(found[2], d[2][~occluded[2]].mean(), rtol=1e-4)
    np.testing.assert_array_equal(found[3], d[3])


def test_features_normalised_for_a_pair():
    a, b = random(2, 4, 5, 3, high=9), random(2, 4, 5, 3, low=-3, seed=1)
    both = np.stack(normalize(a, b))
    np.testing.assert_allclose(both.mean((0, 2, 3, 4)), 0, atol=1e-5)
    np.testing.assert_allclose(both.std((0, 2, 3, 4)), 1, rtol=1e-5)


def test_depth_of_nothing_is_far_and_nothing_to_measure_is_said():
    truth = np.zeros((375, 1242))
    truth[200, 600] = 40.0
    metrics = depth.eigen(truth, np.zeros((32, 128)))
    np.testing.assert_allclose(metrics["abs_rel"], 1.0)
    with pytest.raises(InputError, match="without any pixel"):
        depth.eigen(np.zeros((375, 1242)), np.ones((32, 128)))
    with pytest.raises(InputError, match="1243 pixels wide, expected a width of KITTI 2015: 1242"):
        depth.kitti_2015(np.ones((375, 1243)), np.ones((32, 128)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: StereoNetConfig(finest=5), "finest"),
        (lambda: StereoNetConfig(estimator=(8, 8)), "expected 5"),
        (lambda: StereoNetConfig(dilations=(1,)), "dilations"),
    ],
)
def test_sizes_that_do_not_fit(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_images_of_other_sides_are_refused():
    for kind, config, side in (("stereonet", StereoNetConfig(), 64), ("singlenet", SingleNetConfig(), 32)):
        network = getattr(networks, kind)(config)
        images = tuple(jnp.zeros((1, side, side + 16, 3)) for _ in range(network.views))
        with pytest.raises(ValueError, match=f"expected multiples of {side}"):
            network.observe({}, images, Rows(jnp.arange(1), 1, jnp.int32(0), {}, lambda _, value: value, ()))
