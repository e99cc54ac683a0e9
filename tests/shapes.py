"""What checks the package's annotations in every test: beartype, with jaxtyping's shapes."""

import typing
from collections.abc import Callable

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int where a float is asked for, as type checkers have it


def check(function: Callable) -> Callable:
    """beartype, but for methods that return `Self`, which it knows in whole classes only."""
    hints = getattr(function, "__annotations__", {})
    if any(hint is typing.Self or "Self" in str(hint) for hint in hints.values()):
        return function
    return _checked(function)
