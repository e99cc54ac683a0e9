"""Hybrid labels: 19 pseudo-labelled images to one with masked ground truth, from the student.

    python scripts/fuse_labels.py --generated data/generated --original data/original --depth data/depth --out data/fused
    python train.py --config configs/bridge_mde/hybrid.py:vitl --workdir runs/mono_hybrid --init runs/mono_student/export

Data: data/labels/labels.csv and data/fused/labels.csv. Batch 192, 20,000 steps (the paper does not say how many).
Expected (the paper's Table 3, hybrid, delta1 / AbsRel): KITTI .926/.098, NYUv2 .960/.067.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridge_mde import base


def get_config(vit: str = "vitg") -> ConfigDict:
    config = base.get_config(vit)
    config.init = "runs/mono_student/export"
    config.data.train = (("mono:labels/labels.csv", 1), ("mono:fused/labels.csv", 1))
    config.data.shares = (19, 1)
    config.solver.update(batch_size=192, max_iter=20_000)
    return config
