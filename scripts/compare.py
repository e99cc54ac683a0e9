"""`bridgedepth report compare`, in a checkout: python scripts/compare.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["report", "compare", *sys.argv[1:]])
