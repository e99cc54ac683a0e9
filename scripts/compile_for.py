"""`bridgedepth benchmark compile`, in a checkout: python scripts/compile_for.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["benchmark", "compile", *sys.argv[1:]])
