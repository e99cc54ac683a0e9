"""The default model trained on: half of its scenes as fine as photographs are, from the weights that shipped.

python train.py --config configs/bridgedepth/nano_mixed.py --workdir runs/nano_mixed --init bridgedepth_jax/weights/nano
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import nano_sharp


def get_config() -> ConfigDict:
    config = nano_sharp.get_config()
    config.seed = 331  # other scenes
    config.data.synthetic.scenes = "mixed"
    config.solver.base_lr = 4e-4
    config.run.health_every = 0
    return config
