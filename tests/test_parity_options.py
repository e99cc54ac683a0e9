"""Options of the original's config in a training golden reach the step that is compared with it."""

import json
from pathlib import Path

import pytest

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.systems.bridgedepth.losses import StereoTask
from bridgedepth_jax.systems.bridgedepth.parity import train_experiment
from bridgedepth_jax.training.config import SolverConfig

GOLDEN = json.loads((Path(__file__).parent / "reference/train/options.json").read_text())
MODEL = ModelConfig.size("convnext", "vits").replace(dtype="float64")


def test_every_option_reaches_its_field():
    before = json.dumps(GOLDEN)
    experiment = train_experiment("case", GOLDEN, MODEL, batch_size=3)
    solver, task = experiment.solver, experiment.task
    assert solver.grad_clip == 0.5 and solver.base_lr == 1e-3 and solver.max_iter == 50
    assert (solver.weight_decay, solver.weight_decay_norm, task.backbone_weight_decay) == (1e-4, 0.0, 2e-4)
    assert (task.loss_type, task.max_disp, task.loss_weights) == ("SMOOTH_L1", 384, (1.0,) * 5 + (2.0,) * 5)
    assert solver.batch_size == 3  # of the golden's arrays
    assert experiment.model == MODEL.replace(recurrent_loss_weight=0.5, recurrent_loss_gamma=0.9)
    assert json.dumps(GOLDEN) == before  # a second comparison sees the same


def test_without_options_the_defaults_stay():
    experiment = train_experiment("case", {"max_iter": 40, "opts": {}}, MODEL, batch_size=2)
    assert experiment.model == MODEL and experiment.task == StereoTask()
    assert experiment.solver == SolverConfig(max_iter=40, batch_size=2)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("SOLVER.GRAD_CLAP", 1, "case: unknown key SOLVER.GRAD_CLAP"),
        ("BRIDGEDEPTH.LOSS", 1, "case: unknown key BRIDGEDEPTH.LOSS in a model config"),
        ("SOLVER.GRAD_CLIP", "much", "case: solver.grad_clip = 'much', expected float"),
        ("SOLVER.GRAD_CLIP", 0, "case: solver.grad_clip = 0.0, expected more than 0"),
        ("NMP.DROPOUT", 0.1, "case: NMP.DROPOUT = 0.1 is not supported, expected 0.0"),
    ],
)
def test_other_options_are_refused(option, value, words):
    with pytest.raises(InputError, match=words):
        train_experiment("case", {"max_iter": 40, "opts": {option: value}}, MODEL, batch_size=2)
