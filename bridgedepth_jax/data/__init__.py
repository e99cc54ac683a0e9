"""Stereo data: readers and writers, data sets by name, augmentation, and the training and evaluation pipelines."""

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
from bridgedepth_jax.data.registry import DATASETS, NAMES, Pair, Sample, find_pairs, read_sample

__all__ = [
    "DATASETS",
    "NAMES",
    "Pair",
    "Sample",
    "find_pairs",
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
