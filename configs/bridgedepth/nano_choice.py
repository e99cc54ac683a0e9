"""The default model, last stage: the choice between its disparities and the classical ones alone, everything else frozen.

    python train.py --config configs/bridgedepth/nano_choice.py --workdir runs/nano_choice --init runs/nano_sharp

A step takes a third of the whole network's. The rate is constant and the weights are averaged, as in configs/nano_sharp.py.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import nano_sharp


def get_config() -> ConfigDict:
    config = nano_sharp.get_config()
    config.seed = 330  # other scenes
    config.task.only = ("fusion/",)
    config.solver.update(base_lr=1.5e-3, average=0.995)
    return config
