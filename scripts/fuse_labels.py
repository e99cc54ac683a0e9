"""`bridgedepth data fuse-labels`, in a checkout: python scripts/fuse_labels.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["data", "fuse-labels", *sys.argv[1:]])
