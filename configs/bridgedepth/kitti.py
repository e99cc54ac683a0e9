"""Fine-tuning on KITTI 2012 and 2015: the published checkpoint `kitti` (kitti_mix_train in the original).

    python train.py --config configs/kitti.py --workdir runs/kitti

Data: the training splits of both KITTI sets as one, `kitti_mix`. Starts from l_sf, parameters only.
Hardware and time: not published and not measured by us. 39,000 steps of batch 4, crops of 304x1152.
Expected (the paper's table): KITTI 2012 test Out-2 noc / all 1.32 / 1.65 %, Out-3 0.83 / 1.03 %; KITTI 2015 test D1 bg /
fg / all 1.13 / 2.73 / 1.40 %. 0.13 s a pair on an RTX 3090 (also the paper's).
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base


def get_config(vit: str = "vitl") -> ConfigDict:
    config = base.convnext(vit, 0.3, start="l_sf", train={"kitti_mix": -1}, crop=(304, 1152), max_disp=384)
    config.solver.max_iter = 39_000
    config.solver.batch_size = 4
    config.solver.base_lr = 2e-4
    config.task.loss_type = "SMOOTH_L1"
    config.eval.datasets = ("kitti_2015_val",)
    config.eval.every = 500
    config.run.milestone_every = 10_000
    return config
