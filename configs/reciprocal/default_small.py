"""Stage 3 on rendered pairs with the default model as StereoNet, which was trained with supervision before.

    python train.py --config configs/reciprocal/default_small.py --workdir runs/reciprocal_default_small \\
        --init bridgedepth_jax/weights/nano --teacher bridgedepth_jax/weights/nano --mono runs/reciprocal_mono_small/export
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.reciprocal import base


def get_config() -> ConfigDict:
    config = base.small("bridgedepth-pairs", "nano_sharp")
    config.init = "bridgedepth_jax/weights/nano"
    config.data.synthetic.size = 64
    config.task.stage = "fusion"
    config.solver.update(base_lr=5e-5, max_iter=300)
    return config
