"""What starts the matching, and BridgeDepth as a student: searches and losses against slow loops, and what gets a gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from bridgedepth_jax.data import DataConfig
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.sharding import make_mesh
from bridgedepth_jax.store.checkpoint import flatten
from bridgedepth_jax.system import Rows, Teacher, find_system
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.systems.reciprocal import bridgedepth, losses, networks
from bridgedepth_jax.systems.reciprocal.config import ReciprocalTask, SingleNetConfig
from bridgedepth_jax.systems.reciprocal.losses import Output
from bridgedepth_jax.systems.reciprocal.networks import Pass, View
from bridgedepth_jax.systems.reciprocal.stereonet import normalize
from bridgedepth_jax.training.config import SolverConfig
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.step import Frozen, make_state, make_step, optimizer, split


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize(("shift", "scale"), [(5, 1), (8, 2)])
def test_a_search_finds_what_was_shifted(shift, scale):
    wide = noise(1, 24, 60, 3)
    found = jax.jit(functools.partial(losses.search, largest=12.0, scale=scale))(
        wide[:, :, :40], wide[:, :, shift : shift + 40]
    )
    inside = np.s_[:, 4:-4, shift + 6 : -6]
    np.testing.assert_allclose(found.disparity[inside], shift, atol=0.3)
    assert not np.asarray(found.doubtful)[inside].any()
    other = losses.search(wide[:, :, :40], noise(1, 24, 40, 3, seed=1), 12.0, scale)
    assert np.mean(other.doubtful) > 0.3  # nothing matches; by chance left and right find each other all the same


def test_the_search_takes_the_cheapest_level():
    """Pixel by pixel; levels whose match is out of view do not count."""
    left, right = noise(1, 12, 20, 3), noise(1, 12, 20, 3, seed=1)
    found = losses.search(left, right, 6.0, 1)
    costs = np.full((7, 12, 20), np.inf)
    for level in range(7):
        moved = np.roll(right, level, axis=2)
        error = np.pad(np.asarray(losses.photometric(left, moved))[0], 2, mode="edge")
        for y in range(12):
            for x in range(level, 20):
                costs[level, y, x] = error[y : y + 5, x : x + 5].mean()
    np.testing.assert_array_less(np.abs(np.asarray(found.disparity)[0] - costs.argmin(0)), 0.51)


def test_an_image_pyramid_compares_at_each_size():
    left, right, d = noise(2, 16, 32, 3), noise(2, 16, 32, 3, seed=1), 4 * noise(2, 8, 16, seed=2)
    occluded = noise(2, 16, 32, seed=3) < 0.3
    value = losses.pyramid_data(left, right, jnp.asarray(occluded), lambda name, value: value)(jnp.asarray(d))
    small = [image.reshape(2, 8, 2, 16, 2, 3).mean((2, 4)) for image in (left, right)]
    hidden = occluded.reshape(2, 8, 2, 16, 2).mean((2, 4)) >= 0.5
    error = np.asarray(losses.photometric(small[0], losses.warp_rows(small[1], d / 2)))
    np.testing.assert_allclose(value, error[~hidden].mean(), rtol=1e-5)


def test_the_matching_distribution_expects_its_candidates_errors():
    left, right = noise(1, 32, 64, 3), noise(1, 32, 64, 3, seed=1)
    prob = noise(1, 4, 8, 3, seed=2)
    value = bridgedepth.matching_loss(prob, left, right, 1)
    small = [image.reshape(1, 4, 8, 8, 8, 3).mean((2, 4)) for image in (left, right)]
    costs = np.stack([np.asarray(losses.photometric(small[0], np.roll(small[1], level, 2)))[0] for level in range(3)], -1)
    seen = np.arange(8)[:, None] >= np.arange(3)[None]
    weight = np.where(seen, prob[0], 0)
    expected = (weight * costs).sum(-1) / weight.sum(-1)
    np.testing.assert_allclose(value, expected.mean(), rtol=1e-5)


def test_scores_learn_from_the_error_of_each_candidate():
    left, right = noise(1, 16, 32, 3), noise(1, 16, 32, 3, seed=1)
    occluded = noise(1, 16, 32, seed=2) < 0.2
    coarse, logits = 6 * noise(2, 1, 16, 32, 2, seed=3), noise(2, 1, 16, 32, 2, seed=4)
    view = View(left, right, jnp.asarray(occluded), jnp.float32((~occluded).sum()), left[..., 0], jnp.asarray(~occluded))

    class Output:
        coarse_disparities, logits = jnp.asarray(coarse), None

    def loss(logits):
        output = Output()
        output.logits = logits
        return bridgedepth.coarse_loss(output, view, (0.4, 0.6))

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(logits))
    expected = 0.0
    for share, d, logit in zip((0.4, 0.6), coarse, logits, strict=True):
        weight = np.exp(logit) / np.exp(logit).sum(-1, keepdims=True)
        errors = [np.asarray(losses.photometric(left, losses.warp_rows(right, d[..., n]))) for n in range(2)]
        expected += share * (weight * np.stack(errors, -1)).sum(-1)[~occluded].mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.abs(gradient[:, ~occluded]).max() > 0 and np.abs(np.asarray(gradient)[:, occluded]).max() == 0


def test_shares_of_the_outputs_sum_to_one():
    for config in (ModelConfig.variant("rvc"), ModelConfig.nano(), tiny.MODEL):
        coarse, fine = bridgedepth.output_weights(config)
        assert len(coarse) == config.nmp.infer_layers and len(fine) == config.nmp.refine_layers
        np.testing.assert_allclose(sum(coarse) + sum(fine), 1)
    coarse, fine = bridgedepth.output_weights(ModelConfig.variant("rvc"))
    np.testing.assert_allclose(fine[-1] / coarse[0], 2.0)  # the supervised loss's


def test_bridgedepth_needs_pairs_alone():
    """Also where its own losses would need more of a batch."""
    found = Experiment(
        system="bridgedepth-pairs", model=tiny.MODEL, task=ReciprocalTask(), data=DataConfig(crop=(32, 64)), init="random"
    )
    assert found.data.extras == ()


@pytest.mark.slow
def test_bridgedepth_learns_everywhere_but_in_its_monocular_branch():
    """One step of stage 1 with all its parts, in parts of the batch and as a whole."""
    system = find_system("bridgedepth-pairs")
    assert system.name == "bridgedepth"  # its checkpoints are BridgeDepth's
    task = ReciprocalTask(mirror=0.0, colour=0.0, bootstrap=5)
    assert system.objective is not None
    objective = system.objective(tiny.MODEL, task, {})
    weights = tiny.model_params()
    left, right = (np.stack([image, image[::-1]]) for image in tiny.images(32, 64))
    found = []
    for parts in (1, 2):
        solver = SolverConfig(max_iter=5, batch_size=2, accumulate=parts, weight_decay=0.0, grad_clip=None)
        learnt, fixed, _ = split(weights, objective.trained, ())
        state = make_state(learnt, solver, 0, optimizer.make_optimizer(objective.groups(solver)))
        step = jax.jit(make_step(objective, solver, make_mesh(1, jax.devices()[:1]), parameter_norms=True))
        _, metrics, _ = step(state, Frozen(fixed, {}), {"left": left, "right": right})
        found.append({name: float(value) for name, value in metrics.items()})
    gradients = {name: value for name, value in found[0].items() if name.startswith("gradient/")}
    assert not [name for name in gradients if name.startswith("gradient/mono/")]
    for part in ("stereo_encoder/dpn", "infer_score_head", "infer_head", "refine_head", "mono_output", "align_1"):
        assert max(value for name, value in gradients.items() if name.startswith(f"gradient/{part}")) > 0, part
    assert 0 < found[0]["occluded"] < 1 and all(np.isfinite(list(found[0].values())))
    for name in ("loss", "scores", "proposals", "matching", "bootstrap"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=2e-4, err_msg=name)


def test_bridgedepth_as_a_student_of_stage_3():
    """By shapes alone, of the default model and the whole SingleNet."""
    system = find_system("bridgedepth-pairs")
    nano, single = ModelConfig.nano_sharp(), SingleNetConfig.named("resnet18")
    given = {"stereo": Teacher("bridgedepth", nano), "mono": Teacher("singlenet", single)}
    assert system.objective is not None
    objective = system.objective(nano, ReciprocalTask(stage="fusion"), given)
    shapes = {
        name: jax.eval_shape(functools.partial(find_system(t.system).init, t.config), jax.random.key(0))
        for name, t in given.items()
    }
    solver = SolverConfig(max_iter=5, batch_size=2, weight_decay=0.0, grad_clip=None)

    def begin(weights):
        learnt, fixed, _ = split(weights, objective.trained, ())
        return make_state(learnt, solver, 0, optimizer.make_optimizer(objective.groups(solver))), fixed

    state, fixed = jax.eval_shape(begin, shapes["stereo"])
    batch = {side: jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8) for side in ("left", "right")}
    _, metrics, _ = jax.eval_shape(
        make_step(objective, solver, make_mesh(1, jax.devices()[:1])), state, Frozen(fixed, shapes), batch
    )
    assert {"data", "scores", "proposals", "matching", "mono"} <= set(metrics)
    assert flatten(state.params).keys() == {name for name in flatten(shapes["stereo"]) if not name.startswith("mono/")}
    with pytest.raises(InputError, match="distil trains a monocular network"):
        bridgedepth.check(nano, ReciprocalTask(stage="distil"))
    with pytest.raises(InputError, match="image_pyramid = True"):
        bridgedepth.check(nano, ReciprocalTask(image_pyramid=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(search=-1), "task.search = -1"),
        (dict(search_range=1.0), "at least one level"),
        (dict(search_scale=0), "search_scale = 0"),
    ],
)
def test_options_of_the_search(options, words):
    with pytest.raises(InputError, match=words):
        ReciprocalTask(**options)


def test_the_search_ends_after_its_steps():
    """Its pull is there in the first steps and gone after them."""
    config = find_system("stereonet").config(
        widths=(4, 4, 6), projected=4, radius=2, estimator=(6, 6, 6, 4, 4), context=(6, 4), dilations=(1, 2), finest=0
    )
    from bridgedepth_jax.systems.reciprocal import stages

    weights = jax.jit(functools.partial(find_system("stereonet").init, config))(jax.random.key(0))
    left, right = (np.stack([image]) for image in tiny.images(32, 64))
    solver = SolverConfig(max_iter=5, batch_size=1, schedule="constant", base_lr=1e-9, weight_decay=0.0, grad_clip=None)
    data = []
    for search in (0, 1):
        task = ReciprocalTask(mirror=0.0, colour=0.0, search=search, search_range=8.0, search_scale=1, occlusion_warmup=search)
        objective = stages.objective(networks.stereonet(config), task, {})
        state = make_state(weights, solver, 0, optimizer.make_optimizer(objective.groups(solver)))
        step = jax.jit(make_step(objective, solver, make_mesh(1, jax.devices()[:1])))
        for _ in range(2):
            state, metrics, _ = step(state, Frozen({}, {}), {"left": left, "right": right})
            data.append(float(metrics["data"]))
    assert data[2] > data[0] + 0.1 and abs(data[3] - data[1]) < 1e-5


def test_what_is_hidden_is_kept_as_it_was_before(monkeypatch):
    """The log-L1 to the frozen teacher over occluded pixels, and these alone."""
    from bridgedepth_jax.systems.reciprocal import stages

    left, right = 255 * noise(1, 16, 32, 3), 255 * noise(1, 16, 32, 3, seed=1)
    disparity, other, known = (4 * noise(1, 16, 32, seed=seed) for seed in (2, 3, 4))
    student = networks.Network(
        2, lambda *_: Pass((Output(jnp.asarray(disparity), 1.0),), jnp.asarray(disparity), {}), lambda *_: jnp.asarray(other)
    )
    monkeypatch.setattr(stages, "stereo_teacher", lambda name, teacher: lambda weights, left, right: weights + known)
    rows = Rows(jnp.arange(1), 1, jnp.int32(0), {"augment": jax.random.key(0)}, lambda name, value: value, ())
    found, hidden = [], None
    for keep in (0.0, 0.5):
        task = ReciprocalTask(mirror=0.0, colour=0.0, keep=keep)
        teachers = {"stereo": Teacher("any", None)} if keep else {}
        objective = stages.objective(student, task, teachers)
        batch = {"left": jnp.asarray(left), "right": jnp.asarray(right)}
        value, result = objective.loss({"w": jnp.zeros(())}, {"stereo": jnp.zeros(())}, batch, None, rows)
        found.append(float(value))
        hidden = np.asarray(result.shown["occluded"])
    assert 0 < hidden.mean() < 1
    np.testing.assert_allclose(found[1] - found[0], 0.5 * np.log1p(np.abs(disparity - known))[hidden].mean(), rtol=1e-4)
    with pytest.raises(InputError, match="expected stereo"):
        stages.objective(student, ReciprocalTask(keep=0.5), {})
    with pytest.raises(InputError, match=r"task.keep = 0.5: only stage photometric"):
        ReciprocalTask(stage="distil", keep=0.5)


def test_the_matching_loss_wants_the_correlation_where_the_search_found_it():
    """Cells of 4 pixels: a wanted offset of 1.25 is three quarters of one channel and a quarter of the next."""
    disparity = np.full((1, 8, 16), 4 * (2 + 1.25), np.float32)
    doubtful = np.zeros((1, 8, 16), bool)
    doubtful[0, 0, 0] = True  # its whole cell is left out
    disparity[0, :4, 4:8] = 4 * (2 + 9)  # out of the level's range
    scores = noise(1, 2, 4, 5)
    level = losses.Matching(jnp.asarray(scores), jnp.full((1, 2, 4), 2.0))
    value = losses.matching_loss(level, losses.Found(jnp.asarray(disparity), jnp.asarray(doubtful)), lambda name, value: value)
    log = losses.SHARPNESS * scores - np.log(np.exp(losses.SHARPNESS * scores).sum(-1, keepdims=True))
    errors = -(0.75 * log[..., 3] + 0.25 * log[..., 4])
    kept = np.ones((1, 2, 4), bool)
    kept[0, 0, :2] = False
    np.testing.assert_allclose(value, errors[kept].mean(), rtol=1e-5)


def test_channels_normalised_on_their_own():
    a, b = noise(2, 4, 5, 3), 3 * noise(2, 4, 5, 3, seed=1) + 1
    both = np.stack(normalize(a, b, channels=True))
    np.testing.assert_allclose(both.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(both.std((0, 2, 3)), 1, rtol=1e-5)
