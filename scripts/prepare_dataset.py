"""`bridgedepth data prepare`, in a checkout: python scripts/prepare_dataset.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["data", "prepare", *sys.argv[1:]])
