"""ZeroStereo's own parts: golden numbers of the published code, and properties with slow loops as oracles."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.ops.forward_warp import NOTHING, forward_warp, warp_on_device
from bridgedepth_jax.ops.ssim import ssim
from bridgedepth_jax.systems.zerostereo import labels, losses, parity

GOLDEN = Path(__file__).parent / "reference" / "zerostereo"


@pytest.mark.parametrize("float64", [False, True])
@pytest.mark.parametrize("kind", ["warp", "sharpen", "confidence", "loss"])
def test_golden(kind, float64):
    with jax.enable_x64(float64):
        rows = list(parity.compare(Path("nowhere"), GOLDEN, kinds=[kind], float64=float64))
    assert rows
    assert not [row for row in rows if not row.ok]


def warp_loop(image, disparity):
    """Section 2 of the specification, pixel by pixel."""
    height, width = disparity.shape
    right, nonocc, inpaint = np.zeros(image.shape), np.zeros((height, width), bool), np.zeros((height, width), bool)
    for y in range(height):
        place = [x - float(disparity[y, x]) for x in range(width)]
        hit: dict[int, int] = {}
        for x in range(width):
            for t in (int(np.floor(place[x])), int(np.ceil(place[x]))):
                hit[t] = max(hit.get(t, -1), x)
        layers: list[dict[int, tuple[float, int]]] = [{}, {}]
        for x in range(width):
            f, c = int(np.floor(place[x])), int(np.ceil(place[x]))
            nonocc[y, x] = place[x] > 0 and (hit[f] < x + 2 or hit[c] < x + 2)
            if nonocc[y, x]:
                for layer, t, distance in ((layers[0], c, c - place[x]), (layers[1], f, 1 - (c - place[x]))):
                    if t not in layer or distance <= layer[t][0]:
                        layer[t] = (distance, x)
        for t in range(width):
            (a, from_a), (b, from_b) = (layer.get(t, (NOTHING, -1)) for layer in layers)
            inpaint[y, t] = from_a < 0 and from_b < 0
            above = image[y, from_a] if from_a >= 0 else np.zeros(3)
            below = image[y, from_b] if from_b >= 0 else np.zeros(3)
            right[y, t] = (above * b + below * a) / (a + b + 1e-7)
    return right, nonocc, inpaint


@pytest.mark.parametrize("seed", range(4))
def test_warp_is_the_loop(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (11, 37, 3)).astype(np.uint8)
    disparity = rng.choice([rng.uniform(0, 9, (11, 37)), rng.integers(0, 6, (11, 37)) / 2, rng.uniform(0, 60, (11, 37))])
    right, nonocc, inpaint = warp_loop(image, disparity)
    found = forward_warp(image, disparity)
    np.testing.assert_array_equal(found.nonocc, nonocc)
    np.testing.assert_array_equal(found.inpaint, inpaint)
    np.testing.assert_allclose(found.right, right, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_warp_on_a_device_is_the_warp(seed):
    """Disparities in 1/256, whose locations are exact in float32, and pixels left out."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (24, 50, 3)).astype(np.float32)
    disparity = (rng.choice([rng.uniform(0, 9, (24, 50)), rng.integers(0, 6, (24, 50)) / 2]) * 256).round() / 256
    valid = rng.random((24, 50)) < (0.8 if seed else 1.0)
    expected = forward_warp(image, disparity, valid)
    found = jax.jit(warp_on_device)(image, disparity.astype(np.float32), valid)
    np.testing.assert_array_equal(found[1], expected.nonocc)
    np.testing.assert_array_equal(found[2], expected.inpaint)
    np.testing.assert_allclose(found[0], expected.right, atol=1e-2)


def test_pixels_that_are_not_valid_neither_land_nor_hide():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 40, 3)).astype(np.uint8)
    disparity = np.full((8, 40), 3.0)
    valid = np.ones((8, 40), bool)
    disparity[:, 20:25], valid[:, 20:25] = 9.0, False  # would hide 6 columns further left
    found = forward_warp(image, disparity, valid)
    assert not found.nonocc[:, 20:25].any() and found.nonocc[:, 4:20].all() and found.nonocc[:, 25:].all()
    assert found.inpaint[:, 17:22].all() and not found.inpaint[:, 1:17].any()
    np.testing.assert_allclose(found.right[:, 1:17], image[:, 4:20], atol=1e-4)


def test_warp_of_a_photograph_takes_less_than_a_second():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (768, 1024, 3)).astype(np.uint8)
    disparity = np.round(np.cumsum(rng.normal(0, 0.3, (768, 1024)), 1).clip(0, 200) * 256) / 256
    times = []
    for _ in range(3):
        start = time.process_time()
        forward_warp(image, disparity)
        times.append(time.process_time() - start)
    assert min(times) < 1


def test_ssim_is_the_formula():
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(0, 255, (1, 9, 12, 2)) for _ in range(2))
    with jax.enable_x64(True):
        maps = [ssim(jnp.asarray(x), jnp.asarray(y), window=3, c1=1e-4, c2=9e-4, centred=c) for c in (True, False)]
        inner = ssim(jnp.asarray(x), jnp.asarray(y), window=3, c1=1e-4, c2=9e-4, padding="valid")
    np.testing.assert_allclose(*maps, rtol=1e-9)
    np.testing.assert_allclose(maps[0][:, 1:-1, 1:-1], inner, rtol=1e-12)
    padded = [np.pad(image[0, ..., 1], 1, mode="reflect") for image in (x, y)]
    for row, column in ((0, 0), (4, 11), (8, 3)):
        a, b = (image[row : row + 3, column : column + 3] for image in padded)
        mx, my, vxy = a.mean(), b.mean(), np.mean((a - a.mean()) * (b - b.mean()))
        value = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (a.var() + b.var() + 9e-4))
        np.testing.assert_allclose(maps[0][0, row, column, 1], value, rtol=1e-12)


def test_ssim_of_nearly_flat_bright_patches_is_exact_only_when_centred():
    rng = np.random.default_rng(0)
    x, y = (250.3 + 0.03 * rng.standard_normal((1, 12, 12, 1)).astype(np.float32) for _ in range(2))
    options = dict(window=7, c1=1e-4, c2=9e-4)
    with jax.enable_x64(True):
        exact = np.asarray(ssim(jnp.asarray(x, jnp.float64), jnp.asarray(y, jnp.float64), **options))
    centred, other = (np.asarray(ssim(jnp.asarray(x), jnp.asarray(y), centred=c, **options)) for c in (True, False))
    assert np.abs(centred - exact).max() < 1e-3
    assert np.abs(other - exact).max() > 0.1


def test_a_trusted_label_without_the_photometric_term_is_the_masked_mean():
    """Confidence 1 and mu 0: to the bit."""
    rng = np.random.default_rng(0)
    predictions, disparity = rng.uniform(0, 20, (2, 2, 16, 24)), rng.uniform(-3, 20, (2, 16, 24))
    images = [jnp.asarray(rng.uniform(0, 255, (2, 16, 24, 3)), jnp.float32) for _ in range(2)]
    predictions, disparity = jnp.asarray(predictions, jnp.float32), jnp.asarray(disparity, jnp.float32)
    labelled = disparity > 0
    found = losses.terms(predictions, disparity, jnp.ones_like(disparity), *images, labelled, labelled)
    plain = [
        jnp.sum(jnp.where(labelled, jnp.abs(p - disparity), 0)) / jnp.sum(labelled, dtype=jnp.float32) for p in predictions
    ]
    np.testing.assert_array_equal(found.loss(0.0), jnp.stack(plain))
    np.testing.assert_array_equal(found.photometric, jnp.zeros(2))


def test_loss_without_any_pixel_is_zero_and_its_gradient_finite():
    zeros = jnp.zeros((1, 8, 12))
    images = jnp.zeros((1, 8, 12, 3))
    nothing = jnp.zeros((1, 8, 12), bool)

    def total(predictions):
        return losses.terms(predictions, zeros, zeros, images, images, nothing, nothing).loss(0.1).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.ones((2, 1, 8, 12)))
    assert value == 0 and not np.asarray(gradient).any()


def test_where_the_label_is_wrong_and_not_trusted_the_images_decide():
    """A shifted texture, a label that is 4 px off on one half with confidence 0: descent finds the truth there."""
    rng = np.random.default_rng(0)
    truth = 5.0
    texture = np.kron(rng.uniform(0, 255, (1, 6, 20, 3)), np.ones((1, 4, 4, 1)))
    texture = jax.image.resize(jnp.asarray(texture, jnp.float32), (1, 24, 80, 3), "linear")
    left, right = texture[:, :, :64], texture[:, :, 5:69]  # right(x - 5) = left(x)
    label = jnp.full((1, 24, 64), truth).at[:, :, 32:].add(4.0)
    trust = jnp.ones((1, 24, 64)).at[:, :, 32:].set(0.0)
    labelled = jnp.ones((1, 24, 64), bool)
    seen = losses.matched(jnp.full((1, 24, 64), truth), labelled, jnp.zeros((1, 24, 64), bool))

    def error(mu, confidence):
        loss = lambda shift: losses.terms(
            jnp.where(confidence < 1, truth + shift, truth)[None] if mu else (truth + shift + 0 * label)[None],
            label, confidence, left, right, labelled, seen,
        ).loss(mu)[0]  # fmt: skip
        shifts = jnp.linspace(-3, 5, 33)
        return float(abs(shifts[jnp.argmin(jax.jit(lambda shifts: jax.lax.map(loss, shifts))(shifts))]))

    assert error(0.1, trust) < 0.3
    assert error(0.0, jnp.zeros_like(trust).at[:, :, 32:].set(1.0)) > 3.5


def test_adaptive_disparity_selection():
    rng = np.random.default_rng(0)
    scales = np.array([labels.scale_of(*rng.random(2)) for _ in range(10_000)])
    assert abs((scales < 0.05).mean() - 0.1) < 0.01 and abs((scales > 0.15).mean() - 0.1) < 0.01
    assert scales.min() >= 0 and scales.max() <= 0.2
    assert abs(scales.mean() - 0.1) < 0.002 and abs(scales.std() - 0.0428) < 0.001


def test_labels_of_flat_depth():
    with pytest.raises(ValueError, match="depth is 2 to 2"):
        labels.normalise(np.full((4, 5), 2.0, np.float32))
    with pytest.raises(ValueError, match="depth is"):
        labels.normalise(np.array([[0.0, np.nan]], np.float32))
    depth = np.arange(20.0).reshape(4, 5)
    np.testing.assert_array_equal(labels.confidence(depth, depth), np.ones((4, 5)))
    noise = np.random.default_rng(0).uniform(0, 900, (6, 7)).astype(np.float32)
    np.testing.assert_array_equal(labels.sharpen(noise), labels.dilate(noise))  # every pixel is steep
