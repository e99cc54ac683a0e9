"""What nano has beyond the paper: semi-global matching against loops, convex upsampling, bounded monocular states."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny import MODEL as TINY

from bridgedepth_jax.systems.bridgedepth import fusion, losses, sgm
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig, SGMConfig
from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth
from bridgedepth_jax.systems.bridgedepth.upsampling import convex, fold, unit_channels


def slow_paths(cost, small, large):
    """Mean over four paths, one pixel and level at a time."""
    height, width, levels = cost.shape
    total = np.zeros_like(cost)
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        path = np.zeros_like(cost)
        for y in range(height)[:: dy or 1]:
            for x in range(width)[:: dx or 1]:
                inside = 0 <= y - dy < height and 0 <= x - dx < width
                before = path[y - dy, x - dx] if inside else np.zeros(levels)
                for d in range(levels):
                    ways = [before[d], before.min() + large]
                    ways += [before[e] + small for e in (d - 1, d + 1) if 0 <= e < levels]
                    path[y, x, d] = cost[y, x, d] + min(ways) - before.min()
        total += path
    return total / 4


def test_aggregation_is_that_of_a_loop():
    cost = np.random.default_rng(0).uniform(0, 2, (5, 7, 6))
    found = sgm.aggregate(jnp.asarray(np.stack([cost, cost[::-1]]), jnp.float32), 0.3, 0.9)
    np.testing.assert_allclose(found[0], slow_paths(cost, 0.3, 0.9), atol=1e-5)
    np.testing.assert_allclose(found[1], slow_paths(cost[::-1], 0.3, 0.9), atol=1e-5)


def test_winner_is_that_of_a_loop():
    total = np.random.default_rng(1).uniform(0, 2, (4, 9, 5)).astype(np.float32)
    found = sgm.winner(jnp.asarray(total)[None])
    for y in range(4):
        for x in range(9):
            costs = total[y, x]
            best = int(np.argmin(costs))
            value = float(best)
            if 0 < best < 4:
                value += 0.5 * (costs[best - 1] - costs[best + 1]) / (costs[best - 1] - 2 * costs[best] + costs[best + 1])
            np.testing.assert_allclose(found.disparity[0, y, x], value, atol=1e-4)
            agree = False
            if x >= best:
                right = [(total[y, x - best + d, d], d) for d in range(5) if x - best + d < 9]
                agree = abs(min(right)[1] - best) <= 1
            assert bool(found.consistent[0, y, x]) == agree
            others = [costs[d] for d in range(5) if abs(d - best) > 1]
            np.testing.assert_allclose(found.margin[0, y, x], 1 - costs[best] / min(others), atol=1e-5)


def test_census_is_that_of_a_loop():
    grey = np.random.default_rng(2).uniform(0, 9, (1, 4, 5)).astype(np.float32)
    found = np.asarray(sgm.census(jnp.asarray(grey), 1, 2.0))
    padded = np.pad(grey[0], 1, mode="edge")
    places = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    for y in range(4):
        for x in range(5):
            for k, (i, j) in enumerate(places):
                difference = padded[y + i, x + j] - grey[0, y, x]
                assert found[0, y, x, k] == (0 if abs(difference) <= 2 else np.sign(difference))


def test_a_shifted_image_is_found_everywhere():
    wide = np.random.default_rng(3).uniform(0, 255, (1, 64, 160, 3)).astype(np.float32)
    left, right = wide[:, :, :128], wide[:, :, 12:140]  # the match of x is x - 12
    found, cost = jax.jit(lambda a, b: sgm.evidence(a, b, SGMConfig(1), 32))(left, right)
    assert cost.shape == (1, 16, 32, 8)
    seen = np.s_[:, :, 4:]
    error = np.abs(np.asarray(found.disparity[seen]) - 3)
    assert error.max() < 0.7 and error.mean() < 0.1  # white noise has no slope for the parabola to follow
    assert found.consistent[seen].all() and found.margin[seen].min() > 0.3
    finer, cost = jax.jit(lambda a, b: sgm.evidence(a, b, SGMConfig(1, columns=2), 32))(left, right)
    assert cost.shape == (1, 16, 64, 16)
    assert np.abs(finer.disparity[:, :, 8:] - 3).max() < 0.35 and finer.consistent[:, :, 8:].all()
    disparity, told = sgm.hypotheses(found, 2, 4)
    assert disparity.shape == (1, 8, 16, 2) and told.shape == (1, 8, 16, 2, 5)
    np.testing.assert_allclose(disparity[:, :, 2:], 1.5, atol=0.35)


def test_of_whole_numbers_all_costs_are_exact():
    """Ties in census and costs are many, and a rounding would break them otherwise in every compiler."""
    wide = np.random.default_rng(4).integers(0, 8, (1, 32, 80, 1)).astype(np.float32).repeat(3, -1)
    left, right = wide[:, :, :64], wide[:, :, 6:70]
    config = SGMConfig(1, columns=2)
    found, cost = jax.jit(lambda a, b: sgm.evidence(a, b, config, 32))(left, right)
    with jax.enable_x64(True):
        exact, exact_cost = jax.jit(lambda a, b: sgm.evidence(a, b, config, 32))(*(x.astype(np.float64) for x in (left, right)))
    np.testing.assert_allclose(cost, exact_cost, rtol=2e-7)
    assert (np.diff(np.sort(cost, -1), axis=-1) == 0).any()
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-7, atol=2e-7)


def test_hypotheses_are_the_two_sides_of_an_edge():
    row = jnp.asarray([[[1.0, 9.0], [1.0, 8.0]]])
    disparity, told = sgm.hypotheses(sgm.Evidence(row, (row > 8.5) * 1.0, row / 10), 2, 4)
    np.testing.assert_allclose(disparity[0, 0, 0], (0.5, 4.5))
    np.testing.assert_allclose(told[0, 0, 0], ((0, 0, 0, 0.1, 1), (0, 0, 1, 0.9, 1)), atol=1e-6)


def test_a_square_has_its_most_trustworthy_cell_and_a_cell_of_1_8_its_median():
    disparity = jnp.asarray([[[1.0, 9.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]])
    found = sgm.Evidence(disparity, jnp.asarray([[[0.0, 1, 1, 1], [0, 0, 1, 0]]]), disparity / 10)
    np.testing.assert_allclose(sgm.squares(found, 2).disparity, [[[9, 4], [6, 7]]])
    np.testing.assert_array_equal(sgm.squares(found, 4).disparity, disparity)
    np.testing.assert_allclose(sgm.hypotheses(found, 1, 2)[0], [[[[2.5]]]])  # the fourth of 1 3 4 5 6 7 8 9, halved


def test_nearest_is_that_of_a_loop():
    rng = np.random.default_rng(7)
    values, known = rng.uniform(0, 9, (2, 3, 21)).astype(np.float32), rng.random((2, 3, 21)) < 0.2
    found, far = fusion.nearest(jnp.asarray(values), jnp.asarray(known))
    for b, y, x in np.ndindex(values.shape):
        there = np.flatnonzero(known[b, y, : x + 1])
        expected = (values[b, y, there[-1]], x - there[-1]) if len(there) else (values[b, y, x], 21)
        assert (found[b, y, x], far[b, y, x]) == expected


def test_the_choice_is_the_heaviest_cluster():
    candidates = jnp.asarray([[1.0, 5.0, 5.1, 9.0], [1.0, 2.0, 3.0, 4.0]])
    weights = jnp.asarray([[0.4, 0.25, 0.25, 0.1], [0.1, 0.2, 0.4, 0.3]])
    np.testing.assert_allclose(fusion.choose(candidates, jnp.log(weights), 0.5), (5.05, 3), rtol=1e-6)


@pytest.mark.parametrize("rows, columns", [(0, -2), (0, 3), (-1, 0), (2, 0)])
def test_moved_is_what_lies_that_far_and_the_border_beyond(rows, columns):
    x = np.arange(3 * 5 * 2, dtype=np.float32).reshape(1, 3, 5, 2)
    found = fusion.moved(jnp.asarray(x), rows, columns)
    for i, j in np.ndindex(3, 5):
        np.testing.assert_array_equal(found[0, i, j], x[0, np.clip(i + rows, 0, 2), np.clip(j + columns, 0, 4)])


def test_the_last_choice_begins_as_trust_says_and_can_take_a_neighbours_disparity():
    """Where only the matcher's cell is trusted it is chosen; a head that favours `above 2` gives what is 8 pixels higher."""
    rng = np.random.default_rng(8)
    network = jnp.asarray(rng.uniform(1, 9, (1, 6, 5, 16)), jnp.float32)
    matcher = jnp.asarray(rng.uniform(20, 30, (1, 6, 10)), jnp.float32)
    found = sgm.Evidence(matcher, jnp.ones_like(matcher), jnp.ones_like(matcher))
    arguments = (
        network,
        jnp.zeros((1, 6, 5, 8)),
        jnp.zeros((1, 24, 20, 3)),
        found,
        jnp.ones((1, 6, 10, 8)),
        jnp.ones((1, 1, 1, 1)),
    )
    last = fusion.Fusion(8, (1, 2), SGMConfig(1, columns=2), False)
    params = tiny.params(last, *arguments)
    names = fusion.names((1, 2))
    assert len(names) == 14 and len(set(names)) == 14

    def chosen(bias):
        layers = {**params["choice"], "layers_1": {"kernel": np.zeros((8, 16 * 14), np.float32), "bias": np.tile(bias, 16)}}
        candidates, logits, _ = last.apply({"params": {**params, "choice": layers}}, *arguments)
        assert candidates.shape == logits.shape == (1, 6, 5, 16, 14)
        return np.take_along_axis(candidates, jnp.argmax(logits, -1, keepdims=True), -1)[..., 0]

    bias = np.zeros(14, np.float32)
    own = chosen(bias)
    np.testing.assert_array_equal(own[0, :, :, 0], matcher[0, :, ::2])
    bias[names.index("above 2")] = 20
    np.testing.assert_array_equal(chosen(bias)[0], np.asarray(network)[0][[0, 0, 0, 1, 2, 3]])
    bias[names.index("right 1")] = 40
    np.testing.assert_array_equal(chosen(bias)[0], np.asarray(network)[0][:, [1, 2, 3, 4, 4]])


def test_gaps_are_above_the_cheapest_level():
    cost = jnp.asarray([[[[3.0, 1.0, 2.0, 7.0]]]])
    np.testing.assert_allclose(fusion.gaps(cost, jnp.asarray([[[[0.4, 1.2, -5.0, 99.0]]]])), [[[[2, 0, 2, 6]]]])


@pytest.mark.parametrize("sub", [1, 2])
def test_pixels_and_neighbours_of_cells(sub):
    x = np.arange(1, 3 * 4 * sub + 1, dtype=np.float32).reshape(1, 3, 4 * sub)
    side = 4 // sub
    wide = x.repeat(4, 1).repeat(side, 2)
    image = lambda folded: np.asarray(folded).reshape(1, 3, 4, 4, 4).swapaxes(2, 3).reshape(1, 12, 16)
    np.testing.assert_array_equal(image(fusion._pixels(jnp.asarray(x), sub)), wide)
    np.testing.assert_allclose(fusion._cells(fusion._pixels(jnp.asarray(x), sub), sub), x)
    row, column = map(image, fusion._neighbours(jnp.asarray(x), sub))
    for i, j in np.ndindex(12, 16):
        y = i // 4 + (-1 if i % 4 < 2 else 1)
        z = j // side + (-1 if j % side < side / 2 else 1)
        assert row[0, i, j] == x[0, np.clip(y, 0, 2), j // side] and column[0, i, j] == x[0, i // 4, np.clip(z, 0, 4 * sub - 1)]


def test_mixture_loss_is_that_of_a_loop():
    rng = np.random.default_rng(8)
    choices, logits, gt = rng.uniform(0, 9, (1, 2, 3, 4)), rng.normal(0, 2, (1, 2, 3, 4)), rng.uniform(0, 9, (1, 2, 3))
    found = losses.mixture_loss(*(jnp.asarray(x, jnp.float32) for x in (choices, logits, gt)))
    for at in np.ndindex(gt.shape):
        error, weight = np.abs(choices[at] - gt[at]), np.exp(logits[at]) / np.exp(logits[at]).sum()
        expected = np.log(np.exp(-error.min())) - np.log(np.sum(weight * np.exp(-error)))
        np.testing.assert_allclose(found[at], expected, rtol=1e-4)


def test_convex_upsampling_stays_within_the_neighbours():
    rng = np.random.default_rng(4)
    values = jnp.asarray(rng.normal(0, 9, (2, 5, 6)), jnp.float32)
    weights = jax.nn.softmax(jnp.asarray(rng.normal(0, 3, (2, 5, 6, 16, 9)), jnp.float32))
    fine = np.asarray(convex(values, weights))
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
    for y in range(5):
        for x in range(6):
            around = padded[:, y : y + 3, x : x + 3].reshape(2, 9)
            np.testing.assert_allclose(fine[:, y, x], np.einsum("bsn,bn->bs", weights[:, y, x], around), atol=1e-4)
            assert (fine[:, y, x] <= around.max(1)[:, None] + 1e-4).all() and (
                fine[:, y, x] >= around.min(1)[:, None] - 1e-4
            ).all()
    np.testing.assert_allclose(convex(jnp.full((2, 5, 6), 7.0), weights), 7, rtol=1e-6)


def test_folded_pixels_are_the_cells():
    image = np.arange(8 * 12 * 2).reshape(1, 8, 12, 2).astype(np.float32)
    folded = np.asarray(fold(jnp.asarray(image)))
    for y, x in ((0, 0), (1, 2)):
        np.testing.assert_array_equal(folded[0, y, x], image[0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].ravel())


def test_unit_channels_forget_the_scale():
    x = jnp.asarray(np.random.default_rng(5).normal(3, 2, (4, 48)), jnp.float32)
    for scale in (1, 1e10):
        y = unit_channels(x * scale)
        np.testing.assert_allclose(y, unit_channels(x), atol=1e-5)
        assert float(jnp.abs(y).max()) <= 48**0.5


FULL = dataclasses.replace(
    TINY,
    bounded_prior=True,
    upsampling=8,
    fusion=8,
    fusion_reach=(2,),
    learned_confidence=True,
    sgm=SGMConfig(2, columns=2, dropped=0.5),
)


@pytest.fixture(scope="module")
def full():
    return tiny.params(BridgeDepth(FULL), *images())


def images(batch=1):
    rng = np.random.default_rng(6)
    return [jnp.asarray(rng.uniform(0, 255, (batch, 48, 64, 3)), jnp.float32) for _ in range(2)]


@jax.jit
def infer(params, left, right):
    return BridgeDepth(FULL).apply({"params": params}, left, right, mutable=["taps"])


def test_monocular_states_are_bounded_whatever_the_scale_of_the_branch(full):
    head = full["mono"]["depth_head"]["scratch"]["refinenet1"]
    huge = {**head, "out_conv": jax.tree.map(lambda leaf: 1e9 * leaf, head["out_conv"])}
    scratch = {**full["mono"]["depth_head"]["scratch"], "refinenet1": huge}
    params = {**full, "mono": {**full["mono"], "depth_head": {**full["mono"]["depth_head"], "scratch": scratch}}}
    _, sown = infer(params, *images())
    taps = sown["taps"]
    for name in ("mono_features", "depth_prior", "mono0", "mono1", "stereo1"):
        assert float(jnp.abs(taps[name][-1]).max()) < 1e3


def test_the_output_has_all_candidates_and_a_probability(full):
    output, _ = infer(full, *images())
    assert output.proposals.shape[-1] == 2 and output.logits.shape[-1] == 4
    assert output.disparity.shape == (1, 48, 64) == output.confidence.shape
    assert float(output.confidence.min()) > 0 and float(output.confidence.max()) < 1


@pytest.mark.slow
def test_training_drops_the_evidence_by_the_sample_and_learns_the_confidence(full):
    left, right = images(4)
    task = losses.StereoTask(train_mono=True, loss_weights=(1.0,) * (FULL.nmp.infer_layers + FULL.nmp.refine_layers))
    terms = losses.LossConfig.of(FULL, task)
    assert terms.weights["loss_certainty"] == 1 and terms.weights["loss_fusion"] == 2

    @jax.jit
    def run(params, numbers, key):
        def loss(params):
            variables = {"params": params, "samples": {"numbers": numbers}}
            output = BridgeDepth(FULL).apply(variables, left, right, train=True, train_mono=True, rngs={"drop_path": key})
            truth = jnp.full((4, 48, 64), 9.0)
            return losses.total(losses.losses(output, truth, truth > 0, terms), terms), output.coarse_disparities

        return jax.value_and_grad(loss, has_aux=True)(params)

    numbers = jnp.arange(8)
    (_, coarse), gradient = run(full, numbers, jax.random.key(1))
    dropped = [bool((coarse[-1, i, ..., 2:] - coarse[-1, i, ..., :2] == 0).all()) for i in range(4)]
    (_, again), _ = run(full, numbers[::-1].at[:4].set(numbers[:4]), jax.random.key(1))
    np.testing.assert_array_equal(coarse, again)  # by number, whatever the rows behind
    for name in ("classical", "upsampling", "fusion", "mono", "stereo_encoder"):
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient[name])) > 0
    assert any(dropped) and not all(dropped)


def test_published_variants_have_none_of_it():
    for name in ("sf", "l_sf", "rvc"):
        config = ModelConfig.variant(name)
        assert not (
            config.bounded_prior or config.upsampling or config.fusion or config.learned_confidence or config.sgm.candidates
        )
        assert config.temperature == 1
    tree = ModelConfig.nano().to_dict()
    for key in ("bounded_prior", "upsampling", "fusion", "fusion_reach", "learned_confidence", "sgm", "temperature"):
        del tree[key]
    assert ModelConfig.from_dict(tree) == ModelConfig.nano()  # checkpoints from before


@pytest.mark.parametrize(
    "wrong",
    [dict(learned_confidence=True), dict(temperature=0.0), dict(fusion=8), dict(sgm={"candidates": 5}), dict(fusion_reach=[2])],
)
def test_what_does_not_fit_together_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[-1]):
        ModelConfig.from_dict(TINY.to_dict() | wrong)
