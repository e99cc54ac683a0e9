"""On the way to ETH3D: the published checkpoint `eth3d_pretrain`.

    python train.py --config configs/eth3d_pretrain.py --workdir runs/eth3d_pretrain

Data: Scene Flow, Sintel, TartanAir, CREStereo, InStereo2K, ETH3D. Starts from l_sf, parameters only.
Hardware and time: not published and not measured by us. 300,000 steps of batch 8, crops of 384x512.
Expected: no score of this stage is published.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base

TRAIN = {"sceneflow": 1, "sintel_stereo": 50, "tartan_air": 1, "crestereo": 2, "in_stereo2k": 100, "eth3d": 1000}


def get_config(vit: str = "vitl") -> ConfigDict:
    return base.convnext(vit, 0.3, start="l_sf", train=TRAIN, crop=(384, 512), max_disp=256)
