"""The experiment that every other one changes: all fields, with the defaults that their dataclasses define and explain.

`Experiment` in `bridgedepth_jax/training/experiment.py` names the sections: `model` and `task` are the system's
(`System.config`, `System.task`), `data` is `DataConfig` in `bridgedepth_jax/data/pipeline.py`, `solver`, `run` and `eval`
are in `bridgedepth_jax/training/config.py`.

Any field can be set on the command line, `--config.solver.base_lr=1e-4`, `--config.data.train='(("kitti_mix", 1),)'`; an
unknown key or a value of another type is an error.
"""

import dataclasses

from ml_collections import ConfigDict

from bridgedepth_jax.data.pipeline import DERIVED, DataConfig
from bridgedepth_jax.system import DEFAULT, find_system
from bridgedepth_jax.training.experiment import Experiment


def get_config(system: str = DEFAULT) -> ConfigDict:
    data, multiple = DataConfig(), find_system(system).multiple
    data = dataclasses.replace(data, crop=tuple(side // multiple * multiple for side in data.crop))  # that the system takes
    tree = dataclasses.asdict(Experiment(system=system, data=data))
    for name in DERIVED:  # from solver.batch_size, seed and task
        del tree["data"][name]
    return ConfigDict(tree)
