"""Monocular training's own parts: golden numbers, and properties with slow loops as oracles."""

import json
import zlib
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import mono
from bridgedepth_jax.networks.dinov2 import resize_position_embedding
from bridgedepth_jax.ops.selection import kth_smallest, masked_median, smallest
from bridgedepth_jax.systems.bridge_mde import fusion, losses, parity
from bridgedepth_jax.systems.bridge_mde.rounding import resize_bicubic

GOLDEN = Path(__file__).parent / "reference" / "mono_training"
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A folder with synth.py, as the reference has."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "synth.py").write_text((TESTS / "synth.py").read_text())
    return folder


@pytest.mark.parametrize("float64", [False, True])
@pytest.mark.parametrize("kind", ["losses", "scale_head", "flow"])
def test_golden(kind, float64, reference):
    with jax.enable_x64(float64):
        rows = list(parity.compare(reference, GOLDEN, kinds=[kind], float64=float64))
    assert len(rows) > 3
    assert not [row for row in rows if not row.ok]


@pytest.mark.parametrize("kind", ["flux", "vae", "aesthetic"])
def test_golden_of_a_network(kind, reference):
    with jax.enable_x64(True):
        rows = list(parity.compare(reference, GOLDEN, kinds=[kind], float64=True))
    assert len(rows) > 3
    assert not [row for row in rows if not row.ok]


@pytest.mark.slow
def test_rewards_reach_the_golden_s_updates(reference):
    """The transformer, the decoder, CLIP, both rewards and the gradient through the last steps, in one."""
    with jax.enable_x64(True):
        rows = list(parity.compare(reference, GOLDEN, kinds=["reward"], float64=True))
    assert len(rows) > 20
    assert not [row for row in rows if not row.ok]


def test_every_tensor_of_the_published_networks_has_its_parameter(reference):
    rows = list(parity.compare(reference, GOLDEN, kinds=["manifest"]))
    assert [row.case for row in rows[::2]] == ["flux_depth_dev", "vae_flux", "clip_vit_l14", "aesthetic_mlp"]
    assert not [row for row in rows if not row.ok]


def test_a_resize_is_pytorch_s_to_the_bit():
    """Without it the float64 goldens of Depth Anything are 3.7e-7 away; and ours, in double, is the same function.

    The number is of PyTorch 2.13 with AVX2: interpolate(grid, scale_factor=(3.1 / 7, 11.1 / 7), mode="bicubic"), channels last.
    """
    grid = ((np.arange(49 * 8) * 37 % 101) / 101).astype(np.float32).reshape(7, 7, 8)
    found = resize_bicubic(grid, 3, 11)
    assert found.shape == (3, 11, 8) and zlib.crc32(np.ascontiguousarray(found).tobytes()) == 3113529748
    embedding = np.concatenate([np.zeros((1, 1, 8)), grid.reshape(1, 49, 8)], axis=1)
    ours = resize_position_embedding(jnp.asarray(embedding), 7, 3, 11)[0, 1:]
    np.testing.assert_allclose(found.reshape(33, 8), ours, atol=1e-5)


def random_maps(seed, *, height=13, width=11):
    """Predictions and targets with ties, and masks of many sizes."""
    rng = np.random.default_rng(seed)
    p, t = (rng.normal(size=(4, height, width)).astype(np.float32) for _ in range(2))
    p[1], t[1] = np.round(p[1]), np.round(t[1])
    mask = rng.random((4, height, width)) < np.array([0.9, 0.7, 0.5, 0.02]).reshape(4, 1, 1)
    return p, t, mask


@pytest.mark.parametrize("seed", range(5))
def test_selection_is_a_stable_sort(seed):
    rng = np.random.default_rng(seed)
    values = rng.choice([rng.normal(size=(3, 40)), np.round(rng.normal(size=(3, 40)))]).astype(np.float32)
    values[0, :3] = (np.inf, -0.0, 1e-30)
    mask = rng.random((3, 40)) < 0.7
    for i in range(3):
        order = np.flatnonzero(mask[i])[np.argsort(values[i][mask[i]], kind="stable")]
        for k in (0, 3, len(order) // 2, len(order) - 1):
            rows = np.full(3, k)
            assert kth_smallest(values, mask, rows)[i] == values[i, order[k]]
            chosen = np.zeros(40, bool)
            chosen[order[:k]] = True
            np.testing.assert_array_equal(smallest(values, mask, rows)[i], chosen)
        finite = np.where(np.isinf(values), 5, values).astype(np.float32)
        np.testing.assert_allclose(masked_median(finite, mask)[i], np.median(finite[i][mask[i]]), rtol=1e-6)


def test_the_median_s_gradient_goes_to_the_middle():
    values, mask = jnp.array([[3.0, 1.0, 2.0, 9.0], [4.0, 1.0, 1.0, 7.0]]), jnp.array([[1, 1, 1, 0], [1, 1, 1, 0]], bool)
    gradient = jax.grad(lambda v: masked_median(v, mask).sum())(values)
    np.testing.assert_allclose(gradient, [[0, 0, 1, 0], [0, 0.5, 0.5, 0]])


def loop_terms(p, t, mask, percent, renormalise, trim_gradient):
    """Section 1 of the specification, pixel by pixel, float64."""
    pixels = [(y, x) for y in range(p.shape[0]) for x in range(p.shape[1]) if mask[y, x]]
    if len(pixels) < 10:
        return None

    def normal(d, over):
        values = [float(d[at]) for at in over]
        middle = float(np.median(values))
        scale = max(np.mean([abs(v - middle) for v in values]), 1e-6)
        return {at: (float(d[at]) - middle) / scale for at in pixels}

    def residual(over):
        a, b = normal(p, over), normal(t, over)
        return {at: a[at] - b[at] for at in pixels}

    number = len(pixels) - len(pixels) * percent // 100
    choose = lambda r: sorted(sorted(pixels, key=lambda at: abs(r[at]))[:number])
    r = residual(pixels)
    kept = choose(r)
    for _ in range(renormalise):
        kept = choose(residual(kept))
    if renormalise:
        r = residual(kept)
    ssi, gm = sum(abs(r[at]) for at in kept) / number, 0.0
    seen = set(kept if trim_gradient else pixels)
    for step in (1, 2, 4, 8):
        here = {at for at in seen if at[0] % step == 0 and at[1] % step == 0}
        neighbours = [(at, (at[0] + dy, at[1] + dx)) for at in here for dy, dx in ((step, 0), (0, step))]
        gm += sum(abs(r[a] - r[b]) for a, b in neighbours if b in here) / max(len(here), 1)
    return ssi, gm


@pytest.mark.parametrize(
    ("percent", "renormalise", "trim_gradient"), [(0, 0, True), (10, 0, True), (25, 2, True), (10, 1, False)]
)
def test_losses_are_the_loop(percent, renormalise, trim_gradient):
    p, t, mask = random_maps(percent + renormalise)
    t = np.where(mask, t, np.nan)
    options = dict(renormalise=renormalise, trim_gradient=trim_gradient)
    found = losses.terms(p, t, mask, jnp.full(4, percent), **options)
    for i in range(4):
        expected = loop_terms(p[i], t[i], mask[i], percent, renormalise, trim_gradient)
        assert bool(found.counts[i]) == (expected is not None)
        np.testing.assert_allclose((found.ssi[i], found.gm[i]), expected or (0, 0), rtol=2e-5)
    gradient = jax.grad(lambda p: losses.total(losses.terms(p, t, mask, jnp.full(4, percent), **options), 3).loss)(p)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[3].any()  # too few pixels
    assert not np.asarray(gradient)[~mask].any()


def test_losses_do_not_see_scale_and_shift():
    p, t, mask = random_maps(9)
    value = lambda p, t: losses.total(losses.terms(p, t, mask, jnp.full(4, 10)), 3).loss
    np.testing.assert_allclose(value(3 * p + 7, 0.5 * t - 2), value(p, t), rtol=1e-4)


def test_silog_of_parts_has_the_gradient_of_the_whole():
    rng = np.random.default_rng(0)
    z, truth = (rng.uniform(1, 9, (4, 5, 6)).astype(np.float32) for _ in range(2))
    valid = rng.random((4, 5, 6)) < 0.8
    pixels = valid.sum()
    all_sums = losses.log_sums(z, truth, valid)
    whole = lambda z: (lambda s: losses.silog(s, s, pixels))(losses.log_sums(z, truth, valid))
    value, gradient = jax.value_and_grad(whole)(z)
    g = np.log(truth[valid].astype(np.float64)) - np.log(z[valid].astype(np.float64))
    np.testing.assert_allclose(value, np.sqrt(np.mean(g**2) - 0.5 * np.mean(g) ** 2), rtol=1e-5)
    total = 0.0
    for half in (slice(0, 2), slice(2, 4)):
        part = lambda z, half=half: losses.silog(losses.log_sums(z, truth[half], valid[half]), all_sums, pixels, 0.5)
        share, own = jax.value_and_grad(part)(z[half])
        total += float(share)
        np.testing.assert_allclose(own, gradient[half], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(total, value, rtol=1e-6)
    nothing = lambda z: losses.silog(*[losses.log_sums(z, truth, valid & False)] * 2, 0)
    assert nothing(z) == 0 and not np.asarray(jax.grad(nothing)(z)).any()


def test_evaluation_fits_and_measures():
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 9, (20, 30))
    truth[0], truth[1] = 0, np.inf
    raw = 4 / np.where(np.isfinite(truth) & (truth > 0), truth, 1) - 3
    everything = (slice(None), slice(None))
    found = mono.evaluate_image(raw, truth, 1e-3, 10, everything, metric=False)
    assert found.pixels == 18 * 30 and found.fit is not None
    np.testing.assert_allclose(found.fit, (0.25, 0.75), rtol=1e-9)
    assert found.measures["abs_rel"] < 1e-12 and found.measures["delta1"] == 1
    depth = mono.evaluate_image(1.1 * np.nan_to_num(truth, posinf=1), truth, 1e-3, 10, everything, metric=True).measures
    assert abs(depth["abs_rel"] - 0.1) < 0.01 and abs(depth["abs_rel_inverse"] - 1 / 11) < 0.01
    flat = mono.evaluate_image(np.ones((5, 5)), truth, 1e-3, 10, everything, metric=False)
    assert flat.fit is not None and flat.fit.scale == 0
    with pytest.raises(InputError, match="0 pixels with ground truth"):
        mono.evaluate_image(raw, np.zeros_like(truth), 1e-3, 10, everything, metric=False)


def test_pairs_are_ordered_strictly():
    prediction = np.arange(12.0).reshape(3, 4)
    prediction[0, 1] = 0
    pair = lambda a, b, closer: {"point1": a, "point2": b, "closer_point": closer}
    pairs = [pair([2, 3], [0, 0], "point1"), pair([2, 3], [0, 0], "point2"), pair([0, 0], [0, 1], "point1")]
    assert mono.ordered(prediction, pairs, "x.jpg") == [True, False, False]
    with pytest.raises(InputError, match=r"x.jpg, pair 0: point2 \[3, 0\] is outside the image of 3 x 4"):
        mono.ordered(prediction, [pair([0, 0], [3, 0], "point1")], "x.jpg")
    for wrong in ({"point1": [0, 0]}, pair([0, 0], [1, "x"], "point1"), pair([0], [0, 0], "point1"), [0, 0]):
        with pytest.raises(InputError, match=r"x.jpg, pair 0: .*, expected point[12] as \[row, column\]"):
            mono.ordered(prediction, [wrong], "x.jpg")  # type: ignore[list-item]
    assert mono.accuracies({"a/in/1.jpg": [True, False], "a/out/2.jpg": [True]}) == {
        "in": (50.0, 2), "all": (pytest.approx(200 / 3), 3), "out": (100.0, 1)
    }  # fmt: skip


def textured(height=120, width=160, seed=0):
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 2)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]


def ssim_loop(x, y, row, column):
    """One window of 7x7, pixel by pixel, symmetric at the border."""
    mirrored = lambda i, n: -i - 1 if i < 0 else 2 * n - 1 - i if i >= n else i
    at = [(mirrored(row + dy, x.shape[0]), mirrored(column + dx, x.shape[1])) for dy in range(-3, 4) for dx in range(-3, 4)]
    a, b = (np.array([float(image[p]) for p in at]) for image in (x, y))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance = np.cov(a, b)
    top = (2 * a.mean() * b.mean() + c1) * (2 * covariance[0, 1] + c2)
    return top / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2))


def test_ssim_is_the_loop():
    x, y = (textured(20, 25, seed)[..., 0] for seed in (0, 1))
    found = fusion.ssim(x, y)
    for at in ((0, 0), (3, 24), (19, 12), (10, 10), (1, 2)):
        np.testing.assert_allclose(found[at], ssim_loop(x, y, *at), rtol=1e-9)
    np.testing.assert_allclose(fusion.ssim(x, x), 1)


def test_a_changed_region_leaves_the_mask():
    original = textured(240, 320)
    generated = original.copy()
    generated[60:120, 80:160] = textured(60, 80, 7)
    found = fusion.fuse(generated, original, np.ones((240, 320), bool))
    assert found.accepted and found.chosen == "union" and found.registration.inliers >= 10
    assert not found.mask[75:105, 95:145].any()
    assert found.mask[150:230, 20:300].all()
    np.testing.assert_array_equal(found.image, generated)


def test_a_moved_image_is_warped_to_its_original():
    original = textured(240, 320)
    moved = np.float32([[1, 0, 4], [0, 1, -3]])  # type: ignore[arg-type]
    generated = cv2.warpAffine(original, moved, (320, 240), borderMode=cv2.BORDER_REFLECT)
    found = fusion.fuse(generated, original, np.ones((240, 320), bool))
    assert found.accepted and found.chosen == "registered"
    assert abs(found.registration.shift - 5) < 0.5
    inside = np.abs(found.image.astype(int) - original)[found.mask]
    assert np.median(inside) <= 3


def test_an_image_without_features_is_refused_with_its_reason():
    flat = cv2.cvtColor(cv2.imread(str(GOLDEN / "fusion_flat.png")), cv2.COLOR_BGR2RGB)
    found = fusion.fuse(flat, textured(*flat.shape[:2]), np.ones(flat.shape[:2], bool))
    assert not found.accepted
    assert "of the image agree, expected more than 50 %" in found.reason and "0 matches, expected 10" in found.reason


def test_depth_counts_and_crops_stay_inside():
    mask = np.zeros((40, 60), bool)
    mask[5:20, 30:58] = True
    box = fusion.largest_component(mask)
    assert box == (30, 5, 28, 15, 28 * 15)
    assert fusion.crop_of(box, 40, 60, 32) == (0, 28)
    assert fusion.crop_of(box, 40, 60, 32, (32, 32)) == (8, 28)
    assert fusion.largest_component(mask & False) is None
    valid = np.ones_like(mask)
    valid[:10] = False
    assert not fusion.clean(mask, valid)[:10].any() and fusion.clean(mask, valid)[10:20, 30:58].sum() > 270


def test_a_golden_of_other_numbers_is_beyond_its_limit(reference, tmp_path):
    """The comparison knows no number by heart: it follows the file."""
    values = json.loads((GOLDEN / "flow_sigmas.json").read_text())
    values["cases"] = values["cases"][:1]
    values["cases"][0]["sigmas"][3] += 1e-4
    (tmp_path / "flow_sigmas.json").write_text(json.dumps(values))
    rows = list(parity.compare(reference, tmp_path))
    assert [row.ok for row in rows] == [False, True]
