"""Stage 3 on rendered pairs: the small StereoNet from what it and the small SingleNet know together.

    python train.py --config configs/reciprocal/distill_small.py --workdir runs/reciprocal_distill_small \\
        --init runs/reciprocal_stereo_small/export --teacher runs/reciprocal_stereo_small/export \\
        --mono runs/reciprocal_mono_small/export
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.reciprocal import base


def get_config() -> ConfigDict:
    config = base.small("stereonet")
    base.small_stereonet(config)
    config.init = "runs/reciprocal_stereo_small/export"
    config.data.synthetic.size = 64
    config.task.stage = "fusion"
    return config
