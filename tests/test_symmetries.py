"""What a change of the images must do to the result: moved pairs, mirrored pairs.

Letters: B batch, H W size, D disparity levels, N candidates.
"""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from bridgedepth_jax.networks.config import BackboneConfig
from bridgedepth_jax.ops.correlation import correlation_volume
from bridgedepth_jax.ops.sampling import sample_along_rows
from bridgedepth_jax.systems.bridgedepth import parity
from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


MOVE = 16  # pixels: the network's multiple, and the side of all its windows below
# What a border and a texture reach in pixels, by all layers together; by the search for a match, also to the right.
REACH, SEARCH = 64, 64


def test_the_disparity_moves_with_both_images():
    """A textured square on grey, 16 pixels further down and to the right: so is its disparity, and nothing else changes.

    Around the square the images are flat, so the sums over the image (instance norms, attention along rows and columns) have
    the same terms. The monocular branch knows where a pixel is (position embedding), so its output is switched off.
    """
    nmp = dataclasses.replace(tiny.MODEL.nmp, window=2, refine_window=4, infer_layers=2, refine_layers=2)
    backbone = BackboneConfig("resnet", out_channels=16, dims=(8, 8, 16), depths=(1, 1, 1))
    config = tiny.MODEL.replace(dtype="float64", backbone=backbone, nmp=nmp)
    shape = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float64)
    params = jax.tree.map(np.float64, tiny.params(BridgeDepth(config), shape, shape))
    params["depth_feature_down"]["kernel"][:] = 0
    side, top, left = 16, 2 * REACH, 2 * REACH + SEARCH
    height, width = top + side + MOVE + 2 * REACH, left + side + SEARCH + MOVE + 2 * REACH
    square = np.random.default_rng(0).uniform(0, 255, (2, side, side, 3))
    pairs = np.full((2, 2, height, width, 3), 90.0)  # left and right, here and moved
    for i, by in enumerate((0, MOVE)):
        pairs[0, i, top + by : top + by + side, left + by : left + by + side] = square[0]
        pairs[1, i, top + by : top + by + side, left + by - 5 : left + by - 5 + side] = square[1]
    network = jax.jit(lambda params, *pair: BridgeDepth(config).apply({"params": params}, *pair))
    out = jax.device_get(network.lower(params, *pairs).compile(parity.FEW_STEPS)(params, *pairs))
    inner = slice(REACH, -REACH - MOVE), slice(REACH + SEARCH, -REACH - MOVE)
    moved = tuple(slice(part.start + MOVE, part.stop + MOVE) for part in inner)
    for name in ("disparity", "confidence"):
        here, there = getattr(out, name)
        assert np.ptp(here[inner]) > 1e-3  # the square is seen
        np.testing.assert_allclose(there[moved], here[inner], atol=1e-9, err_msg=name)


def test_the_volume_of_a_mirrored_and_swapped_pair_has_the_same_matches():
    """Of left pixel x at level d and of right pixel x - d: seen from the other side, the other way round."""
    left, right = np.random.default_rng(0).standard_normal((2, 2, 3, 9, 8))
    volume = np.asarray(correlation_volume(left, right, 2, 5))
    other = np.asarray(correlation_volume(right[:, :, ::-1], left[:, :, ::-1], 2, 5))
    for d in range(5):
        np.testing.assert_allclose(other[:, :, d:, d], volume[:, :, d:, d][:, :, ::-1], rtol=1e-12)
        assert not other[:, :, :d, d].any()
    assert np.abs(volume[:, :, 4:]).min() > 0


def test_reading_a_mirrored_row_mirrors_the_positions():
    """Half-way and outside, too: the zeros beyond both ends are the same."""
    rng = np.random.default_rng(0)
    fmap, x = rng.standard_normal((1, 2, 7, 3)), rng.uniform(-2, 8, (1, 2, 7, 5))
    expected = sample_along_rows(fmap, x)
    np.testing.assert_allclose(sample_along_rows(fmap[:, :, ::-1], 6 - x), expected, rtol=1e-9, atol=1e-12)
    outside = (x <= -1) | (x >= 7)
    assert outside.any() and not np.asarray(expected)[outside].any() and np.asarray(expected)[~outside].any()
