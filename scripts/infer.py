"""`bridgedepth infer`, in a checkout: python scripts/infer.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["infer", *sys.argv[1:]])
