"""The losses against slow loops, and their properties; the goldens of the whole network are in test_training_goldens.py."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.systems.bridgedepth import losses as L
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig

CONFIG = L.LossConfig.of(ModelConfig(), L.StereoTask())


@pytest.fixture(scope="module", autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def make(seed=0, batch=2, height=16, width=32, layers=5):
    rng = np.random.default_rng(seed)
    prob = rng.random((batch, height // 8, width // 8, 40))
    output = types.SimpleNamespace(
        disparities=rng.random((layers, batch, height, width)) * 30,
        coarse_disparities=rng.random((layers, batch, height, width, 2)) * 30,
        logits=rng.standard_normal((layers, batch, height, width, 2)),
        proposals=rng.random((batch, height // 8, width // 8, 2)) * 4,
        prob=prob / prob.sum(-1, keepdims=True),
        mono=rng.random((2 * layers, batch, height, width)),
    )
    disparity = rng.random((batch, height, width)) * 30
    disparity.flat[::7] = 250  # beyond task.max_disp
    disparity.flat[::11] = 400  # beyond the cost volume
    valid = rng.random((batch, height, width)) < 0.7
    return output, disparity, valid


def test_initial_loss_equals_a_loop():
    output, disparity, valid = make()
    gt = np.where(valid, disparity, 0)
    total, cells = 0.0, 0
    for b, i, j in np.ndindex(output.prob.shape[:3]):
        histogram = np.zeros(40)
        for y in range(8 * i, 8 * i + 8):
            for x in range(8 * j, 8 * j + 8):
                value = gt[b, y, x]
                if 0 < value < 320 and x - value >= 0:
                    low, part = int(value // 8), value / 8 - value // 8
                    histogram[min(low, 39)] += 1 - part
                    histogram[min(low + 1, 39)] += part
        cells += histogram.sum() > 0
        total -= np.sum(histogram / max(histogram.sum(), 1e-3) * np.log(np.maximum(output.prob[b, i, j], 1e-6)))
    counts = L.count(disparity, valid, CONFIG)
    np.testing.assert_allclose(L.initial_loss(output.prob, gt, CONFIG, counts), total / (cells + 1e-6), rtol=1e-12)


def test_proposal_loss_equals_a_loop():
    output, disparity, valid = make()
    total, pixels = 0.0, 0
    for b, y, x in zip(*np.nonzero(valid & (disparity < 192)), strict=True):
        error = np.abs(8 * output.proposals[b, y // 8, x // 8] - disparity[b, y, x]).min()
        total += 0.5 * error**2 if error < 1 else error - 0.5
        pixels += 1
    gt = np.where(valid, disparity, 0)
    counts = L.count(disparity, valid, CONFIG)
    np.testing.assert_allclose(L.proposal_loss(output.proposals, gt, CONFIG, counts), total / (pixels + 1e-6), rtol=1e-12)


@pytest.mark.parametrize("pixels", [0, 1, 2, 5, 8, 40])
def test_median_is_numpys_and_its_gradient_lands_on_the_middle_pixels(pixels):
    rng = np.random.default_rng(pixels)
    x, mask = rng.standard_normal(40), np.zeros(40, bool)
    mask[rng.permutation(40)[:pixels]] = True
    value, gradient = jax.value_and_grad(lambda x: L.masked_median(x[None], mask[None])[0])(jnp.asarray(x))
    assert value == pytest.approx(np.median(x[mask]) if pixels else 0, abs=1e-15)
    expected = np.zeros(40)
    order = np.flatnonzero(mask)[np.argsort(x[mask])]
    for rank in ((pixels - 1) // 2, pixels // 2) if pixels else ():
        expected[order[rank]] += 0.5
    np.testing.assert_allclose(gradient, expected)


def test_recurrent_loss_ignores_shift_and_scale_of_each_image():
    output, disparity, valid = make()
    counts = L.count(disparity, valid, CONFIG)
    loss = L.recurrent_loss(output.mono, disparity, valid, CONFIG, counts)
    moved = output.mono * np.array([3.0, 0.5])[:, None, None] - np.array([1.0, -7.0])[:, None, None]
    np.testing.assert_allclose(L.recurrent_loss(moved, disparity, valid, CONFIG, counts), loss, rtol=1e-4)


def test_parts_of_a_batch_add_up_to_the_batch():
    output, disparity, valid = make(batch=4)
    config = L.LossConfig.of(ModelConfig(), L.StereoTask(loss_type="SMOOTH_L1"))
    whole = L.losses(output, disparity, valid, config)
    counts = L.count(disparity, valid, config)
    parts = []
    for part in (slice(0, 1), slice(1, 4)):
        first = {name: getattr(output, name)[part] for name in ("proposals", "prob")}
        second = {name: getattr(output, name)[:, part] for name in ("disparities", "coarse_disparities", "logits", "mono")}
        parts.append(L.losses(types.SimpleNamespace(**first, **second), disparity[part], valid[part], config, counts))
    for name, value in whole.items():
        np.testing.assert_allclose(parts[0][name] + parts[1][name], value, rtol=1e-12, err_msg=name)


def test_a_batch_without_ground_truth_gives_zero_and_zero_gradient():
    output, disparity, valid = make()
    valid[:] = False

    def total(tree):
        values = L.losses(types.SimpleNamespace(**tree), disparity, valid, CONFIG)
        return L.total(values, CONFIG)

    value, gradient = jax.value_and_grad(total)(vars(output))
    assert value == 0
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))


def test_weights_are_named_as_the_outputs_and_their_number_is_checked():
    weights = CONFIG.weights
    assert weights["loss_coarse_disp"] == 1.4 and weights["loss_disp_3_aux"] == 2.0 and weights["loss_disp"] == 2.0
    with pytest.raises(ValueError, match="3 numbers"):
        L.LossConfig.of(ModelConfig(), L.StereoTask(loss_weights=(1.0, 1.0, 1.0)))
