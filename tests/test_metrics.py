"""Metrics against the golden numbers of the original, against plain NumPy, and as jitted, padded batches."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.evaluation import metrics
from bridgedepth_jax.evaluation.protocol import MASKS, Protocol, pixel_masks

GOLDEN = Path(__file__).parent / "reference" / "metrics"
CASES = json.loads((GOLDEN / "metrics.json").read_text())
all_metrics = jax.jit(metrics.all_metrics, static_argnames="thresholds")  # one program, not one for each operation
NAMES = {"epe": "epe", "d1": "d1", "prop_epe": "prop_epe", "prop_recall_3": "prop_recall_3", "prop_recall_8": "prop_recall_8"}


def mean(pair):
    """Mean over the images that have a pixel."""
    total, count = (np.asarray(x, np.float64) for x in pair)
    return (total[count > 0] / count[count > 0]).mean()


@pytest.mark.parametrize("case", range(len(CASES)))
def test_golden(case):
    spec = CASES[case]
    arrays = np.load(GOLDEN / "metrics.npz")
    gt, prediction, valid, proposal = (arrays[f"{key}{case}"] for key in ("gt", "pred", "valid", "proposal"))
    protocol = Protocol("golden", max_disp=spec["max_disp"], only_valid=spec["only_valid"])
    samples = (dict(disparity=g, valid=v) for g, v in zip(gt, valid, strict=True))
    mask = np.stack([pixel_masks(sample, protocol) >> MASKS.index("paper") & 1 == 1 for sample in samples])
    thresholds = tuple(spec["thresholds"])
    rows = all_metrics(prediction, np.where(mask, gt, 0), {"paper": mask}, thresholds=thresholds)["paper"]
    height, width = gt.shape[1:]
    padded = np.pad(np.where(valid, gt, 0), ((0, 0), (-height % 16, 0), (0, -width % 16)), "edge")
    rows |= jax.jit(metrics.proposals, static_argnums=2)(proposal, padded, spec["max_disp"])
    for name, expected in spec["result"].items():
        ours = NAMES.get(name, f"bad-{float(name.split()[-1]):g}" if name.startswith("bad") else None)
        np.testing.assert_allclose(mean(rows[ours]), expected, rtol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def random_case():
    rng = np.random.default_rng(0)
    gt = rng.uniform(1, 100, (3, 37, 53)).astype(np.float32)
    prediction = gt + rng.normal(0, 4, gt.shape).astype(np.float32)
    mask = rng.random(gt.shape) < 0.6
    mask[2] = False
    return prediction, gt, mask


def test_against_numpy(random_case):
    prediction, gt, mask = random_case
    other = mask & (gt > 40)
    rows = all_metrics(prediction, gt, {"a": mask, "b": other})
    for name, m in {"a": mask, "b": other}.items():
        for i in range(2):
            e, g = np.abs(prediction - gt)[i][m[i]].astype(np.float64), gt[i][m[i]]
            expected = {"epe": e.mean(), "rmse": (e**2).mean(), "d1": ((e > 3) & (e > 0.05 * g)).mean() * 100, "density": 100}
            expected |= {f"bad-{t:g}": (e > t).mean() * 100 for t in metrics.THRESHOLDS}
            expected |= {key: np.quantile(e, q) for key, q in metrics.QUANTILES.items()}
            for key, value in expected.items():
                total, count = rows[name][key]
                np.testing.assert_allclose(total[i] / count[i], value, rtol=2e-5, err_msg=f"{name} {key}")
        assert all(int(count[2]) == 0 for _, count in rows[name].values())  # the image without ground truth


def test_missing_answers_lower_the_density_only(random_case):
    prediction, gt, mask = random_case
    hole = np.random.default_rng(1).random(gt.shape) < 0.3
    rows = all_metrics(np.where(hole, np.nan, prediction), gt, {"m": mask})["m"]
    total, count = rows["density"]
    np.testing.assert_allclose(total[:2] / count[:2], (mask & ~hole).sum((1, 2))[:2] / mask.sum((1, 2))[:2] * 100, rtol=1e-6)
    kept = all_metrics(prediction, gt, {"m": mask & ~hole})["m"]
    for key in ("epe", "rmse", "d1", "bad-1", "a90"):
        np.testing.assert_array_equal(rows[key], kept[key])


def test_jit_padding_and_batch_change_nothing(random_case):
    prediction, gt, mask = random_case
    run = lambda p, g, m: all_metrics(p, g, {"m": m})["m"]
    alone = [run(prediction[i : i + 1], gt[i : i + 1], mask[i : i + 1]) for i in range(3)]
    batch = run(*(np.pad(x, ((0, 0), (11, 0), (0, 11))) for x in random_case))
    for key, (total, count) in batch.items():
        np.testing.assert_allclose(total, np.concatenate([a[key][0] for a in alone]), rtol=1e-6, err_msg=key)
        np.testing.assert_array_equal(count, np.concatenate([a[key][1] for a in alone]))


def test_sum_of_a_large_image_keeps_float32_precision():
    values = np.random.default_rng(2).uniform(0, 1, (2, 1000, 1500)).astype(np.float32)
    np.testing.assert_allclose(metrics.pixel_sum(jnp.asarray(values)), values.astype(np.float64).sum((1, 2)), rtol=3e-7)


def test_float64(random_case):
    prediction, gt, mask = (x[:2] for x in random_case)
    with jax.enable_x64(True):
        rows = all_metrics(prediction.astype(np.float64), gt.astype(np.float64), {"m": mask})["m"]
    error = np.abs(prediction.astype(np.float64) - gt)
    np.testing.assert_allclose(np.divide(*rows["epe"]), [e[m].mean() for e, m in zip(error, mask, strict=True)], rtol=1e-13)
    np.testing.assert_allclose(rows["a99"][0], [np.quantile(e[m], 0.99) for e, m in zip(error, mask, strict=True)], rtol=1e-13)


def test_depth(random_case):
    prediction, gt, mask = random_case
    focal_baseline, doffs = np.float32([200, 0, 100]), np.float32([31, 0, 0])
    rows = jax.jit(metrics.depths)(prediction, gt, mask, focal_baseline, doffs)
    z = 200 / np.maximum(prediction[0].astype(np.float64) + 31, 0.1)
    true = 200 / (gt[0].astype(np.float64) + 31)
    ratio = np.maximum(z / true, true / z)[mask[0]]
    expected = {"depth_absrel": (np.abs(z - true) / true)[mask[0]].mean(), "depth_rmse": np.square(z - true)[mask[0]].mean()}
    expected |= {f"depth_delta{n}": (ratio < 1.25**n).mean() * 100 for n in (1, 2, 3)}
    for key, value in expected.items():
        total, count = rows[key]
        np.testing.assert_allclose(total[0] / count[0], value, rtol=1e-5, err_msg=key)
        assert count[1] == count[2] == 0  # no calibration; no ground truth
