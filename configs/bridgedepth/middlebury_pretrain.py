"""On the way to Middlebury: the published checkpoint `middlebury_pretrain`.

    python train.py --config configs/middlebury_pretrain.py --workdir runs/middlebury_pretrain

Data: Scene Flow, FallingThings, TartanAir, CARLA HighRes, CREStereo, InStereo2K, Middlebury 2014, 2021, H. Starts from
l_sf, parameters only.
Hardware and time: not published and not measured by us. 200,000 steps of batch 8, crops of 384x512.
Expected: no score of this stage is published.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base

TRAIN = {
    "sceneflow": 1,
    "falling_things": 1,
    "tartan_air": 1,
    "carla_highres": 50,
    "crestereo": 1,
    "in_stereo2k": 50,
    "middlebury_2014": 200,
    "middlebury_2021": 200,
    "middlebury_H": 200,
}


def get_config(vit: str = "vitl") -> ConfigDict:
    config = base.convnext(vit, 0.3, start="l_sf", train=TRAIN, crop=(384, 512), max_disp=256)
    config.solver.max_iter = 200_000
    return config
