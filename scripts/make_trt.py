"""`bridgedepth export trt`, in a checkout: python scripts/make_trt.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["export", "trt", *sys.argv[1:]])
