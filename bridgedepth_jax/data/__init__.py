"""Stereo data: readers and writers, data sets by name, augmentation, and the training and evaluation pipelines."""

import importlib
from typing import TYPE_CHECKING

from bridgedepth_jax.data.augment import AugmentConfig
from bridgedepth_jax.data.formats import (
    read_disparity,
    read_image,
    read_pfm,
    write_eth3d_submission,
    write_kitti_png,
    write_kitti_submission,
    write_middlebury_submission,
    write_pfm,
    write_png,
)
from bridgedepth_jax.data.pairs import Pair, Sample, find_pairs, read_sample
from bridgedepth_jax.data.sources import SyntheticOptions
from bridgedepth_jax.data.table import DATASETS, NAMES

if TYPE_CHECKING:
    from bridgedepth_jax.data.pipeline import (
        DataConfig,
        TrainDataset,
        make_eval_dataset,
        make_train_dataset,
        prefetch_to_device,
    )

__all__ = [
    "DATASETS",
    "NAMES",
    "AugmentConfig",
    "DataConfig",
    "Pair",
    "Sample",
    "SyntheticOptions",
    "TrainDataset",
    "find_pairs",
    "make_eval_dataset",
    "make_train_dataset",
    "prefetch_to_device",
    "read_disparity",
    "read_image",
    "read_pfm",
    "read_sample",
    "write_eth3d_submission",
    "write_kitti_png",
    "write_kitti_submission",
    "write_middlebury_submission",
    "write_pfm",
    "write_png",
]

_LAZY = ("DataConfig", "TrainDataset", "make_eval_dataset", "make_train_dataset", "prefetch_to_device")


def __getattr__(name: str):
    if name in _LAZY:  # they load Grain, which readers of a single file need not wait for
        return getattr(importlib.import_module("bridgedepth_jax.data.pipeline"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
