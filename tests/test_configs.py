"""Every config builds; nothing unknown or of another type gets through; the original's YAML means the same."""

from pathlib import Path

import jax
import pytest

from bridgedepth_jax.convert.rules.bridgedepth_config import override_by_original
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.inference.stereo import DEFAULT_MODEL
from bridgedepth_jax.store.checkpoint import expected_shapes, flatten, load_checkpoint
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.training.configfile import override, read_config
from bridgedepth_jax.training.experiment import Experiment

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for path in (ROOT / "configs").rglob("*.py")
    if path.stem != "__init__" and path.parent.name in ("configs", "bridgedepth")
)
# The rows of the specification: drop path, start, crop, steps, batch, max_disp.
ROWS = {
    "sf": (0.0, "depth_anything_v2_vitl", (368, 784), 300_000, 8, 192),
    "l_sf": (0.2, "depth_anything_v2_vitl", (368, 784), 300_000, 8, 192),
    "kitti": (0.3, "l_sf", (304, 1152), 39_000, 4, 384),
    "eth3d_pretrain": (0.3, "l_sf", (384, 512), 300_000, 8, 256),
    "eth3d": (0.3, "eth3d_pretrain", (384, 512), 90_000, 8, 256),
    "middlebury_pretrain": (0.3, "l_sf", (384, 512), 200_000, 8, 256),
    "middlebury": (0.3, "middlebury_pretrain", (512, 768), 100_000, 8, 320),
    "rvc_pretrain": (0.3, "l_sf", (384, 768), 200_000, 8, 256),
    "rvc": (0.3, "rvc_pretrain", (384, 768), 100_000, 8, 256),
}


def load(name: str) -> Experiment:
    """By the name that the file had before there were several systems."""
    return Experiment.from_dict(read_config(str(ROOT / "configs" / f"{name}.py")).to_dict())


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_builds_its_model_and_optimiser(path):
    experiment = load(path.stem)
    state, frozen = experiment.abstract_state(experiment.objective())  # asserts that every parameter is in one group
    if getattr(experiment.task, "only", ""):
        only = [name.rstrip("/") for name in experiment.task.only]
        assert list(state.params) == only and not set(only) & set(frozen)
    else:
        assert list(frozen) == ([] if experiment.task.train_mono else ["mono"])
    assert jax.tree.structure(state.moments.mu) == jax.tree.structure(state.params)
    assert Experiment.from_dict(experiment.to_dict()) == experiment
    assert experiment.data.crop[0] % 16 == experiment.data.crop[1] % 16 == 0
    assert path.stem in ("default", "base") or any(word in path.read_text() for word in ("python ", "bridgedepth train "))


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_specification(name):
    experiment = load(name)
    solver, data = experiment.solver, experiment.data
    row = (
        experiment.model.backbone.drop_path,
        experiment.init,
        data.crop,
        solver.max_iter,
        solver.batch_size,
        experiment.task.max_disp,
    )
    assert row == ROWS[name]
    assert experiment.model == ModelConfig.variant(name)


def test_the_frozen_branch_is_a_checkpoint_of_its_own():
    experiment = load("debug")
    mono = {name: leaf.shape for name, leaf in flatten(experiment.abstract_weights()["mono"]).items()}
    assert mono == expected_shapes("depth-anything", experiment.model.mono)


def test_default_lists_every_field():
    config = read_config(str(ROOT / "configs" / "default.py")).to_dict()
    assert config.keys() == Experiment().to_dict().keys()
    for section, tree in Experiment().to_dict().items():
        if isinstance(tree, dict):
            assert config[section].keys() == tree.keys(), section


def test_a_vit_can_be_chosen():
    config = read_config(str(ROOT / "configs" / "l_sf.py") + ":vits")
    assert Experiment.from_dict(config.to_dict()).model.mono.dim == 384 and config.init == "depth_anything_v2_vits"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--config.solver.base_rl=1", "did you mean base_lr"),
        ("--config.solver.base_lr.x=1", "unknown key --config.solver.base_lr.x"),
        ("--config.solver.base_lr=fast", "config.solver.base_lr = 'fast', expected float"),
        ("--config.solver.max_iter=1.5", "config.solver.max_iter = 1.5, expected int"),
        ("--config.solver.loss_type=L3", "config.task.loss_type = 'L3'"),
        ("--config.solver=3", "is a section"),
        ("--config.solver.accumulate=3", "not a multiple of solver.accumulate"),
        ("--config.solver.loss_weights=(1.0,)", "loss_weights has 1 numbers, the model 10"),
        ("--config.model.nmp.heads=7", "config.model.nmp"),
        ("--config.model.precision=highst", "config.model.precision = 'highst', expected"),
        ("--config.data.train=((1, 2),)", "config.data.train"),
        ("--confg.seed=3", "unknown option --confg.seed=3"),
    ],
)
def test_a_wrong_override_is_one_clear_error(option, words):
    config = read_config(str(ROOT / "configs" / "sf.py"))
    with pytest.raises(InputError) as error:
        override(config, [option])
        Experiment.from_dict(config.to_dict())
    assert words in str(error.value)


def test_overrides_reach_every_kind_of_field():
    config = read_config(str(ROOT / "configs" / "sf.py"))
    override(
        config,
        [
            "--config.solver.base_lr=1",
            "--config.solver.train_mono=true",
            "--config.init=random-mono",
            "--config.data.crop=(64, 96)",
            '--config.data.train=[("kitti_mix", 2)]',
            "--config.data.synthetic.height=64",
            "--config.model.nmp.infer_layers=3",
            "--config.solver.loss_weights=(1, 1, 1, 1, 1, 1, 1, 2)",
        ],
    )
    experiment = Experiment.from_dict(config.to_dict())
    assert experiment.solver.base_lr == 1.0 and experiment.task.train_mono and experiment.init == "random-mono"
    assert experiment.data.crop == (64, 96) and experiment.data.train == (("kitti_mix", 2),)
    assert experiment.model.nmp.infer_layers == 3 and experiment.data.synthetic.height == 64


KITTI_YAML = """
BACKBONE: {MODEL_TYPE: convnext, OUT_CHANNELS: 128, WEIGHT_URL: "https://example.org/x.pth", DROP_PATH: 0.3}
DATASETS: {TRAIN: [kitti_mix], CROP_SIZE: [304, 1152], MUL: [-1], TEST: [kitti_2015_val]}
SOLVER: {RESUME: l_sf, NO_RESUME_OPTIMIZER: true, MAX_ITER: 39000, IMS_PER_BATCH: 4, BASE_LR: 0.0002, LOSS_TYPE: SMOOTH_L1,
         MAX_DISP: 384, CHECKPOINT_PERIOD: 10000}
TEST: {EVAL_PERIOD: 500}
"""


def test_an_original_yaml_gives_the_same_config(tmp_path):
    (tmp_path / "kitti.yaml").write_text(KITTI_YAML)
    config = read_config(str(ROOT / "configs" / "default.py"))
    override_by_original(config, tmp_path / "kitti.yaml")
    assert Experiment.from_dict(config.to_dict()) == load("kitti")


def test_words_in_an_original_yaml_are_the_values_they_spell(tmp_path):
    """YAML takes 5e-4 for a word; the original's reader evaluates words as literals."""
    (tmp_path / "x.yaml").write_text("SOLVER: {BASE_LR: 5e-5}\nDATASETS: {CROP_SIZE: '(64, 96)', TEST: [things]}")
    config = read_config(str(ROOT / "configs" / "default.py"))
    override_by_original(config, tmp_path / "x.yaml")
    experiment = Experiment.from_dict(config.to_dict())
    assert (experiment.solver.base_lr, experiment.data.crop, experiment.eval.datasets) == (5e-5, (64, 96), ("things",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SOLVER: {MAX_ITR: 3}", "unknown key SOLVER.MAX_ITR"),
        ("BACKBONE: {SIZE: 3}", "unknown key BACKBONE.SIZE"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("[1, 2]", "expected a mapping"),
        ("DATASETS: {TRAIN: [a, b], MUL: [1]}", "DATASETS.TRAIN has 2 names, DATASETS.MUL 1"),
    ],
)
def test_an_original_yaml_with_anything_else_is_refused(tmp_path, text, words):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=words):
        override_by_original(read_config(str(ROOT / "configs" / "default.py")), tmp_path / "x.yaml")


@pytest.mark.parametrize("name", ["bridgedepth/own", "zerostereo/nano", "reciprocal/default_small"])
def test_what_starts_from_the_default_model_is_of_its_kind(name):
    model = Experiment.from_dict(read_config(name).to_dict()).model
    assert model == load_checkpoint(DEFAULT_MODEL).config.replace(temperature=model.temperature)
