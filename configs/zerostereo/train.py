"""BridgeDepth on pairs made from photographs, with ZeroStereo's loss (spec `zerostereo.md` section 5).

    bridgedepth data synthesize PHOTOS --out SET --depth weights/vitl --inpaint weights/stereogen
    bridgedepth train --config zerostereo/train --workdir runs/zero --config.data.root=SET

The paper's recipe where it fits: 200,000 steps of batch 8, crops of 384 x 512 (here 384 x 512 as well), AdamW 2e-4 with decay
0.01, one cycle, gradients clipped at 1; colour jitter (0.2 asymmetric), eraser, scale 2^U(-0.2, 0.4) always with stretch, rows
of the right view moved by up to 2. Its noise and blur of the right view are not here. The published MfS35K instead of a set of
your own: --config.data.train='(("mfs35k", 1),)'. Labels and the frozen monocular branch should come from different networks:
a label is an affine function of what that branch sees if both are the same one.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base


def get_config() -> ConfigDict:
    config = base.get_config("vitl")
    config.data.train = (("custom:pairs.csv", 1),)
    config.data.crop = (384, 512)
    config.data.augment.update(dense_resize_probability=1.0, y_jitter=True)
    config.solver.update(max_iter=200_000, batch_size=8, base_lr=2e-4, weight_decay=0.01)
    config.task.loss = "zero"
    config.eval.update(datasets=(), every=0)
    return config
