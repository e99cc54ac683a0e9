"""`bridgedepth export jax`, in a checkout: python scripts/export_jax.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["export", "jax", *sys.argv[1:]])
