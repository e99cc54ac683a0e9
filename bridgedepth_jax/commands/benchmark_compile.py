"""A forward pass or a training step compiled for TPUs or GPUs that are not here, and what bounds its speed there.

bridgedepth benchmark compile --topology v6e:2x2 --variant nano --forward 480x640 --batch 8 --dtype bfloat16
bridgedepth benchmark compile --topology h100:1 --config bridgedepth/sf --config.solver.batch_size=1

Everything comes from shapes: no parameter is made, nothing runs. Prints a row of a Markdown table, per device: memory, FLOP,
bytes that go through its memory (the padding of tiles included; as XLA counts them, in brackets), what collectives deliver,
time and memory of the compilation, and the least time that the chip's published peaks allow, with what binds it; then the
instructions that move most bytes and the line each comes from.
"""

import argparse
import math
import resource
import time
from collections import Counter
from typing import Any, NamedTuple

from bridgedepth_jax import programs, topologies
from bridgedepth_jax.commands import options
from bridgedepth_jax.commands.benchmark import config_of
from bridgedepth_jax.errors import InputError

HEADER = (
    "| program | topology | memory, GiB (arguments) | GFLOP | traffic, GB (XLA) | collectives, MB | compilation |"
    " at least, ms | bound by |\n"
    "|---|---|---|---|---|---|---|---|---|"
)
HELPS = "run.fsdp, model.remat, solver.accumulate, model.dtype=bfloat16 or a smaller solver.batch_size"


class Bound(NamedTuple):
    """The least seconds that the peaks of a chip allow, each alone."""

    products: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        return max(time for time in self if not math.isnan(time))

    @property
    def binds(self) -> str:
        return max((time, name) for name, time in self._asdict().items() if not math.isnan(time))[1]


def bound(chip: topologies.Chip, flops: float, traffic: float, sent: float) -> Bound:
    """What is done at the same time counts once: the largest of the three binds. Arguments: FLOP, bytes, bytes."""
    return Bound(flops / chip.flops, traffic / chip.bandwidth, sent / chip.link)


def lower_forward(args: argparse.Namespace, devices: list[Any]) -> Any:
    """The forward pass of the Predictor, its batch split over the devices, lowered."""
    import dataclasses

    import jax
    import jax.numpy as jnp

    from bridgedepth_jax import sharding
    from bridgedepth_jax.ops.image import padding
    from bridgedepth_jax.system import DEFAULT, find_system

    system = find_system(DEFAULT)
    config = dataclasses.replace(config_of(args.variant), dtype=args.dtype)
    height, width = options.size("--forward", args.forward, minimum=system.minimum)
    (top, bottom), (before, after) = padding(height, width, system.multiple)
    shape = (args.batch, height + top + bottom, width + before + after, 3)
    mesh = sharding.make_mesh(1, devices)
    rows, whole = sharding.batch_sharding(mesh, args.batch), sharding.replicated(mesh)
    estimate = system.estimate(config) if system.estimate else None
    assert estimate is not None

    def run(params: Any, left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        found = estimate(params, left, right)
        return found.disparity, found.confidence

    params = jax.eval_shape(lambda key: system.init(config, key), jax.random.key(0))
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    split = jax.shard_map(run, mesh=mesh, in_specs=(whole.spec, rows.spec, rows.spec), out_specs=rows.spec, check_vma=False)
    return jax.jit(split, in_shardings=(whole, rows, rows), out_shardings=rows).lower(params, image, image)


def lower_step(args: argparse.Namespace, devices: list[Any]) -> tuple[str, Any]:
    """(name, the lowered training step) of a config, as the training loop compiles it."""
    from bridgedepth_jax.training.analysis import lower_step
    from bridgedepth_jax.training.configfile import override, read_config
    from bridgedepth_jax.training.experiment import Experiment

    config = read_config(args.config)
    override(config, args.overrides)
    experiment = Experiment.from_dict(config.to_dict())
    size = "x".join(map(str, experiment.data.crop))
    name = f"{args.config} {' '.join(args.overrides)} step, {experiment.solver.batch_size} of {size}"
    return " ".join(name.split()), lower_step(experiment, devices)


def compile_for(lowered: Any, name: str, topology: str) -> Any:
    """Compiled; InputError where it does not fit: what the compiler says of its largest arrays, and what would help."""
    try:
        return lowered.compile()
    except Exception as error:  # jax.errors.JaxRuntimeError
        lines = [line.strip() for line in str(error).splitlines()]
        if not any(word in lines[0] for word in ("RESOURCE_EXHAUSTED", "Ran out of memory")):
            raise
        kept = [line for line in lines if line.startswith(("Size:", "Shape:", "Operator:"))][:9]
        raise InputError(f"{name} does not fit {topology}: {lines[0]} {' '.join(kept)} What helps: {HELPS}") from error


def arguments(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(f"{name}:{chip.grid}" for name, chip in topologies.CHIPS.items())
    parser.add_argument("--topology", required=True, help=f"chip and slice, such as {known}")
    parser.add_argument("--forward", metavar="HEIGHTxWIDTH", help="the forward pass on pairs of this size")
    parser.add_argument("--variant", default="nano", help="with --forward: published name, nano or ENCODER_VIT; default: nano")
    parser.add_argument("--batch", type=int, default=1, help="with --forward: pairs over all devices; default: 1")
    parser.add_argument(
        "--dtype", default="bfloat16", choices=["float32", "bfloat16"], help="with --forward; default: bfloat16"
    )
    parser.add_argument("--config", help=f"the training step of {options.CONFIG}; --config.KEY=VALUE changes it")
    parser.add_argument("--most", type=int, default=10, help="instructions that are listed; default: 10")
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
    if (args.forward is None) == (args.config is None):
        raise InputError("benchmark compile takes --forward HEIGHTxWIDTH or --config CONFIG, one of the two")
    chip = topologies.find(args.topology)
    devices = topologies.devices(args.topology)
    if args.forward is not None:
        name, lowered = f"{args.variant} {args.dtype} forward, {args.batch} of {args.forward}", lower_forward(args, devices)
    else:
        name, lowered = lower_step(args, devices)
    began = time.perf_counter()
    compiled = compile_for(lowered, name, args.topology)
    took = time.perf_counter() - began
    text = compiled.as_text()
    found = programs.instructions(text)
    gib, flops = programs.memory(compiled), programs.cost(compiled, "flops")
    sent = programs.collective_bytes(text)
    traffic = sum(row.bytes for row in found)
    least = bound(chip, flops, traffic, sum(row["bytes"] for row in sent.values()))
    words = ", ".join(f"{kind} {row['bytes'] / 1e6:.3g} ({row['count']})" for kind, row in sorted(sent.items()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(HEADER)
    print(
        f"| {name} | {args.topology} | {gib['peak']:.3g} ({gib['arguments']:.3g}) | {flops / 1e9:.4g} |"
        f" {traffic / 1e9:.3g} ({programs.cost(compiled, 'bytes accessed') / 1e9:.3g}) | {words or 'none'} |"
        f" {took:.0f} s, {peak:.1f} GB | {least.seconds * 1e3:.3g} | {least.binds} |"
    )
    if gib["peak"] * topologies.GIB > chip.memory:
        print(f"\nIt does not fit: {gib['peak']:.3g} GiB of {chip.memory / topologies.GIB:.3g}. What helps: {HELPS}.")
    print(f"\n{len(found)} instructions; by bytes:\n\n| MB | of all | times | instruction | where |\n|---|---|---|---|---|")
    for row in sorted(found, key=lambda row: -row.bytes)[: args.most]:
        share = f"{row.bytes / 1e6:.4g} | {row.bytes / max(traffic, 1):.1%}"
        print(f"| {share} | {row.runs} | {row.kind} {row.shape[:80]} | {row.where} |")
    places: Counter[str] = Counter()
    for row in found:
        places[row.where.rpartition(":")[0] or row.where] += row.bytes
    print("\n| MB | of all | file |\n|---|---|---|")
    for place, size in places.most_common(args.most):
        print(f"| {size / 1e6:.4g} | {size / max(traffic, 1):.1%} | {place or 'moved by the compiler'} |")
