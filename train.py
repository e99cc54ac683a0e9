"""Trains an experiment, or continues the one in --workdir.

python train.py --config configs/sf.py --workdir runs/sf [--config.solver.base_lr=1e-4 ...]
python train.py --config configs/kitti.py --workdir runs/kitti --init runs/l_sf
python train.py --config configs/sf.py --workdir runs/sf --coordinator host0:1234 --num-processes 4 --process-id 0

Started again with the same command it continues from the newest checkpoint of --workdir; SIGTERM saves first.
"""

import argparse
import logging
import os
import sys
import traceback
from pathlib import Path

import jax

from bridgedepth_jax.convert.rules.bridgedepth_config import override_by_original
from bridgedepth_jax.data.pipeline import make_train_dataset
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.processes import start_processes
from bridgedepth_jax.training.configfile import override, read_config
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.loop import TrainingFailed, train
from bridgedepth_jax.training.start import make_start
from bridgedepth_jax.training.validation import make_evaluate


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE[:ARG]", help="a file of configs/; --config.KEY=VALUE changes a field"
    )
    parser.add_argument("--workdir", required=True, type=Path, help="folder for checkpoints, logs and the exported weights")
    parser.add_argument(
        "--init", help="start of a fresh run: checkpoint folder, published name, another --workdir, random-mono"
    )
    parser.add_argument("--imagenet", default="", metavar="PTH", help="torchvision weights for a convnext or swin encoder")
    parser.add_argument("--original-yaml", metavar="FILE", help="a config of the original, applied over --config")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0; starts several processes by hand")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--process-id", type=int)
    return parser


def run(args: argparse.Namespace, options: list[str]) -> None:
    config = read_config(args.config)
    if args.original_yaml:
        override_by_original(config, args.original_yaml)
    override(config, options)
    if args.init:
        config.init = args.init
    experiment = Experiment.from_dict(config.to_dict())
    start_processes(args.coordinator, args.num_processes, args.process_id)
    data = make_train_dataset(experiment.data)
    word = train(
        experiment,
        args.workdir,
        data,
        start=lambda: make_start(experiment, experiment.init, args.imagenet),
        evaluate=make_evaluate(experiment),
    )
    if jax.process_index() == 0:
        print(word, flush=True)


@command
def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("bridgedepth_jax").setLevel(logging.INFO)
    args, options = arguments().parse_known_args()
    try:
        run(args, options)
    except TrainingFailed as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        _leave(1)
    except InputError as error:
        if args.coordinator is None:
            raise
        print(f"error: {error}", file=sys.stderr, flush=True)
        _leave(2)
    except Exception:
        if args.coordinator is None:
            raise
        traceback.print_exc()  # of another process, too: its death breaks our collectives
        _leave(1)


def _leave(status: int) -> None:
    """Ends now: an orderly exit would wait for the other processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
