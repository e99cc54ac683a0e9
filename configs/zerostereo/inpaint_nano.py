"""A small inpainting network without an autoencoder, from nothing and without any download (spec `zerostereo.md` section 7).

    bridgedepth train --config zerostereo/inpaint_nano --workdir runs/inpaint_nano

Less than two million parameters, on rendered pairs; a latent is 4 x 4 pixels. A pair takes as long to render at 128 x 192 as at
64 x 96, so the whole of it is learnt from. The average of the weights is what is exported.
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
    config.data.crop = (128, 192)
    config.data.synthetic.update(max_disparity=40.0, clean=True)
    augment(config)
    config.solver.update(max_iter=6000, batch_size=4, base_lr=1e-3, weight_decay=0.01, average=0.995)
    config.run.update(latest_every=200, images_every=1000)
    config.eval.update(datasets=(), every=0)
    return config
