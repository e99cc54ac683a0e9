"""The losses against slow loops, and their properties; the goldens of the whole network are in test_training_step.py."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.systems.bridgedepth import losses as L
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig

CONFIG = L.LossConfig.of(ModelConfig(), L.StereoTask())
# One program each, not one for each operation.
count = jax.jit(L.count, static_argnames="config")
initial_loss, proposal_loss, recurrent_loss = (
    jax.jit(loss, static_argnames="config") for loss in (L.initial_loss, L.proposal_loss, L.recurrent_loss)
)


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
    output.disparity = output.disparities[-1]
    disparity = rng.random((batch, height, width)) * 30
    disparity.flat[::7] = 250  # beyond task.max_disp
    disparity.flat[::11] = 400  # beyond the cost volume
    valid = rng.random((batch, height, width)) < 0.7
    arrays = {name: jnp.asarray(value) for name, value in vars(output).items()}
    return types.SimpleNamespace(**arrays), jnp.asarray(disparity), jnp.asarray(valid)


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
    counts = count(disparity, valid, CONFIG)
    np.testing.assert_allclose(initial_loss(output.prob, gt, CONFIG, counts), total / (cells + 1e-6), rtol=1e-12)


def test_proposal_loss_equals_a_loop():
    output, disparity, valid = make()
    total, pixels = 0.0, 0
    for b, y, x in zip(*np.nonzero(valid & (disparity < 192)), strict=True):
        error = np.abs(8 * output.proposals[b, y // 8, x // 8] - disparity[b, y, x]).min()
        total += 0.5 * error**2 if error < 1 else error - 0.5
        pixels += 1
    gt = np.where(valid, disparity, 0)
    counts = count(disparity, valid, CONFIG)
    np.testing.assert_allclose(proposal_loss(output.proposals, gt, CONFIG, counts), total / (pixels + 1e-6), rtol=1e-12)


@pytest.mark.parametrize("pixels", [0, 1, 2, 5, 8, 40])
def test_median_is_numpys_and_its_gradient_lands_on_the_middle_pixels(pixels):
    rng = np.random.default_rng(pixels)
    x, mask = rng.standard_normal(40), np.zeros(40, bool)
    mask[rng.permutation(40)[:pixels]] = True
    value, gradient = jax.jit(jax.value_and_grad(lambda x: L.masked_median(x[None], jnp.asarray(mask)[None])[0]))(x)
    assert value == pytest.approx(np.median(x[mask]) if pixels else 0, abs=1e-15)
    expected = np.zeros(40)
    order = np.flatnonzero(mask)[np.argsort(x[mask])]
    for rank in ((pixels - 1) // 2, pixels // 2) if pixels else ():
        expected[order[rank]] += 0.5
    np.testing.assert_allclose(gradient, expected)


def test_recurrent_loss_equals_a_loop():
    """0.8 ^ (10/9) from each of ten outputs to the next; medians and deviations over an image's valid pixels."""
    output, disparity, valid = make()
    mask = valid & (disparity < 192)
    total = 0.0
    for i in range(10):
        for b in range(2):
            truth, guess = disparity[b][mask[b]], output.mono[i, b][mask[b]]
            free = [(x - np.median(x)) / (np.abs(x - np.median(x)).mean() + 1e-6) for x in (truth, guess)]
            total += 0.8 ** (10 / 9 * (9 - i)) * np.abs(free[1] - free[0]).sum() / (mask[b].sum() + 1e-6) / 2
    counts = count(disparity, valid, CONFIG)
    np.testing.assert_allclose(recurrent_loss(output.mono, disparity, valid, CONFIG, counts), total, rtol=1e-12)


@pytest.mark.parametrize("kind", ["L1", "SMOOTH_L1"])
def test_losses_of_the_disparities_equal_a_loop(kind):
    output, disparity, valid = make()
    mask = valid & (disparity > 0) & (disparity < 192)

    def distance(error):
        return np.abs(error) if kind == "L1" else np.where(np.abs(error) < 1, 0.5 * error**2, np.abs(error) - 0.5)

    config = L.LossConfig.of(ModelConfig(), L.StereoTask(loss_type=kind))
    values = jax.jit(lambda *arrays: L.losses(types.SimpleNamespace(**arrays[0]), *arrays[1:], config))(
        vars(output), disparity, valid
    )
    for i, aux in enumerate(["_0_aux", "_1_aux", "_2_aux", "_3_aux", ""]):
        weight = np.exp(output.logits[i]) / np.exp(output.logits[i]).sum(-1, keepdims=True)
        coarse = (weight * distance(output.coarse_disparities[i] - disparity[..., None])).sum(-1)[mask].mean()
        fine = distance(output.disparities[i] - disparity)[mask].mean()
        np.testing.assert_allclose(values[f"loss_coarse_disp{aux}"], coarse, rtol=1e-12)
        np.testing.assert_allclose(values[f"loss_disp{aux}"], fine, rtol=1e-12)
    np.testing.assert_allclose(values["epe_train"], np.abs(output.disparities[-1] - disparity)[mask].mean(), rtol=1e-12)


@pytest.mark.parametrize("name", ["disparities", "coarse_disparities", "proposals"])
def test_a_larger_error_is_a_larger_loss(name):
    """From the truth outwards, of every output alone; no other loss moves."""
    output, _, valid = make(layers=5)
    disparity = jnp.full(valid.shape, 8.0)
    perfect = {"disparities": 8.0, "coarse_disparities": 8.0, "proposals": 1.0}
    prefixes = {"disparities": ("loss_disp", "epe"), "coarse_disparities": ("loss_coarse",), "proposals": ("loss_prop",)}
    run = jax.jit(lambda tree: L.losses(types.SimpleNamespace(**tree), disparity, valid, CONFIG))
    before = None
    for error in (0.0, 0.1, 1.0, 5.0):
        tree = vars(output) | {key: jnp.full_like(getattr(output, key), value) for key, value in perfect.items()}
        tree[name] = tree[name] + error
        tree["disparity"] = tree["disparities"][-1]
        values = {key: float(value) for key, value in run(tree).items()}
        mine = [key for key in values if key.startswith(prefixes[name])]
        if before is None:
            assert all(values[key] == 0 for key in mine)
        else:
            assert all(values[key] > before[key] for key in mine)
            assert all(values[key] == before[key] for key in values if key not in mine)
        before = values


def test_probability_away_from_the_truth_is_a_larger_initial_loss():
    """From the soft histogram itself, which is the best answer, towards another distribution."""
    output, disparity, valid = make()
    counts, gt = count(disparity, valid, CONFIG), np.where(valid, disparity, 0)
    run = lambda prob: initial_loss(prob, gt, CONFIG, counts)
    # The loss is linear in log(prob), with the histogram as its slope.
    label = -np.asarray(jax.grad(run)(np.ones_like(output.prob)))
    label /= np.maximum(label.sum(-1, keepdims=True), 1e-12)
    assert np.count_nonzero(label.sum(-1)) > 0 and not np.array_equal(label, output.prob)
    values = [float(run((1 - part) * label + part * output.prob)) for part in (0.0, 0.1, 0.5, 0.9, 1.0)]
    assert values == sorted(values) and len(set(values)) == 5


def test_a_monocular_error_is_a_larger_recurrent_loss():
    """From the truth, at any scale and offset, towards noise; of each output alone, and the later the more."""
    output, disparity, valid = make()
    counts, truth = count(disparity, valid, CONFIG), 3 * disparity - 2
    run = lambda mono: recurrent_loss(mono, disparity, valid, CONFIG, counts)
    perfect = np.broadcast_to(truth, output.mono.shape)
    assert float(run(perfect)) < 1e-6
    rises = []
    for i in range(10):
        mono, values = perfect.copy(), []
        for part in (0.0, 0.1, 0.5, 1.0):
            mono[i] = truth + part * (60 * output.mono[0] - truth)
            values.append(float(run(mono)))
        assert values == sorted(values) and len(set(values)) == 4
        rises.append(values[-1])
    np.testing.assert_allclose(np.divide(rises[1:], rises[:-1]), 0.8 ** (-10 / 9), rtol=1e-4)


def test_losses_of_mirrored_rows_are_the_same_and_of_mirrored_columns_all_but_the_initial_one():
    """The initial loss asks that a match lies inside the right image, which has a left edge and no right one."""
    output, disparity, valid = make()
    run = jax.jit(lambda tree, *arrays: L.losses(types.SimpleNamespace(**tree), *arrays, CONFIG))
    whole = run(vars(output), disparity, valid)

    def mirrored(axis):  # of (B, H, W) and (B, h, w, ...); outputs of layers have one axis before
        layers = ("disparities", "coarse_disparities", "logits", "mono")
        tree = {name: np.flip(x, axis + (name in layers)) for name, x in vars(output).items()}
        return run(tree, np.flip(disparity, axis), np.flip(valid, axis))

    upside_down, other_way = mirrored(1), mirrored(2)
    for name, value in whole.items():
        np.testing.assert_allclose(upside_down[name], value, rtol=1e-12, err_msg=name)
        if name != "init":
            np.testing.assert_allclose(other_way[name], value, rtol=1e-12, err_msg=name)
    assert abs(other_way["init"] / whole["init"] - 1) > 0.01


def test_recurrent_loss_ignores_shift_and_scale_of_each_image():
    output, disparity, valid = make()
    counts = count(disparity, valid, CONFIG)
    loss = recurrent_loss(output.mono, disparity, valid, CONFIG, counts)
    moved = output.mono * jnp.array([3.0, 0.5])[None, :, None, None] - jnp.array([1.0, -7.0])[None, :, None, None]
    np.testing.assert_allclose(recurrent_loss(moved, disparity, valid, CONFIG, counts), loss, rtol=1e-4)


def test_parts_of_a_batch_add_up_to_the_batch():
    output, disparity, valid = make(batch=4)
    config = L.LossConfig.of(ModelConfig(), L.StereoTask(loss_type="SMOOTH_L1"))
    run = jax.jit(lambda tree, *arrays: L.losses(types.SimpleNamespace(**tree), *arrays[:2], config, *arrays[2:]))
    whole = run(vars(output), disparity, valid)
    counts = count(disparity, valid, config)
    parts = []
    for part in (slice(0, 1), slice(1, 4)):
        first = {name: getattr(output, name)[part] for name in ("proposals", "prob")}
        second = {name: getattr(output, name)[:, part] for name in ("disparities", "coarse_disparities", "logits", "mono")}
        first["disparity"] = output.disparities[-1][part]
        parts.append(run(first | second, disparity[part], valid[part], counts))
    for name, value in whole.items():
        np.testing.assert_allclose(parts[0][name] + parts[1][name], value, rtol=1e-12, err_msg=name)


def test_a_batch_without_ground_truth_gives_zero_and_zero_gradient():
    output, disparity, valid = make()
    valid = jnp.zeros_like(valid)

    def total(tree):
        values = L.losses(types.SimpleNamespace(**tree), disparity, valid, CONFIG)
        return L.total(values, CONFIG)

    value, gradient = jax.jit(jax.value_and_grad(total))(vars(output))
    assert value == 0
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))


def test_weights_are_named_as_the_outputs_and_their_number_is_checked():
    weights = CONFIG.weights
    assert weights["loss_coarse_disp"] == 1.4 and weights["loss_disp_3_aux"] == 2.0 and weights["loss_disp"] == 2.0
    with pytest.raises(ValueError, match="3 numbers"):
        L.LossConfig.of(ModelConfig(), L.StereoTask(loss_weights=(1.0, 1.0, 1.0)))
