"""The one error a user can cause, and how a command ends on it."""

import functools
import sys
from collections.abc import Callable


class InputError(ValueError):
    """What the user gave cannot be used. The message is one line: the file or option, its value, what was expected."""


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
