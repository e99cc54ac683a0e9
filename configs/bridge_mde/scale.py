"""The scale head: metres of a frozen relative network, in minutes.

    python train.py --config configs/bridge_mde/scale.py:vitl --workdir runs/mono_scale --init depth_anything_v2_vitl

Data: any metric set, here hypersim. Batch 64, 10,000 steps at 1e-4 (the paper does not say). Expected: not published.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridge_mde import base


def get_config(vit: str = "vitl") -> ConfigDict:
    config = base.get_config(vit, head="scale", max_depth=20.0)
    config.init = f"depth_anything_v2_{vit}"
    config.data.train = (("hypersim", 1),)
    config.solver.update(base_lr=1e-4, batch_size=64, max_iter=10_000, strict_resume=False)  # the new head is not in the file
    return config
