"""Each pure function against a slow loop or an independent library."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bridgedepth_jax import layers
from bridgedepth_jax.ops import correlation, fourier, resize, sampling, windows
from bridgedepth_jax.systems.bridgedepth.network import best_candidate, pad_to_multiple, unshuffle
from bridgedepth_jax.systems.bridgedepth.proposals import select_seeds


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(actual, expected, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=tolerance, atol=tolerance)


def test_fourier_features_are_sines_of_doubling_frequencies():
    exact = np.concatenate([[0.0, 1.5, 33.25], np.random.default_rng(0).uniform(0, 200, 500)])
    disparity = exact.astype(np.float32)

    def expected(disparity):
        t = disparity.astype(np.float64) * 3.14 / 64
        angles = t[:, None] * 2.0 ** np.arange(15)
        return np.concatenate([np.sin(angles), np.cos(angles), t[:, None]], 1)

    zero = np.zeros_like(disparity)
    close(fourier.fourier_features(jnp.asarray(disparity[:3]), 64), expected(disparity[:3]), 5e-3)
    close(jax.jit(fourier.fourier_features, static_argnums=1)(disparity, 64, zero), expected(disparity), 3e-6)
    rest = (exact - disparity).astype(np.float32)  # up to 6e-3 radians of the highest frequency
    close(jax.jit(fourier.fourier_features, static_argnums=1)(disparity, 64, rest), expected(exact), 3e-6)
    assert fourier.fourier_features(jnp.asarray(disparity, jnp.bfloat16), 64).dtype == jnp.float32


@pytest.mark.parametrize(("size", "out"), [(5, 13), (8, 16), (7, 3), (6, 1), (1, 4)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_bilinear_against_a_loop(size, out, align_corners):
    x = normal(size)
    expected = []
    for o in range(out):
        scale = (size - 1) / max(out - 1, 1) if align_corners else size / out
        source = o * scale if align_corners else max((o + 0.5) * scale - 0.5, 0)
        low = min(math.floor(source), size - 1)
        high = min(low + 1, size - 1)
        expected.append(x[low] + (source - low) * (x[high] - x[low]))
    image = jnp.asarray(x).reshape(1, size, 1, 1)
    close(resize.resize_bilinear(image, (out, 1), align_corners=align_corners)[0, :, 0, 0], np.asarray(expected))


@pytest.mark.parametrize(("size", "out"), [(96, 84), (112, 98), (10, 3)])
def test_antialiased_resize_equals_jax_image(size, out):
    x = jnp.asarray(normal(2, size, size + 16, 3))
    expected = jax.image.resize(x, (2, out, out + 2, 3), "linear", antialias=True)
    close(resize.resize_antialiased(x, (out, out + 2)), expected, 1e-4)  # its weights are float32


def test_bicubic_taps_against_the_cubic_convolution():
    taps = resize.bicubic_taps(37, 12, 37 / 12.1)
    a = -0.75

    def kernel(t):
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

    for o in range(12):
        source = (o + 0.5) * 37 / 12.1 - 0.5
        first = math.floor(source) - 1
        for k in range(4):
            assert taps.indices[o, k] == min(max(first + k, 0), 36)
            assert taps.weights[o, k] == pytest.approx(kernel(source - first - k), abs=1e-12)
    close(taps.weights.sum(1), np.ones(12))


def test_sampling_counts_each_column_outside_as_zero():
    fmap = normal(1, 1, 6, 2)
    columns = np.asarray([[[[-1.5], [-0.25], [0.0], [2.75], [4.5], [5.5]]]], np.float32)
    expected = np.zeros((6, 2))
    for i, x in enumerate(columns.ravel()):
        low = math.floor(x)
        for column, weight in ((low, low + 1 - x), (low + 1, x - low)):
            if 0 <= column < 6:
                expected[i] += weight * fmap[0, 0, column]
    close(sampling.sample_along_rows(jnp.asarray(fmap), jnp.asarray(columns))[0, 0, :, 0], expected)
    disparity = np.arange(6, dtype=np.float32).reshape(1, 1, 6, 1) - columns
    close(sampling.sample_matches(jnp.asarray(fmap), jnp.asarray(disparity))[0, 0, :, 0], expected)


def test_a_match_keeps_the_digits_of_its_disparity():
    fmap, disparity = np.zeros((1, 1, 5000, 1), np.float32), np.full((1, 1, 5000, 1), 1e-4, np.float32)
    fmap[0, 0, 4000] = 1
    found = sampling.sample_matches(jnp.asarray(fmap), jnp.asarray(disparity))[0, 0, :, 0, 0]
    np.testing.assert_allclose(found[4001], 1e-4, atol=1e-7)  # 4001 - 1e-4 in float32 is 4001


def test_correlation_volume_and_lookup_against_loops():
    left, right = normal(2, 3, 7, 8), normal(2, 3, 7, 8, seed=1)
    volume = np.asarray(correlation.correlation_volume(jnp.asarray(left), jnp.asarray(right), 2, 5))
    expected = np.zeros((2, 3, 7, 5, 2))
    for x in range(7):
        for d in range(min(5, x + 1)):
            product = left[:, :, x] * right[:, :, x - d]
            expected[:, :, x, d] = product.reshape(2, 3, 2, 4).mean(-1)
    close(volume, expected)
    seeds = np.random.default_rng(2).integers(0, 5, (2, 3, 7, 2))
    found = np.asarray(correlation.lookup(jnp.asarray(volume), jnp.asarray(seeds), 2))
    for n in range(2):
        level = np.clip(seeds[1, 2, 6, n] + np.arange(-2, 3), 0, 4)
        close(found[1, 2, 6, n], volume[1, 2, 6, level].T.ravel())


def test_seeds_are_local_maxima_and_ties_go_to_the_lowest_level():
    prob = np.zeros((1, 1, 3, 8), np.float32)
    prob[0, 0, 0] = [0.1, 0.4, 0.2, 0.05, 0.15, 0.05, 0.03, 0.02]  # two maxima
    prob[0, 0, 1] = [0.0, 0.02, 0.06, 0.9, 0.02, 0.01, 0.0, 0.0]  # one maximum: the rest are suppressed or below 1e-3
    prob[0, 0, 2] = 1 / 8  # flat: nothing is below its neighbours
    np.testing.assert_array_equal(select_seeds(jnp.asarray(prob), 2)[0, 0], [[1, 4], [3, 1], [0, 1]])


@pytest.mark.parametrize(("query", "key", "entries"), [(6, 6, 121), (4, 4, 49), (4, 2, 36), (2, 4, 36), (7, 7, 169)])
def test_relative_index_counts_offsets_between_pixel_centres(query, key, entries):
    index = windows.relative_index(query, key)
    assert windows.table_size(query, key) == entries
    assert index.shape == (query**2, key**2) and index.min() >= 0 and index.max() == entries - 1
    fine = max(query, key)
    side = math.isqrt(entries)
    offset = lambda i, j: (i + 0.5) * fine / query - (j + 0.5) * fine / key
    lowest = offset(0, key - 1)
    for i in range(query**2):
        for j in range(key**2):
            rows, columns = offset(i // query, j // key) - lowest, offset(i % query, j % key) - lowest
            assert index[i, j] == rows * side + columns


def test_partition_round_trip_with_padding():
    x = jnp.asarray(normal(2, 7, 9, 3))
    padded = windows.pad_to_windows(x, 4)
    assert padded.shape == (2, 8, 12, 3)
    parts = windows.partition(padded, 4)
    assert parts.shape == (2 * 2 * 3, 16, 3)
    np.testing.assert_array_equal(parts[1, 5], x[0, 1, 5])
    np.testing.assert_array_equal(windows.unpartition(parts, 4, 7, 9), x)


@pytest.mark.parametrize("shift", [(3, 3), (0, 3), (3, 0)])
def test_shift_regions_separate_what_the_roll_brought_together(shift):
    height, width, window = 12, 18, 6
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    position = np.roll(np.stack([rows, columns], -1), (-shift[0], -shift[1]), (0, 1))
    tiles = np.asarray(windows.partition(jnp.asarray(position[None]), window))
    apart = np.abs(tiles[:, :, None] - tiles[:, None]).max(-1) >= window
    np.testing.assert_array_equal(windows.shift_regions(height, width, window, shift), apart)


def test_depthwise_convolution_and_its_gradient_equal_the_grouped_one():
    x, kernel = jnp.asarray(normal(2, 9, 11, 4)), jnp.asarray(normal(7, 7, 1, 4, seed=1))

    def grouped(x, kernel):
        dims = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), [(3, 3)] * 2, dimension_numbers=dims, feature_group_count=4)

    close(layers.depthwise_conv(x, kernel), grouped(x, kernel), 1e-4)
    ours = jax.grad(lambda *a: (layers.depthwise_conv(*a) ** 2).sum(), (0, 1))(x, kernel)
    theirs = jax.grad(lambda *a: (grouped(*a) ** 2).sum(), (0, 1))(x, kernel)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b, 1e-3)


def test_attention_in_chunks_equals_attention_at_once():
    q, k, v = (jnp.asarray(normal(2, 3, 17, 4, seed=i)) for i in range(3))
    close(layers.attention(q, k, v, max_logits=500), layers.attention(q, k, v))
    expected = jnp.einsum("bhts,bhsk->bhtk", jax.nn.softmax(jnp.einsum("bhtk,bhsk->bhts", q, k) / 2), v)
    close(layers.attention(q, k, v), expected)


def test_gelu_is_the_exact_one():
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    close(layers.gelu(jnp.asarray(x)), [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()], 1e-6)


def test_instance_norm_has_unit_biased_variance():
    y = np.asarray(layers.instance_norm(jnp.asarray(5 + 3 * normal(2, 8, 9, 4))))
    close(y.mean((1, 2)), np.zeros((2, 4)))
    close(y.var((1, 2)), np.ones((2, 4)), 1e-4)


def test_padding_is_on_top_and_right_with_the_edge():
    x = jnp.asarray(normal(1, 30, 41, 3))
    padded = pad_to_multiple(x)
    assert padded.shape == (1, 32, 48, 3)
    np.testing.assert_array_equal(padded[:, 2:, :41], x)
    np.testing.assert_array_equal(padded[:, 0, :41], x[:, 0])
    np.testing.assert_array_equal(padded[:, 2:, 47], x[:, :, 40])


def test_unshuffle_puts_a_token_into_its_block_rows_first():
    x = np.arange(2 * 3 * 1 * 4, dtype=np.float32).reshape(1, 2, 3, 1, 4)
    out = np.asarray(unshuffle(jnp.asarray(x), 2))[0, :, :, 0]
    np.testing.assert_array_equal(out[2:4, 4:6].ravel(), x[0, 1, 2, 0])


def test_estimate_is_the_lower_median_of_the_first_best_candidate():
    random = np.random.default_rng(0)
    coarse = random.uniform(0, 40, (1, 8, 4, 2)).astype(np.float32)
    logit = random.integers(0, 2, (1, 8, 4, 2)).astype(np.float32)  # many ties
    best = np.where(logit[..., 1] > logit[..., 0], coarse[..., 1], coarse[..., 0])
    expected = [np.sort(best[0, i : i + 4].ravel())[7] for i in (0, 4)]
    np.testing.assert_array_equal(best_candidate(jnp.asarray(coarse), jnp.asarray(logit))[0, :, 0], expected)
