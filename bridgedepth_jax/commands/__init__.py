"""The command `bridgedepth`: a table of subcommands, and how one is found and run.

Each is a module of this folder, `data check` is `data_check.py`, imported when it is asked for: its docstring is the help,
`arguments(parser)` adds its options and `run(args)` does the work. Nothing here loads JAX.
"""

import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Sequence

from bridgedepth_jax import __version__
from bridgedepth_jax.errors import InputError, command, unknown

COMMANDS = {
    "demo": "a first look: a real pair and the model that comes with the package",
    "infer": "disparity, depth and point clouds of stereo pairs or videos",
    "depth": "relative depth of single images",
    "video": "depth of videos: stereo in metres, or pairs of frames, with a second stage against flicker",
    "rectify": "rectified pairs of your own cameras, from a board or a calibration",
    "live": "depth of a stereo camera while it films",
    "view": "a page in the browser: drop in two images and look around",
    "models": "every published model: licence, size, data, scores",
    "convert": "PyTorch weights to a checkpoint folder, and back",
    "export onnx": "a stereo checkpoint as ONNX, compared with JAX before it is written",
    "export jax": "one file that JAX alone runs, with its loader",
    "export trt": "a TensorRT engine from an ONNX file, or how to build it",
    "export web": "a page that computes in the browser, with all its files",
    "train": "train an experiment, or continue one",
    "adapt": "a stereo network to your camera, from pairs without ground truth",
    "evaluate": "a checkpoint or a baseline on whole data sets",
    "data check": "what is there of each data set",
    "data preview": "a picture of some samples of a data set",
    "data prepare": "pack a data set into ArrayRecord shards",
    "data benchmark": "training samples per second",
    "data pseudo-label": "depth of a folder of images as labels to train on",
    "data fuse-labels": "masked ground truth of generated images",
    "data synthesize": "stereo pairs from a folder of photographs",
    "submit": "write a submission to a benchmark",
    "report compare": "two results of evaluate: a difference, or noise?",
    "report plot": "the curve of a training run",
    "benchmark": "time, compilation and memory of the forward pass",
    "benchmark compile": "a program for TPUs and GPUs that are not here: memory, traffic, what bounds it",
}
PACKAGES = ("jax", "jaxlib", "flax")  # whose versions --version tells, too


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Runs `argv`, by default the command line. InputError becomes one line on stderr and exit status 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        print(version())
        return
    group = words[0] if words and any(name.startswith(f"{words[0]} ") for name in COMMANDS) else None
    if group in COMMANDS and f"{group} {''.join(words[1:2])}" not in COMMANDS:
        group = None  # a command that others begin with
    asked = words[len(group.split()) if group else 0 :][:1]
    if asked in (["-h"], ["--help"]):
        print(overview(group))
        return
    name = find(group, asked[0] if asked else None)
    module = importlib.import_module(f"bridgedepth_jax.commands.{name.replace(' ', '_').replace('-', '_')}")
    parse_and_run(module, name, words[len(name.split()) :])


def find(group: str | None, word: str | None) -> str:
    """The command that `word` names, of a group such as `data` or at the top. InputError: there is none."""
    prefix = f"{group} " if group else ""
    known = list(dict.fromkeys(name.removeprefix(prefix).split()[0] for name in COMMANDS if name.startswith(prefix)))
    if word is None:
        raise InputError(f"bridgedepth {prefix}needs one of {', '.join(known)}; bridgedepth {prefix}--help explains them")
    if word not in known:
        raise unknown("command", prefix + word, [prefix + name for name in known])
    return prefix + word


def parse_and_run(module, name: str, words: Sequence[str]) -> None:
    from bridgedepth_jax.commands.options import Parser  # argparse: what --version and --help do not wait for

    parser = Parser(prog=f"bridgedepth {name}", description=module.__doc__)
    module.arguments(parser)
    args, rest = parser.parse_known_args(words)
    if "overrides" in args:  # of a config: --config.KEY=VALUE
        args.overrides = rest
    elif rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    module.run(args)


def overview(group: str | None) -> str:
    """The help of all commands, or of a group's."""
    rows = {name: words for name, words in COMMANDS.items() if group is None or name.startswith(f"{group} ")}
    table = "\n".join(f"  {name:18}{words}" for name, words in rows.items())
    first = next(iter(rows))
    return f"""\
usage: bridgedepth {f"{group} " if group else "[--version] "}COMMAND ...

{table}

Each has --help with an example: bridgedepth {first} --help"""


def version() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return f"bridgedepth-jax {__version__} ({', '.join(found)}, Python {platform.python_version()})"
