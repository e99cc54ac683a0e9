"""How well holes of warped views are filled: PSNR inside them on rendered pairs, whose right view is known.

    python scripts/fill_holes.py                                      every filler without a network
    python scripts/fill_holes.py --inpaint weights/inpaint --mean 4   and a checkpoint: one sample, and the mean of four

Also how well the warp itself does: outside the holes against the rendered view, and its mask of what both views see.
The scenes are those of `synthetic` without anything that breaks the equality of matching pixels, of another seed than training.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import cv2
import numpy as np
from tqdm import tqdm

from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.files import replacing
from bridgedepth_jax.ops.forward_warp import forward_warp
from bridgedepth_jax.systems.zerostereo.fillers import FILLERS, Scene, hole_psnr, open_filler


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inpaint", help="checkpoint of an inpainting network")
    parser.add_argument("--steps", type=int, default=50, help="of diffusion")
    parser.add_argument("--mean", type=int, default=4, help="samples of which a mean is scored too")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 192), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--max-disparity", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--photos", type=Path, help="a folder of photographs in place of the built-in ones")
    parser.add_argument("--out", type=Path, metavar="PNG", help="picture of the first pairs: truth, warped, and each filler")
    args = parser.parse_args(argv)
    for option in ("pairs", "steps", "mean"):
        if getattr(args, option) < 1:
            raise InputError(f"--{option} {getattr(args, option)}, expected at least 1")
    network = open_filler(args.inpaint, args.steps, args.mean)[0] if args.inpaint else None
    config = SyntheticConfig(textures=24).clean()
    data = SyntheticStereo(
        *args.size, max_disparity=args.max_disparity, seed=args.seed, size=args.pairs, photos=args.photos, config=config
    )
    scores: dict[str, list[float]] = {}
    pictures, holes, apart, agree = [], [], [], []
    for index in tqdm(range(args.pairs), unit="pair", file=sys.stderr, disable=None):
        sample = data[index]
        warped = forward_warp(sample["left"], sample["disparity"].astype(np.float64))
        apart.append(np.abs(warped.right - sample["right"])[~warped.inpaint])
        agree.append(np.mean(warped.nonocc == sample["nonocc"]))
        if not warped.inpaint.any():
            continue
        other = lambda index=index: data[(index + 7) % args.pairs]["left"]
        scene = lambda k, sample=sample, warped=warped, other=other, index=index: Scene(
            warped.right, warped.inpaint, sample["left"], other, np.random.default_rng((args.seed, index, k))
        )
        filled = {name: fill(scene(0)) for name, fill in FILLERS.items()}
        if network is not None:
            samples = network.fill([scene(k) for k in range(args.mean)])
            filled["diffusion"] = samples[0]
            filled[f"diffusion, mean of {args.mean}"] = np.round(np.mean(samples, 0)).astype(np.uint8)
        for name, image in filled.items():
            scores.setdefault(name, []).append(hole_psnr(image, sample["right"], warped.inpaint))
        holes.append(warped.inpaint.mean())
        if len(pictures) < 8:
            pictures.append(np.concatenate([sample["right"], *filled.values()], axis=1))
    print(
        f"{len(holes)} pairs of {args.size[0]} x {args.size[1]}, holes {100 * np.mean(holes):.1f} % of pixels; dB inside them"
    )
    outside = np.concatenate(apart)
    psnr = 10 * np.log10(255**2 / np.mean(np.square(outside)))
    share = f"masks agree on {100 * np.mean(agree):.1f} %"
    print(f"warp outside holes: median {np.median(outside):.2f} grey levels, {psnr:.1f} dB; {share}")
    for name, values in scores.items():
        print(f"{name:24} mean {np.mean(values):6.2f}   median {np.median(values):6.2f}")
    if args.out is not None:
        with replacing(args.out) as temporary:
            cv2.imwrite(str(temporary), cv2.cvtColor(np.concatenate(pictures), cv2.COLOR_RGB2BGR))
        print(f"{args.out}: truth | {' | '.join(scores)}")


if __name__ == "__main__":
    main()
