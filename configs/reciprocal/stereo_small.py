"""Stage 1 on rendered pairs without their truth, from nothing, without any file.

    python train.py --config configs/reciprocal/stereo_small.py --workdir runs/reciprocal_stereo_small

0.8 M parameters, 64x128 pixels, disparities up to 16. Only what is out of view counts as occluded in the first steps: left and
right features are still unlike, and the two views would agree nowhere.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.reciprocal import base


def get_config() -> ConfigDict:
    config = base.small("stereonet")
    base.small_stereonet(config)
    config.task.stage = "photometric"
    config.task.occlusion_warmup = 1000
    return config
