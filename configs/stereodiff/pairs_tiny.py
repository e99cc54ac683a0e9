"""A pair network of two and a half million parameters from nothing, on procedural clips: no file, no download.

    bridgedepth train --config stereodiff/pairs_tiny --workdir runs/pairs_tiny

Both point maps of frames 1 to 9 apart, 96 x 128 pixels, DUSt3R's loss. Views of 384 clips are
rendered once and kept: up to 2 GB of memory.
"""

import dataclasses

from ml_collections import ConfigDict

from bridgedepth_jax.configs.default import get_config as default
from bridgedepth_jax.networks.croco.config import PairConfig


def get_config() -> ConfigDict:
    config = default("dust3r")
    config.init = "random"
    config.model = ConfigDict(dataclasses.asdict(PairConfig.tiny()))
    clips(config)
    config.data.clips.update(frames=2, apart=(1, 9))
    config.solver.update(max_iter=1500, batch_size=8, base_lr=5e-4, weight_decay=0.01, weight_decay_norm=0.0, average=0.995)
    return config


def clips(config: ConfigDict) -> None:
    """What both networks learn from."""
    config.data.views = "clips"
    config.data.train = (("clips", 1),)
    config.data.crop = (96, 128)
    config.data.clips.update(size=384, views=64)
    config.run.update(latest_every=100, images_every=500, health_every=100)
    config.eval.update(datasets=(), every=0)
