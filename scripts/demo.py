"""`bridgedepth demo`, in a checkout: python scripts/demo.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["demo", *sys.argv[1:]])
