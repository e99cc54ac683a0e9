"""The health report: sizes and the first bad layer, parts switched off, calibration against plain counting."""

from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.inference.stereo import Predictor
from bridgedepth_jax.store.checkpoint import flatten, unflatten
from bridgedepth_jax.systems.bridgedepth import health
from bridgedepth_jax.systems.bridgedepth.config import SGMConfig
from bridgedepth_jax.systems.bridgedepth.losses import StereoTask
from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth
from bridgedepth_jax.systems.bridgedepth.system import objective

CONFIG = tiny.MODEL.replace(bounded_prior=True, sgm=SGMConfig(1, columns=2), upsampling=8, fusion=8, learned_confidence=True)
SIZE = 48, 64


@pytest.fixture(scope="module")
def pairs() -> health.Pairs:
    left, right = tiny.images(*SIZE)
    truth = np.full(SIZE, 6, np.float32)
    return health.Pairs.of([{"left": left, "right": right, "disparity": truth, "valid": truth > 0, "nonocc": truth > 0}])


@pytest.fixture(scope="module")
def params(pairs):
    return tiny.params(BridgeDepth(CONFIG), pairs.left, pairs.right)


def changed(params, path, change):
    flat = dict(flatten(params))
    flat[path] = change(np.array(flat[path]))
    return unflatten(flat)


def test_sizes_name_every_tap_and_the_first_layer_that_breaks(pairs, params):
    measure = lambda weights: health.sizes(CONFIG, weights, pairs.left, pairs.right)
    found = measure(params)
    names = [row.name for row in found]
    assert {"tap mono_features", "tap depth_prior", "tap stereo0", "tap mono1", "tap classical/sgm_margin"} <= set(names)
    assert names.index("depth_feature_down") < names.index("stereo_encoder/dpn/prior_proj") < names.index("align_1/norm")
    health.check_finite(found, "whole")
    bounded = next(row for row in found if row.name == "tap depth_prior")
    assert bounded.rms == pytest.approx(1, abs=0.01) and bounded.finite
    hurt = measure(changed(params, "align_0/layers_0/readout/attn/proj/kernel", lambda w: w * np.nan))
    with pytest.raises(InputError, match=r"broken: the output of align_0/layers_0/readout/attn/proj is not finite"):
        health.check_finite(hurt, "broken")
    large = measure(changed(params, "depth_feature_down/kernel", lambda w: w * 1e7))
    with pytest.raises(InputError, match=r"'float16': depth_feature_down reaches .*e\+0\d, expected at most 6.55e\+04"):
        health.check_dtype(large, "float16")
    health.check_dtype(large, "bfloat16")
    health.check_dtype(found, "float16")


def test_dead_units_are_those_that_never_are_positive(pairs, params):
    killed = changed(params, "refine_head/layers_0/bias", lambda b: np.where(np.arange(len(b)) < 4, -1e6, b))
    row = next(row for row in health.sizes(CONFIG, killed, pairs.left, pairs.right) if row.name == "refine_head/layers_0")
    assert row.dead >= 4 / CONFIG.nmp.dim
    assert row.dead == pytest.approx(round(row.dead * CONFIG.nmp.dim) / CONFIG.nmp.dim)


def test_a_part_is_switched_off_by_its_own_parameters_alone(params):
    before = flatten(params)
    for name, (config, smaller) in health.parts(CONFIG, params).items():
        after = flatten(smaller)
        different = {path for path in before if path not in after or not np.array_equal(before[path], after[path])}
        if name == "second candidate":
            assert config.dpn.num_proposals == 1 and not different
        elif name == "classical evidence":
            assert not config.sgm.candidates and {path.split("/")[0] for path in different} == {"classical", "fusion"}
        elif name == "last choice":
            assert not config.fusion and config.sgm == CONFIG.sgm and {path.split("/")[0] for path in different} == {"fusion"}
        elif name == "correlation":
            assert different == {"stereo_encoder/ffn/fc1/kernel"}
        else:
            assert different and config == CONFIG
            assert all(not np.any(after[path]) for path in different)
    assert set(health.parts(CONFIG, params)) > {"propagation", "monocular updates, stage 1", "monocular updates, stage 2"}


def test_the_effect_of_a_part_is_seen(pairs, params, monkeypatch):
    every = health.parts
    one_program = lambda config, params: {name: part for name, part in every(config, params).items() if part[0] == config}
    monkeypatch.setattr(health, "parts", one_program)
    rows = {row.part: row for row in health.effects(CONFIG, params, pairs)}
    assert rows["nothing"].change == 0
    for part in ("correlation", "monocular updates, stage 1", "propagation", "image in the upsampling"):
        assert rows[part].change > 0


def test_ceilings_are_of_the_best_that_is_held(monkeypatch):
    """A step in the middle of 20 columns, the first five pixels of each row occluded, the last row unknown."""
    truth = np.where(np.arange(20) < 10, 30.0, 10.0) * np.ones((6, 1))
    valid, visible = np.arange(6)[:, None] < 5 + np.zeros(truth.shape), np.arange(20) >= 5 + np.zeros(truth.shape)
    error = np.zeros((6, 20, 6))
    error[..., 1:] = 9  # of the other candidates everywhere; the first one's:
    error[:, :5, 0], error[:, 8:10, 0], error[5, :, 0] = 9, -9, 9
    error[:, :2, 3] = 1
    coarse = truth[..., None] + np.array([5.0, 0.5])

    class Network:
        def __init__(self, config):
            pass

        def apply(self, variables, left, right):
            fused = (truth + error[..., 0])[None]
            return SimpleNamespace(
                coarse_disparities=coarse[None, None], disparities=truth[None, None] + 3, disparity=fused,
                choices=(truth[..., None] + error)[None],
            )  # fmt: skip

    monkeypatch.setattr(health, "BridgeDepth", Network)
    image = np.zeros((6, 20, 3))
    sample = {"left": image, "right": image, "disparity": truth, "valid": valid, "nonocc": visible}
    rows = {row.name: row[1:] for row in health.ceilings(CONFIG, {}, health.Pairs.of([sample]))}
    # Columns 4..15 are within 5 pixels of the step: of those column 4 is occluded, 8 and 9 are wrong.
    assert rows["what it says"] == pytest.approx((35, 25, 100))
    assert rows["best of the coarse candidates"] == (0, 0, 0) and rows["refined"] == (100, 100, 100)
    assert rows["last choice: network"] == rows["what it says"]
    assert rows["last choice: right"] == pytest.approx((90, 100, 60))
    assert rows["best of the last choice"] == pytest.approx((25, 25, 60))


def test_half_precision_that_overflows_is_refused_with_the_name_of_the_layer(params):
    Predictor(CONFIG, params, dtype="float16", devices=1)
    large = changed(params, "depth_feature_down/kernel", lambda w: w * 1e7)
    with pytest.raises(InputError, match="'float16': depth_feature_down reaches"):
        Predictor(CONFIG, large, dtype="float16", devices=1)
    broken = changed(params, "align_1/norm/scale", lambda w: w * np.nan)
    with pytest.raises(InputError, match="the output of align_1/norm is not finite"):
        Predictor(CONFIG, broken, dtype="bfloat16", devices=1)
    Predictor(CONFIG, large, devices=1)  # float32 holds it


def test_the_log_has_the_sizes_of_the_taps_and_the_parts_of_the_gradient(pairs, params):
    what = objective(CONFIG, StereoTask(loss_weights=(1.0,) * (CONFIG.nmp.infer_layers + CONFIG.nmp.refine_layers)), {})
    found = jax.jit(what.health)(params, {"left": pairs.left, "right": pairs.right})
    sizes = {row.name: row for row in health.sizes(CONFIG, params, pairs.left, pairs.right)}
    for name in ("depth_prior", "stereo0", "classical/sgm_margin"):
        row = sizes[f"tap {name}"]
        assert float(found[f"rms/{name}"]) == pytest.approx(row.rms, rel=1e-4)
        assert float(found[f"largest/{name}"]) == pytest.approx(row.largest, rel=1e-4)
    names = {what.part(path) for path in flatten(params)}
    assert {"mono", "proposals", "stereo backbone", "align_0", "last choice", "classical"} <= names


def test_shares_add_up_and_find_the_part():
    tree = {"mono": {"a": np.ones(4)}, "align_0": {"b": np.full(3, 2.0)}, "infer_head": {"c": np.zeros(2)}}
    found = health.shares(tree)
    assert found["mono"] == pytest.approx(4 / 16) and found["align_0"] == pytest.approx(12 / 16)
    assert sum(found.values()) == pytest.approx(1)


def test_reliability_counts():
    confidence = np.array([[[0.05, 0.95, 0.96, 0.55]]])
    error = np.array([[[9.0, 0.0, 3.0, 1.0]]])
    valid = np.array([[[True, True, True, False]]])
    low, high = health.reliability(confidence, error, valid)
    assert (low.low, low.share, low.wrong) == (0.0, pytest.approx(1 / 3), 1.0)
    assert (high.low, high.wrong) == (0.9, 0.5) and high.confidence == pytest.approx(0.955)


def test_sparsification_is_least_for_the_right_order():
    rng = np.random.default_rng(0)
    error = rng.exponential(2, (2, 10, 20))
    valid = np.ones(error.shape, bool)
    right = health.sparsification(-error, error, valid)
    assert right["confidence"] == pytest.approx(right["best"]) and right["best"] < right["random"]
    wrong = health.sparsification(error, error, valid)
    assert wrong["confidence"] > right["random"] == pytest.approx(error.mean())


def test_the_fitted_temperature_is_that_of_the_draw():
    rng = np.random.default_rng(1)
    logit = rng.normal(0, 2, (1, 100, 200))
    right = rng.random(logit.shape) < 1 / (1 + np.exp(-logit))
    said = 1 / (1 + np.exp(-5 * logit))  # five times too sure
    found = health.fit_temperature(CONFIG, said, np.where(right, 0.0, 9.0), np.ones(logit.shape, bool))
    assert found == pytest.approx(5, rel=0.15)


def test_two_reports_stand_side_by_side(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    from scripts.health import Table, show

    one = Table("Parts", ("part", "EPE", "bad"), {"all": ("1", "2"), "prior": ("3", "4")}, ("first",))
    two = Table("Parts", ("part", "EPE", "bad"), {"all": ("5", "6"), "choice": ("7", "8")})
    show([one, two])
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:5] == ["| part | EPE (1) | bad (1) | EPE (2) | bad (2) |", "|---|---|---|---|---|"]
    assert lines[5:8] == ["| all | 1 | 2 | 5 | 6 |", "| prior | 3 | 4 |  |  |", "| choice |  |  | 7 | 8 |"]
    assert lines[-1] == "(1) first"
    show([one])
    assert "| part | EPE | bad |" in capsys.readouterr().out
