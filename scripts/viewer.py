"""`bridgedepth view`, in a checkout: python scripts/viewer.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["view", *sys.argv[1:]])
