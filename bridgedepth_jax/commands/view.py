"""A page in the browser, of this machine alone: drop in two images, look at disparity, confidence and the point cloud.

bridgedepth view
bridgedepth view --checkpoint rvc --devices gpu --port 8090

Needs the extra `viewer`: pip install 'bridgedepth-jax[viewer]'.
"""

import argparse
import os
import socket

from bridgedepth_jax.commands import options
from bridgedepth_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    options.add_checkpoint(parser, "folder or published name to offer first; repeatable", action="append", default=[])
    options.add_devices(parser, "cpu")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1, reached from here alone")
    parser.add_argument("--port", type=int, default=8080, help="to listen on")
    parser.add_argument("--max-upload", type=int, default=32, metavar="MIB", help="of a file")
    parser.add_argument("--max-pixels", type=int, default=4_000_000, help="of an image")


def run(args: argparse.Namespace) -> None:
    if args.max_upload < 1 or args.max_pixels < 1:
        raise InputError("--max-upload and --max-pixels: expected positive numbers")
    check_port(args.host, args.port)
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(args.max_pixels)  # read when OpenCV is imported
    try:
        from bridgedepth_jax.inference import viewer
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'bridgedepth-jax[viewer]'") from None
    from bridgedepth_jax.systems.bridgedepth.config import VARIANTS

    limits = viewer.Limits(args.max_upload * 2**20, args.max_pixels)
    models = list(dict.fromkeys([*args.checkpoint, viewer.DEFAULT, *VARIANTS]))
    viewer.start(models, host=args.host, port=args.port, devices=args.devices, limits=limits)


def check_port(host: str, port: int) -> None:
    """Can a server listen there? The library that does says it is ready before it knows."""
    if not 1 <= port <= 65535:
        raise InputError(f"--port {port}, expected 1 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error.strerror}, expected an address that is free") from None
