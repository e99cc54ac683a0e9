"""`bridgedepth benchmark`, in a checkout: python scripts/benchmark.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["benchmark", *sys.argv[1:]])
