"""`bridgedepth data synthesize`, in a checkout: python scripts/synthesize.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["data", "synthesize", *sys.argv[1:]])
