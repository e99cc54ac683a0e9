"""`bridgedepth export onnx`, in a checkout: python scripts/make_onnx.py --help."""

import sys

from bridgedepth_jax.commands import main

if __name__ == "__main__":
    main(["export", "onnx", *sys.argv[1:]])
