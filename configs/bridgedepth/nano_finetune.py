"""Second stage of the network of configs/nano.py: larger crops and disparities, from its weights.

    python train.py --config configs/nano.py --workdir runs/nano
    python train.py --config configs/nano_finetune.py --workdir runs/nano_finetune --init runs/nano

Data: as in the first stage, rendered while training, of another seed. --init also takes weights of a nano of other widths
and layers: what fits is taken, the rest starts at random.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import nano


def get_config() -> ConfigDict:
    config = nano.get_config()
    config.init = "runs/nano"
    config.seed = 328  # other scenes than the first stage's
    config.data.crop = (160, 384)
    config.data.synthetic.max_disparity = 160.0
    config.solver.update(max_iter=20000, batch_size=1, strict_resume=False)
    config.eval.every = 4000
    return config
