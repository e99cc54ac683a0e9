"""A page that computes in the browser: a stereo checkpoint, onnxruntime-web and all else that it needs in one folder.

bridgedepth export web page
bridgedepth export web page --checkpoint checkpoints/mine --size 480x640 --size 288x512
python -m http.server --directory page 8000    # any server of files will do

Two images or the camera go in; coloured disparity with the value under the mouse, PFM and PNG come out. Images of other sizes
are resized to the one chosen. onnxruntime-web is fetched once with npm, unless --runtime has it. Pages that are served with the
headers `Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Embedder-Policy: require-corp` use several threads.
"""

import argparse
from pathlib import Path

from bridgedepth_jax.commands import options
from bridgedepth_jax.commands.export_onnx import add_model, add_pair, load_model, load_pair


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="the folder, which must not exist")
    add_model(parser)
    parser.add_argument("--size", action="append", metavar="HEIGHTxWIDTH", help="repeatable, the first is the default: 480x640")
    parser.add_argument("--runtime", type=Path, help="onnxruntime-web as npm packs it, or its folder")
    add_pair(parser)


def run(args: argparse.Namespace) -> None:
    from bridgedepth_jax.export.web import export_web

    sizes = tuple(dict.fromkeys(options.size("--size", text) for text in args.size or ["480x640"]))
    pair = load_pair(args)
    checkpoint, folder, name = load_model(args)
    export_web(checkpoint, folder, args.out, name, pair, sizes, args.runtime)
    print(args.out)
