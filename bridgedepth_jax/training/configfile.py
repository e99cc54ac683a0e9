"""Reading experiments: `configs/*.py` and overrides of the command line."""

import ast
import difflib
import runpy
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from bridgedepth_jax import configs
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.system import DEFAULT, find_system


def read_config(spec: str) -> ConfigDict:
    """`NAME` or `NAME:ARGUMENT`, or a file: what its `get_config()` or `get_config("ARGUMENT")` returns."""
    name, colon, argument = spec.partition(":")
    file = configs.find(name)
    try:
        config = runpy.run_path(str(file))["get_config"](*[argument] if colon else [])
    except InputError:
        raise
    except Exception as error:  # anything can go wrong in the user's file
        raise InputError(f"--config {spec}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config {spec}: get_config() gave {type(config).__name__}, expected ml_collections.ConfigDict")
    return config


def override(config: ConfigDict, options: Sequence[str]) -> None:
    """Applies `--config.a.b=value`; values are Python literals, or words where a word is expected."""
    for option in options:
        name, equals, text = option.partition("=")
        prefix, _, path = name.partition(".")
        if prefix != "--config" or not path or not equals:
            raise InputError(f"unknown option {option}, expected --config.KEY=VALUE or one of --help")
        path = find_system(str(config.get("system", DEFAULT))).moved.get(path, path)
        *parents, key = path.split(".")
        node: Any = config
        for parent in parents:
            node = _child(node, parent, path)
        _child(node, key, path)
        if isinstance(node[key], ConfigDict):
            raise InputError(f"--config.{path} is a section, expected one of its keys {', '.join(sorted(node[key]))}")
        with config.ignore_type():  # types are checked where the experiment is built
            node[key] = text if isinstance(node[key], str) else _literal(text)


def _child(node: Any, key: str, path: str) -> Any:
    if isinstance(node, ConfigDict) and key in node:
        return node[key]
    keys = sorted(node) if isinstance(node, ConfigDict) else []
    near = difflib.get_close_matches(key, keys, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(keys)}"
    raise InputError(f"unknown key --config.{path}: no {key!r} there, {hint}")


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
