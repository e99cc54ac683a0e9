"""BridgeDepth with the ConvNeXt-Tiny encoder, on Scene Flow: the published checkpoint `l_sf` (l_train in the original).

    python train.py --config configs/l_sf.py --workdir runs/l_sf --imagenet convnext_tiny.pth

Data: as configs/sf.py. The encoder starts from torchvision's ImageNet weights, given as a file.
Hardware and time: not published and not measured by us. 300,000 steps of batch 8, crops of 368x784.
Expected (quoted by other papers, which probably mean this checkpoint): Scene Flow test EPE 0.32 px, bad-1 3.25 %.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base


def get_config(vit: str = "vitl") -> ConfigDict:
    config = base.get_config(vit)
    config.model = base.model("convnext", vit, drop_path=0.2)
    return config
