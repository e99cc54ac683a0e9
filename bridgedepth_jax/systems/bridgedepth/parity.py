"""BridgeDepth and Depth Anything V2 against golden numbers of the original (tolerances: the reference's README).

The weights are those of REFERENCE/synth.py, taken through a .pth file and the converter.
"""

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.build import build
from bridgedepth_jax.convert.__main__ import main as convert
from bridgedepth_jax.convert.pth import write_pth
from bridgedepth_jax.convert.rules.bridgedepth import RULES, as_original
from bridgedepth_jax.convert.rules.bridgedepth_config import apply_options
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.depth_anything import DepthAnything
from bridgedepth_jax.ops.image import normalize
from bridgedepth_jax.parity import Row, load_synth, relative
from bridgedepth_jax.sharding import make_mesh
from bridgedepth_jax.store.checkpoint import Checkpoint, load_checkpoint
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.systems.bridgedepth.losses import StereoTask
from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth
from bridgedepth_jax.training.config import SolverConfig
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.step import Frozen, make_step

FOLDER = "golden"  # under the reference
# Limits, from the reference's README, which says what the original reaches against itself.
DISPARITY_MEDIAN = 5e-4  # px, float32
DISPARITY_FAR = 0.05  # px, float32: ...
DISPARITY_FAR_SHARE = 0.02  # ... at most this share of pixels beyond it
FEATURES = 1e-4  # of the tensor's RMS, float32, before the first discrete choice
DISPARITY_FLOAT64 = 1e-8  # px
LOSSES = 1e-4  # relative, float32 ...
REFINED_LOSSES = 5e-3  # ... and those behind the first discrete choice
LOSSES_FLOAT64 = 1e-7
GRADIENTS_FLOAT64 = 1e-6
VANISHING = 1e-9  # of the largest gradient norm
FEW_STEPS: dict[str, Any] = {"xla_backend_optimization_level": 0}  # which compile in half the time
TOTALS_FLOAT64 = 1e-6
TAPS = {  # golden key: where the network sows it, and its axes here
    "mono_input": ("mono_input", None),
    "mono_features": ("mono_features", None),
    "depth_prior": ("depth_prior", None),
    "fmap8_left": ("stereo_encoder/fmap8", None),
    "fmap4_left": ("stereo_encoder/fmap4", None),
    "volume_left": ("stereo_encoder/dpn/volume", (0, 3, 1, 2, 4)),
}


class Weights(NamedTuple):
    """A converted checkpoint in the precision of the run."""

    config: Any
    params: Any


def load_weights(synth: ModuleType, variant: str, *, float64: bool) -> Weights:
    """Synthetic weights of a variant through a .pth file and the converter."""
    manifest = synth.load_manifest(variant)
    state = synth.synth_state_dict(variant)
    with tempfile.TemporaryDirectory() as folder:
        pth, out = Path(folder) / f"{variant}.pth", Path(folder) / "checkpoint"
        if variant.startswith("mono_"):
            kind, content = "depth-anything", state
        else:
            kind, content = "bridgedepth", {"model": state, "model_config": as_original(manifest["model_config"])}
        write_pth(pth, content)
        del state, content
        with contextlib.redirect_stdout(io.StringIO()):
            convert([kind, str(pth), str(out)])
        pth.unlink()
        checkpoint: Checkpoint = load_checkpoint(out, dtype="float64" if float64 else "float32")
    config = checkpoint.config
    if float64 and isinstance(config, ModelConfig):
        config = config.replace(dtype="float64")
    return Weights(config, jax.device_put(checkpoint.params))


def check_inference(case: str, weights: Weights, golden: Any, *, float64: bool) -> Iterator[Row]:
    """Disparity, and in float32 also everything before the first discrete choice."""
    model = BridgeDepth(weights.config)
    forward = jax.jit(lambda params, left, right: model.apply({"params": params}, left, right, mutable=["taps"]))
    images = (golden[side].astype(np.float64 if float64 else np.float32) for side in ("left", "right"))
    output, variables = forward(weights.params, *images)
    disparity = np.asarray(output.disparity, np.float64)
    if float64:
        yield Row(case, "disp, max px", float(np.abs(disparity - golden["disp_float64"]).max()), DISPARITY_FLOAT64)
        return
    difference = np.abs(disparity - golden["disp"])
    yield Row(case, "disp, median px", float(np.median(difference)), DISPARITY_MEDIAN)
    yield Row(case, f"disp, share beyond {DISPARITY_FAR} px", float((difference > DISPARITY_FAR).mean()), DISPARITY_FAR_SHARE)
    yield Row(case, "prob, of RMS", relative(output.prob, golden["prob"]), FEATURES)
    for key, (path, axes) in TAPS.items():
        if key in golden:
            value = variables["taps"]
            for name in path.split("/"):
                value = value[name]
            value = np.asarray(value[0])[: len(golden[key])]
            yield Row(case, f"{key}, of RMS", relative(value if axes is None else value.transpose(axes), golden[key]), FEATURES)


def check_mono(case: str, weights: Weights, golden: Any, *, float64: bool) -> Iterator[Row]:
    """Tokens, features and depth of Depth Anything V2; its goldens are float32, so the limit is the same in float64."""
    dtype = jnp.float64 if float64 else jnp.float32
    model = DepthAnything(weights.config, dtype)
    image = normalize(jnp.asarray(golden["image"], dtype)[None])

    @jax.jit
    def forward(params, image):
        keep = lambda module, _: module.name == "pretrained"
        depth, state = model.apply({"params": params}, image, capture_intermediates=keep)
        features = model.apply({"params": params}, image, features=True)
        return depth, features, state["intermediates"]["pretrained"]["__call__"][0]

    with jax.default_matmul_precision("highest"):
        depth, features, tokens = forward(weights.params, image)
    stride = -(-depth.shape[1] // golden["depth"].shape[1])
    patches = [x[:, 1:] for x in tokens]
    values = {
        "tokens_first": patches[0],
        "tokens_last": patches[-1],
        "features": features,
        "depth": depth[:, ::stride, ::stride],
    }
    for key, value in values.items():
        if key in golden:
            yield Row(case, f"{key}, of RMS", relative(value, golden[key]), FEATURES)


def train_experiment(
    case: str, reference: Mapping[str, Any], model: ModelConfig, *, batch_size: int, parts: int = 1
) -> Experiment:
    """The experiment of a training golden: the defaults, its `max_iter`, and its `opts` of the original's config.

    In how many `parts` the batch goes through is ours: the original knows no such option.
    Options of data, checkpoints and tests do not touch a step on a batch that is given. Raises InputError for an unknown one.
    """
    sections: dict[str, dict[str, Any]] = {"solver": {"max_iter": reference["max_iter"], "accumulate": parts}, "task": {}}
    try:
        model, values = apply_options(reference["opts"], model)
        for place, value in values.items():
            section, _, name = place.partition(".")
            sections.setdefault(section, {})[name] = value
        solver = build(SolverConfig, sections["solver"] | {"batch_size": batch_size}, "solver")
        return Experiment(model=model, task=build(StereoTask, sections["task"], "task"), solver=solver)
    except InputError as error:
        raise InputError(f"{case}: {error}") from error


def check_train(case: str, weights: Weights, golden: Any, *, float64: bool, parts: int = 1) -> Iterator[Row]:
    """Losses of the first step; in float64 also the gradient norm of every parameter and the total loss of four steps.

    In `parts` the step has to give the same with less memory.
    """
    reference = golden["json"]
    expected = reference["float64"] if float64 else reference
    experiment = train_experiment(case, reference, weights.config, batch_size=len(golden["left"]), parts=parts)
    objective = experiment.objective()
    mesh = make_mesh(1, jax.devices()[:1])
    state, fixed = experiment.begin(objective, weights.params)
    frozen = Frozen(fixed, {})
    batch = {
        ours: golden[name] for ours, name in {"left": "left", "right": "right", "disparity": "disp", "valid": "valid"}.items()
    }
    step: Any = jax.jit(make_step(objective, experiment.solver, mesh, parameter_norms=True)).lower(state, frozen, batch)
    step = step.compile(FEW_STEPS)
    metrics = []
    for _ in expected["steps"]:
        state, values, _ = step(state, frozen, batch)
        metrics.append({name: float(value) for name, value in values.items()})
    for name, value in expected["losses"].items():
        noisy = name.startswith("loss_disp") or name == "epe_train"
        limit = LOSSES_FLOAT64 if float64 else REFINED_LOSSES if noisy else LOSSES
        yield Row(case, name, abs(metrics[0][name] / value - 1), limit)
    if float64:
        norms = {RULES.name(key.removeprefix("gradient/")): v for key, v in metrics[0].items() if key.startswith("gradient/")}
        largest = max(expected["grad_norms"].values())
        floor = VANISHING * largest  # below it the true gradient is zero, and the difference counts over the largest
        differences = [abs(norms[n] - v) / (v if v > floor else largest) for n, v in expected["grad_norms"].items()]
        yield Row(case, f"{len(differences)} gradient norms", max(differences), GRADIENTS_FLOAT64)
        for i, (ours, theirs) in enumerate(zip(metrics, expected["steps"], strict=True)):
            yield Row(case, f"total of step {i}", abs(ours["loss"] / theirs["total"] - 1), TOTALS_FLOAT64)


KINDS: dict[str, Callable[..., Iterator[Row]]] = {"inference": check_inference, "mono": check_mono, "train": check_train}


def kind_of(path: Path) -> str | None:
    """Which kind of golden a file is, by its name and keys; None for those of other checks."""
    for kind in ("mono", "train"):
        if path.stem.startswith(f"{kind}_"):
            return kind
    with np.load(path) as golden:
        return "inference" if "disp_float64" in golden else None


def variant_of(path: Path, variants: list[str]) -> str:
    """The variant whose name the file's name holds."""
    name = path.stem.removeprefix("train_")
    found = [variant for variant in variants if name == variant or name.startswith(f"{variant}_")]
    if not found:
        raise InputError(f"{path}: no variant in its name, expected one of {variants}")
    return max(found, key=len)


def find_cases(reference: Path, folder: Path, kinds: list[str]) -> dict[str, list[tuple[str, Path]]]:
    """{variant: [(kind, file)]} of the goldens in `folder`."""
    variants = sorted(path.stem for path in (reference / "manifest").glob("*.json"))
    cases: dict[str, list[tuple[str, Path]]] = {}
    for path in sorted(folder.glob("*.npz")):
        kind = kind_of(path)
        if kind in kinds:
            cases.setdefault(variant_of(path, variants), []).append((kind, path))
    if not cases:
        raise InputError(f"{folder} holds no golden of kind {' or '.join(kinds)}")
    return cases


def compare(reference: Path, golden: Path | None = None, *, kinds: Sequence[str] = (), float64: bool = False) -> Iterator[Row]:
    """All comparisons with the goldens in `golden` (REFERENCE/golden), of some kinds or all.

    With float64, parameters and computation are in float64, under jax_enable_x64.
    """
    synth = load_synth(reference)
    for variant, files in find_cases(reference, golden or reference / FOLDER, list(kinds or KINDS)).items():
        weights = load_weights(synth, variant, float64=float64)
        for kind, path in files:
            with np.load(path) as arrays:
                case = dict(arrays)
            if path.with_suffix(".json").is_file():
                case["json"] = json.loads(path.with_suffix(".json").read_text())
            yield from KINDS[kind](path.stem, weights, case, float64=float64)
        del weights
