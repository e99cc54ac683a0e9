"""Chips that a program is compiled for without owning one: descriptions for the compiler, and the peaks that bound its speed.

`devices("v6e:2x2")` are four TPU v6e that exist for the compiler alone; libtpu from the package index compiles for them.
`devices("h100:1")` is a GPU from a description of it; the compiler comes with JAX's CUDA plugin.
"""

import importlib
import os
import re
from typing import Any, NamedTuple

from bridgedepth_jax.errors import InputError, unknown

GIB = 2**30


class Chip(NamedTuple):
    """Published peaks of one chip."""

    platform: str  # tpu or cuda
    flops: float  # FLOP/s of dense bfloat16 products, sums in float32
    memory: float  # bytes
    bandwidth: float  # bytes/s of its memory
    link: float  # bytes/s of all links to other chips together, one direction
    source: str
    grid: str = "2x2"  # the smallest slice that the compiler knows
    target: str = ""  # the compiler's description, of GPUs


def _gpu(name: str, *, capability: tuple[int, int], **info: float) -> str:
    """XLA's GpuTargetConfigProto as text."""
    major, minor = capability
    fields: dict[str, float] = dict(
        threads_per_block_limit=1024, threads_per_warp=32, shared_memory_per_block=49152, fpus_per_core=128,
        block_dim_limit_x=2147483647, block_dim_limit_y=65535, block_dim_limit_z=65535,
        registers_per_core_limit=65536, registers_per_block_limit=65536,
    ) | info  # fmt: skip
    words = " ".join(f"{key}: {value}" for key, value in fields.items())
    compute = f"cuda_compute_capability {{ major: {major} minor: {minor} }}"
    dnn = "dnn_version_info { major: 9 minor: 10 }"
    return f'gpu_device_info {{ {words} {compute} }} platform_name: "CUDA" {dnn} device_description_str: "{name}"'


H100 = _gpu(
    "NVIDIA H100 80GB HBM3", capability=(9, 0), core_count=132, clock_rate_ghz=1.98, threads_per_core_limit=2048,
    device_memory_size=84978434048, memory_bandwidth=3352320000000, l2_cache_size=52428800,
    shared_memory_per_core=233472, shared_memory_per_block_optin=232448,
)  # fmt: skip
RTX4090 = _gpu(
    "NVIDIA GeForce RTX 4090", capability=(8, 9), core_count=128, clock_rate_ghz=2.52, threads_per_core_limit=1536,
    device_memory_size=25393692672, memory_bandwidth=1008096000000, l2_cache_size=75497472,
    shared_memory_per_core=102400, shared_memory_per_block_optin=101376,
)  # fmt: skip
CHIPS = {
    "v5e": Chip("tpu", 197e12, 16 * GIB, 819e9, 200e9, "cloud.google.com/tpu/docs/v5e"),
    "v5p": Chip("tpu", 459e12, 95 * GIB, 2765e9, 600e9, "cloud.google.com/tpu/docs/v5p", "2x2x1"),
    "v6e": Chip("tpu", 918e12, 32 * GIB, 1640e9, 448e9, "cloud.google.com/tpu/docs/v6e"),
    "h100": Chip("cuda", 989e12, 84978434048, 3352e9, 450e9, "NVIDIA H100 data sheet, SXM5; link: NVLink", "1", H100),
    "rtx4090": Chip("cuda", 165e12, 25393692672, 1008e9, 32e9, "NVIDIA Ada white paper; link: PCIe 4.0 x16", "1", RTX4090),
}
INSTALL = {
    "tpu": "pip install 'bridgedepth-jax[tpu]'",
    "cuda": "pip install --no-deps jax-cuda12-plugin==V jax-cuda12-pjrt==V nvidia-cuda-nvcc-cu12, with jax's own version V",
}


def find(name: str) -> Chip:
    """The chip of a topology. InputError for one that is not known, or no `chip:grid`."""
    chip, _, grid = name.partition(":")
    if chip not in CHIPS:
        raise unknown("topology", chip, [f"{known}:{CHIPS[known].grid}" for known in CHIPS])
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", grid):
        raise InputError(f"topology {name!r}, expected its chips after a colon, such as {chip}:{CHIPS[chip].grid}")
    return CHIPS[chip]


def devices(name: str) -> list[Any]:
    """Devices that exist for the compiler alone.

    InputError: an unknown topology, one that the compiler does not know, or no compiler installed.
    """
    chip = find(name)
    grid = name.partition(":")[2]
    for key, value in {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}.items():
        os.environ.setdefault(key, value)  # else libtpu looks for the machine that it is not on
    if chip.platform == "cuda":
        return _gpus(name, chip, grid)
    try:
        importlib.import_module("libtpu")
    except ImportError:
        raise InputError(f"topology {name} needs libtpu: {INSTALL['tpu']}") from None
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except Exception as error:  # jax.errors.JaxRuntimeError, or what a version makes of it
        raise InputError(f"topology {name}: {str(error).splitlines()[0]}; the smallest is {chip.grid}") from error


def _gpus(name: str, chip: Chip, grid: str) -> list[Any]:
    try:
        nvidia = importlib.import_module("nvidia.cuda_nvcc")
        importlib.import_module("jax_plugins.xla_cuda12")
    except ImportError:
        raise InputError(f"topology {name} needs the compiler for GPUs: {INSTALL['cuda']}") from None
    # No GPU to try algorithms on; and without tuning, the generator of products finds no tiles for odd shapes.
    flags = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags} --xla_gpu_cuda_data_dir={next(iter(nvidia.__path__))}"
    from jax.experimental import topologies

    if "x" in grid:
        raise InputError(f"topology {name}, expected a number of GPUs after the colon, such as {name.partition(':')[0]}:8")
    found = topologies.get_topology_desc(
        platform="cuda", topology_name=name.partition(":")[0], topology=f"1x1x{grid}", target_config=chip.target
    )
    return list(found.devices)
