"""A page in the browser, of this machine alone: drop in two images, look at disparity, confidence and the point cloud.

python scripts/viewer.py
python scripts/viewer.py --checkpoint rvc --devices gpu --port 8090

Needs the extra `viewer`: pip install 'bridgedepth-jax[viewer]'.
"""

import argparse
import os

from bridgedepth_jax.errors import InputError, command


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", action="append", default=[], help="folder or published name to offer first; repeatable")
    parser.add_argument("--devices", default="cpu", help="cpu, gpu, tpu or all")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; the default is reached from here alone")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--max-upload", type=int, default=32, metavar="MIB", help="of a file")
    parser.add_argument("--max-pixels", type=int, default=4_000_000, help="of an image")
    args = parser.parse_args()
    if args.max_upload < 1 or args.max_pixels < 1:
        raise InputError("--max-upload and --max-pixels: expected positive numbers")
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(args.max_pixels)  # read when OpenCV is imported
    try:
        from bridgedepth_jax import viewer
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'bridgedepth-jax[viewer]'") from None
    from bridgedepth_jax.config import VARIANTS

    limits = viewer.Limits(args.max_upload * 2**20, args.max_pixels)
    models = list(dict.fromkeys([*args.checkpoint, viewer.DEFAULT, *VARIANTS]))
    viewer.start(models, host=args.host, port=args.port, devices=args.devices, limits=limits)


if __name__ == "__main__":
    main()
