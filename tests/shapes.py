"""What checks the package's shapes in every test: beartype on whatever annotation names a shape, and on nothing else."""

import functools
import operator
import types
import typing
from collections.abc import Callable
from typing import Any

import jax
import jaxtyping
import numpy as np
from beartype import beartype
from jaxtyping import AbstractArray


def check(function: Callable) -> Callable:
    """The function, its arguments and result held to their shapes; other annotations are pyright's business.

    Not what makes a dataclass: in trees, its fields are also shapes and shardings.
    """
    if function.__name__ == "__init__":
        return function
    hints = dict(getattr(function, "__annotations__", {}))
    shaped = {name: _of_either_kind(hint) for name, hint in hints.items() if _names_a_shape(hint)}
    if not shaped:
        return function
    function.__annotations__ = shaped
    checked = beartype(function)
    function.__annotations__ = checked.__annotations__ = hints
    return checked


def _names_a_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_names_a_shape, typing.get_args(hint)))


def _of_either_kind(hint: Any) -> Any:
    """The same, but NumPy arrays may stand where JAX's are named: what takes these takes those."""
    parts = typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        dtypes = getattr(jaxtyping, hint.__name__.partition("[")[0])
        return dtypes[jax.Array | np.ndarray, hint.dim_str] if hint.array_type is jax.Array else hint
    if not parts or not _names_a_shape(hint):
        return hint
    parts = tuple(map(_of_either_kind, parts))
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return functools.reduce(operator.or_, parts)
    return typing.get_origin(hint)[parts]
