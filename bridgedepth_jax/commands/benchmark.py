"""Forward time, compile time and memory of the network: a table of variant x size x batch x dtype.

bridgedepth benchmark --variant convnext_vitl --size 288x512
bridgedepth benchmark --variant sf --size 480x640 --batch 1 8 --against "python other.py"

Each row is a process of its own. Its rounds alternate between the network, a plain matrix product of the same dtype (the
ceiling) and, with --against, another program, which prints the seconds that its own forward pass took as its last line.
Rates count the operations of the compiled program's source graph; ratios are medians over rounds.
"""

import argparse
import concurrent.futures
import functools
import multiprocessing
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.systems.bridgedepth.config import VARIANTS, ModelConfig


class Case(NamedTuple):
    """One row to measure."""

    variant: str
    height: int
    width: int
    batch: int
    dtype: str
    rounds: int
    against: str | None


class Measurement(NamedTuple):
    """What was measured; times in seconds, memory in bytes."""

    forward: float
    rate: float  # FLOP/s
    ceiling: float  # FLOP/s of the matrix product
    share: float  # of the ceiling, median over rounds
    compile_cold: float
    compile_cached: float
    memory: int
    parameters: int  # bytes
    drift: str  # of bfloat16 against float32
    other: float | None  # seconds of the other program


def config_of(variant: str) -> ModelConfig:
    """A published variant, nano, the default nano_sharp, or ENCODER_VIT such as convnext_vits."""
    if variant in ("nano", "nano_sharp"):
        return getattr(ModelConfig, variant)()
    if variant in VARIANTS:
        return ModelConfig.variant(variant)
    encoder, _, vit = variant.partition("_")
    try:
        return ModelConfig.size(encoder, vit)
    except ValueError as error:
        raise InputError(
            f"variant {variant!r}: {error}; expected one of {list(VARIANTS)}, nano, nano_sharp or ENCODER_VIT"
        ) from None


def random_params(config: ModelConfig) -> Any:
    """Parameters of the right scale, made leaf by leaf on the device."""
    import jax

    from bridgedepth_jax.systems.bridgedepth.network import init_params

    random = np.random.default_rng(0)

    def value(leaf):
        if len(leaf.shape) < 2:
            return jax.device_put(np.full(leaf.shape, 0.1, np.float32))
        fan_in = np.prod(leaf.shape[:-1])
        return jax.device_put(random.standard_normal(leaf.shape, np.float32) / np.float32(np.sqrt(fan_in)))

    return jax.tree.map(value, jax.eval_shape(lambda: init_params(config, jax.random.key(0))))


def images(case: Case) -> list[np.ndarray]:
    """A smooth random texture and the same seen 8 pixels further left, float32."""
    import cv2

    random = np.random.default_rng(1)
    wide = random.uniform(0, 255, (case.batch, case.height, case.width + 8, 3)).astype(np.float32)
    wide = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in wide])
    return [wide[:, :, :-8], wide[:, :, 8:]]


def seconds(program: Callable[[], Any], repeats: int = 1) -> float:
    """Seconds of one run, until its result is there."""
    import jax

    start = time.perf_counter()
    for _ in range(repeats):
        result = program()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / repeats


def compile_twice(function: Any, *args: Any) -> tuple[Any, float, float]:
    """The compiled function, seconds of a cold compilation and of one that the disk cache answers, tracing included."""
    import jax

    times = []
    for _ in range(2):
        jax.clear_caches()
        start = time.perf_counter()
        compiled = jax.jit(function).lower(*args).compile()
        times.append(time.perf_counter() - start)
    return compiled, times[0], times[1]


def matmul(dtype: str) -> tuple[Callable[[], Any], int]:
    """A compiled square matrix product and its operations."""
    import jax
    import jax.numpy as jnp

    side = 2048 if jax.default_backend() == "cpu" else 8192
    a = jnp.asarray(np.random.default_rng(2).standard_normal((side, side), np.float32), dtype)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    return lambda: product(a), 2 * side**3


def other_seconds(against: str) -> float:
    """Runs the other program and reads its last line."""
    done = subprocess.run(against, shell=True, capture_output=True, text=True)
    try:
        return float(done.stdout.split()[-1])
    except (IndexError, ValueError):
        raise InputError(f"--against {against!r}: its last word is no number of seconds: {done.stderr[-200:]}") from None


def disparity(config: ModelConfig, params: Any, left: Any, right: Any) -> Any:
    """The forward pass that is measured: (B, H, W) pixels."""
    from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth

    output: Any = BridgeDepth(config).apply({"params": params}, left, right)
    return output.disparity


def drift(config: ModelConfig, params: Any, pair: list[np.ndarray], compiled: Any) -> str:
    """Median difference to float32 in pixels, and share of pixels beyond 1 px."""
    import jax

    reference = jax.jit(functools.partial(disparity, config.replace(dtype="float32")))(params, *pair)
    difference = np.abs(np.asarray(compiled(params, *pair)) - np.asarray(reference))
    return f"{np.median(difference):.3f} px, {(difference > 1).mean():.1%}"


def measure(case: Case, cache: str) -> Measurement:
    """One row, in a process that does nothing else; `cache` is an empty folder for compilations."""
    import jax

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

    config = config_of(case.variant).replace(dtype=case.dtype)
    params = random_params(config)
    pair = [jax.device_put(image) for image in images(case)]
    forward = functools.partial(disparity, config)
    costs: Any = jax.jit(forward).lower(params, *pair).cost_analysis()
    compiled, cold, cached = compile_twice(forward, params, *pair)
    product, product_operations = matmul(case.dtype)
    network = lambda: compiled(params, *pair)
    quick = jax.default_backend() != "cpu"
    jax.block_until_ready((network(), product()))
    memory = peak_memory()
    times, ceilings, others = [], [], []
    for _ in range(case.rounds):
        ceilings.append(product_operations / seconds(product, 20 if quick else 3))
        times.append(seconds(network, 10 if quick else 1))
        if case.against:
            others.append(other_seconds(case.against))
    rates = costs["flops"] / np.asarray(times)
    return Measurement(
        forward=float(np.median(times)),
        rate=float(np.median(rates)),
        ceiling=float(np.median(ceilings)),
        share=float(np.median(rates / np.asarray(ceilings))),
        compile_cold=cold,
        compile_cached=cached,
        memory=memory,
        parameters=sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
        drift=drift(config, params, pair, compiled) if case.dtype == "bfloat16" else "",
        other=float(np.median(np.asarray(others) / np.asarray(times))) if others else None,
    )


def peak_memory() -> int:
    """Bytes: of the device where it tells, else the peak resident set of this process."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", nargs="+", default=["convnext_vitl"], help="published name, nano or ENCODER_VIT")
    parser.add_argument("--size", nargs="+", default=["288x512"], metavar="HEIGHTxWIDTH", help="of the images")
    parser.add_argument("--batch", nargs="+", type=int, default=[1], help="pairs in one pass")
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=["float32", "bfloat16"], help="of the computation")
    parser.add_argument("--rounds", type=int, default=5, help="alternating runs of each row")
    parser.add_argument("--against", metavar="COMMAND", help="another program; its last word is the seconds it measured")


def run(args: argparse.Namespace) -> None:
    sizes = [options.size("--size", text, minimum=32) for text in args.size]
    for variant in args.variant:
        config_of(variant)
    cases = [
        Case(variant, *size, batch, dtype, args.rounds, args.against)
        for variant in args.variant
        for size in sizes
        for batch in args.batch
        for dtype in args.dtype
    ]
    other = " other / ours |" if args.against else ""
    print(f"| variant | size | batch | dtype | s | images/s | GFLOP/s | of matmul | compile, cached | memory | drift |{other}")
    print(f"|---|---|---|---|---|---|---|---|---|---|---|{'---|' if other else ''}")
    context = multiprocessing.get_context("spawn")
    for case in cases:
        with tempfile.TemporaryDirectory() as cache, concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            r = pool.submit(measure, case, cache).result()
        cells = [
            case.variant, f"{case.height}x{case.width}", str(case.batch), case.dtype, f"{r.forward:.3f}",
            f"{case.batch / r.forward:.2f}", f"{r.rate / 1e9:.0f}", f"{r.share:.0%} of {r.ceiling / 1e9:.0f}",
            f"{r.compile_cold:.1f} s, {r.compile_cached:.1f} s",
            f"{r.memory / 1e9:.2f} GB, {r.parameters / 1e9:.2f} of it weights", r.drift,
        ]  # fmt: skip
        cells += [f"{r.other:.2f}"] if r.other is not None else []
        print(f"| {' | '.join(cells)} |", flush=True)
