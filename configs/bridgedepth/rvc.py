"""One model for all benchmarks (Robust Vision Challenge): the published checkpoint `rvc`.

    python train.py --config configs/rvc.py --workdir runs/rvc

Data: see TRAIN below. Starts from rvc_pretrain, parameters only.
Hardware and time: not published and not measured by us. 100,000 steps of batch 8, crops of 384x768.
Expected: no score that we could verify is published.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base

TRAIN = {
    "crestereo": 1,
    "tartan_air": 1,
    "carla_highres": 30,
    "vkitti2": 3,
    "kitti_mix": 100,
    "middlebury_2005": 200,
    "middlebury_2006": 200,
    "middlebury_2014": 200,
    "middlebury_2021": 200,
    "middlebury_Q": 200,
    "middlebury_H": 200,
    "eth3d": 1000,
    "in_stereo2k": 20,
    "booster": 10,
}


def get_config(vit: str = "vitl") -> ConfigDict:
    config = base.convnext(vit, 0.3, start="rvc_pretrain", train=TRAIN, crop=(384, 768), max_disp=256)
    config.solver.max_iter = 100_000
    return config
