"""The model inside the package is what its card says."""

import hashlib
import re
from pathlib import Path

import pytest

from bridgedepth_jax.inference import demo
from bridgedepth_jax.inference.stereo import DEFAULT_MODEL, Predictor
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig

CARD = DEFAULT_MODEL / "README.md"


def test_the_card_has_the_hash_of_the_files():
    (digest,) = re.findall(r"which lists that of every file here: `([0-9a-f]{64})`", CARD.read_text())
    assert digest == hashlib.sha256((DEFAULT_MODEL / "files.sha256").read_bytes()).hexdigest()


def test_it_is_small_enough_to_ship():
    assert sum(file.stat().st_size for file in Path(DEFAULT_MODEL).rglob("*") if file.is_file()) <= 8e6


@pytest.mark.slow
def test_without_a_name_it_is_loaded_and_as_good_as_the_card_says():
    predictor = Predictor.load(devices=1)
    assert predictor.config == ModelConfig.nano()
    pair, truth = demo.motorcycle()
    found = demo.errors(predictor(pair.left, pair.right).disparity, truth)
    bad2, epe = re.findall(r"^\| motorcycle \| ([\d.]+) %, ([\d.]+) px", CARD.read_text(), re.MULTILINE)[0]
    assert (found.bad2, found.epe) == (pytest.approx(float(bad2), abs=0.3), pytest.approx(float(epe), abs=0.05))
