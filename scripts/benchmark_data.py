"""`bridgedepth data benchmark`, in a checkout: python scripts/benchmark_data.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["data", "benchmark", *sys.argv[1:]])
