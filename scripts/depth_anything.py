"""`bridgedepth depth`, in a checkout: python scripts/depth_anything.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["depth", *sys.argv[1:]])
