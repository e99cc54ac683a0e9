"""The student: generated images with pseudo-labels of the teacher, the worst 10 % of each image's pixels left out.

    python scripts/pseudo_label.py --checkpoint runs/mono_teacher/export --images data/generated --out data/labels
    python train.py --config configs/bridge_mde/student.py:vitl --workdir runs/mono_student \\
        --imagenet dinov2_vitl14_pretrain.pth

Data: data/labels/labels.csv, which pseudo_label.py writes. Batch 192, 480,000 steps.
Expected (the paper's Table 6, L, delta1 / AbsRel): KITTI .937/.081, NYUv2 .978/.045, DA-2K not given.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridge_mde import base


def get_config(vit: str = "vitg") -> ConfigDict:
    config = base.get_config(vit)
    config.data.train = (("mono:labels/labels.csv", 1),)
    config.solver.update(batch_size=192, max_iter=480_000)
    return config
