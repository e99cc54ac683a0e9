"""Losses, networks, metrics and scans against golden numbers (tolerances: the reference's README).

Weights are the manifests', through the converter. A file's kind is what its name begins with; sizes, seeds, alphas and numbers
of images are its own.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.convert.engine import convert_state, find_rules
from bridgedepth_jax.data import kitti_raw
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import depth
from bridgedepth_jax.ops.warp import warp_rows
from bridgedepth_jax.parity import Row, load_synth
from bridgedepth_jax.sharding import make_mesh
from bridgedepth_jax.store.checkpoint import expected_shapes, flatten, unflatten
from bridgedepth_jax.system import Objective, Result
from bridgedepth_jax.systems.reciprocal import losses, networks, stages
from bridgedepth_jax.systems.reciprocal.config import ReciprocalTask, SingleNetConfig, StereoNetConfig
from bridgedepth_jax.systems.reciprocal.singlenet import SingleNet
from bridgedepth_jax.systems.reciprocal.stereonet import StereoNet
from bridgedepth_jax.training import step as training
from bridgedepth_jax.training.config import SolverConfig
from bridgedepth_jax.training.step import Frozen, make_step

FOLDER = "self_supervised"  # under the reference
LOSS, LOSS_FLOAT32 = 1e-10, 1e-5  # relative
MAP, MAP_FLOAT32 = 1e-10, 1e-5  # absolute, images in 0..1
DISPARITY, DISPARITY_FLOAT32 = 1e-8, 1e-3  # pixels
SIGMOID, SIGMOID_FLOAT32 = 1e-10, 1e-5
FEATURE, FEATURE_FLOAT32 = 1e-9, 1e-4  # of the largest
GRADIENT = 1e-7  # relative, float64; where the true gradient is 0, of the largest
VANISHING = 1e-9  # of the largest norm
STEPS = 1e-7  # relative, float64: the losses of a run
METRIC = 1e-6  # relative
DEPTH = 1e-9  # metres
STATISTICS = 1e-7  # relative to the largest
FEW_RUNS: dict[str, Any] = {"xla_backend_optimization_level": 0}  # which compile in half the time
Arrays = dict[str, np.ndarray]


class Case:
    """A folder of goldens with what belongs to it."""

    def __init__(self, folder: Path, reference: Path, *, float64: bool) -> None:
        self.folder, self.reference, self.float64 = folder, reference, float64
        self.dtype = np.float64 if float64 else np.float32

    def find(self, name: str) -> Path:
        """A file of the folder or, where it has none, of the reference."""
        for place in (self.folder, self.reference / FOLDER):
            if (place / name).is_file():
                return place / name
        raise InputError(f"{self.folder} has no {name}, nor has {self.reference / FOLDER}")

    @functools.cached_property
    def synth(self) -> ModuleType:
        return load_synth(self.reference)

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / name).read_text()) if (self.folder / name).is_file() else {}

    def limit(self, float64: float, float32: float) -> float:
        return float64 if self.float64 else float32


def load_weights(case: Case, kind: str, config: Any, variant: str) -> Any:
    """Name-seeded weights of a manifest, taken through the converter, in the precision of the run."""
    entries = json.loads(case.find(f"manifest/{variant}.json").read_text())["entries"]
    state = {}
    for entry in entries:
        name, shape = entry["name"], tuple(entry["shape"])
        if entry["kind"] == "counter":
            value = np.zeros(shape, np.int64)
        else:
            value = case.synth.synth_value(name, shape) * np.float32(entry.get("scale", 1))
        state[name] = value
    expected = expected_shapes(kind, config)
    leaves = convert_state(find_rules(kind), state, expected, source=variant)
    return unflatten({name: value.astype(case.dtype) for name, value in leaves.items()})


def apart(found: Any, golden: np.ndarray) -> float:
    """Largest difference, of the first images where the golden has no others."""
    found = np.asarray(found, np.float64)[: len(golden)]
    if found.shape != golden.shape:
        raise InputError(f"found {found.shape}, the golden has {golden.shape}")
    return float(np.abs(found - golden).max())


def fast(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's value, compiled as is worth it for one call."""
    return jax.jit(function).lower(*arguments).compile(FEW_RUNS)(*arguments)


def off(found: Any, golden: float) -> float:
    """Relative difference."""
    return abs(float(found) / golden - 1)


def check_losses(name: str, golden: Arrays, case: Case) -> Iterator[Row]:
    """Maps, masks, losses and their gradients."""
    values = case.json(f"{name}.json")
    left, right = (jnp.asarray(golden[side].astype(case.dtype) / case.dtype(255)) for side in ("left", "right"))
    d, d_right, d_mono = (jnp.asarray(golden[f"disparity_{side}"].astype(case.dtype)) for side in ("left", "right", "mono"))
    rows, limit = len(left), case.limit(MAP, MAP_FLOAT32)
    masks: dict[str, Any] = {}
    for key in sorted(key for key in golden if key.startswith("occlusion_")):
        _, side, alpha = key.split("_")
        pair = (d, d_right) if side == "left" else (d_right, d)
        masks[key] = fast(functools.partial(losses.occlusion, alpha=float(alpha), right=side == "right"), *pair)
        yield Row(name, f"{key}, pixels", float((np.asarray(masks[key]) != golden[key]).sum()), 0)
        if side == "left":
            share = float(np.mean(np.asarray(masks[key], np.float64)))
            yield Row(name, f"occluded share, alpha {alpha}", abs(share - values[f"occluded_share_{alpha}"]), 1e-12)
    warped, warped_right = fast(lambda a, b, d, e: (warp_rows(b, d), warp_rows(a, e, right=True)), left, right, d, d_right)
    yield Row(name, "warped", apart(warped, golden["warped"]), limit)
    yield Row(name, "warped to the right", apart(warped_right, golden["warped_right"]), limit)
    yield Row(name, "dssim", apart(fast(losses.dssim, left, warped), golden["dssim"]), limit)
    yield Row(name, "photometric", apart(fast(losses.photometric, left, warped), golden["photometric"]), limit)
    loose, tight = masks["occlusion_left_0.1"], masks["occlusion_left_0.01"]
    fused = losses.fuse(d, d_mono, tight)
    yield Row(name, "fused, px", apart(fused, golden["fused"]), case.limit(MAP, DISPARITY_FLOAT32))

    count = lambda occluded: jnp.sum(~occluded, dtype=left.dtype)
    wave = lambda d: d + 0.3 * jnp.sin(jnp.arange(d.shape[2], dtype=d.dtype)).reshape(1, 1, -1)
    scales = lambda d: [losses.Output(losses.average_blocks(d[..., None], 2**k)[..., 0], 1 / 4) for k in range(4)]
    stage1 = losses.photometric_data(left, right, loose, count(loose))
    stage2 = losses.distillation_data(d, tight, count(tight))
    stage3 = losses.fusion_data(fused, rows)
    total = lambda outputs, data: losses.over_scales(outputs, left, data, rows).loss
    waved = lambda d: [losses.Output(wave(d), 1 / 4), *scales(d)[1:]]
    single: dict[str, tuple[Callable[[Any], Any], Any]] = {
        "photometric_masked": (stage1, d),
        "smoothness": (lambda d: losses.smoothness(d, left, rows), d),
        "distillation": (stage2, d_mono),
        "stereonet_d": (lambda d: stage3(wave(d)), d),
        "stage1": (lambda d: total(scales(d), stage1), d),
        "stage2": (lambda d: total(scales(d), stage2), d_mono),
        "stage3": (lambda d: total(waved(d), stage3), d),
    }
    found = fast(
        lambda at: {key: jax.value_and_grad(single[key][0])(at[key]) for key in single}, {k: v[1] for k, v in single.items()}
    )
    for key, (value, gradient) in found.items():
        yield Row(name, f"{key}, relative", off(value, values[key]), case.limit(LOSS, LOSS_FLOAT32))
        if case.float64:
            yield Row(name, f"{key}, gradient's norm", off(jnp.linalg.norm(gradient), values[f"grad_norm_{key}"]), GRADIENT)
            if f"grad_{key}" in golden:
                largest = np.abs(golden[f"grad_{key}"]).max()
                yield Row(name, f"{key}, gradient", apart(gradient, golden[f"grad_{key}"]) / largest, GRADIENT)


def check_stereonet(name: str, golden: Arrays, case: Case) -> Iterator[Row]:
    """Disparities and taps, and three steps of stages 1 and 3."""
    pyramid = "_pyramid_" in name
    variant = "stereonet_pyramid" if pyramid else "stereonet"
    config = StereoNetConfig("pyramid" if pyramid else "unet")
    weights = load_weights(case, "stereonet", config, variant)
    if "left" not in golden:  # the pair of the other encoder, of the same size
        with np.load(case.find(f"{name.replace('_pyramid', '')}.npz")) as other:
            golden = golden | {side: other[side] for side in ("left", "right")}
    left, right = (jnp.asarray(golden[side].astype(case.dtype)) for side in ("left", "right"))
    run = jax.jit(lambda w, a, b: StereoNet(config).apply({"params": w}, a, b, mutable=["taps"]))
    run = run.lower(weights, left, right).compile(FEW_RUNS)
    found, taps = run(weights, left, right)
    limit = case.limit(DISPARITY, DISPARITY_FLOAT32)
    for k, value in enumerate(found):
        if (key := f"disparity_scale{k}") in golden:
            yield Row(name, f"{key}, px", apart(_every(value, 2 if pyramid else 1), golden[key]), limit)
    if "disparity_right" in golden:
        d_right, _ = run(weights, right[:, :, ::-1], left[:, :, ::-1])
        yield Row(name, "disparity_right, px", apart(_every(d_right[0][:, :, ::-1], 2), golden["disparity_right"]), limit)
    for key in (key for key in golden if key.startswith(("feature_", "correlation_"))):
        tap = _every(taps["taps"][key][0], 4 if key == "correlation_1" else 1)
        limit = case.limit(FEATURE, FEATURE_FLOAT32)
        yield Row(name, f"{key}, of the largest", apart(tap, golden[key]) / np.abs(golden[key]).max(), limit)
    values = case.json(f"{variant}.json")
    if not values or pyramid:
        return
    network = networks.stereonet(config)
    objective = stages.objective(network, quiet("photometric"), {})
    yield from check_steps(name, "stage1", objective, weights, golden, values["stage1"], case, shares=values["occluded_share"])
    objective = given_target(network, quiet("fusion"), lambda batch: losses.fusion_data(batch["target"], len(left)))
    batch = {**golden, "target": golden["stage3_target"].astype(case.dtype)}
    yield from check_steps(name, "stage3", objective, weights, batch, values["stage3"], case)


def check_singlenet(name: str, golden: Arrays, case: Case) -> Iterator[Row]:
    """Sigmoids and features with running statistics; three steps of stage 2 with those of the batch."""
    variant = name.rpartition("_")[0]
    config = SingleNetConfig.named(variant.rpartition("_")[2])
    weights = load_weights(case, "singlenet", config, variant)
    if "image" not in golden:
        with np.load(case.find(name.replace("resnet18", "resnet50") + ".npz")) as other:
            golden = golden | {"image": other["image"]}
    image = jnp.asarray(golden["image"].astype(case.dtype))
    run = lambda w, x: SingleNet(config).apply(networks.split_weights(w), x, mutable=["taps"])
    found, taps = fast(run, weights, image)
    for k, value in enumerate(found):
        value = _every(value, 2) if k == 0 else value
        if f"sigmoid_{k}" in golden:
            yield Row(name, f"sigmoid_{k}", apart(value, golden[f"sigmoid_{k}"]), case.limit(SIGMOID, SIGMOID_FLOAT32))
    features = taps["taps"]["encoder"]["encoder"]
    parts = {"feature_4": np.s_[..., ::4], "feature_3": np.s_[..., ::16], "feature_0": np.s_[:, ::4, ::4, ::4]}
    for key, part in parts.items():
        if key not in golden:
            continue
        difference = apart(features[key][0][part], golden[key]) / np.abs(golden[key]).max()
        yield Row(name, f"{key}, of the largest", difference, case.limit(FEATURE, FEATURE_FLOAT32))
    values = case.json("singlenet.json")
    if "teacher" not in golden or not values:
        return

    def data(batch: Mapping[str, Any]) -> Any:
        visible = jnp.sum(~batch["occluded"], dtype=case.dtype)
        return losses.distillation_data(batch["teacher"], batch["occluded"], visible)

    objective = given_target(networks.singlenet(config), quiet("distil"), data)
    batch = {
        "left": golden["image"],
        "right": golden["image"],
        "teacher": golden["teacher"].astype(case.dtype),
        "occluded": golden["occluded"],
    }
    after: list[Any] = []
    yield from check_steps(name, "stage2", objective, weights, batch, values["stage2"], case, after=after)
    if case.float64:
        state = flatten({"batch_stats": after[0].collections["batch_stats"]})
        for key in (key for key in golden if key.startswith("after_")):
            value = state[find_rules("singlenet").path(key.partition(":")[2]) or ""]
            difference = float(np.abs(np.asarray(value) - golden[key]).max() / np.abs(golden[key]).max())
            yield Row(name, key.partition(":")[2].removeprefix("encoder.encoder."), difference, STATISTICS)


def quiet(stage: Any) -> ReciprocalTask:
    """A stage without augmentation."""
    return ReciprocalTask(stage=stage, mirror=0.0, colour=0.0)


def given_target(network: networks.Network, task: ReciprocalTask, data: Callable[[Any], Any]) -> Objective:
    """Stages 2 and 3 with what their teachers would say given in the batch."""

    def loss(weights: Any, frozen: Any, batch: Any, counts: Any, rows: Any) -> tuple[Any, Result]:
        left, right = (jnp.asarray(batch[side], jax.tree.leaves(weights)[0].dtype) for side in ("left", "right"))
        found = network.train(weights, (left, right)[: network.views], rows)
        total = losses.over_scales(found.outputs, left / 255, data(batch), rows.total, task.smoothness)
        return total.loss, Result({"data": total.data}, None, found.collections)

    whole = stages.objective(network, quiet("photometric"), {})
    return whole._replace(loss=loss)


def check_steps(
    name: str,
    stage: str,
    objective: Objective,
    weights: Any,
    golden: Mapping[str, np.ndarray],
    expected: Mapping[str, Any],
    case: Case,
    *,
    shares: Sequence[float] = (),
    after: list[Any] | None = None,
) -> Iterator[Row]:
    """The training step of the loop on one device: losses, occluded shares, gradient norms."""
    batch = {key: value for key, value in golden.items() if key in ("left", "right", "target", "teacher", "occluded")}
    steps = len(expected["losses"]) if case.float64 else 1
    solver = SolverConfig(
        max_iter=steps, batch_size=len(batch["left"]), base_lr=1e-4, schedule="constant", weight_decay=0.0, grad_clip=None
    )
    collections = tuple(name for name in ("batch_stats",) if name in weights)
    learnt, fixed, kept = training.split(weights, objective.trained, collections)
    update = training.optimizer.make_optimizer(objective.groups(solver))
    state = training.make_state(learnt, solver, 0, update, kept)
    step: Any = jax.jit(make_step(objective, solver, make_mesh(1, jax.devices()[:1]), parameter_norms=True))
    metrics = []
    for _ in range(steps):
        state, found, _ = step(state, Frozen(fixed, {}), batch)
        metrics.append({key: float(value) for key, value in found.items()})
    if after is not None:
        after.append(state)
    rules = find_rules("singlenet" if "depth" in weights else "stereonet")
    for i, (found, value) in enumerate(zip(metrics, expected["losses"], strict=False)):
        limit = STEPS if i else case.limit(LOSS, LOSS_FLOAT32)
        yield Row(name, f"{stage}, loss of step {i}", off(found["loss"], value), limit)
    if not case.float64:
        return
    for i, (found, value) in enumerate(zip(metrics, expected["grad_norm"], strict=True)):
        yield Row(name, f"{stage}, gradient of step {i}", off(found["grad_norm"], value), GRADIENT)
    for i, (found, value) in enumerate(zip(metrics, shares, strict=False)):
        yield Row(name, f"{stage}, occluded at step {i}", abs(found["occluded"] - value), 1e-12)
    norms = {rules.name(k.removeprefix("gradient/")): v for k, v in metrics[0].items() if k.startswith("gradient/")}
    largest = max(expected["grad_norms"].values())
    worst = max(abs(norms[n] - v) / (v if v > VANISHING * largest else largest) for n, v in expected["grad_norms"].items())
    yield Row(name, f"{stage}, {len(expected['grad_norms'])} norms", worst, GRADIENT)


def check_metrics(name: str, golden: Arrays, case: Case) -> Iterator[Row]:
    """Both protocols, post-processing and the resize on the way. In float64, as the protocols are."""
    values = case.json(f"{name}.json")
    height, width = golden["gt_depth"].shape[1:]
    pairs = list(zip(golden["disparity"], golden["disparity_flipped"], strict=True))
    processed = np.stack([depth.post_process(d, flipped) for d, flipped in pairs])
    yield Row(name, "post-processed, px", apart(_every(processed, 3), golden["post_processed"]), DISPARITY)
    resized = depth.resize_map(golden["disparity"][0], height, width)[::5]
    yield Row(name, "resized, px", apart(resized, golden["resized_0"]), DISPARITY)
    scale, focal = values["focal_baseline_eigen"], values["focal_baseline_kitti2015"] / depth.BASELINE
    yield Row(name, "focal x baseline", off(depth.FOCAL_OF_WIDTH * width * depth.BASELINE, scale), METRIC)
    both = lambda predictions: depth.average(map(depth.eigen, golden["gt_depth"], predictions))
    truth = zip(golden["gt_disparity"], golden["disparity_stereo"], strict=True)
    found = {
        "eigen": both(golden["disparity"]),
        "eigen_post_processed": both(processed),
        "kitti2015": depth.average(depth.kitti_2015(gt, d, focal=focal) for gt, d in truth),
    }
    for protocol, metrics in found.items():
        worst = max(off(metrics[key], value) for key, value in values[protocol].items())
        yield Row(name, f"{protocol}, {len(values[protocol])} metrics", worst, METRIC)
    for size, (top, left, bottom, right) in values["garg"].items():
        rows, columns = depth.garg_crop(*map(int, size.split("x")))
        wrong = (rows.start, columns.start, rows.stop, columns.stop) != (top, left, bottom, right)
        yield Row(name, f"Garg crop of {size}", float(wrong), 0)


def check_velodyne(folder: Path) -> Iterator[Row]:
    """The depth map of a scan, and the variant with the camera's depth."""
    calibration, points = kitti_raw.read_calibration(folder), kitti_raw.read_scan(folder / "scan.bin")
    with np.load(folder / "expected.npz") as expected:
        forward, camera = (kitti_raw.project(points, calibration, depth=kind) for kind in ("forward", "camera"))
        for key, found in (("depth", forward), ("depth_camera", camera)):
            yield Row(folder.name, f"{key}, metres", apart(found, expected[key]), DEPTH)


def _every(x: Any, stride: int) -> np.ndarray:
    """Every so many rows of (B, H, ...)."""
    return np.asarray(x)[:, ::stride]


KINDS: dict[str, Callable[..., Iterator[Row]]] = {
    "losses": check_losses,
    "stereonet": check_stereonet,
    "singlenet": check_singlenet,
    "metrics": check_metrics,
    "velodyne": check_velodyne,
}


def compare(reference: Path, golden: Path | None = None, *, kinds: Sequence[str] = (), float64: bool = False) -> Iterator[Row]:
    """All comparisons with the goldens in `golden` (REFERENCE/self_supervised), of some kinds or all.

    With float64, parameters and computation are in float64, under jax_enable_x64.
    """
    folder = golden or reference / FOLDER
    case = Case(folder, reference, float64=float64)
    for path in sorted(folder.glob("*.npz")):
        kind = path.stem.split("_")[0]
        if kind in (kinds or KINDS):
            with np.load(path) as arrays:
                yield from KINDS[kind](path.stem, dict(arrays), case)
    if "velodyne" in (kinds or KINDS) and (folder / "velodyne" / "expected.npz").is_file():
        yield from check_velodyne(folder / "velodyne")
