"""What `model.remat` and its policies save: bytes that a step's forward pass keeps until its backward pass.

python scripts/remat_table.py [--config bridgedepth/l_sf ...] [--config.model.dtype=bfloat16 ...]

Prints a Markdown table, GiB for the whole batch, from shapes alone: seconds a row, nothing is compiled or allocated. It is the
program as it is written, with the weights that the backward pass reads; what a device needs beside it (moments, frozen weights,
what a single block computes) is not in it, and `bridgedepth benchmark compile` says what fits a chip.
"""

import argparse
import os
from typing import get_args

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from bridgedepth_jax.errors import command
from bridgedepth_jax.layers import Remat
from bridgedepth_jax.topologies import GIB
from bridgedepth_jax.training.analysis import kept_bytes
from bridgedepth_jax.training.configfile import override, read_config
from bridgedepth_jax.training.experiment import Experiment

PAPER = tuple(f"bridgedepth/{name}" for name in ("sf", "l_sf", "kitti", "eth3d", "rvc", "middlebury"))


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", nargs="+", default=PAPER)
    args, options = parser.parse_known_args()
    policies = get_args(Remat)[:2]  # "offload" keeps what "dots" keeps, but in the host's memory
    print(f"| config {' '.join(options)} | batch and crop | all | {' | '.join(f'`{name}`' for name in policies)} |")
    print(f"|---|---|---|{'---|' * len(policies)}", flush=True)
    for name in args.config:
        cells = []
        for kept in (None, *policies):
            config = read_config(name)
            override(config, options)
            config.model.remat = kept is not None
            config.model.remat_policy = kept or "nothing"
            experiment = Experiment.from_dict(config.to_dict())
            cells.append(f"{kept_bytes(experiment) / GIB:.1f}")
        size = f"{experiment.solver.batch_size} of {experiment.data.crop[0]}x{experiment.data.crop[1]}"
        print(f"| {name} | {size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
