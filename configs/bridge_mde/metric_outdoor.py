"""Metric depth outdoors: Virtual KITTI 2 up to 80 m, from a relative encoder.

    python train.py --config configs/bridge_mde/metric_outdoor.py:vitl --workdir runs/mono_outdoor --init depth_anything_v2_vitl

Data: vkitti2. Batch 32, 120 epochs.
Expected: the paper trains in-domain on KITTI (.983/.045, Table 5), which this is not.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridge_mde import base


def get_config(vit: str = "vitl") -> ConfigDict:
    return base.metric(vit, 80.0, "vkitti2", 20_000)
