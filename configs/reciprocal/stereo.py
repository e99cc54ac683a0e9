"""Stage 1: StereoNet from image pairs alone.

    python train.py --config configs/reciprocal/stereo.py --workdir runs/reciprocal_stereo
    python train.py --config configs/reciprocal/stereo.py:eigen --workdir runs/reciprocal_stereo_eigen

Data: KITTI raw, 29,000 pairs of the stereo split (or 22,600 of Eigen's), 20 epochs of batch 8: 72,500 steps (56,500).
Hardware and time: not published, and not run by us.
Expected (the paper's Table 1, KITTI 2015 training pairs): AbsRel 0.052, SqRel 0.558, RMSE 3.733.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.reciprocal import base


def get_config(split: str = "stereo") -> ConfigDict:
    config = base.get_config("stereonet", split)
    config.task.stage = "photometric"
    return config
