"""`bridgedepth_jax.commands.export_onnx` in a checkout: python scripts/make_onnx.py --help."""

import argparse

from bridgedepth_jax.commands import export_onnx
from bridgedepth_jax.errors import command


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=export_onnx.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    export_onnx.arguments(parser)
    export_onnx.run(parser.parse_args())


if __name__ == "__main__":
    main()
