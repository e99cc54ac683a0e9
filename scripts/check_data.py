"""`bridgedepth data check`, in a checkout: python scripts/check_data.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["data", "check", *sys.argv[1:]])
