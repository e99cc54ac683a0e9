"""Evaluation of a Scene Flow model on real sets it has never seen; nothing is trained.

    python evaluate.py --checkpoint CHECKPOINT --config configs/zero_shot_evaluation.py --out results

Data: KITTI 2012 and 2015 training (bad-3), ETH3D training (bad-1), Middlebury training at quarter size (bad-2, all pixels
with ground truth below 1000 px). The checkpoint's own model config is used; the original's file sets DPN.MAX_DISP 312,
which has no effect.
Hardware and time: a few hundred pairs, minutes on one GPU.
Expected of `sf` (other papers measuring the published weights): 3.6, 4.5, 1.3 and 4.3 %.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base


def get_config(vit: str = "vitl") -> ConfigDict:
    config = base.get_config(vit)
    config.init = "sf"
    config.eval.datasets = base.REAL
    return config
