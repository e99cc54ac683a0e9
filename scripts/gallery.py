"""The gallery of the package's README: left image, disparity, confidence, and the point cloud seen from the side.

python scripts/gallery.py --out .assets/gallery.jpg
python scripts/gallery.py --pairs pairs.csv --out mine.jpg

A row for the pair of scikit-image, for --rendered generated ones and for those of --pairs, whose focal length is taken to be
their width.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from bridgedepth_jax.data.formats import read_image
from bridgedepth_jax.data.pairs import find_pairs
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.files import replacing
from bridgedepth_jax.geometry import Calibration, point_cloud
from bridgedepth_jax.inference import demo
from bridgedepth_jax.inference.stereo import Predictor
from bridgedepth_jax.visualize import colorize

WIDTH = 360  # pixels of one picture
SIZE = (384, 640)  # of generated pairs
ANGLE = 25.0  # degrees, by which the cloud is turned about its middle
TITLES = ("left image", "disparity", "confidence", "point cloud from the side")


def from_the_side(points: np.ndarray, colors: np.ndarray, camera: Calibration, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8: the cloud as a camera of that kind sees it after a turn, nearer points over farther ones."""
    height, width = size
    middle = np.median(points, 0)
    turn = cv2.Rodrigues(np.deg2rad([0, ANGLE, 0]))[0]
    turned = (points - middle) @ turn.T + middle * [1, 1, 1.25]
    order = np.argsort(-turned[:, 2])
    x, y, z = turned[order].T
    shown = z > 0.05
    column = np.rint(camera.fx * x[shown] / z[shown] + camera.cx).astype(int)
    row = np.rint(camera.fy * y[shown] / z[shown] + camera.cy).astype(int)
    picture = np.full((height, width, 3), 24, np.uint8)
    for down, right in ((0, 1), (1, 0), (1, 1), (0, 0)):  # points are four pixels large
        inside = (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
        picture[row[inside] + down, column[inside] + right] = colors[order][shown][inside]
    return picture


def row(predictor: Predictor, left: np.ndarray, right: np.ndarray, camera: Calibration) -> np.ndarray:
    """The four pictures beside each other, each WIDTH pixels wide."""
    found = predictor(left, right, check_consistency=True)
    assert found.occluded is not None
    sure = ~found.occluded & (found.confidence > 0.5)
    depth = camera.depth(found.disparity)
    far = float(np.quantile(depth[sure & np.isfinite(depth)], 0.95))
    cloud = point_cloud(found.disparity, left, camera, z_far=far, valid=sure)
    aside = from_the_side(*cloud, camera, left.shape[:2])
    limit = float(np.quantile(found.disparity, 0.995))
    pictures = left, colorize(found.disparity, limit), colorize(found.confidence, 1.0), aside
    size = WIDTH, round(WIDTH * left.shape[0] / left.shape[1])
    return np.concatenate([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures], 1)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="folder or published name; default: the model of the package")
    parser.add_argument("--pairs", type=Path, help="CSV file: left, right; default: none")
    parser.add_argument("--rendered", type=int, default=2, help="generated pairs; default: 2")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    args = parser.parse_args()
    if not cv2.haveImageWriter(str(args.out)):
        raise InputError(f"--out {args.out}: no writer for this file type, expected .png or .jpg")
    predictor = Predictor.load(args.checkpoint, check_order=False)
    sample, _ = demo.motorcycle()
    rows = [row(predictor, sample.left, sample.right, demo.MOTORCYCLE)]
    scenes = SyntheticStereo(*SIZE, max_disparity=128.0, seed=10_007, config=SyntheticConfig.named("sparse"))
    pairs = [(scenes[i]["left"], scenes[i]["right"]) for i in range(args.rendered)]
    for found in find_pairs(f"custom:{args.pairs.name}", args.pairs.parent) if args.pairs else ():
        pairs.append((read_image(found.left), read_image(found.right)))
    for left, right in pairs:
        height, width = left.shape[:2]
        rows.append(row(predictor, left, right, Calibration.from_focal(width, 0.1, (width, height))))
    title = np.full((26, rows[0].shape[1], 3), 255, np.uint8)
    for i, words in enumerate(TITLES):
        cv2.putText(title, words, (i * WIDTH + 8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    with replacing(args.out) as temporary:
        cv2.imwrite(str(temporary), np.concatenate([title, *rows])[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    print(args.out)


if __name__ == "__main__":
    main()
