"""Contact sheet of a data set: left, right, disparity, masks, warped error.

python scripts/preview_data.py synthetic --count 8 --out sheet.png
python scripts/preview_data.py kitti_2015_train --root data --out sheet.png
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2

from bridgedepth_jax.data import find_pairs, read_sample
from bridgedepth_jax.data.pairs import Sample
from bridgedepth_jax.data.preview import contact_sheet
from bridgedepth_jax.data.procedural import SyntheticStereo
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.files import replacing


def _samples(arguments: argparse.Namespace) -> Iterator[Sample]:
    if arguments.count < 1:
        raise InputError(f"--count {arguments.count}: expected at least 1")
    if arguments.name == "synthetic":
        height, width = arguments.size
        data = SyntheticStereo(
            height, width, max_disparity=arguments.max_disparity, seed=arguments.seed, photos=arguments.photos
        )
        yield from (data[arguments.start + i] for i in range(arguments.count))
        return
    pairs = find_pairs(arguments.name, arguments.root)
    if not 0 <= arguments.start < len(pairs):
        raise InputError(f"--start {arguments.start}: expected 0 to {len(pairs) - 1}, {arguments.name} has {len(pairs)} pairs")
    step = max(1, len(pairs) // arguments.count)
    yield from (read_sample(pair) for pair in pairs[arguments.start :: step][: arguments.count])


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="synthetic, or a data set's name")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder that holds the data sets")
    parser.add_argument("--count", type=int, default=8, help="samples, evenly spread over a data set on disk")
    parser.add_argument("--start", type=int, default=0, help="first sample")
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    parser.add_argument("--width", type=int, default=320, help="of one picture on the sheet, pixels")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("HEIGHT", "WIDTH"), help="synthetic only")
    parser.add_argument("--max-disparity", type=float, default=192.0, help="synthetic only")
    parser.add_argument("--seed", type=int, default=0, help="synthetic only")
    parser.add_argument("--photos", type=Path, help="synthetic only: a folder of photographs in place of the built-in ones")
    arguments = parser.parse_args()
    if arguments.width < 1:
        raise InputError(f"--width {arguments.width}: expected at least 1")
    if not cv2.haveImageWriter(str(arguments.out)):
        raise InputError(f"--out {arguments.out}: no writer for this file type, expected .png or .jpg")
    sheet = contact_sheet(_samples(arguments), arguments.width)
    with replacing(arguments.out) as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    print(f"{arguments.out}: {sheet.shape[1]} x {sheet.shape[0]} pixels, left | right | disparity | masks | warped error")


if __name__ == "__main__":
    main()
