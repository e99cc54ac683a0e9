"""The teacher: DINOv2-G and a new DPT head on synthetic sets, no trimming.

    python train.py --config configs/bridge_mde/teacher.py --workdir runs/mono_teacher --imagenet dinov2_vitg14_pretrain.pth

Data: the readers that are here of Depth Anything's sets, concatenated. Batch 64, 160,000 steps; set run.fsdp for vitg.
Expected (the paper's Table 2, one million synthetic images, delta1 / AbsRel): KITTI .921/.097, NYUv2 .960/.060.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridge_mde import base


def get_config(vit: str = "vitg") -> ConfigDict:
    config = base.get_config(vit)
    config.data.train = (("hypersim", 1), ("vkitti2", 1), ("tartan_air", 1), ("blendedmvs", 1))
    config.task.trim = 0
    config.solver.update(batch_size=64, max_iter=160_000)
    return config
