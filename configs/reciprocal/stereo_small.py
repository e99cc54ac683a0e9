"""Stage 1 on rendered pairs without their truth, from nothing, without any file.

    python train.py --config configs/reciprocal/stereo_small.py --workdir runs/reciprocal_stereo_small

0.8 M parameters, 64x128 pixels, disparities up to 16. The photometric loss alone does not start the matching in hundreds of
steps: the correlation of features as they begin is nearly the same everywhere. So channels are normalised on their own, and in
the first half the correlation of each level learns by cross entropy where a search of the images finds the match, and the
disparities are pulled there. Nothing looks at the truth; the second half is the paper's loss. Only what is out of view counts
as occluded in the first half: left and right features are still unlike, and would agree nowhere.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.reciprocal import base


def get_config() -> ConfigDict:
    config = base.small("stereonet")
    base.small_stereonet(config)
    config.task.stage = "photometric"
    config.task.update(search=1000, search_range=16.0, search_scale=1, occlusion_warmup=1000)
    config.solver.base_lr = 1e-3
    return config
