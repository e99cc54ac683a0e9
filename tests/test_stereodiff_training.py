"""Training of the pair network and of the video diffusion model: clips as data, objectives, exact resume (spec `video.md`)."""

import dataclasses
import functools
import json
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.data.clips import ClipOptions, ClipSource, clip_example, clip_shapes
from bridgedepth_jax.data.pipeline import DataConfig, batch_shapes, make_train_dataset
from bridgedepth_jax.data.procedural.clips import SyntheticClips, reproject
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.croco.config import PairConfig
from bridgedepth_jax.networks.video import schedule
from bridgedepth_jax.networks.video.config import ImageEncoderConfig, VideoAutoencoderConfig, VideoUNetConfig
from bridgedepth_jax.sharding import make_mesh
from bridgedepth_jax.store.checkpoint import flatten, load_checkpoint
from bridgedepth_jax.systems.stereodiff import losses, objectives
from bridgedepth_jax.systems.stereodiff.config import PairTask, VideoDiffusionConfig, VideoTask
from bridgedepth_jax.training import loop
from bridgedepth_jax.training.configfile import override, read_config
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.start import make_start
from bridgedepth_jax.training.step import Frozen, make_step

ROOT = Path(__file__).parents[1]
CONFIGS = ("autoencoder_tiny", "pairs_tiny", "video_tiny")
PAIRS = PairConfig(
    img_size=(64, 64),
    enc_embed_dim=16,
    enc_depth=1,
    enc_num_heads=1,
    dec_embed_dim=16,
    dec_depth=4,
    dec_num_heads=1,
    feature_dim=8,
    last_dim=4,
    layer_dims=(4, 4, 8, 8),
)
VIDEO = VideoDiffusionConfig(
    VideoUNetConfig(
        block_out_channels=(8,),
        cross_attention=(True,),
        layers_per_block=1,
        attention_heads=(2,),
        cross_attention_dim=8,
        addition_time_embed_dim=4,
        norm_num_groups=4,
    ),
    VideoAutoencoderConfig(block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=2.0),
    ImageEncoderConfig(8, 8, 1, 2, 28, 14, 8),
)
SIZE = (32, 48)


def experiment_of(system: str, task=None, frames: int = 2, **solver) -> Experiment:
    clips = ClipOptions(size=3, views=6, frames=frames, apart=(1, 2))
    data = DataConfig(train=(("clips", 1),), crop=SIZE, views="clips", clips=clips, threads=0)
    model = PAIRS if system == "dust3r" else VIDEO
    tree = Experiment(system=system, model=model, task=task, data=data, init="random").to_dict()
    tree["solver"] |= {
        "batch_size": 4,
        "base_lr": 1e-3,
        "schedule": "constant",
        "weight_decay": 0.0,
        "grad_clip": None,
    } | solver
    return Experiment.from_dict(tree)


@pytest.fixture
def at_the_top(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_build(name, at_the_top):
    experiment = Experiment.from_dict(read_config(str(ROOT / "configs" / "stereodiff" / f"{name}.py")).to_dict())
    state, frozen = experiment.abstract_state(experiment.objective())  # asserts that every parameter is in one group
    assert {path.split("/")[0] for path in flatten(frozen)} == {
        "autoencoder_tiny": {"unet", "image_encoder"}, "pairs_tiny": set(), "video_tiny": {"vae"}}[name]  # fmt: skip
    assert Experiment.from_dict(experiment.to_dict()) == experiment
    assert sum(leaf.size for leaf in jax.tree.leaves((state.params, frozen))) < 3e6


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--config.data.clips.apart=(3, 2)", "data.clips.apart = (3, 2)"),
        ("--config.data.clips.views=1", "and 2 frames in 1 views"),
        ("--config.data.clips.mirror=2.0", "data.clips.mirror = 2.0, expected a probability"),
        ("--config.data.clips.haze=-1.0", "data.clips.haze = -1.0, expected a probability"),
        ("--config.data.train=(('synthetic', 1),)", "data.views are clips, expected (('clips', 1),)"),
        ("--config.task.far=-1.0", "task.far -1.0"),
        ("--config.data.crop=(90, 128)", "data.crop = (90, 128), expected multiples of 16"),
    ],
)
def test_a_wrong_value_is_one_clear_error(option, words, at_the_top):
    config = read_config(str(ROOT / "configs" / "stereodiff" / "pairs_tiny.py"))
    with pytest.raises(InputError) as error:
        override(config, [option])
        Experiment.from_dict(config.to_dict())
    assert words in str(error.value)
    with pytest.raises(InputError, match=r"task\.stage 'both', expected autoencoder or diffusion"):
        VideoTask("both")


def test_views_of_a_clip_are_those_of_the_whole_clip():
    source = ClipSource(ClipOptions(size=3, views=5), SIZE, 7)
    whole = SyntheticClips(*SIZE, 5, seed=7, photos=False)[2]
    for number in (3, 0):
        image, depth = source[2].view(number)
        np.testing.assert_array_equal(image, whole["image"][number])
        np.testing.assert_array_equal(depth, whole["depth"][number])
    assert source[2] is source[2]
    assert not pickle.loads(pickle.dumps(source))._kept  # a worker process receives only numbers


class Draws:
    """A generator whose draws are given."""

    def __init__(self, *values: float) -> None:
        self.values = np.array(values)

    def random(self, count: int) -> np.ndarray:
        assert count == len(self.values)
        return self.values


def test_haze_of_the_options_reaches_the_samples():
    """The same clips, veiled; another set, so a run does not go on from one to the other."""
    made = [ClipSource(ClipOptions(size=2, views=6, haze=haze), SIZE, seed=4) for haze in (0.0, 1.0)]
    clear, hazy = (clip_example(source[1], source.options, np.random.default_rng(0)) for source in made)
    np.testing.assert_array_equal(clear["depth"], hazy["depth"])
    assert hazy["image"].std() < 0.9 * clear["image"].std()
    assert made[0].fingerprint != made[1].fingerprint


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_samples_keep_their_geometry(mirrored, backwards):
    """Mirrored or backwards, a surface of one frame is where the pose says in the next, and the truth of a pair says so too."""
    clip = SyntheticClips(*SIZE, 9, seed=1, photos=False)
    options = ClipOptions(size=8, views=9, frames=2, apart=(3, 3))
    source = ClipSource(options, SIZE, 1)
    index = next(k for k in range(8) if not clip[k]["moving"].any())
    sample = clip_example(source[index], options, Draws(0, 0.4, 1 - backwards, 1 - mirrored))
    expected, seen, same = reproject(sample["depth"], sample["K"].astype(float), sample["pose"].astype(float), 0, 1)
    assert same.mean() > 0.5
    assert np.median(np.abs(seen / expected - 1)[same]) < 1e-3
    truth = objectives.pair_truth({name: jnp.asarray(value)[None] for name, value in sample.items()}, 70.0)
    points = np.asarray(truth.points2[0], np.float64) @ sample["K"].T
    u, v = np.round(points[..., 0] / points[..., 2]).astype(int), np.round(points[..., 1] / points[..., 2]).astype(int)
    inside = (u >= 0) & (u < SIZE[1]) & (v >= 0) & (v < SIZE[0])
    near = np.abs(sample["depth"][0][v[inside], u[inside]] / points[..., 2][inside] - 1)
    assert np.median(near) < 0.02
    np.testing.assert_allclose(truth.points1[0, ..., 2], sample["depth"][0], rtol=1e-6)
    plain = clip_example(source[index], options, Draws(0, 0.4, 1 - backwards, 1))
    plain = objectives.pair_truth({name: jnp.asarray(value)[None] for name, value in plain.items()}, 70.0)
    for one, two in ((truth.points1, plain.points1), (truth.points2, plain.points2)):
        same = np.asarray(one)[0, :, ::-1] * np.array([-1, 1, 1]) if mirrored else np.asarray(one)[0]
        np.testing.assert_allclose(same, two[0], atol=1e-5)


def test_samples_are_a_function_of_their_position_and_their_frames_evenly_apart():
    config = experiment_of("depthcrafter", frames=3).data
    one, two = make_train_dataset(config), make_train_dataset(config)
    list(map(one.element, range(5)))  # what was rendered before does not matter
    for position in (7, 0):
        for name, value in one.element(position).items():
            np.testing.assert_array_equal(value, two.element(position)[name])
    batch = one.batch(1)
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        name: (shape, np.dtype(kind)) for name, (shape, kind) in batch_shapes(config).items()
    }
    apart = ClipOptions(size=1, views=30, frames=4, apart=(2, 5), mirror=0.0)
    clip, rng, steps = ClipSource(apart, SIZE, 0)[0], np.random.default_rng(0), set()
    for _ in range(40):
        pose = clip_example(clip, apart, rng)["pose"]
        chosen = [int(np.argmin(np.abs(clip.pose - p).sum((1, 2)))) for p in pose]
        gaps = set(np.diff(chosen).tolist())
        assert len(gaps) == 1
        steps |= gaps
    assert steps == {-5, -4, -3, -2, 2, 3, 4, 5}
    assert clip_shapes(apart, SIZE)["image"][0] == (4, *SIZE, 3)


def test_options_of_clips_change_no_other_data():
    pairs = DataConfig(train=(("synthetic", 1),), crop=SIZE)
    other = dataclasses.replace(pairs, clips=ClipOptions(size=2))
    assert make_train_dataset(pairs).fingerprint == make_train_dataset(other).fingerprint
    clips = experiment_of("dust3r").data
    other = dataclasses.replace(clips, clips=dataclasses.replace(clips.clips, reverse=0.0))
    assert make_train_dataset(clips).fingerprint != make_train_dataset(other).fingerprint


@functools.cache
def compiled(experiment: Experiment):
    """(first state, function of a state to the next one and its metrics) on the first batch; one compilation each."""
    objective, batch = experiment.objective(), make_train_dataset(experiment.data).batch(0)
    state, frozen = experiment.begin(objective, make_start(experiment, "random").weights)
    run = jax.jit(make_step(objective, experiment.solver, make_mesh(1, jax.devices()[:1])))

    def advance(state):
        after, metrics, _ = run(state, Frozen(frozen, {}), batch)
        return after, {name: float(value) for name, value in metrics.items()}

    return state, advance


def one_step(experiment: Experiment):
    """(gradients by name, metrics) of the first batch."""
    state, advance = compiled(experiment)
    after, metrics = advance(state)
    # Adam's first moment after its first step is a tenth of the gradient.
    return {name: 10 * np.asarray(value) for name, value in flatten(after.moments.mu).items()}, metrics


STAGES = {
    "autoencoder": VideoTask("autoencoder", decoded=2, hold=1.0),
    "diffusion": VideoTask("diffusion", decoded=2),
}


@pytest.mark.parametrize(
    ("system", "task"),
    [
        ("dust3r", PairTask(hold=1.0)),
        *(pytest.param("depthcrafter", task, marks=pytest.mark.slow) for task in STAGES.values()),
    ],
)
def test_parts_of_a_batch_give_the_step_of_the_whole(system, task):
    """Of pairs and of both stages of the video model, whose random draws and means belong to the global batch."""
    here, first = one_step(experiment_of(system, task))
    there, second = one_step(experiment_of(system, task, accumulate=2))
    largest = max(np.abs(value).max() for value in here.values())
    for name, value in here.items():
        np.testing.assert_allclose(value, there[name], atol=2e-5 * largest, err_msg=name)
    for name in ("loss", "grad_norm"):
        assert second[name] == pytest.approx(first[name], rel=1e-4), name


@pytest.mark.parametrize("stage", STAGES)
def test_the_shapes_of_a_step_of_the_video_model(stage):
    """Traced, not compiled, with every annotation of shapes checked."""
    experiment = experiment_of("depthcrafter", STAGES[stage], frames=3)
    objective = experiment.objective()
    state, frozen = experiment.abstract_state(objective)
    batch = {name: jax.ShapeDtypeStruct(*shape) for name, shape in batch_shapes(experiment.data).items()}
    run = make_step(objective, experiment.solver, make_mesh(1, jax.devices()[:1]))
    after, metrics, _ = jax.eval_shape(run, state, Frozen(frozen, {}), batch)
    assert jax.tree.map(jnp.shape, after.params) == jax.tree.map(jnp.shape, state.params)
    assert {"autoencoder": {"disparity_square", "image_error"}, "diffusion": {"edm", "latent_error"}}[stage] <= set(metrics)
    weights = {**state.params, **frozen}
    assert objective.health is not None
    sizes = jax.eval_shape(objective.health, weights, batch)
    assert all(size.shape == () for size in sizes.values())


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "moved"), [("autoencoder", {"vae"}), ("diffusion", {"unet", "image_encoder"})])
def test_a_stage_of_the_video_model_moves_its_own_parts_alone(stage, moved):
    found, _ = one_step(experiment_of("depthcrafter", STAGES[stage]))
    for part in moved:
        assert max(np.abs(value).max() for name, value in found.items() if name.startswith(part)) > 0
    assert {name.split("/")[0] for name in found} == moved


def test_edm_error_is_the_loop_over_denoised_latents():
    rng = np.random.default_rng(0)
    v, clean, noise = rng.standard_normal((3, 4, 5))
    for sigma in (0.01, 1.0, 2.269, 50.0):
        noisy = clean + sigma * noise
        expected = (1 + sigma**2) / sigma**2 * (schedule.denoised(noisy, v, sigma) - clean) ** 2
        with jax.enable_x64(True):
            found = losses.edm_error(v, noisy, clean, np.float64(sigma))
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        perfect = (noisy / np.sqrt(sigma**2 + 1) - np.sqrt(sigma**2 + 1) * clean) / sigma
        np.testing.assert_allclose(schedule.denoised(noisy, perfect, sigma), clean, atol=1e-9)


def test_the_scale_of_points_is_held():
    """The loss does not know the scale; `hold` alone says which one, and pulls it towards 1."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((2, 1, *SIZE, 3)).astype(np.float32) + 3
    sure = np.full((1, *SIZE), 2.0, np.float32)
    truth = losses.PairTruth(points[0] + 0.1, points[1] + 0.1, np.ones((1, *SIZE), bool), np.ones((1, *SIZE), bool))
    at = lambda factor: float(losses.pair_loss(factor * points[0], sure, factor * points[1], sure, truth))
    assert at(1e6) == pytest.approx(at(1.0), rel=1e-5)
    state, advance = compiled(experiment_of("dust3r", PairTask(hold=1.0)))
    larger = {name: jax.tree.map(lambda x: 3 * x, part) if "head" in name else part for name, part in state.params.items()}
    _, found = advance(state.replace(params=larger))  # at the start it is already 1
    assert found["log_scale_squared"] > 0.1
    assert found["loss"] == pytest.approx(found["pair_loss"] + found["log_scale_squared"], rel=1e-5)


@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_a_pair_network_begins_where_its_exponentials_hold(head):
    experiment = experiment_of("dust3r", PairTask(hold=1.0))
    _, metrics = one_step(dataclasses.replace(experiment, model=dataclasses.replace(PAIRS, head_type=head)))
    assert 1.9 < metrics["confidence"] < 2.1
    assert metrics["log_scale_squared"] < 0.1


class Breaking:
    """Data that fails at a step, as a machine does."""

    def __init__(self, data, at):
        self.data, self.at = data, at
        self.fingerprint = data.fingerprint

    def iterate(self, start_step=0, *, host=0, hosts=1):
        for number, batch in enumerate(self.data.iterate(start_step, host=host, hosts=hosts), start_step):
            if number == self.at:
                raise RuntimeError("the power went out")
            yield batch


@pytest.mark.slow
@pytest.mark.parametrize(("system", "task"), [("dust3r", None), *(("depthcrafter", task) for task in STAGES.values())])
def test_a_run_that_broke_goes_on_to_the_bit(system, task, tmp_path):
    experiment = experiment_of(system, task, max_iter=6, average=0.9)
    run = dataclasses.replace(experiment.run, latest_every=2, images_every=0, health_every=2)
    experiment = dataclasses.replace(experiment, run=run)
    source, devices = make_train_dataset(experiment.data), jax.devices()[:1]
    start = lambda: make_start(experiment, "random")
    loop.train(experiment, tmp_path / "whole", source, start, devices=devices)
    with pytest.raises(RuntimeError, match="the power went out"):
        loop.train(experiment, tmp_path / "broken", Breaking(source, 5), start, devices=devices)
    again = make_train_dataset(experiment.data)  # nothing is rendered yet
    loop.train(experiment, tmp_path / "broken", again, start, devices=devices)
    one, two = (flatten(load_checkpoint(tmp_path / name / "export").params) for name in ("whole", "broken"))
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, two[name], err_msg=name)
    curves = []
    for name in ("whole", "broken"):
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        curves.append({row["step"]: (row["loss"], row["grad_norm"]) for row in rows})
    assert curves[0] == curves[1] and len(curves[0]) == 6
