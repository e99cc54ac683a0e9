"""Strict settings for every test: warnings are errors, rank promotion raises, eight simulated devices.

Nearly all that tests on tiny networks compute is their compilation, so programs are compiled fast instead of well: XLA's CPU
compiler without LLVM's optimisations and without its MLIR emitters takes a fifth of the time and of the memory. To test what
users run, set XLA_FLAGS: flags named there are left as they are.
"""

import ctypes
import importlib.util
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

FLAGS = {
    "xla_force_host_platform_device_count": "8",
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": "false",
}


def known(flag: str) -> bool:
    """Whether the installed XLA has this flag; it ends the process at one that it does not know."""
    found = importlib.util.find_spec("jaxlib")
    assert found is not None and found.origin is not None
    for library in Path(found.origin).parent.glob("*.so"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(f"{flag}\0".encode()) >= 0:  # one that is no more is still named in a description
                return True
    return False


given = os.environ.get("XLA_FLAGS", "")
added = [f"--{name}={value}" for name, value in FLAGS.items() if name not in given and known(name)]
os.environ["XLA_FLAGS"] = " ".join([given, *added])
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "bridgedepth_jax_test_cache"))

import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("bridgedepth_jax", "shapes.check")  # the shapes that annotations name hold in every test

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc, which keeps what compilers have freed until it is told


def give_back(event: str, seconds: float, **_: object) -> None:
    """After a large program was compiled, before it runs."""
    if event == "/jax/core/compile/backend_compile_duration" and seconds > 5 and trim is not None:
        trim(0)


jax.monitoring.register_event_duration_secs_listener(give_back)


@pytest.fixture(scope="module", autouse=True)
def forget() -> Iterator[None]:
    """Programs of one file are of no use to the next."""
    yield
    jax.clear_caches()
    if trim is not None:
        trim(0)
