"""Trains an experiment, or continues the one in --workdir.

bridgedepth train --config bridgedepth/debug --workdir runs/debug      # no files needed, a minute or two
bridgedepth train --config bridgedepth/sf --workdir runs/sf --config.solver.base_lr=1e-4
bridgedepth train --config bridgedepth/kitti --workdir runs/kitti --init runs/l_sf
bridgedepth train --config bridgedepth/sf --workdir runs/sf --coordinator host0:1234 --num-processes 4 --process-id 0

Started again with the same command it continues from the newest checkpoint of --workdir; SIGTERM and Ctrl-C save first.
"""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, metavar="CONFIG[:ARG]", help=f"{options.CONFIG}; --config.KEY=VALUE changes a field"
    )
    parser.add_argument("--workdir", required=True, type=Path, help="folder for checkpoints, logs and the exported weights")
    parser.add_argument("--init", help="start of a fresh run: checkpoint folder, published name, another --workdir, random")
    parser.add_argument("--imagenet", default="", metavar="PTH", help="torchvision weights for an encoder that has any")
    parser.add_argument("--teacher", metavar="DIR", help="frozen stereo network that the config's task asks for")
    parser.add_argument("--mono", metavar="DIR", help="frozen monocular network that the config's task asks for")
    parser.add_argument("--original-yaml", metavar="FILE", help="a config of the original, applied over --config")
    options.add_processes(parser)
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
    """Ends with status 1 where training fails, and at once where other processes wait for this one."""
    from bridgedepth_jax.training.loop import TrainingFailed

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("bridgedepth_jax").setLevel(logging.INFO)
    try:
        train(args, args.overrides)
    except TrainingFailed as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        _leave(1)
    except InputError as error:
        if args.coordinator is None and not args.cluster:
            raise
        print(f"error: {error}", file=sys.stderr, flush=True)
        _leave(2)
    except Exception:
        if args.coordinator is None and not args.cluster:
            raise
        traceback.print_exc()  # of another process, too: its death breaks our collectives
        _leave(1)


def train(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    import jax

    from bridgedepth_jax.convert.rules.bridgedepth_config import override_by_original
    from bridgedepth_jax.data.pipeline import make_train_dataset
    from bridgedepth_jax.processes import start_processes
    from bridgedepth_jax.training import loop
    from bridgedepth_jax.training.configfile import override, read_config
    from bridgedepth_jax.training.experiment import Experiment
    from bridgedepth_jax.training.start import make_start
    from bridgedepth_jax.training.validation import make_evaluate

    config = read_config(args.config)
    if args.original_yaml:
        override_by_original(config, args.original_yaml)
    override(config, overrides)
    if args.init:
        config.init = args.init
    teachers: Any = config.teachers
    given = {"stereo": args.teacher, "mono": args.mono}
    config.teachers = tuple((dict(teachers) | {name: path for name, path in given.items() if path}).items())
    experiment = Experiment.from_dict(config.to_dict())
    start_processes(args.coordinator, args.num_processes, args.process_id, args.cluster)
    data = make_train_dataset(experiment.data)
    word = loop.train(
        experiment,
        args.workdir,
        data,
        start=lambda: make_start(experiment, experiment.init, args.imagenet),
        evaluate=make_evaluate(experiment),
    )
    if jax.process_index() == 0:
        print(word, file=sys.stderr, flush=True)
        if word.startswith("finished"):
            print(args.workdir / "export", flush=True)


def _leave(status: int) -> None:
    """Ends now: an orderly exit would wait for the other processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
