"""The three stages as the loop runs them: devices, parts of a batch, resuming, teachers, and no ground truth."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.data.pipeline import DataConfig, make_train_dataset
from bridgedepth_jax.data.sources import SyntheticOptions
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.sharding import make_mesh
from bridgedepth_jax.store.checkpoint import Checkpoint, flatten, load_checkpoint, save_checkpoint
from bridgedepth_jax.system import Teacher, find_system
from bridgedepth_jax.systems.reciprocal.config import ReciprocalTask, SingleNetConfig, StereoNetConfig
from bridgedepth_jax.training.config import EvalConfig, RunConfig, SolverConfig
from bridgedepth_jax.training.configfile import read_config
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.export import kinds, load_run
from bridgedepth_jax.training.loop import train
from bridgedepth_jax.training.start import Start, make_start
from bridgedepth_jax.training.step import Frozen, make_step

STEREO = StereoNetConfig(
    widths=(4, 4, 6), projected=4, radius=2, estimator=(6, 6, 6, 4, 4), context=(6, 4), dilations=(1, 2), finest=0
)
SINGLE = SingleNetConfig(depths=(1, 1), bottleneck=False, width=4, decoder=(4, 4, 6))
HEIGHT, WIDTH, ROWS = 64, 64, 8
STUDENT = {"photometric": "stereonet", "distil": "singlenet", "fusion": "stereonet", "self": "singlenet"}
SIZES = {"stereonet": STEREO, "singlenet": SINGLE}
FAST = {"xla_backend_optimization_level": 0}


@functools.cache
def weights(kind, seed=0):
    init = jax.jit(functools.partial(find_system(kind).init, SIZES[kind]))
    return jax.tree.map(np.asarray, init(jax.random.key(seed)))


def checkpoint(kind, seed=7):
    return Checkpoint(kind, weights(kind, seed), SIZES[kind], {"source": "a test"})


def batch(rows=ROWS, seed=0):
    """The right view is the left one, moved by 3 pixels."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 256, (rows, HEIGHT // 4, WIDTH // 4 + 1, 3), np.uint8).repeat(4, 1).repeat(4, 2)
    return {"left": wide[:, :, :WIDTH], "right": wide[:, :, 3 : WIDTH + 3]}


def experiment(stage, teachers=(), **solver):
    task = ReciprocalTask(stage="photometric" if stage == "self" else stage, occlusion_warmup=2)
    solver = dict(max_iter=6, batch_size=ROWS, base_lr=1e-3, schedule="constant", weight_decay=0.0, grad_clip=None) | solver
    return Experiment(
        system=STUDENT[stage],
        model=SIZES[STUDENT[stage]],
        task=task,
        data=DataConfig(crop=(HEIGHT, WIDTH), whole=True),
        solver=SolverConfig(**solver),
        run=RunConfig(latest_every=2, keep=3, images_every=4, print_every=3),
        eval=EvalConfig(datasets=()),
        init="random",
        teachers=teachers,
    )


def teachers_of(stage):
    names = {"distil": ("stereonet",), "fusion": ("stereonet", "singlenet")}.get(stage, ())
    return {{"stereonet": "stereo", "singlenet": "mono"}[kind]: checkpoint(kind) for kind in names}


def steps(stage, *, devices=1, count=3, dtype=np.float32, more=None, **solver):
    """(states, metrics) of some steps."""
    teachers, made = teachers_of(stage), experiment(stage, **solver)
    objective = made.objective(kinds(teachers))
    cast = functools.partial(jax.tree.map, lambda x: x.astype(dtype))
    state, fixed = made.begin(objective, cast(weights(made.system)))
    frozen = Frozen(fixed, {name: cast(teacher.params) for name, teacher in teachers.items()})
    mesh = make_mesh(1, jax.devices()[:devices])
    data = batch() | (more or {})
    step = jax.jit(make_step(objective, made.solver, mesh)).lower(state, frozen, data).compile(FAST)
    found = []
    for _ in range(count):
        state, metrics, _ = step(state, frozen, data)
        found.append({name: float(value) for name, value in metrics.items()})
    return state, found


@pytest.mark.parametrize("stage", STUDENT)
def test_eight_devices_and_one_agree(stage):
    """In float64 to the last digits: the numbers that depend on the prediction, and BatchNorm's, are the global batch's."""
    with jax.enable_x64(True):
        one, first = steps(stage, dtype=np.float64)
        eight, second = steps(stage, devices=8, dtype=np.float64)
    for a, b in zip(first, second, strict=True):
        for name in ("loss", "data", "smoothness", "occluded", "grad_norm"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-12, err_msg=name)
    for name, value in flatten(dict(one.collections)).items():
        np.testing.assert_allclose(value, flatten(dict(eight.collections))[name], rtol=1e-12, atol=1e-12)
    assert bool(one.collections) == (STUDENT[stage] == "singlenet")
    assert all(0 < row["occluded"] < 1 for row in first) and np.isfinite(first[-1]["loss"])


@pytest.mark.parametrize("stage", ["photometric", "fusion"])
def test_parts_of_a_batch_are_the_batch(stage):
    with jax.enable_x64(True):
        whole, first = steps(stage, dtype=np.float64)
        parts, second = steps(stage, dtype=np.float64, accumulate=4)
    for a, b in zip(first, second, strict=True):
        for name in ("loss", "occluded", "grad_norm"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-11)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), whole.params, parts.params)


def test_no_truth_reaches_the_weights():
    nothing = {"disparity": np.full((ROWS, HEIGHT, WIDTH), np.nan, np.float32), "valid": np.zeros((ROWS, HEIGHT, WIDTH), bool)}
    truth = {"disparity": np.full((ROWS, HEIGHT, WIDTH), 3, np.float32), "valid": np.ones((ROWS, HEIGHT, WIDTH), bool)}
    (a, _), (b, _) = (steps("photometric", more=more) for more in (nothing, truth))
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    assert (
        np.abs(flatten(a.params)["encoder/down_0_0/kernel"] - weights("stereonet")["encoder"]["down_0_0"]["kernel"]).max() > 0
    )


def test_the_loader_drops_the_truth_and_keeps_whole_images():
    options = SyntheticOptions(height=64, width=128, size=4, clean=True, max_disparity=16.0)
    data = make_train_dataset(DataConfig(train=(("synthetic", 1),), crop=(32, 64), batch_size=2, whole=True, synthetic=options))
    found = data.batch(0)
    assert set(found) == {"left", "right"} and found["left"].shape == (2, 32, 64, 3)
    whole = data.sources["synthetic"][int(data._order[0])]
    for side in ("left", "right"):
        means = whole[side].reshape(32, 2, 64, 2, 3).mean((1, 3))
        np.testing.assert_allclose(found[side][0], means, atol=0.51)


class Stopped(RuntimeError):
    pass


class Batches:
    """A batch a step; `stop` is the step before which everything ends."""

    fingerprint = "batches"

    def __init__(self, stop=None):
        self.stop = stop

    def iterate(self, start_step=0, *, host=0, hosts=1):
        for step in range(start_step, 100):
            if step == self.stop:
                raise Stopped
            yield batch(seed=step)


@pytest.mark.parametrize("stage", ["distil", "fusion"])
def test_broken_off_it_resumes_to_the_bit(stage, tmp_path):
    kept = []
    for name, teacher in teachers_of(stage).items():
        save_checkpoint(tmp_path / name, teacher)
        kept.append((name, str(tmp_path / name)))
    made = experiment(stage, tuple(kept))
    start = lambda: Start(weights(made.system), teachers={name: load_checkpoint(path) for name, path in kept})
    one = jax.devices()[:1]
    train(made, tmp_path / "unbroken", Batches(), start, devices=one)
    with pytest.raises(Stopped):
        train(made, tmp_path / "broken", Batches(stop=5), start, devices=one)
    assert not (tmp_path / "broken" / "export").exists()
    train(made, tmp_path / "broken", Batches(), start, devices=one)
    (_, a, _), (_, b, _) = load_run(tmp_path / "unbroken"), load_run(tmp_path / "broken")
    jax.tree.map(np.testing.assert_array_equal, (a.params, a.moments, a.collections), (b.params, b.moments, b.collections))
    exported = load_checkpoint(tmp_path / "broken" / "export")
    assert exported.kind == STUDENT[stage] and ("batch_stats" in exported.params) == (stage == "distil")
    system = find_system(exported.kind)
    pair = (jnp.asarray(batch(1)[side], jnp.float32) for side in ("left", "right"))
    found = jax.jit(system.estimate(exported.config))(exported.params, *pair).disparity
    assert found.shape == (1, HEIGHT, WIDTH) and float(found.min()) >= 0


@pytest.mark.parametrize(
    ("stage", "teachers", "words"),
    [
        ("distil", {}, r"teachers none, expected stereo \(--teacher\)"),
        ("fusion", {"stereo": "stereonet"}, r"teachers stereo, expected stereo \(--teacher\), mono \(--mono\)"),
        ("distil", {"stereo": "singlenet"}, "teacher stereo holds singlenet, expected a stereo network"),
        ("fusion", {"stereo": "stereonet", "mono": "stereonet"}, "teacher mono holds stereonet, expected a monocular network"),
        ("photometric", {"stereo": "stereonet"}, "teachers stereo, expected none"),
    ],
)
def test_teachers_of_the_wrong_kind_are_refused(stage, teachers, words):
    given = {name: Teacher(kind, SIZES[kind]) for name, kind in teachers.items()}
    with pytest.raises(InputError, match=words):
        experiment(stage).objective(given)


def test_students_of_the_wrong_kind_are_refused():
    for system, stage in (("stereonet", "distil"), ("singlenet", "fusion")):
        with pytest.raises(InputError, match=f"stage = {stage} trains a .* network, system {system} is none"):
            Experiment(
                system=system,
                task=ReciprocalTask(stage=stage),
                data=DataConfig(crop=(64, 128)),
                eval=EvalConfig(datasets=()),
            )
    with pytest.raises(InputError, match="multiples of 64"):
        Experiment(system="stereonet", data=DataConfig(crop=(64, 96)), eval=EvalConfig(datasets=()))


def test_default_model_and_a_relative_depth_as_teachers():
    """A stereo network of another system, and a monocular one without scale, by shapes alone."""
    stereo, mono = find_system("bridgedepth"), find_system("depth-anything")
    configs = {"stereo": stereo.variants["nano"](), "mono": mono.variants["depth_anything_v2_vits"]()}
    configs["mono"] = dataclasses.replace(configs["mono"], depth=4, taps=(0, 1, 2, 3))
    given = {"stereo": Teacher("bridgedepth", configs["stereo"]), "mono": Teacher("depth-anything", configs["mono"])}
    made = experiment("fusion")
    objective = made.objective(given)
    shapes = {name: jax.eval_shape(functools.partial(find_system(t.system).init, t.config), jax.random.key(0))
              for name, t in given.items()}  # fmt: skip
    state, fixed = jax.eval_shape(functools.partial(made.begin, objective), made.abstract_weights())
    step = make_step(objective, made.solver, make_mesh(1, jax.devices()[:1]))
    _, metrics, shown = jax.eval_shape(step, state, Frozen(fixed, shapes), batch())
    assert {"data", "smoothness", "occluded"} <= set(metrics) and shown["disparity"].shape == (ROWS, HEIGHT, WIDTH)


@pytest.mark.parametrize("split", ["stereo", "eigen"])
@pytest.mark.parametrize("name", ["stereo", "mono", "distill"])
def test_configs_of_the_paper(name, split):
    made = Experiment.from_dict(read_config(f"reciprocal/{name}:{split}").to_dict())
    assert made.solver.max_iter == {"stereo": 72_500, "eigen": 56_500}[split]
    assert made.data.crop == (320, 1024) and made.data.whole
    assert made.task.occlusion_alpha == {"stereo": 0.1, "mono": 0.01, "distill": 0.01}[name]
    assert made.task.occlusion_warmup == 0 and made.task.smoothness == 0.1
    assert made.solver.weight_decay == 0 and made.solver.grad_clip is None


@pytest.mark.parametrize("name", ["stereo_small", "mono_small", "distill_small"])
def test_small_configs(name):
    made = Experiment.from_dict(read_config(f"reciprocal/{name}").to_dict())
    assert made.data.whole and made.data.synthetic.clean
    size = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(made.abstract_weights()))
    assert size < 1.1e6


def test_a_start_is_random_but_for_what_it_is_given(tmp_path):
    save_checkpoint(tmp_path / "stage1", checkpoint("stereonet"))
    begin = make_start(dataclasses.replace(experiment("photometric")), str(tmp_path / "stage1"))
    stored = jax.tree.map(lambda x: np.asarray(x, np.float32), weights("stereonet", 7))
    jax.tree.map(np.testing.assert_array_equal, begin.weights, stored)
    single = make_start(experiment("self"), "random").weights
    assert np.all(single["depth"]["decoder_6"]["conv"]["bias"] == -4)
