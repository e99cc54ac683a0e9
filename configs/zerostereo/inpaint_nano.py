"""A small inpainting network without an autoencoder, from nothing and without any download (spec `zerostereo.md` section 7).

    python train.py --config configs/zerostereo/inpaint_nano.py --workdir runs/inpaint_nano

At most two million parameters, on rendered pairs; a latent is 4 x 4 pixels. The average of the weights is what is exported.
"""

import dataclasses

from ml_collections import ConfigDict

from bridgedepth_jax.configs.default import get_config as default
from bridgedepth_jax.configs.zerostereo.inpaint_sd2 import augment
from bridgedepth_jax.systems.zerostereo.config import StereoGenConfig


def get_config() -> ConfigDict:
    config = default("zerostereo")
    config.init = "random"
    with config.ignore_type():  # `vae` is a section in the default and absent here
        config.model = ConfigDict(dataclasses.asdict(StereoGenConfig.nano()))
    config.data.train = (("synthetic", 1),)
    config.data.crop = (64, 96)
    config.data.synthetic.max_disparity = 24.0
    augment(config)
    config.solver.update(max_iter=20_000, batch_size=16, base_lr=1e-3, weight_decay=0.01, average=0.999)
    config.run.update(latest_every=1000, images_every=1000)
    config.eval.update(datasets=(), every=0)
    return config
