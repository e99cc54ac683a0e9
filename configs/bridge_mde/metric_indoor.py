"""Metric depth indoors: Hypersim up to 20 m, from a relative encoder.

    python train.py --config configs/bridge_mde/metric_indoor.py:vitl --workdir runs/mono_indoor --init depth_anything_v2_vitl

Data: hypersim (the extra `hypersim` reads its files). Batch 32, 120 epochs.
Expected: the paper trains in-domain on NYUv2 (.986/.052, Table 4), which this is not.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridge_mde import base


def get_config(vit: str = "vitl") -> ConfigDict:
    return base.metric(vit, 20.0, "hypersim", 60_000)
