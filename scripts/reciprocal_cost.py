"""What learning without ground truth costs: time of a step, memory of the compiled programs, time of a scan's projection.

    python scripts/reciprocal_cost.py [--size 320x1024] [--batch 8] [--time-size 64x128] [--only time,gradient,memory,scan]

time: a step of stage 1 beside a step without its second pass plus one forward pass (limit 1.3), in alternation. gradient: the
temporary memory of the same loss where the second pass carries a gradient, and where a teacher's weights are differentiated
too. memory: that of whole steps at the given size. Compiled fast: buffers do not depend on it.
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.commands.options import size
from bridgedepth_jax.data import kitti_raw
from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.inference.compiled import keep_compilations
from bridgedepth_jax.sharding import make_mesh
from bridgedepth_jax.system import Objective, Rows, Teacher, find_system
from bridgedepth_jax.systems.reciprocal import losses, networks, stages
from bridgedepth_jax.systems.reciprocal.config import ReciprocalTask, SingleNetConfig, StereoNetConfig
from bridgedepth_jax.training import optimizer
from bridgedepth_jax.training.config import SolverConfig
from bridgedepth_jax.training.step import Frozen, make_state, make_step

FAST: dict[str, Any] = {"xla_backend_optimization_level": 0}
POINTS = 120_000
PARTS = ("time", "gradient", "memory", "scan")
STEREO, SINGLE = StereoNetConfig(), SingleNetConfig()


def weights_of(kind: str, config: Any) -> Any:
    """Shapes alone."""
    return jax.eval_shape(functools.partial(find_system(kind).init, config), jax.random.key(0))


def batch_of(height: int, width: int, count: int) -> dict[str, Any]:
    return {side: jax.ShapeDtypeStruct((count, height, width, 3), jnp.uint8) for side in ("left", "right")}


def stage1(task: ReciprocalTask | None = None) -> Objective:
    return stages.objective(networks.stereonet(STEREO), task or ReciprocalTask(mirror=0.0, colour=0.0), {})


def without_second_pass() -> Objective:
    """Stage 1 in which only what is out of view counts as occluded."""
    network, task = networks.stereonet(STEREO), ReciprocalTask(mirror=0.0, colour=0.0)

    def loss(weights: Any, frozen: Any, batch: Any, counts: Any, rows: Rows) -> Any:
        left, right = (batch[side].astype(jnp.float32) for side in ("left", "right"))
        found = network.train(weights, (left, right), rows)
        occluded = losses.out_of_view(jax.lax.stop_gradient(found.full))
        visible = rows.across("visible", jnp.sum(~occluded, dtype=left.dtype))
        data = losses.photometric_data(left / 255, right / 255, occluded, visible)
        total = losses.over_scales(found.outputs, left / 255, data, rows.total, task.smoothness)
        return total.loss, stages.Result({"data": total.data})

    return stage1()._replace(loss=loss)


def compiled_step(
    objective: Objective, weights: Any, batch: Any, teachers: Any = None, collections: tuple[str, ...] = ()
) -> Any:
    rows = batch["left"].shape[0]
    solver = SolverConfig(max_iter=10, batch_size=rows, weight_decay=0.0, grad_clip=None, schedule="constant")
    params = {name: tree for name, tree in weights.items() if name not in collections}
    kept = {name: weights[name] for name in collections}
    update = optimizer.make_optimizer(objective.groups(solver))
    state = jax.eval_shape(lambda p, c: make_state(p, solver, 0, update, c), params, kept)
    step = make_step(objective, solver, make_mesh(1, jax.devices()[:1]))
    return jax.jit(step, donate_argnums=0).lower(state, Frozen({}, teachers or {}), batch).compile(FAST), state


def temporary(compiled: Any) -> float:
    """GB."""
    return compiled.memory_analysis().temp_size_in_bytes / 1e9


def seconds(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median of the process's own CPU seconds, in alternation: other programs on the machine do not count."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        jax.block_until_ready(run())
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.process_time()
            jax.block_until_ready(run())
            found[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in found.items()}


def report_time(height: int, width: int, count: int) -> None:
    rng = np.random.default_rng(0)
    batch = {side: rng.integers(0, 256, (count, height, width, 3), np.uint8) for side in ("left", "right")}
    init = jax.jit(functools.partial(find_system("stereonet").init, STEREO))
    weights = jax.device_get(init(jax.random.key(0)))
    estimate = find_system("stereonet").estimate
    assert estimate is not None
    forward = jax.jit(lambda w, b: estimate(STEREO)(w, b["left"], b["right"]).disparity).lower(weights, batch).compile(FAST)
    runs: dict[str, Callable[[], Any]] = {"forward": lambda: forward(weights, batch)}
    for name, objective in (("step", stage1()), ("without", without_second_pass())):
        solver = SolverConfig(max_iter=10, batch_size=count, weight_decay=0.0, grad_clip=None, schedule="constant")
        update = optimizer.make_optimizer(objective.groups(solver))
        state = make_state(weights, solver, 0, update)
        step = jax.jit(make_step(objective, solver, make_mesh(1, jax.devices()[:1])))
        step = step.lower(state, Frozen({}, {}), batch).compile(FAST)
        runs[name] = functools.partial(lambda step, state: step(state, Frozen({}, {}), batch), step, state)
    found = seconds(runs, 7)
    ratio = found["step"] / (found["without"] + found["forward"])
    words = ", ".join(f"{name} {value:.3f} s" for name, value in found.items())
    print(f"time at {height}x{width}, batch {count} (CPU seconds): {words}")
    print(f"a step over a step without its second pass plus one forward pass: {ratio:.2f} (limit 1.3)", flush=True)


def report_gradient(height: int, width: int) -> None:
    """At one pair, so that it compiles soon."""
    weights, pair = weights_of("stereonet", STEREO), (jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32),) * 2
    network = networks.stereonet(STEREO)

    def total(frozen: bool, weights: Any, left: Any, right: Any) -> Any:
        rows = Rows(jnp.arange(1), 1, jnp.int32(0), {}, lambda _, value: jax.lax.stop_gradient(value), ())
        found = network.train(weights, (left, right), rows)
        if frozen:
            other = networks.other_view(network, weights, (left, right), rows)
            target = losses.warp_rows(other[..., None], jax.lax.stop_gradient(found.full))[..., 0]
        else:  # the same, but differentiable
            other = network.observe(weights, (right[:, :, ::-1], left[:, :, ::-1]), rows)[:, :, ::-1]
            target = losses.warp_rows(other[..., None], found.full)[..., 0]
        return jnp.mean(jnp.abs(found.full - target))

    sizes = {}
    for words, run in (
        ("one pass", jax.grad(lambda w, a, b: jnp.mean(jnp.abs(network.train(w, (a, b), None).full)))),  # type: ignore[arg-type]
        ("second pass without gradient", jax.grad(functools.partial(total, True))),
        ("second pass with gradient", jax.grad(functools.partial(total, False))),
    ):
        sizes[words] = temporary(jax.jit(run).lower(weights, *pair).compile(FAST))
    print(f"temporary memory at {height}x{width}, one pair: " + ", ".join(f"{k} {v:.3f} GB" for k, v in sizes.items()))

    stereo = networks.stereo_teacher("stereo", Teacher("stereonet", STEREO))
    student = weights_of("singlenet", SINGLE)
    params = {name: tree for name, tree in student.items() if name != "batch_stats"}

    def distil(params: Any, teacher: Any, left: Any, right: Any, stopped: bool) -> Any:
        found = networks.singlenet(SINGLE).observe({**params, "batch_stats": student_stats(student)}, (left,), ROWS)
        if stopped:
            target, _ = stages.consult(stereo, teacher, (left, right), 0.01)
        else:
            target = network.observe(teacher, (left, right), ROWS)
        return jnp.mean(losses.log_l1(found, target))

    for words, arguments, stopped in (("student alone", 0, True), ("teacher too", (0, 1), False)):
        run = jax.grad(functools.partial(distil, stopped=stopped), argnums=arguments)
        compiled = jax.jit(run).lower(params, weights, *pair).compile(FAST)
        analysis: Any = compiled.memory_analysis()
        print(
            f"stage 2, gradients of {words}: results {analysis.output_size_in_bytes / 1e9:.3f} GB,"
            f" temporary {analysis.temp_size_in_bytes / 1e9:.3f} GB",
            flush=True,
        )


ROWS = Rows(jnp.arange(1), 1, jnp.int32(0), {}, lambda _, value: value, ())


def student_stats(shapes: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes["batch_stats"])


def report_memory(height: int, width: int, count: int) -> None:
    stereo, single = Teacher("stereonet", STEREO), Teacher("singlenet", SINGLE)
    shapes = {"stereo": weights_of("stereonet", STEREO), "mono": weights_of("singlenet", SINGLE)}
    batch = batch_of(height, width, count)
    rows = (
        ("stage 1, StereoNet", networks.stereonet(STEREO), "photometric", {}, shapes["stereo"], ()),
        ("stage 2, SingleNet", networks.singlenet(SINGLE), "distil", {"stereo": stereo}, shapes["mono"], ("batch_stats",)),
        (
            "stage 3, StereoNet-D",
            networks.stereonet(STEREO),
            "fusion",
            {"stereo": stereo, "mono": single},
            shapes["stereo"],
            (),
        ),
    )
    for words, network, stage, teachers, weights, collections in rows:
        objective = stages.objective(network, ReciprocalTask(stage=stage), teachers)  # type: ignore[arg-type]
        given = {name: shapes[name] for name in teachers}
        compiled, _ = compiled_step(objective, weights, batch, given, collections)
        analysis = compiled.memory_analysis()
        print(
            f"{words}, {height}x{width}, batch {count}: {temporary(compiled):.2f} GB temporary,"
            f" {analysis.argument_size_in_bytes / 1e9:.2f} GB arguments",
            flush=True,
        )


def report_scan() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform([-70, -40, -3], [70, 40, 2], (POINTS, 3)), rng.random((POINTS, 1))], 1)
    points = points.astype(np.float32)
    projection = np.array([[721.5, 0, 609.6, 44.9], [0, 721.5, 172.9, 0.2], [0, 0, 1, 0.003]])
    axes = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]])
    calibration = kitti_raw.RawCalibration((1242, 375), projection @ axes, 721.5, 0.54)
    found = seconds({"project": lambda: kitti_raw.project(points, calibration)}, 15)["project"]
    print(f"a scan of {POINTS:,} points: {1000 * found:.0f} ms (limit 50)", flush=True)


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="320x1024", help="of the memory; default 320x1024")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--time-size", default="64x128", help="of what is timed; default 64x128")
    parser.add_argument("--only", default=",".join(PARTS), help=f"any of {','.join(PARTS)}; default: all")
    args = parser.parse_args(argv)
    parts = args.only.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        raise InputError(f"--only {unknown[0]}, expected any of {', '.join(PARTS)}")
    keep_compilations()
    if "scan" in parts:
        report_scan()
    if "time" in parts:
        report_time(*size("--time-size", args.time_size), 4)
    if "gradient" in parts:
        report_gradient(*size("--time-size", args.time_size))
    if "memory" in parts:
        report_memory(*size("--size", args.size), args.batch)


if __name__ == "__main__":
    main()
