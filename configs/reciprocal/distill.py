"""Stage 3: StereoNet-D from the disparity that the frozen networks of stages 1 and 2 give together.

    python train.py --config configs/reciprocal/distill.py --workdir runs/reciprocal_distill \\
        --init runs/reciprocal_stereo/export --teacher runs/reciprocal_stereo/export --mono runs/reciprocal_mono/export

Data: that of stage 1; `:eigen` for Eigen's split. It starts from the weights of stage 1, its optimiser anew.
Hardware and time: not published, and not run by us.
Expected (the paper's Table 1, KITTI 2015 training pairs): AbsRel 0.048, SqRel 0.482, RMSE 3.393.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.reciprocal import base


def get_config(split: str = "stereo") -> ConfigDict:
    config = base.get_config("stereonet", split)
    config.init = "runs/reciprocal_stereo/export"
    config.task.stage = "fusion"
    return config
