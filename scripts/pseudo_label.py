"""`bridgedepth data pseudo-label`, in a checkout: python scripts/pseudo_label.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["data", "pseudo-label", *sys.argv[1:]])
