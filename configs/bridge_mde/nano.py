"""A network of 1 M parameters from nothing, on rendered scenes: no file, two cores.

    python train.py --config configs/bridge_mde/nano.py --workdir runs/mono_nano

112x140 pixels, one rate for all of 1e-3, 3,000 steps of 8 images.
Expected: AbsRel on scenes it never saw at least 15 % below that of the mean depth map (`scripts/mono_nano.py`; 17.5 % with the
default seed, in 15 minutes).
"""

import dataclasses

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridge_mde import base
from bridgedepth_jax.systems.bridge_mde.config import nano


def get_config() -> ConfigDict:
    config = base.get_config("vits")
    config.model = ConfigDict(dataclasses.asdict(nano()))
    config.task.encoder_rate = 1.0
    config.data.train = (("synthetic", 1),)
    config.data.crop = (112, 140)
    config.task.gm = 0.5
    config.data.synthetic.update(max_disparity=32.0, scenes="hazy")
    config.solver.update(base_lr=1e-3, schedule="one_cycle", batch_size=8, max_iter=3000, average=0.99)
    config.run.update(latest_every=200, milestone_every=100_000, images_every=500)
    config.eval.update(datasets=("synthetic",), every=1000, limit=64, batch=8)
    return config
