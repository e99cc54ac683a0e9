"""What a training step costs on meshes of 1, 2, 4, 8 devices.

python scripts/train_benchmark.py --config configs/debug.py [--devices 1 2 4 8] [--steps 10] [--config.run.fsdp=2 ...]
python scripts/train_benchmark.py --config configs/sf.py --devices 1 --steps 0     # memory only; nothing is allocated

Prints a Markdown table: pairs/s of steps on one random batch, GiB on a device (state and batch, temporary, peak), GFLOP a
step and device as XLA counts them, and MB a step of what collectives give each device, by kind. Without GPUs or TPUs the
devices are simulated on the processor, so speed says nothing about scaling; the rest comes from the compiled program.
"""

import argparse
import dataclasses
import os
import time

import jax
import numpy as np

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.programs import collective_bytes, cost, memory
from bridgedepth_jax.training.analysis import compile_step
from bridgedepth_jax.training.configfile import override, read_config
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.start import make_start
from bridgedepth_jax.training.step import Frozen


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=10, help="timed steps; 0: compile only")
    args, options = parser.parse_known_args()
    simulated = f"--xla_force_host_platform_device_count={max(args.devices)}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {simulated}"  # read when devices are first asked for
    for count in args.devices:
        if not 1 <= count <= jax.device_count():
            raise InputError(f"--devices {count}, expected 1 to {jax.device_count()}, as many as there are")
    config = read_config(args.config)
    override(config, options)
    experiment = Experiment.from_dict(config.to_dict())
    print(f"{args.config} {' '.join(options)}: batch {experiment.solver.batch_size} of {experiment.data.crop}", flush=True)
    print("| devices | fsdp | pairs/s | state GiB | temporary GiB | peak GiB | GFLOP | collectives, MB (largest) |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for count in args.devices:
        fsdp = min(experiment.run.fsdp, count)
        used = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, fsdp=fsdp))
        compiled = compile_step(used, jax.devices()[:count], to_run=args.steps > 0)
        sent = collective_bytes(compiled.as_text())
        words = ", ".join(f"{kind} {row['bytes'] / 1e6:.3g} ({row['largest'] / 1e6:.3g})" for kind, row in sorted(sent.items()))
        gib = memory(compiled)
        speed = f"{pairs_per_second(compiled, used, args.steps):.3g}" if args.steps else "-"
        numbers = " | ".join(f"{gib[name]:.3g}" for name in ("arguments", "temporary", "peak"))
        gflop = cost(compiled, "flops") / 1e9
        print(f"| {count} | {fsdp} | {speed} | {numbers} | {gflop:.4g} | {words or 'none'} |", flush=True)


def pairs_per_second(compiled, experiment, steps: int) -> float:
    """Of steps on one random batch, from random weights, after one to warm up."""
    rng, size = np.random.default_rng(0), (experiment.solver.batch_size, *experiment.data.crop)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(2)]
    batch = dict(
        left=images[0], right=images[1], disparity=rng.uniform(1, 40, size).astype(np.float32), valid=np.ones(size, bool)
    )
    state, fixed = experiment.begin(experiment.objective(), make_start(experiment, "random").weights)
    frozen = Frozen(jax.tree.map(lambda x: x.astype(experiment.run.frozen_dtype), fixed), {})
    arguments = (state, frozen, batch)
    state, frozen, batch = jax.tree.map(jax.device_put, arguments, compiled.input_shardings[0])
    began = time.perf_counter()
    for step in range(steps + 1):
        state, metrics, _ = compiled(state, frozen, batch)
        if step == 0:
            jax.block_until_ready(metrics)
            began = time.perf_counter()
    jax.block_until_ready(state)
    return steps * experiment.solver.batch_size / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
