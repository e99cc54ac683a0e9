"""A video diffusion model of depth from nothing, on procedural clips: no file, no download.

    bridgedepth train --config stereodiff/video_tiny --workdir runs/video_tiny

The first 600 steps are the autoencoder's, the others those of U-Net and image encoder; 12 frames of 96 x 128 pixels, true
disparity alone. Views of 384 clips are
rendered once and kept: up to 2 GB of memory.
"""

import dataclasses

from ml_collections import ConfigDict

from bridgedepth_jax.configs.default import get_config as default
from bridgedepth_jax.configs.stereodiff.pairs_tiny import clips
from bridgedepth_jax.systems.stereodiff.config import VideoDiffusionConfig


def get_config() -> ConfigDict:
    config = default("depthcrafter")
    config.init = "random"
    config.model = ConfigDict(dataclasses.asdict(VideoDiffusionConfig.tiny()))
    clips(config)
    config.data.clips.update(frames=12, apart=(1, 2))
    config.task.update(autoencoder_steps=600, decoded=4)
    config.solver.update(max_iter=1600, batch_size=2, base_lr=1e-3, weight_decay=0.01, weight_decay_norm=0.0, average=0.995)
    config.run.images_every = 0
    return config
