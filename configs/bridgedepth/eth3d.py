"""Fine-tuning for the ETH3D benchmark: the published checkpoint `eth3d`.

    python train.py --config configs/eth3d.py --workdir runs/eth3d

Data: CREStereo, InStereo2K, ETH3D. Starts from eth3d_pretrain, parameters only.
Hardware and time: not published and not measured by us. 90,000 steps of batch 8, crops of 384x512.
Expected (quoted by other papers): ETH3D test bad-1, all pixels, 0.50 %.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base

TRAIN = {"crestereo": 1, "in_stereo2k": 10, "eth3d": 1000}


def get_config(vit: str = "vitl") -> ConfigDict:
    config = base.convnext(vit, 0.3, start="eth3d_pretrain", train=TRAIN, crop=(384, 512), max_disp=256)
    config.solver.max_iter = 90_000
    return config
