"""`bridgedepth data preview`, in a checkout: python scripts/preview_data.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["data", "preview", *sys.argv[1:]])
