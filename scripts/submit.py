"""`bridgedepth submit`, in a checkout: python scripts/submit.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["submit", *sys.argv[1:]])
