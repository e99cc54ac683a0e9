"""The temporal autoencoder of the small video diffusion model, on procedural clips: no file, no download.

    bridgedepth train --config stereodiff/autoencoder_tiny --workdir runs/autoencoder_tiny

Images and true disparities of 4 frames of 48 x 64 pixels, decoded together: a step costs a fifth of one at 96 x 128 pixels,
where `video_tiny` goes on from it. Views of 384 clips are rendered once and kept: up to 0.5 GB of memory.
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
    config.data.crop = (48, 64)
    config.data.clips.update(frames=4, apart=(1, 2))
    config.task.update(stage="autoencoder", decoded=4)
    config.solver.update(max_iter=4000, batch_size=2, base_lr=2e-3, weight_decay=0.01, weight_decay_norm=0.0, average=0.995)
    config.run.images_every = 0
    return config
