"""`bridgedepth report plot`, in a checkout: python scripts/plot_run.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["report", "plot", *sys.argv[1:]])
