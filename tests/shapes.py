"""What checks the package's shapes in every test: beartype on whatever annotation names a shape, and on nothing else."""

import typing
from collections.abc import Callable
from typing import Any

from beartype import beartype
from jaxtyping import AbstractArray


def check(function: Callable) -> Callable:
    """The function, its arguments and result held to their shapes; other annotations are pyright's business.

    Not what makes a dataclass: in trees, its fields are also shapes and shardings.
    """
    if function.__name__ == "__init__":
        return function
    hints = dict(getattr(function, "__annotations__", {}))
    shaped = {name: hint for name, hint in hints.items() if _names_a_shape(hint)}
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
