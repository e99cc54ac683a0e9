"""Packed data sets: TFDS builder over ArrayRecord shards, without TensorFlow.

A record holds the very bytes of the original files of one pair, so packing loses nothing and reading decodes as for raw files.
Needs the extra `tfds`.
"""

from bridgedepth_jax.data.tfds.packed import PackedSource
from bridgedepth_jax.data.tfds.packing import pack

__all__ = ["PackedSource", "pack"]
