"""`bridgedepth train`, in a checkout: python train.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
