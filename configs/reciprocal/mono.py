"""Stage 2: SingleNet from the frozen StereoNet of stage 1, where both cameras see.

    python train.py --config configs/reciprocal/mono.py --workdir runs/reciprocal_mono \\
        --teacher runs/reciprocal_stereo/export --imagenet resnet50.pth

Data: that of stage 1; `:eigen` for Eigen's split. ImageNet weights: torchvision's ResNet-50; without them add nothing, the
start is random then.
Hardware and time: not published, and not run by us.
Expected (the paper's Table 2, Eigen test): AbsRel 0.095, SqRel 0.697, RMSE 4.435; on KITTI 2015 (Table 1) AbsRel 0.083.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.reciprocal import base


def get_config(split: str = "stereo") -> ConfigDict:
    config = base.get_config("singlenet", split)
    config.task.stage = "distil"
    config.eval.datasets = ()
    return config
