"""The one error a user can cause, and how a command ends on it."""

import difflib
import functools
import sys
from collections.abc import Callable, Iterable


class InputError(ValueError):
    """What the user gave cannot be used. The message is one line: the file or option, its value, what was expected."""


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is none of those known: the nearest of them, if one is near, and all."""
    return InputError(f"unknown {what} {name!r}, {nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of such a message."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? Known: " if near else "expected one of "
    return hint + ", ".join(known)


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Decorates a command's `main`: an `InputError` becomes one line on stderr and exit status 2."""

    @functools.wraps(main)
    def run(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
        except InputError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            raise SystemExit(2) from None

    return run
