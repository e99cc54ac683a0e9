"""`bridgedepth export web`, in a checkout: python scripts/export_web.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["export", "web", *sys.argv[1:]])
