"""What monocular training costs: the trimmed loss, a reward update's memory, hybrid labels and pseudo-labels.

python scripts/mono_speed.py                       # the loss and its gradient, without a sort against with one, 4 x 518 x 518
python scripts/mono_speed.py loss --size 128,160 --rounds 9
python scripts/mono_speed.py reward --last 1,2,4   # peak memory with and without remat, and whether gradients are equal
python scripts/mono_speed.py fuse --pairs 64       # pairs/s at 512x512 on 1 and 2 processes
python scripts/mono_speed.py labels --images 12    # pseudo-labels/s against the network's forward pass alone

Sides that are compared run alternately.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bridgedepth_jax.data.formats import write_png
from bridgedepth_jax.data.shards import Shard
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.inference.depth import DepthPredictor, network_size
from bridgedepth_jax.networks.clip_vision import ClipVisionConfig, ClipVisionModelWithProjection
from bridgedepth_jax.networks.config import DepthConfig
from bridgedepth_jax.networks.depth_anything import depth_of, init_depth
from bridgedepth_jax.networks.diffusion import flow
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, FlowConfig, FluxConfig
from bridgedepth_jax.systems.bridge_mde import labels, losses
from bridgedepth_jax.systems.bridge_mde.config import nano
from bridgedepth_jax.systems.bridge_mde.generator import aesthetic, lora, pipeline, system
from bridgedepth_jax.systems.bridge_mde.generator.config import GeneratorConfig, RewardTask
from bridgedepth_jax.systems.bridge_mde.generator.reward import reward_loss, see_depth


def sorted_median(values: Any, mask: Any) -> Any:
    """By a sort: what a first version would do."""
    count = jnp.sum(mask, axis=1, dtype=jnp.int32)
    row = jnp.sort(jnp.where(mask, values, jnp.inf), axis=1)
    at = lambda k: jnp.take_along_axis(row, jnp.maximum(k, 0)[:, None], axis=1)[:, 0]
    return 0.5 * (at((count - 1) // 2) + at(count // 2))


def sorted_smallest(values: Any, mask: Any, number: Any) -> Any:
    """By a stable sort of numbers."""
    values = lax.stop_gradient(jnp.where(mask, values, jnp.inf))
    order = jnp.argsort(values, axis=1, stable=True)
    rank = jnp.zeros_like(order).at[jnp.arange(len(order))[:, None], order].set(jnp.arange(order.shape[1])[None])
    return (rank < number[:, None]) & mask


def measure_loss(args: argparse.Namespace) -> None:
    """The trimmed loss and its gradient."""
    shape = (args.rows, *sides(args.size or "518,518"))
    rng = np.random.default_rng(0)
    prediction, target = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))
    mask = jnp.asarray(rng.random(shape) < 0.9)
    percent = jnp.full(args.rows, 10)

    def value(p: Any, t: Any, m: Any, k: Any) -> Any:
        return losses.total(losses.terms(p, t, m, k), args.rows).loss

    compiled = {}
    ours = {"masked_median": losses.masked_median, "smallest": losses.smallest}
    for name, patches in {"bisection": ours, "sort": {"masked_median": sorted_median, "smallest": sorted_smallest}}.items():
        with mock.patch.multiple(losses, **patches):
            # A function of its own, so that the other's trace is not taken.
            compiled[name] = (
                jax.jit(jax.value_and_grad(lambda *a: value(*a))).lower(prediction, target, mask, percent).compile()
            )
    found = {name: run(prediction, target, mask, percent) for name, run in compiled.items()}
    a, b = (float(found[name][0]) for name in compiled)
    if abs(a - b) > 1e-5 * abs(b):
        raise InputError(f"the two versions differ: {a} and {b}")
    times: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(args.rounds):
        for name, run in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(run(prediction, target, mask, percent))
            times[name].append(time.perf_counter() - start)
    for name, values in times.items():
        print(f"{name}: {1000 * np.median(values):.0f} ms, loss and gradient of {'x'.join(map(str, shape))}")
    ratio = np.median(np.array(times["bisection"]) / np.array(times["sort"]))
    print(f"ratio {ratio:.3f}, median of {args.rounds} alternating rounds")


FEW_RUNS: dict[str, Any] = {"xla_backend_optimization_level": 0}  # what is planned for memory is the same
SMALL_FLUX = FluxConfig(
    in_channels=32, out_channels=16, num_layers=2, num_single_layers=4, attention_head_dim=16, num_attention_heads=4,
    joint_attention_dim=32, pooled_projection_dim=16, axes_dims_rope=(4, 6, 6),
)  # fmt: skip
SMALL_VAE = AutoencoderConfig(
    latent_channels=4, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, scaling_factor=0.3611,
    shift_factor=0.1159, quant_conv=False,
)  # fmt: skip
SMALL_CLIP = ClipVisionConfig(
    image_size=28, patch_size=14, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    projection_dim=768,
)  # fmt: skip


def measure_reward(args: argparse.Namespace) -> None:
    """An update through a small FLUX, its decoder, a depth network and CLIP: what XLA plans for it beside its inputs."""
    height, width = sides(args.size or "64,96")
    jax.config.update("jax_enable_x64", args.float64)
    kind: Any = "float64" if args.float64 else "float32"
    keys = jax.random.split(jax.random.key(0), 6)
    transformer, vae = dataclasses.replace(SMALL_FLUX, dtype=kind), dataclasses.replace(SMALL_VAE, dtype=kind)
    tower = dataclasses.replace(SMALL_CLIP, dtype=kind)
    config = GeneratorConfig(transformer, vae, FlowConfig(), text_tokens=8, steps=args.steps)
    pipeline.check_side(height, width, config.multiple, "--size")
    network, unit = nano(), jnp.zeros((1, SMALL_CLIP.image_size, SMALL_CLIP.image_size, 3))
    frozen = {
        "generator": jax.jit(lambda key: system.init(config, key))(keys[0]),
        "depth": jax.jit(lambda key: init_depth(network, key))(keys[1]),
        "clip": jax.jit(ClipVisionModelWithProjection(SMALL_CLIP).init)(keys[2], unit)["params"],
        "mlp": aesthetic.AestheticMlp().init(keys[3], jnp.zeros((1, SMALL_CLIP.projection_dim)))["params"],
    }
    frozen = jax.tree.map(lambda leaf: jnp.asarray(leaf, kind), frozen)
    source = jax.random.uniform(keys[4], (args.rows, height, width), kind)
    latent = (args.rows, height // config.vae.factor, width // config.vae.factor, config.vae.latent_channels)
    noise = jax.random.normal(keys[5], latent, kind)
    base = frozen["generator"]["transformer"]
    trained = jax.tree.map(lambda leaf: jnp.asarray(leaf, kind), lora.init_lora(base, keys[0])) if args.lora else base

    def update(task: RewardTask) -> Callable[..., Any]:
        made = pipeline.make_generator(config, remat=task.remat)
        seen = dataclasses.replace(network, remat=task.remat)

        def loss(params: Any, frozen: Any, source: Any, noise: Any) -> Any:
            weights = frozen["generator"]
            depth = lambda image: see_depth(lambda x: depth_of(seen)(frozen["depth"], x), image, (height, width))
            score = lambda image: aesthetic.aesthetic_score(frozen["clip"], frozen["mlp"], image, tower, remat=task.remat)

            def generate(params: Any, source: Any, noise: Any, *, last: Any) -> Any:
                merged = lora.merge_lora(weights["transformer"], params) if args.lora else params
                control = flow.pack(made.encode(weights, pipeline.control_image(source)))
                return made.decode(weights, made.sample({**weights, "transformer": merged}, control, noise, last=last))

            return reward_loss(task, generate, depth, score)(params, source, noise, jax.random.key(0))[0]

        return jax.value_and_grad(loss)

    print(
        f"{args.rows} x {height}x{width}, {args.steps} steps, {'LoRA' if args.lora else 'all parameters'}, {kind}", flush=True
    )
    for last in (int(word) for word in args.last.split(",")):
        found = {}
        for remat in (False, True):
            inputs = trained, frozen, source, noise
            run = jax.jit(update(RewardTask(steps=args.steps, last=last, remat=remat))).lower(*inputs)
            compiled = run.compile(FEW_RUNS)
            memory: Any = compiled.memory_analysis()
            value, gradient = compiled(*inputs)
            found[remat] = (memory.temp_size_in_bytes, float(value), jax.tree.leaves(gradient))
        plain, again = found[False], found[True]
        most = max(float(jnp.abs(leaf).max()) for leaf in plain[2])
        apart = max(float(jnp.abs(a - b).max()) for a, b in zip(plain[2], again[2], strict=True)) / most
        print(
            f"last {last}: {plain[0] / 2**20:.1f} MiB, with remat {again[0] / 2**20:.1f} MiB; gradients apart by {apart:.1e} "
            f"of the largest; losses {plain[1]:.7f} and {again[1]:.7f}",
            flush=True,
        )


def measure_fuse(args: argparse.Namespace) -> None:
    """Pairs that were moved a little and painted over in places, as a generator leaves them."""
    height, width = sides(args.size or "512,512")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folders = [root / part for part in ("generated", "original", "depth")]
        for folder in folders:
            folder.mkdir()
        for i in range(args.pairs):
            noise = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 2)
            original = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
            moved = np.array([[1, 0, rng.uniform(-3, 3)], [0, 1, rng.uniform(-3, 3)]], np.float32)
            generated = cv2.warpAffine(original, moved, (width, height), borderMode=cv2.BORDER_REFLECT)
            generated[: height // 4, : width // 4] = 255 - generated[: height // 4, : width // 4]
            write_png(folders[0] / f"{i}.png", generated)
            write_png(folders[1] / f"{i}.png", original)
            np.save(folders[2] / f"{i}.npy", rng.uniform(1, 9, (height, width)).astype(np.float32))
        times: dict[int, list[float]] = {1: [], 2: []}
        for number in range(args.rounds):
            for processes, values in times.items():
                out = root / f"out_{processes}_{number}"
                start = time.perf_counter()
                found = labels.fuse_labels(
                    folders[0], folders[1], folders[2], out, Shard(), labels.FuseOptions(), processes=processes
                )
                values.append(args.pairs / (time.perf_counter() - start))
                if found.problems or found.made != args.pairs:
                    raise InputError(f"{found.problems}")
    for processes, values in times.items():
        print(f"{processes} processes: {np.median(values):.2f} pairs/s of {height}x{width}, {args.pairs} pairs, start included")


def measure_labels(args: argparse.Namespace) -> None:
    """Labels of images on disk against the network alone, the same images already read and resized."""
    height, width = sides(args.size or "480,640")
    config = DepthConfig.named(args.network)
    params = jax.jit(lambda key: init_depth(config, key))(jax.random.key(0))
    predictor = DepthPredictor(config, params)
    seen = network_size(width, height, args.shorter)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "images").mkdir()
        views = []
        for i in range(args.images):
            image = cv2.resize(rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8), (width, height))
            cv2.imwrite(str(root / "images" / f"{i}.jpg"), image)
            views.append(cv2.resize(image, seen, interpolation=cv2.INTER_CUBIC))
        predictor.raw(views[0], size=args.shorter)  # compiles
        times: dict[str, list[float]] = {"labels": [], "forward": []}
        predict: Callable[[np.ndarray], np.ndarray] = lambda image: predictor.raw(image, size=args.shorter)[0]
        for number in range(args.rounds):
            start = time.perf_counter()
            labels.pseudo_label(predict, {}, root / "images", root / f"out_{number}", Shard())
            times["labels"].append(args.images / (time.perf_counter() - start))
            start = time.perf_counter()
            for view in views:
                predict(view)
            times["forward"].append(args.images / (time.perf_counter() - start))
    for what, values in times.items():
        print(f"{what}: {np.median(values):.2f} images/s, {args.network} at {seen[1]}x{seen[0]}")
    print(f"ratio {np.median(np.array(times['labels']) / np.array(times['forward'])):.3f} of {args.rounds} alternating rounds")


def sides(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.split(","))
    except ValueError:
        raise InputError(f"--size {text}, expected height,width") from None
    return height, width


MEASURES = {"loss": measure_loss, "reward": measure_reward, "fuse": measure_fuse, "labels": measure_labels}


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=MEASURES, default="loss")
    parser.add_argument("--size", default="", help="height,width; default 518,518, 64,96, 512,512 or 480,640")
    parser.add_argument("--rows", type=int, help="images of a batch, of loss (4) and reward (2)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of the sampler, of reward")
    parser.add_argument("--last", default="1,2,4", help="steps that carry a gradient, of reward")
    parser.add_argument("--lora", action="store_true", help="low-rank changes instead of all parameters, of reward")
    parser.add_argument("--float64", action="store_true", help="all of reward, for the gradients")
    parser.add_argument("--pairs", type=int, default=32, help="of fuse")
    parser.add_argument("--images", type=int, default=8, help="of labels")
    parser.add_argument("--network", default="vits", help="of labels, with random weights")
    parser.add_argument("--shorter", type=int, default=518, help="side that the network sees, of labels")
    args = parser.parse_args(argv)
    args.rows = {"loss": 4, "reward": 2}.get(args.what, 1) if args.rows is None else args.rows
    for name in ("rows", "rounds", "steps", "pairs", "images"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}, expected at least 1")
    MEASURES[args.what](args)


if __name__ == "__main__":
    main()
