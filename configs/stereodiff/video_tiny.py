"""A small video diffusion model of depth, on procedural clips: no file, no download.

    bridgedepth train --config stereodiff/autoencoder_tiny --workdir runs/autoencoder_tiny
    bridgedepth train --config stereodiff/video_tiny --workdir runs/video_tiny

U-Net and image encoder, from nothing, beside the autoencoder of the first run, which stands still; 12 frames of 96 x 128
pixels, true disparity alone. Views of 384 clips are rendered once and kept: up to 2 GB of memory.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.stereodiff.autoencoder_tiny import get_config as autoencoder


def get_config() -> ConfigDict:
    config = autoencoder()
    config.init = "runs/autoencoder_tiny/export"
    config.data.crop = (96, 128)
    config.data.clips.frames = 12
    config.task.stage = "diffusion"
    config.solver.update(max_iter=1000, base_lr=1e-3)
    return config
