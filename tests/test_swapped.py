"""Swapped pairs are noticed, right ones are not: one real pair, and made ones with a known answer."""

import cv2
import numpy as np
import pytest
import skimage.data

from bridgedepth_jax.inference.swapped import looks_swapped


def shifted_pair(disparity):
    random = np.random.default_rng(disparity)
    wide = cv2.GaussianBlur(random.integers(0, 256, (120, 300, 3), np.uint8), (0, 0), 2)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    return wide[:, 40:240], wide[:, 40 + disparity : 240 + disparity]


def test_a_real_pair():
    left, right, truth = skimage.data.stereo_motorcycle()
    truth = np.nan_to_num(truth)
    garbage = np.random.default_rng(0).uniform(0, 300, truth.shape).astype(np.float32)
    # Even a bad prediction is no reason to doubt a right order, and a good one in disguise none to trust a wrong one.
    for disparity in (truth, garbage, np.zeros_like(truth)):
        assert not looks_swapped(left, right, disparity)
        assert looks_swapped(right, left, disparity)


@pytest.mark.parametrize("disparity", [4, 12, 30])
def test_made_pairs(disparity):
    left, right = shifted_pair(disparity)
    prediction = np.full(left.shape[:2], disparity, np.float32)
    assert not looks_swapped(left, right, prediction)
    assert looks_swapped(right, left, np.zeros_like(prediction))


def test_no_opinion_where_there_is_none():
    random = np.random.default_rng(0)
    noise, other = random.integers(0, 256, (2, 64, 96, 3), np.uint8)
    flat = np.full((64, 96, 3), 90, np.uint8)
    for left, right in [(noise, other), (flat, flat), (noise, noise), (flat, flat + np.uint8(1))]:
        assert not looks_swapped(left, right, np.full((64, 96), 5, np.float32))
    assert not looks_swapped(noise[:32, :32].astype(np.float32), other[:32, :32], np.zeros((32, 32), np.float32))
