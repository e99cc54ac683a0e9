"""Images for depth maps with a converted FLUX.1-Depth.

python scripts/generate.py --checkpoint checkpoints/flux_depth --depth depth --out generated --per-depth 4 --seed 0
python scripts/generate.py --checkpoint checkpoints/flux_depth --depth depth --out generated --shard 0/16

OUT/<path>_<draw>.png for every file under --depth (.npy, .pfm and .dpt metres, .png millimetres, or --format). An image is a
function of the seed, its path and the number of the draw alone, so any sharding gives the same ones; what is there is left.
"""

import argparse
import hashlib
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from bridgedepth_jax.data.formats import read_bytes, write_png
from bridgedepth_jax.data.mono_formats import decode_target, find_depth_format
from bridgedepth_jax.data.shards import Index, Shard, check_apart
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.store.checkpoint import DIGESTS, load_checkpoint
from bridgedepth_jax.systems.bridge_mde.generator import pipeline
from bridgedepth_jax.systems.bridge_mde.labels import DEPTH_SUFFIXES


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path, help="folder of `bridgedepth convert flux-depth`")
    parser.add_argument("--depth", required=True, type=Path, help="folder of depth files, however deep")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--format", default="", help="of depth files; default: by suffix")
    parser.add_argument("--per-depth", type=int, default=4, help="images a map")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of the sampler; default: the checkpoint's")
    parser.add_argument("--size", default="", help="height,width of the images; default: the map's")
    parser.add_argument("--shard", default="0/1", metavar="I/N")
    args = parser.parse_args(argv)
    shard = Shard.of(args.shard)
    check_apart(args.out, {"--depth": args.depth})
    if args.format:
        find_depth_format(args.format, "--format")
    if args.per_depth < 1 or (args.steps is not None and args.steps < 1):
        raise InputError(f"--per-depth {args.per_depth}, --steps {args.steps}: expected at least 1")
    try:
        size = tuple(int(side) for side in args.size.split(",")) if args.size else None
        assert size is None or (len(size) == 2 and min(size) > 0)
    except (ValueError, AssertionError):
        raise InputError(f"--size {args.size}, expected height,width in pixels") from None
    files = {
        path.relative_to(args.depth).as_posix(): path
        for path in sorted(args.depth.rglob("*"))
        if path.is_file() and (args.format or path.suffix.lower() in DEPTH_SUFFIXES)
    }
    if not files:
        raise InputError(f"--depth {args.depth}: no depth files, expected {' '.join(DEPTH_SUFFIXES)}")
    checkpoint = load_checkpoint(args.checkpoint, dtype=None)
    if checkpoint.kind != "flux-depth":
        raise InputError(f"--checkpoint {args.checkpoint} holds {checkpoint.kind}, expected flux-depth")
    config = checkpoint.config
    identity = {
        "checkpoint": hashlib.sha256((args.checkpoint / DIGESTS).read_bytes()).hexdigest(),
        "seed": args.seed, "steps": args.steps or config.steps, "size": args.size,
    }  # fmt: skip
    index = Index(args.out, shard, identity)
    target = lambda name, draw: args.out / f"{Path(name).with_suffix('').as_posix()}_{draw}.png"
    names = shard.mine(files)
    todo = [name for name in names if not index.done(name, [target(name, draw) for draw in range(args.per_depth)])]
    weights = jax.device_put(checkpoint.params)
    run = jax.jit(pipeline.make_images(config, steps=args.steps))
    for name in tqdm(todo, unit=" maps"):
        path = files[name]
        found = decode_target(read_bytes(path), args.format or DEPTH_SUFFIXES[path.suffix.lower()], str(path))
        if not found.valid.any():
            raise InputError(f"{path}: no valid pixel")
        inverse = found.inverse if size is None else cv2.resize(found.inverse, size[::-1], interpolation=cv2.INTER_LINEAR)
        height, width = inverse.shape
        pipeline.check_side(height, width, config.multiple, str(path) if size is None else f"--size {args.size}")
        latent = (height // config.vae.factor, width // config.vae.factor, config.vae.latent_channels)
        for draw in range(args.per_depth):
            noise = pipeline.draw_noise(args.seed, name, draw, latent)
            image = run(weights, jnp.asarray(inverse)[None], noise[None])[0]
            write_png(target(name, draw), np.round(np.asarray(image, np.float32) * 255).astype(np.uint8))
        index.add(name, {"images": args.per_depth, "depth": hashlib.sha256(read_bytes(path)).hexdigest()})
    index.finish(names)
    print(f"{len(todo)} maps made now, {len(names) - len(todo)} before")


if __name__ == "__main__":
    main()
