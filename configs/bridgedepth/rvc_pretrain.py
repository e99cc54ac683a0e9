"""On the way to one model for all benchmarks (Robust Vision Challenge): the published checkpoint `rvc_pretrain`.

    python train.py --config configs/rvc_pretrain.py --workdir runs/rvc_pretrain

Data: Scene Flow, FallingThings, CREStereo, TartanAir, CARLA HighRes, Sintel, Virtual KITTI 2. Starts from l_sf,
parameters only.
Hardware and time: not published and not measured by us. 200,000 steps of batch 8, crops of 384x768.
Expected: no score of this stage is published.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base

TRAIN = {
    "sceneflow": 1,
    "falling_things": 1,
    "crestereo": 1,
    "tartan_air": 1,
    "carla_highres": 80,
    "sintel_stereo": 3,
    "vkitti2": 3,
}


def get_config(vit: str = "vitl") -> ConfigDict:
    config = base.convnext(vit, 0.3, start="l_sf", train=TRAIN, crop=(384, 768), max_disp=256)
    config.solver.max_iter = 200_000
    return config
