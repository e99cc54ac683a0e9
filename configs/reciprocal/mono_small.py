"""Stage 2 on rendered pairs: a small SingleNet from a frozen stereo network, StereoNet's or BridgeDepth's.

    python train.py --config configs/reciprocal/mono_small.py --workdir runs/reciprocal_mono_small \\
        --teacher runs/reciprocal_stereo_small/export

The set is 64 scenes, seen again and again: a monocular network learns little of unseen random scenes in minutes.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.reciprocal import base


def get_config() -> ConfigDict:
    config = base.small("singlenet")
    base.small_singlenet(config)
    config.data.synthetic.size = 64
    config.task.stage = "distil"
    return config
