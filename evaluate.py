"""`bridgedepth evaluate`, in a checkout: python evaluate.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
