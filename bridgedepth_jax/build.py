"""From plain trees (an `ml_collections` config, JSON) to frozen dataclasses, and back: the one builder of every config."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from bridgedepth_jax.errors import InputError


def build(cls: Any, tree: Any, where: str) -> Any:
    """An instance of the dataclass `cls` from a mapping. InputError names an unknown key or a value of another type."""
    if not isinstance(tree, Mapping):
        raise InputError(f"{where} = {tree!r}, expected a mapping")
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(tree) - fields):
        raise InputError(f"unknown key {where}.{unknown[0]}, expected one of {', '.join(sorted(fields))}")
    values = {name: _value(hints[name], value, f"{where}.{name}") for name, value in tree.items()}
    try:
        return cls(**values)
    except InputError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{where}: {error}") from error


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)
    if origin is Literal:
        if value in parts:
            return value
        raise InputError(f"{where} = {value!r}, expected one of {', '.join(map(repr, parts))}")
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _value(next(part for part in parts if part is not types.NoneType), value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else list(parts)
        if len(kinds) == len(value):
            return tuple(_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is Any or (origin is None and isinstance(kind, type) and type(value) is kind):
        return value
    raise InputError(f"{where} = {value!r}, expected {kind.__name__ if isinstance(kind, type) and not parts else kind}")


def plain(value: Any) -> Any:
    """JSON values of a dataclass or a tree of them: dictionaries, lists, numbers, words."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
