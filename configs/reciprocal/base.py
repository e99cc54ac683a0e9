"""What the three stages share (spec `self-supervised.md` section 4): Adam without decay, whole images of 320x1024.

Files take the split as an argument: `--config reciprocal/stereo:eigen`, by default the stereo split of Table 1.
"""

import dataclasses

from ml_collections import ConfigDict

from bridgedepth_jax.configs import default
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.system import find_system

EPOCHS = 20
PAIRS = {"stereo": 29_000, "eigen": 22_600}


def get_config(system: str, split: str) -> ConfigDict:
    if split not in PAIRS:
        raise InputError(f"split {split!r}, expected {' or '.join(PAIRS)}")
    config = default.get_config(system)
    config.init = "random"
    config.data.train = ((f"kitti_raw_{split}_train", 1),)
    config.data.crop = (320, 1024)
    config.data.whole = True
    config.solver.batch_size = 8
    config.solver.max_iter = EPOCHS * (PAIRS[split] // config.solver.batch_size)
    config.solver.update(base_lr=1e-4, schedule="drop", weight_decay=0.0, weight_decay_norm=0.0, grad_clip=None)
    config.run.update(latest_every=1000, milestone_every=20_000)
    config.eval.update(datasets=("kitti_2015_trainval",) if split == "stereo" else (), every=0)
    return config


def small(system: str, variant: str = "") -> ConfigDict:
    """Rendered pairs of 64x128 whose matching pixels look alike: two cores, no files, no truth in training."""
    config = get_config(system, "stereo")
    if variant:
        config.model = ConfigDict(dataclasses.asdict(find_system(system).variants[variant]()))
    config.data.train = (("synthetic", 1),)
    config.data.crop = (64, 128)
    config.data.synthetic.update(max_disparity=16.0, clean=True)
    config.task.smoothness = 0.1 * 128 / 1024  # the same scene has this share of the paper's pixels a row
    config.task.colour = 0.0
    config.solver.update(batch_size=4, max_iter=2000, base_lr=3e-4)
    config.run.update(latest_every=200, milestone_every=100_000, images_every=200)
    config.eval.update(datasets=("synthetic",), every=500, limit=32, batch=4)
    return config


def small_stereonet(config: ConfigDict) -> None:
    """Half the widths; it starts at no disparity, and its correlation compares channels on their own scales."""
    config.model.update(
        widths=(8, 16, 32, 48, 64, 96), projected=16, estimator=(64, 64, 48, 32, 16), context=(64, 64, 64, 48, 32, 16)
    )
    config.model.update(zero_predict=True, normalize_channels=True)


def small_singlenet(config: ConfigDict) -> None:
    """A ResNet-18 of a quarter of the width."""
    config.model.update(depths=(2, 2, 2, 2), bottleneck=False, width=16, decoder=(8, 8, 16, 32, 64))
    config.model.size = config.data.crop
