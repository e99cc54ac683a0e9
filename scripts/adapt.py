"""`bridgedepth adapt`, in a checkout: python scripts/adapt.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["adapt", *sys.argv[1:]])
