"""`bridgedepth_jax.commands.export_jax` in a checkout: python scripts/export_jax.py --help."""

import argparse

from bridgedepth_jax.commands import export_jax
from bridgedepth_jax.errors import command


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=export_jax.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    export_jax.arguments(parser)
    export_jax.run(parser.parse_args())


if __name__ == "__main__":
    main()
