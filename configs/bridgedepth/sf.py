"""BridgeDepth with the small ResNet encoder, on Scene Flow: the published checkpoint `sf`.

    python train.py --config configs/sf.py --workdir runs/sf

Data: Scene Flow: the final pass of FlyingThings3D, Monkaa and Driving. Starts from Depth Anything V2 Large, fetched by
name.
Hardware and time: not published and not measured by us. 300,000 steps of batch 8, crops of 368x784.
Expected (other papers quoting or measuring the published weights, spec published-results.md): Scene Flow test EPE 0.37
px, bad-1 3.67 %; zero-shot KITTI 2012 / 2015 D1 3.6 / 4.5 %, Middlebury Q bad-2 4.3 %, ETH3D bad-1 1.3 %.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base


def get_config(vit: str = "vitl") -> ConfigDict:
    return base.get_config(vit)
