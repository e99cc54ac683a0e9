"""`bridgedepth convert`, in a checkout: python -m convert --help."""

import sys
from collections.abc import Sequence

from bridgedepth_jax import commands


def main(argv: Sequence[str] | None = None) -> None:
    commands.main(["convert", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    main()
