"""Speed and memory of ZeroStereo: warp beside a plain loop, sampling of the small network, Stable Diffusion 2 by its program.

    python scripts/measure_zerostereo.py warp
    python scripts/measure_zerostereo.py sampling [--inpaint runs/inpaint_nano/export] [--size 384 512]
    python scripts/measure_zerostereo.py sd2 [--dtype bfloat16]

sd2 needs no weights: shapes by `eval_shape`, temporaries by what the compiler says of the program of 512 x 512 pixels.
"""

import argparse
import dataclasses
import functools
import os
import resource
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.networks.diffusion.autoencoder import AutoencoderKL
from bridgedepth_jax.networks.diffusion.inpainting import Basis, make_inpainter
from bridgedepth_jax.networks.diffusion.unet import UNet2DConditionModel
from bridgedepth_jax.ops.forward_warp import NOTHING, forward_warp
from bridgedepth_jax.store.checkpoint import load_checkpoint
from bridgedepth_jax.systems.zerostereo import system
from bridgedepth_jax.systems.zerostereo.config import StereoGenConfig

MIB = 2**20
STRIP = 24  # rows of the plain loop, whose time is proportional to them


def warp_loop(image: np.ndarray, disparity: np.ndarray) -> np.ndarray:
    """The warp pixel by pixel."""
    height, width = disparity.shape
    right = np.zeros(image.shape)
    for y in range(height):
        place = [x - float(disparity[y, x]) for x in range(width)]
        hit: dict[int, int] = {}
        for x in range(width):
            for t in (int(np.floor(place[x])), int(np.ceil(place[x]))):
                hit[t] = max(hit.get(t, -1), x)
        layers: list[dict[int, tuple[float, int]]] = [{}, {}]
        for x in range(width):
            f, c = int(np.floor(place[x])), int(np.ceil(place[x]))
            if place[x] > 0 and (hit[f] < x + 2 or hit[c] < x + 2):
                for layer, t, distance in ((layers[0], c, c - place[x]), (layers[1], f, 1 - (c - place[x]))):
                    if t not in layer or distance <= layer[t][0]:
                        layer[t] = (distance, x)
        for t in range(width):
            (a, from_a), (b, from_b) = (layer.get(t, (NOTHING, -1)) for layer in layers)
            above = image[y, from_a] if from_a >= 0 else np.zeros(3)
            below = image[y, from_b] if from_b >= 0 else np.zeros(3)
            right[y, t] = (above * b + below * a) / (a + b + 1e-7)
    return right


def warp(args: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (768, 1024, 3)).astype(np.uint8)
    disparity = np.round(np.cumsum(rng.normal(0, 0.3, (768, 1024)), 1).clip(0, 200) * 256) / 256
    times = []
    for _ in range(5):
        start = time.process_time()
        whole = forward_warp(image, disparity)
        times.append(time.process_time() - start)
    start = time.process_time()
    strip = warp_loop(image[:STRIP], disparity[:STRIP])
    loop = (time.process_time() - start) * len(image) / STRIP
    difference = float(np.abs(whole.right[:STRIP] - strip).max())
    print(f"warp of 1024 x 768: {min(times):.3f} s of one core (best of 5); plain loop {loop:.1f} s (of {STRIP} rows, scaled)")
    print(f"ratio {loop / min(times):.0f}; largest difference {difference:.1e} grey levels")


def sampling(args: argparse.Namespace) -> None:
    height, width = args.size
    if args.inpaint:
        checkpoint = load_checkpoint(args.inpaint)
        config, params = checkpoint.config, checkpoint.params
    else:
        config = StereoGenConfig.nano()
        params = jax.jit(functools.partial(system.init, config))(jax.random.key(0))
    compilations = 0

    def count(name: str, *_: object, **__: object) -> None:
        nonlocal compilations
        compilations += name == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(count)
    inpaint = make_inpainter(config.unet, system.codec_of(config), config.schedule, args.steps, basis=Basis(config.residual))
    before = peak()
    for number, size in enumerate([(height, width)] * 3 + [(height - 1, width - 3)]):
        rng = np.random.default_rng(number)
        shape = tuple(-(-side // config.factor) for side in size)
        channels = config.unet.out_channels
        inputs = (rng.uniform(-1, 1, (1, *size, 3)), rng.random((1, *size)) < 0.1, rng.standard_normal((1, *shape, channels)))
        image, mask, noise = (jnp.asarray(array, jnp.float32) for array in inputs)
        start, known = time.perf_counter(), compilations
        jax.block_until_ready(inpaint(params, image, mask, jnp.asarray(params["empty_prompt"])[None], noise).image)
        spent = time.perf_counter() - start
        print(f"{size[0]} x {size[1]}, {args.steps} steps: {spent:.2f} s, {compilations - known} programs compiled", flush=True)
    print(f"peak of the process {peak():.0f} MiB, {before:.0f} before; {count_of(params['unet']) / 1e6:.2f} M parameters")


def sd2(args: argparse.Namespace) -> None:
    config = StereoGenConfig()
    shapes = jax.eval_shape(functools.partial(system.init, config), jax.random.key(0))
    dtype = jnp.dtype(args.dtype)
    unet = UNet2DConditionModel(dataclasses.replace(config.unet, dtype=args.dtype))
    half = lambda tree: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), tree)
    sizes = {name: count_of(shapes[name]) for name in ("unet", "vae")}
    print(f"parameters: U-Net {sizes['unet']:,} ({sizes['unet'] * dtype.itemsize / MIB:.0f} MiB in {args.dtype}),"
          f" autoencoder {sizes['vae']:,} ({sizes['vae'] * 4 / MIB:.0f} MiB in float32)")  # fmt: skip
    array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    vae = AutoencoderKL(config.vae)  # type: ignore[arg-type]
    programs = {
        "U-Net, one call": (
            lambda p, x, t, c: unet.apply({"params": p}, x, t, c),
            (half(shapes["unet"]), array(1, 64, 64, 9), array(1), array(1, 2, 1024)),
        ),
        "encoder": (lambda p, x: vae.apply({"params": p}, x, method="encode"), (shapes["vae"], array(1, 512, 512, 3))),
        "decoder": (lambda p, z: vae.apply({"params": p}, z, method="decode"), (shapes["vae"], array(1, 64, 64, 4))),
    }
    for name, (function, arguments) in programs.items():
        if args.only and args.only not in name:
            continue
        start = time.perf_counter()
        analysis = jax.jit(function).lower(*arguments).compile().memory_analysis()
        temporary, given = (getattr(analysis, f"{kind}_size_in_bytes") / MIB for kind in ("temp", "argument"))
        print(f"{name}: {given:.0f} MiB of arguments, {temporary:.0f} MiB of temporaries, compiled in"
              f" {time.perf_counter() - start:.0f} s", flush=True)  # fmt: skip


def count_of(tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def peak() -> float:
    """MiB, of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(PARTS))
    parser.add_argument("--inpaint", help="sampling: a checkpoint; default: the small network with random weights")
    parser.add_argument("--size", type=int, nargs=2, default=(384, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--only", help="sd2: the programs whose name holds this")
    args = parser.parse_args(argv)
    if args.steps < 1 or min(args.size) < 64:
        raise InputError(f"--steps {args.steps}, --size {args.size}, expected at least 1 and 64")
    PARTS[args.what](args)


PARTS = {"warp": warp, "sampling": sampling, "sd2": sd2}

if __name__ == "__main__":
    sys.exit(main())
