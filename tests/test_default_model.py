"""The model inside the package is what its card says."""

import hashlib
import re
from pathlib import Path

import pytest

from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.inference import demo
from bridgedepth_jax.inference.stereo import DEFAULT_MODEL, Predictor
from bridgedepth_jax.store.checkpoint import load_checkpoint
from bridgedepth_jax.systems.bridgedepth import health
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig

CARD = DEFAULT_MODEL / "README.md"
ACTS = 0.02  # pixels by which the disparity changes, on average, without a part that matters


def test_the_card_has_the_hash_of_the_files():
    (digest,) = re.findall(r"which lists that of every file here: `([0-9a-f]{64})`", CARD.read_text())
    assert digest == hashlib.sha256((DEFAULT_MODEL / "files.sha256").read_bytes()).hexdigest()


def test_it_is_small_enough_to_ship():
    assert sum(file.stat().st_size for file in Path(DEFAULT_MODEL).rglob("*") if file.is_file()) <= 8e6


@pytest.mark.slow
def test_without_a_name_it_is_loaded_and_as_good_as_the_card_says():
    predictor = Predictor.load(devices=1)
    assert predictor.config.replace(temperature=1.0) == ModelConfig.nano_sharp()
    pair, truth = demo.motorcycle()
    found = demo.errors(predictor(pair.left, pair.right).disparity, truth)
    bad2, epe = re.findall(r"^\| motorcycle \| ([\d.]+) %, ([\d.]+) px", CARD.read_text(), re.MULTILINE)[0]
    assert (found.bad2, found.epe) == (pytest.approx(float(bad2), abs=0.3), pytest.approx(float(epe), abs=0.05))


@pytest.fixture(scope="module")
def shipped():
    return load_checkpoint(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def pairs():
    scenes = SyntheticStereo(96, 192, max_disparity=48, seed=10_007, photos=False, config=SyntheticConfig.named("crowded"))
    return health.Pairs.of(scenes[i] for i in range(2))


def test_no_activation_runs_away(shipped, pairs):
    found = health.sizes(shipped.config, shipped.params, pairs.left, pairs.right)
    health.check_finite(found, "nano")
    taps = {row.name: row for row in found if row.name.startswith("tap ")}
    assert {"tap mono_features", "tap depth_prior", "tap mono0", "tap mono1", "tap stereo1"} <= set(taps)
    assert all(row.largest < 1e3 for row in taps.values())


@pytest.mark.slow
def test_every_part_matters(shipped, pairs):
    rows = {row.part: row for row in health.effects(shipped.config, shipped.params, pairs)}
    assert len(rows) >= 10 and rows.pop("nothing").change == 0
    assert {name: row.change for name, row in rows.items() if row.change < ACTS} == {}
