"""A file of jax.export written under one version of JAX and read under another, both ways.

python scripts/export_across.py --other ../other/bin/python --height 96 --width 160

--other is a Python with another JAX and with this package's dependencies. The reading process cannot import flax or this
project. Prints the largest difference from the disparity that the writer's own JAX computes.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bridgedepth_jax.errors import InputError, command

WRITE = """
import sys
from pathlib import Path
import jax
import numpy as np
from bridgedepth_jax.convert.published import resolve
from bridgedepth_jax.export import pairs
from bridgedepth_jax.inference import demo
from bridgedepth_jax.inference.stereo import DEFAULT_MODEL
from bridgedepth_jax.store.checkpoint import load_checkpoint

checkpoint = load_checkpoint(resolve(sys.argv[1] or DEFAULT_MODEL))
folder, size = Path(sys.argv[2]), (int(sys.argv[3]), int(sys.argv[4]))
pairs.export_jax(checkpoint, folder / "model.jax", size, batch=int(sys.argv[5]) or None)
sample, _ = demo.motorcycle()
both = [image.transpose(0, 2, 3, 1).astype(np.float32) for image in pairs.resized(sample.left, sample.right, *size, 2)]
expected = jax.jit(pairs.nhwc(pairs.stereo(checkpoint), checkpoint.config))(checkpoint.params, *both)
np.savez(folder / "pair.npz", left=both[0], right=both[1], expected=expected[0])
print(jax.__version__)
"""
READ = """
import sys
import numpy as np
sys.modules["flax"] = sys.modules["bridgedepth_jax"] = None  # importing them fails
from model_loader import load

pair = np.load("pair.npz")
disparity, confidence = load("model.jax")(pair["left"], pair["right"])
np.save("found.npy", disparity)
import jax
print(jax.__version__)
"""


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, required=True, help="the other Python")
    parser.add_argument("--checkpoint", default="", help="folder or published name; default: the model of the package")
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument(
        "--batch", type=int, default=0, choices=(0, 2), help="fixed batch; default: any, which JAX 0.10 cannot read"
    )
    args = parser.parse_args()
    if not args.other.is_file():
        raise InputError(f"--other {args.other}: no such file, expected a Python")
    for writer, reader in ((sys.executable, str(args.other.absolute())), (str(args.other.absolute()), sys.executable)):
        with tempfile.TemporaryDirectory() as folder:
            words = [args.checkpoint, folder, str(args.height), str(args.width), str(args.batch)]
            wrote = run([writer, "-c", WRITE, *words], None)
            read = run([reader, "-c", READ], folder)
            with np.load(Path(folder) / "pair.npz") as pair:
                difference = np.abs(np.load(Path(folder) / "found.npy") - pair["expected"])
            size = (Path(folder) / "model.jax").stat().st_size / 1e6
        median, largest = np.median(difference), difference.max()
        print(
            f"written by {wrote} ({size:.1f} MB), read by {read}: median {median:.1e} px, largest {largest:.1e} px", flush=True
        )


def run(words: list[str], folder: str | None) -> str:
    """What it prints last."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{words[0]} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout.split()[-1]


if __name__ == "__main__":
    main()
