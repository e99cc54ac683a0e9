"""Fine-tuning for the Middlebury benchmark: the published checkpoint `middlebury`.

    python train.py --config configs/middlebury.py --workdir runs/middlebury

Data: FallingThings, CARLA HighRes, CREStereo, InStereo2K, Middlebury 2014, 2021, H, F. Starts from middlebury_pretrain,
parameters only.
Hardware and time: not published and not measured by us. 100,000 steps of batch 8, crops of 512x768.
Expected: no test score that we could verify is published.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base

TRAIN = {
    "falling_things": 5,
    "carla_highres": 50,
    "crestereo": 1,
    "in_stereo2k": 50,
    "middlebury_2014": 200,
    "middlebury_2021": 200,
    "middlebury_H": 200,
    "middlebury_F": 200,
}


def get_config(vit: str = "vitl") -> ConfigDict:
    config = base.convnext(vit, 0.3, start="middlebury_pretrain", train=TRAIN, crop=(512, 768), max_disp=320)
    config.solver.max_iter = 100_000
    return config
