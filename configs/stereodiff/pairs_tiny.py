"""A pair network of two million parameters from nothing, on procedural clips: no file, no download.

    bridgedepth train --config stereodiff/pairs_tiny --workdir runs/pairs_tiny

Both point maps of frames 1 to 9 apart, 96 x 128 pixels, DUSt3R's loss, in haze: by that one view tells what is far, and so
the network learns something of unseen scenes within an hour. Without haze it ended as a mean map. Tokens of 8 pixels and a
linear head: with 16 pixels it was worse after more steps. Views of 768 clips are rendered once and kept: 8 GB in all.
"""

import dataclasses

from ml_collections import ConfigDict

from bridgedepth_jax.configs.default import get_config as default
from bridgedepth_jax.networks.croco.config import PairConfig


def get_config() -> ConfigDict:
    config = default("dust3r")
    config.init = "random"
    config.model = ConfigDict(dataclasses.asdict(dataclasses.replace(PairConfig.tiny(), head_type="linear", patch=8)))
    clips(config)
    config.data.clips.update(size=768, frames=2, apart=(1, 9))
    config.solver.update(max_iter=2000, batch_size=8, base_lr=7e-4, weight_decay=0.01, weight_decay_norm=0.0, average=0.995)
    return config


def clips(config: ConfigDict) -> None:
    """What all three learn from."""
    config.data.views = "clips"
    config.data.train = (("clips", 1),)
    config.data.crop = (96, 128)
    config.data.clips.update(size=384, views=64, haze=1.0)
    config.run.update(latest_every=100, images_every=500, health_every=100)
    config.eval.update(datasets=(), every=0)
