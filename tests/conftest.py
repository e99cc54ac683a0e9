"""Strict settings for every test: warnings are errors, rank promotion raises, eight simulated devices."""

import os
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "bridgedepth_jax_test_cache"))

import jax
from jaxtyping import install_import_hook

install_import_hook("bridgedepth_jax", "shapes.check")  # shapes and types of annotations hold in every test

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
