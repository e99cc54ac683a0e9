"""What the experiments of BridgeDepth share. Files take the ViT as an argument: `--config bridgedepth/sf:vits`."""

import dataclasses

from ml_collections import ConfigDict

from bridgedepth_jax.configs import default
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig


def model(encoder: str, vit: str, *, drop_path: float = 0.0) -> ConfigDict:
    """The whole section `model`: a stereo encoder (resnet, convnext, swin) with a ViT (vits, vitb, vitl, vitg)."""
    return ConfigDict(dataclasses.asdict(ModelConfig.size(encoder, vit, drop_path=drop_path)))


def get_config(vit: str = "vitl") -> ConfigDict:
    config = default.get_config()
    config.init = f"depth_anything_v2_{vit}"
    config.model = model("resnet", vit)
    return config


def convnext(
    vit: str, drop_path: float, *, start: str, train: dict[str, int], crop: tuple[int, int], max_disp: int
) -> ConfigDict:
    """What the fine-tuned experiments share: ConvNeXt encoder, evaluation on the four real sets."""
    config = get_config(vit)
    config.init = start
    config.model = model("convnext", vit, drop_path=drop_path)
    config.data.train = tuple(train.items())
    config.data.crop = crop
    config.task.max_disp = max_disp
    config.eval.datasets = REAL
    return config


REAL = ("kitti_2012_trainval", "kitti_2015_trainval", "eth3d", "middlebury_Q")
