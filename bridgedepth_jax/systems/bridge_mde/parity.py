"""Everything of monocular training and of the generator against golden numbers (tolerances: the reference's README).

A file's kind is its name up to the underscore where a network follows; sizes, seeds, options and numbers of images are its own.
Weights are those of REFERENCE/synth.py under the originals' names, taken through the converter's rules.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from bridgedepth_jax.convert.diffusion import read_state
from bridgedepth_jax.convert.engine import Rules, convert_state
from bridgedepth_jax.convert.rules import bridge_mde as rules
from bridgedepth_jax.convert.rules.depth_anything import RULES as DEPTH_ANYTHING
from bridgedepth_jax.data.formats import read_image
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import mono
from bridgedepth_jax.layers import gelu
from bridgedepth_jax.networks.clip_vision import ClipVisionConfig, ClipVisionModelWithProjection
from bridgedepth_jax.networks.config import DepthConfig
from bridgedepth_jax.networks.depth_anything import DepthAnything
from bridgedepth_jax.networks.diffusion import flow, flux
from bridgedepth_jax.networks.diffusion.autoencoder import AutoencoderKL, Gaussian, scale_latent, unscale_latent
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, FlowConfig, FluxConfig
from bridgedepth_jax.networks.dinov2 import PatchEmbed, resize_position_embedding
from bridgedepth_jax.networks.scale_head import ScaleHead, metric_depth
from bridgedepth_jax.ops.resize import resize_bilinear, resize_map
from bridgedepth_jax.parity import Row, load_synth
from bridgedepth_jax.store.checkpoint import flatten, unflatten
from bridgedepth_jax.systems.bridge_mde import fusion, losses
from bridgedepth_jax.systems.bridge_mde.generator import aesthetic, reward
from bridgedepth_jax.systems.bridge_mde.rounding import resize_bicubic

FOLDER = "mono_training"  # under the reference
VALUE, VALUE_FLOAT32 = 1e-9, 1e-5  # losses, metrics, outputs: relative
GRADIENT, GRADIENT_FLOAT32 = 1e-8, 1e-6  # of its largest value; absolute
SIGMOID_FLOAT32 = 1e-5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of Depth Anything's own transform, not rounded to float32
FLUX_FLOAT32 = 1e-3  # of its RMS: guidance 10 means an angle of 10,000 radians
REWARD, REWARD_NORM, UPDATE = 1e-7, 1e-6, 1e-6  # relative
REWARD_FLOAT32 = 1e-3  # FLUX's embeddings again
REWARD_NORM_FLOAT32 = 1e-2
SSIM_FLOAT16, SSIM = 1e-3, 1e-9
IOU = 0.98
MATCHES = 5  # "may differ by a few"
CORNER = 0.01  # pixels; two versions of OpenCV agree to 0.002
SIGMA = 1e-6
FEW_RUNS: dict[str, Any] = {"xla_backend_optimization_level": 0}  # which compile in half the time
Arrays = dict[str, np.ndarray]
Json = dict[str, Any]


class Case:
    """A folder of goldens with what belongs to it."""

    def __init__(self, folder: Path, reference: Path, *, float64: bool) -> None:
        self.folder, self.reference, self.float64 = folder, reference, float64
        self.dtype: Any = np.float64 if float64 else np.float32
        self.synth = load_synth(reference)

    def limit(self, float64: float, float32: float) -> float:
        return float64 if self.float64 else float32

    def find(self, name: str) -> Path:
        """A file of the folder or, where it has none, of the reference."""
        found = [path for path in (self.folder / name, self.reference / FOLDER / name) if path.is_file()]
        if not found:
            raise InputError(f"{self.folder} has no {name}, nor has {self.reference / FOLDER}")
        return found[0]

    def json(self, name: str) -> Json:
        return json.loads(self.find(name).read_text())

    def arrays(self, name: str) -> Arrays:
        with np.load(self.find(name)) as arrays:
            return dict(arrays)

    def cast(self, value: Any) -> jax.Array:
        return jnp.asarray(np.asarray(value), self.dtype)

    def weights(self, entries: Sequence[Mapping[str, Any]], prefix: str = "") -> Arrays:
        """Name-seeded tensors by name; `prefix` of the names is taken off afterwards."""
        return {
            entry["name"].removeprefix(prefix): self.synth.synth_value(entry["name"], tuple(entry["shape"]))
            for entry in entries
        }

    def convert(self, table: Rules, state: Arrays, module: Any, *inputs: Any) -> Any:
        """Parameters of a module of ours in the precision of the run."""
        shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
        expected = {path: leaf.shape for path, leaf in flatten(shapes).items()}
        leaves = convert_state(table, dict(state), expected, source="golden")
        return unflatten({path: jnp.asarray(value, self.dtype) for path, value in leaves.items()})


def fast(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's value, compiled as is worth it for one call."""
    return jax.jit(function).lower(*arguments).compile(FEW_RUNS)(*arguments)


def largest(found: Any, golden: Any) -> float:
    """Largest difference. InputError: other shapes."""
    found, golden = np.asarray(found, np.float64), np.asarray(golden, np.float64)
    if found.shape != golden.shape:
        raise InputError(f"found {found.shape}, the golden has {golden.shape}")
    return float(np.abs(found - golden).max(initial=0))


def off(found: Any, golden: Any) -> float:
    """Largest difference, relative to the largest value; absolute where that is 0."""
    size = float(np.abs(np.asarray(golden, np.float64)).max(initial=0))
    return largest(found, golden) / (size or 1.0)


def of_rms(found: Any, golden: np.ndarray) -> float:
    return largest(found, golden) / float(np.sqrt(np.mean(np.square(golden.astype(np.float64)))))


def gradient_row(case: Case, name: str, quantity: str, found: Any, golden: np.ndarray) -> Row:
    """In float64 of its largest value, in float32 absolute."""
    return Row(name, quantity, (off if case.float64 else largest)(found, golden), case.limit(GRADIENT, GRADIENT_FLOAT32))


def check_losses(case: Case) -> Iterator[Row]:
    """Every case of trimming with what it consists of; SiLog; the cosine of the generator."""
    golden, values = case.arrays("losses.npz"), case.json("losses.json")
    prediction, target, mask = case.cast(golden["pred"]), case.cast(golden["target"]), jnp.asarray(golden["mask"])
    limit = case.limit(VALUE, VALUE_FLOAT32)
    for name, value in values.items():
        if "trim_percent" not in value:
            continue
        seen = jnp.zeros_like(mask) if name == "blank" else mask
        percent = jnp.asarray(value["trim_percent"], jnp.int32)
        ssi, gm = value["weights"]

        def loss(prediction: Any, seen: Any, percent: Any, value: Any = value, ssi: float = ssi, gm: float = gm) -> Any:
            options = dict(renormalise=value["renormalise"], trim_gradient=value["trim_gradient"])
            found = losses.terms(prediction, target, seen, percent, **options)
            total = losses.total(found, jnp.sum(found.counts), ssi=ssi, gm=gm)
            return total.loss, (found, total)

        (_, (found, total)), gradient = fast(jax.value_and_grad(loss, has_aux=True), prediction, seen, percent)
        expected = value["float64" if case.float64 else "float32"]
        for key, number in (("total", total.loss), ("ssi", total.ssi), ("gm", total.gm)):
            yield Row("losses", f"{name}, {key}, relative", off(number, expected[key]), limit)
        counts = [image is not None for image in expected["images"]]
        yield Row("losses", f"{name}, images that count", float((np.asarray(found.counts) != counts).sum()), 0)
        parts: dict[str, float] = {}
        for i, image in enumerate(expected["images"]):
            if image is None:
                continue
            pairs = {
                "medians": ([s.median[i] for s in (found.prediction, found.target)], image["median"]),
                "scales": ([s.scale[i] for s in (found.prediction, found.target)], image["scale"]),
                "kept pixels": (int(found.kept[i].sum()), image["kept"]),
                "ssi of images": (found.ssi[i], image["ssi"]),
                "levels": (found.levels[i], image["gm_levels"]),
            }
            for key, pair in pairs.items():
                parts[key] = max(parts.get(key, 0.0), off(*pair))
        for key, number in parts.items():
            yield Row("losses", f"{name}, {key}", number, 0 if key == "kept pixels" else limit)
        yield gradient_row(case, "losses", f"{name}, gradient", gradient, golden[f"{name}.grad"])
    yield from _silog(case, golden, values["silog"], limit)
    generated, source = case.cast(golden["cos.generated"]), case.cast(golden["cos.source"])
    cos_mask = jnp.asarray(golden["cos.mask"])
    for kind in ("plain", "centred"):

        def cosine(generated: Any, kind: str = kind) -> Any:
            found = reward.depth_loss(generated, source, cos_mask, centred=kind == "centred")
            return jnp.mean(found), found

        (_, found), gradient = fast(jax.value_and_grad(cosine, has_aux=True), generated)
        yield Row("losses", f"cosine {kind}, relative", off(found, values[f"cosine_{kind}"]), limit)
        yield gradient_row(case, "losses", f"cosine {kind}, gradient", gradient, golden[f"cos.grad_{kind}"])


def _silog(case: Case, golden: Arrays, expected: Json, limit: float) -> Iterator[Row]:
    truth, valid = case.cast(golden["silog.gt"]), jnp.asarray(golden["silog.mask"])

    def loss(depth: Any) -> Any:
        found = losses.log_sums(depth, truth, valid)
        return losses.silog(found, found, jnp.sum(valid))

    value, gradient = fast(jax.value_and_grad(loss), case.cast(golden["silog.pred"]))
    yield Row("losses", "silog, relative", off(value, expected["loss"]), limit)
    yield gradient_row(case, "losses", "silog, gradient", gradient, golden["silog.grad"])


def check_evaluation(case: Case) -> Iterator[Row]:
    """Fits, measures with and without them, ordered pairs."""
    golden, values = case.arrays("evaluation.npz"), case.json("evaluation.json")
    limit = case.limit(VALUE, VALUE_FLOAT32)
    for name, expected in values.items():
        if "annotations" in expected:
            continue
        truth, raw = golden[f"{name}.depth"].astype(case.dtype), golden[f"{name}.prediction"].astype(case.dtype)
        height, width = expected["eval_size"]
        if name.startswith("kitti"):
            truth = truth[mono.kitti_window(*truth.shape, (height, width))]
        low, cap, crop = expected["min"], expected["cap"], mono.crop_of(name, *truth.shape)
        relative = mono.evaluate_image(raw, truth, low, cap, crop, metric=False)
        assert relative.fit is not None
        yield Row(name, "evaluated size", float(truth.shape != (height, width)), 0)
        yield Row(name, "valid pixels", float(abs(relative.pixels - expected["n"])), 0)
        size = max(abs(expected["scale"]), abs(expected["shift"]))
        apart = max(abs(relative.fit.scale - expected["scale"]), abs(relative.fit.shift - expected["shift"]))
        yield Row(name, "fit, relative", apart / size, limit)
        for metric in mono.NAMES:
            yield Row(name, f"{metric}, relative", off(relative.measures[metric], expected[metric]), limit)
        # The golden's metric network: 3 m over the prediction at its own size, in float32, what a network gives.
        metres = (3 / np.maximum(golden[f"{name}.prediction"], np.float32(0.02))).astype(case.dtype)
        found = mono.evaluate_image(metres, truth, low, cap, crop, metric=True).measures
        for metric in mono.NAMES:
            number = off(found[metric], expected["metric_without_alignment"][metric])
            yield Row(name, f"metric {metric}, relative", number, limit)
    for name, expected in values.items():
        if "annotations" not in expected:
            continue
        answers = {}
        for i, (path, pairs) in enumerate(expected["annotations"].items()):
            prediction = resize_map(golden[f"{name}.{i}"].astype(case.dtype), *expected["image_sizes"][path])
            answers[path] = mono.ordered(prediction, pairs, path)
        found = mono.accuracies(answers)
        for scene, percent in expected["accuracy_percent"].items():
            yield Row(name, f"{scene}, per cent", abs(found[scene][0] - percent), limit)
            yield Row(name, f"{scene}, pairs", float(abs(found[scene][1] - expected["pairs"][scene])), 0)


def check_fusion(case: Case) -> Iterator[Row]:
    """SSIM, masks from what the golden has, and the whole chain."""
    golden, values = case.arrays("fusion.npz"), case.json("fusion.json")
    original = read_image(case.find("fusion_original.png"))
    height, width = original.shape[:2]
    target = cv2.cvtColor(original, cv2.COLOR_RGB2GRAY)
    valid = np.ones((height, width), bool)
    for first, last in re.findall(r"rows (\d+)\.\.(\d+) have no valid depth", values["masks"]):
        valid[int(first) : int(last) + 1] = False
    statistics = next((key for key in values if key.startswith("ssim_mean_min_at_")), "")
    row, column = map(int, statistics.removeprefix("ssim_mean_min_at_").split("_"))
    names = [name for name, value in values.items() if isinstance(value, dict) and "matches" in value]
    unpacked = lambda name: np.unpackbits(golden[name], axis=1)[:, :width].astype(bool)
    for name in names:
        expected = values[name]
        generated = fusion.like_original(read_image(case.find(f"fusion_{name}.png")), height, width)
        grey = cv2.cvtColor(generated, cv2.COLOR_RGB2GRAY)
        maps = {"direct": fusion.ssim(grey, target)}
        masks = {"direct": maps["direct"] > fusion.SIMILAR}
        if expected["homography"] is not None:
            homography = np.array(expected["homography"])
            maps["registered"] = fusion.ssim(golden[f"{name}.warped"], target)
            masks["registered"] = (maps["registered"] > fusion.SIMILAR) & fusion.covered(homography, height, width)
        for kind, found in maps.items():
            yield Row(name, f"SSIM {kind}", largest(found, golden[f"{name}.ssim_{kind}"]), SSIM_FLOAT16)
            numbers = [found.mean(), found.min(), found[row, column]]
            yield Row(name, f"SSIM {kind}, numbers", largest(numbers, values[statistics][f"{name}.ssim_{kind}"]), SSIM)
        masks["union"] = fusion.union(masks["direct"], masks.get("registered"))
        for kind in ("union", "registered"):
            if kind in masks and f"{name}.mask_closed_{kind}" in golden:
                masks[f"closed_{kind}"] = fusion.clean(masks[kind], valid)
                masks[f"final_{kind}"] = fusion.erode(masks[f"closed_{kind}"])
        for kind, found in masks.items():
            yield Row(name, f"mask {kind}, pixels", float((found != unpacked(f"{name}.mask_{kind}")).sum()), 0)
        for kind in ("union", "registered"):
            if kind in expected and f"closed_{kind}" in masks:
                yield from _component(name, kind, expected[kind], masks[f"closed_{kind}"], masks[f"final_{kind}"])
        yield from _chain(name, expected, fusion.fuse(generated, original, valid), unpacked, (height, width))


def _component(name: str, kind: str, expected: Json, closed: np.ndarray, final: np.ndarray) -> Iterator[Row]:
    fractions = (float(closed.mean()), float(final.mean())), (expected["fraction_before_erosion"], expected["fraction"])
    yield Row(name, f"{kind}, fractions", largest(*fractions), VALUE)
    yield Row(name, f"{kind}, accepted", float((fractions[0][0] > fusion.ENOUGH) != expected["accepted"]), 0)
    box = fusion.largest_component(final)
    assert box is not None
    yield Row(name, f"{kind}, component", largest(box, expected["largest_box_xywh_area"]), 0)
    for key, corner in expected.items():
        if match := re.fullmatch(r"crop(\d+)_top_left", key):
            found = fusion.crop_of(box, final.shape[0], final.shape[1], int(match[1]))
            yield Row(name, f"{kind}, {key}", largest(found, corner), 0)


def _chain(
    name: str, expected: Json, found: fusion.Fusion, unpacked: Callable[[str], np.ndarray], size: tuple[int, int]
) -> Iterator[Row]:
    yield Row(name, "chain, matches", float(abs(found.registration.matches - expected["matches"])), MATCHES)
    yield Row(name, "chain, inliers", float(abs(found.registration.inliers - expected["inliers"])), MATCHES)
    yield Row(name, "chain, chosen", float(found.chosen != expected["chosen"]), 0)
    yield Row(name, "chain, accepted", float(found.accepted != expected[expected["chosen"]]["accepted"]), 0)
    have = found.registration.homography
    yield Row(name, "chain, registered", float((have is None) != (expected["homography"] is None)), 0)
    if have is not None and expected["homography"] is not None:
        apart = np.hypot(*(fusion.corners(have, *size) - fusion.corners(np.array(expected["homography"]), *size)).T)
        yield Row(name, "chain, corners, px", float(apart.max()), CORNER)
        shift = fusion.corner_shift(np.array(expected["homography"]), *size)
        yield Row(name, "largest corner shift, px", abs(shift - expected["largest_corner_shift"]), 1e-6)
    golden = unpacked(f"{name}.mask_final_{found.chosen}")
    both, either = (found.mask & golden).sum(), (found.mask | golden).sum()
    yield Row(name, "chain, 1 - IoU", 1 - float(both / max(either, 1)), 1 - IOU)


def check_flow(case: Case) -> Iterator[Row]:
    """Noise levels and times."""
    values = case.json("flow_sigmas.json")
    config = FlowConfig.from_diffusers(values["scheduler_config"], "flow_sigmas.json")
    for expected in values["cases"]:
        steps, tokens = expected["steps"], expected["image_seq_len"]
        found = flow.sigmas(config, steps, tokens)
        yield Row("flow", f"{steps} steps, {tokens}, sigmas", largest(found, expected["sigmas"]), SIGMA)
        times = found[:-1] * config.train_steps
        yield Row("flow", f"{steps} steps, {tokens}, times", off(times, expected["timesteps"]), SIGMA)


class Flux(NamedTuple):
    config: FluxConfig
    module: flux.FluxTransformer2DModel
    params: Any

    def features(self, values: Any, dtype: Any) -> jax.Array:
        return jnp.asarray(flux.scalar_features(np.asarray(values, np.float64)), dtype)


def load_flux(case: Case) -> Flux:
    values = case.json("flux_tiny.json")
    config = FluxConfig.from_diffusers(values["config"], "flux_tiny.json")
    config = dataclasses.replace(config, dtype=np.dtype(case.dtype).name)  # type: ignore[arg-type]
    module = flux.FluxTransformer2DModel(config)
    shape = lambda *s: jax.ShapeDtypeStruct(s, case.dtype)
    by = jax.eval_shape(lambda: flux.rotation(config, 2, 1, 2, case.dtype))
    inputs = (
        shape(1, 2, config.in_channels), shape(1, flux.FREQUENCIES), shape(1, flux.FREQUENCIES),
        shape(1, 2, config.joint_attention_dim), shape(1, config.pooled_projection_dim), by,
    )  # fmt: skip
    return Flux(config, module, case.convert(rules.FLUX, case.weights(values["entries"]), module, *inputs))


def check_flux(case: Case) -> Iterator[Row]:
    """Packing, output and what the original's modules gave on the way."""
    golden, net = case.arrays("flux_tiny.npz"), load_flux(case)
    latents, control = case.cast(golden["latents"]), case.cast(golden["control"])
    packed = [flow.pack(x) for x in (latents, control)]
    for name, found in zip(("latents", "control"), packed, strict=True):
        yield Row("flux", f"packed {name}", largest(found, golden[f"packed_{name}"]), 0)
    rows, columns = latents.shape[1] // 2, latents.shape[2] // 2
    yield Row("flux", "unpacked latents", largest(flow.unpack(packed[0], rows, columns), golden["latents"]), 0)
    text = golden["encoder_hidden_states"].shape[1]
    by = flux.rotation(net.config, text, rows, columns, case.dtype)
    ids = np.concatenate([golden["txt_ids"], golden["img_ids"]])
    theirs = flux.rotation_of(net.config, ids, case.dtype)
    yield Row("flux", "ids", max(largest(a, b) for a, b in zip(by, theirs, strict=True)), 0)
    twice = np.stack([np.repeat(np.asarray(part), 2, axis=1) for part in by])
    yield Row("flux", "rope", largest(twice, golden["tap.rope"]), SIGMA)
    features = [net.features(golden[key], case.dtype) for key in ("timestep", "guidance")]
    others = [case.cast(golden[key]) for key in ("encoder_hidden_states", "pooled_projections")]

    def run(params: Any, x: Any, features: Any, others: Any) -> Any:
        return net.module.apply({"params": params}, x, *features, *others, by, mutable="taps")

    output, state = fast(run, net.params, jnp.concatenate(packed, axis=-1), features, others)
    limit = case.limit(VALUE, FLUX_FLOAT32)
    yield Row("flux", "output, of RMS", of_rms(output, golden["output_float64"]), limit)
    for key, value in state["taps"].items():
        name = key.removesuffix("_out")
        if f"tap64.{name}" in golden:
            yield Row("flux", f"{name}, of RMS", of_rms(value[0], golden[f"tap64.{name}"]), limit)
        if f"tap.{name}" in golden:  # the original's own float32, a few 1e-4 off
            yield Row("flux", f"{name}, of float32", of_rms(value[0], golden[f"tap.{name}"]), FLUX_FLOAT32)


class Vae(NamedTuple):
    config: AutoencoderConfig
    module: AutoencoderKL
    params: Any


def load_vae(case: Case) -> Vae:
    values = case.json("vae_tiny.json")
    config = AutoencoderConfig.from_diffusers(values["config"], "vae_tiny.json")
    leaves = read_state(case.weights(values["entries"]), config, "vae_tiny.json")
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, case.dtype), leaves)
    config = dataclasses.replace(config, dtype=np.dtype(case.dtype).name)  # type: ignore[arg-type]
    return Vae(config, AutoencoderKL(config), params)


def check_vae(case: Case) -> Iterator[Row]:
    """Distribution of an image, and the image of a latent."""
    golden, net = case.arrays("vae_tiny.npz"), load_vae(case)
    encode = lambda params, image: net.module.apply({"params": params}, image, method="encode")
    decode = lambda params, latent: net.module.apply({"params": params}, latent, method="decode")
    found = Gaussian.of(fast(encode, net.params, case.cast(golden["image"])))
    decoded = fast(decode, net.params, unscale_latent(case.cast(golden["latent"]), net.config))
    values = {"mean": found.mean, "logvar": found.logvar, "scaled_mean": scale_latent(found.mean, net.config)}
    for name, value in (values | {"decoded": decoded}).items():
        yield Row("vae", f"{name}, of RMS", of_rms(value, golden[f"{name}_float64"]), case.limit(VALUE, VALUE_FLOAT32))


class Judge(NamedTuple):
    """CLIP and the MLP."""

    config: ClipVisionConfig
    clip: Any
    mlp: Any


def load_judge(case: Case) -> Judge:
    values = case.json("aesthetic_tiny.json")
    config = ClipVisionConfig(**values["config"], dtype=np.dtype(case.dtype).name)  # type: ignore[arg-type]
    pixels = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), case.dtype)
    clip = case.convert(rules.CLIP_VISION, case.weights(values["entries_clip"]), ClipVisionModelWithProjection(config), pixels)
    mlp = aesthetic.AestheticMlp(case.dtype)
    embedding = jax.ShapeDtypeStruct((1, config.projection_dim), case.dtype)
    return Judge(config, clip, case.convert(rules.AESTHETIC, case.weights(values["entries_mlp"]), mlp, embedding))


def check_aesthetic(case: Case) -> Iterator[Row]:
    """From the image to the score, and the gradient back."""
    golden, judge = case.arrays("aesthetic_tiny.npz"), load_judge(case)
    model = ClipVisionModelWithProjection(judge.config)

    def score(image: Any, clip: Any, mlp: Any) -> Any:
        pixels = aesthetic.clip_pixels(image, judge.config.image_size)
        embeds, state = model.apply({"params": clip}, pixels, mutable="taps")
        found = aesthetic.aesthetic_score(clip, mlp, image, judge.config)
        return jnp.sum(found), (pixels, state["taps"]["last_hidden"][0], embeds, aesthetic.unit(embeds), found)  # type: ignore[arg-type]

    (_, found), gradient = fast(jax.value_and_grad(score, has_aux=True), case.cast(golden["image"]), judge.clip, judge.mlp)
    for name, value in zip(("pixels", "last_hidden", "embeds", "unit", "score"), found, strict=True):
        yield Row("aesthetic", f"{name}, relative", off(value, golden[f"{name}_float64"]), case.limit(VALUE, VALUE_FLOAT32))
    yield gradient_row(case, "aesthetic", "gradient", gradient, golden["grad_float64"])


def check_metric(case: Case) -> Iterator[Row]:
    """DAv2-metric on the weights of the relative network's golden: one with each maximum depth, each value its sigmoid's."""
    for path in sorted(case.folder.glob("metric_*.npz")):
        golden, vit = case.arrays(path.name), path.stem.split("_")[1]
        entries = json.loads((case.reference / "manifest" / f"mono_{vit}.json").read_text())["entries"]
        image = case.cast((golden["image"] / 255.0 - MEAN) / STD)[None]
        state = {e["name"]: case.synth.synth_value(e["name"], tuple(e["shape"])) for e in entries if e["kind"] == "param"}
        config = DepthConfig.named(vit)
        side, (height, width) = config.pos_grid, (n // config.patch for n in image.shape[1:3])
        positions = state["pretrained.pos_embed"]
        ours = resize_position_embedding(case.cast(positions), side, height, width)[:, 1:]
        theirs = ours
        if (height, width) != (side, side):
            theirs = resize_bicubic(positions[0, 1:].reshape(side, side, -1), height, width).reshape(ours.shape)
            yield Row(path.stem, "position embedding against float32's, relative", off(ours, theirs), VALUE_FLOAT32)
        rounding = case.cast(theirs) - ours  # the original resizes in float32 whatever the rest is: see `rounding.py`

        def rounded(call: Any, arguments: Any, options: Any, context: Any, rounding: Any = rounding) -> Any:
            found = call(*arguments, **options)
            return found + rounding if case.float64 and isinstance(context.module, PatchEmbed) else found

        for maximum in (20.0, 80.0):
            config = dataclasses.replace(config, head="metric", max_depth=maximum)
            module = DepthAnything(config, dtype=case.dtype)
            params = case.convert(DEPTH_ANYTHING, state, module, jax.ShapeDtypeStruct((1, 28, 28, 3), case.dtype))
            with nn.intercept_methods(rounded):
                found = fast(lambda params, image, module=module: module.apply({"params": params}, image), params, image)
            for key, allowed in (("sigmoid_float64", case.limit(VALUE, SIGMOID_FLOAT32)), ("sigmoid", SIGMOID_FLOAT32)):
                value = largest(np.asarray(found, np.float64) / maximum, golden[key])
                yield Row(path.stem, f"{maximum:g} m, {key}", value, allowed)


def check_scale(case: Case) -> Iterator[Row]:
    """Our scale head: what it says, depth, SiLog over all pixels, gradients."""
    golden, values = case.arrays("scale_head.npz"), case.json("scale_head.json")
    module = ScaleHead(case.dtype)
    cls, tokens, relative, truth = (case.cast(golden[key]) for key in ("cls", "tokens", "relative", "gt"))
    state = case.weights(values["entries"], "scale_head.")
    params = case.convert(rules.AESTHETIC, state, module, cls, tokens)

    def loss(params: Any) -> Any:
        output: Any = module.apply({"params": params}, cls, tokens)
        depth = metric_depth(relative, output, values["min_depth"], values["max_depth"])
        every = jnp.ones(truth.shape, bool)
        sums = losses.log_sums(depth, truth, every)
        return losses.silog(sums, sums, truth.size), (output, depth)

    (value, (output, depth)), gradients = fast(jax.value_and_grad(loss, has_aux=True), params)
    limit = case.limit(VALUE, VALUE_FLOAT32)
    yield Row("scale_head", "output, relative", off(output, golden["output"]), limit)
    yield Row("scale_head", "depth, relative", off(depth, golden["depth_float64"]), limit)
    yield Row("scale_head", "silog, relative", off(value, values["silog"]), limit)
    for path, leaf in flatten(gradients).items():
        name = rules.AESTHETIC.name(path)
        found = leaf.T if path.endswith("kernel") else leaf
        yield gradient_row(case, "scale_head", f"gradient {name}", found, golden[f"grad.{name}"])


def tiny_depth(state: Mapping[str, Any], image: jax.Array) -> jax.Array:
    """The golden's stand-in for a depth network: (B, H, W, 3) in -1..1 to (B, H/2, W/2)."""

    def conv(x: Any, name: str, stride: int) -> Any:
        kernel = jnp.asarray(state[f"{name}.weight"], x.dtype).transpose(2, 3, 1, 0)
        dims = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=dims)
        return y + jnp.asarray(state[f"{name}.bias"], x.dtype).reshape(1, 1, 1, -1)

    return jax.nn.softplus(conv(gelu(conv(image, "conv1", 2)), "conv2", 1))[..., 0]


def check_reward(case: Case) -> Iterator[Row]:
    """The loop: losses and gradient norms for several numbers of differentiated steps, and two updates."""
    golden, values = case.arrays("reward_update.npz"), case.json("reward_update.json")
    net, vae, judge = load_flux(case), load_vae(case), load_judge(case)
    depth = case.weights(values["tiny_depth_entries"], "tiny_depth.")
    noise, source = case.cast(golden["noise"]), case.cast(golden["source"])
    size = golden["image_before"].shape[1:3]
    levels, steps = np.array(values["sigmas"]), values["steps"]
    rows, columns = noise.shape[1] // 2, noise.shape[2] // 2
    yield Row("reward", "sigmas", largest(flow.sigmas(FlowConfig(), steps, rows * columns), levels), SIGMA)
    resized = resize_bilinear(source[..., None], size, align_corners=False)
    control_image = jnp.repeat(resized / jnp.max(resized) * 2 - 1, 3, axis=-1)
    encode = lambda params, image: net_encode(vae, params, image)
    control = flow.pack(fast(encode, vae.params, control_image))
    yield Row("reward", "control", of_rms(control, golden["control_packed"]), case.limit(VALUE, VALUE_FLOAT32))
    text, pooled = case.cast(golden["text"]), case.cast(golden["pooled"])
    by = flux.rotation(net.config, text.shape[1], rows, columns, case.dtype)
    guidance = net.features([values["guidance"]], case.dtype)
    times = net.features(levels[:-1, None], case.dtype)

    def velocity(params: Any, x: Any, time: Any) -> Any:
        return net.module.apply({"params": params}, jnp.concatenate([x, control], -1), time, guidance, text, pooled, by)

    def generate(params: Any, last: int) -> Any:
        x = flow.sample(velocity, params, flow.pack(noise), levels, times, last=last, remat=False)
        latent = unscale_latent(flow.unpack(x, rows, columns), vae.config)
        image: Any = vae.module.apply({"params": vae.params}, latent, method="decode")
        return image

    def loss(params: Any, last: int) -> Any:
        image = generate(params, last)
        unlike = reward.depth_loss(tiny_depth(depth, image), source)
        found = reward.combine(unlike, aesthetic.aesthetic_score(judge.clip, judge.mlp, image, judge.config))
        return found.loss, (found, image)

    value_limit, norm_limit = case.limit(REWARD, REWARD_FLOAT32), case.limit(REWARD_NORM, REWARD_NORM_FLOAT32)
    run: dict[int, Any] = {}
    for key, expected in values["truncation"].items():
        last = int(key)
        run[last] = jax.jit(jax.value_and_grad(lambda params, last=last: loss(params, last), has_aux=True))
        run[last] = run[last].lower(net.params).compile(FEW_RUNS)
        (_, (found, image)), gradients = run[last](net.params)
        for name, number in (("loss", found.loss), ("depth_loss", found.depth_loss), ("aesthetic", found.aesthetic)):
            yield Row("reward", f"last {key}, {name}, relative", off(number, expected[name]), value_limit)
        norm = float(optax.tree.norm(gradients))
        yield Row("reward", f"last {key}, gradient norm, relative", off(norm, expected["gradient_norm"]), norm_limit)
        for text_key in [text_key for text_key in values if text_key == f"gradient_norms_last_{key}"]:
            norms = {rules.FLUX.name(p): float(jnp.linalg.norm(g.reshape(-1))) for p, g in flatten(gradients).items()}
            most = max(values[text_key].values())
            apart = [abs(norms[name] - v) / max(v, 1e-3 * most) for name, v in values[text_key].items()]
            yield Row("reward", f"{len(apart)} gradient norms, relative", max(apart), norm_limit)
        yield Row("reward", f"last {key}, image before", of_rms(image, golden["image_before"]), value_limit)
    for key in [key for key in values if key.startswith("updates_last_")]:
        last = int(key.removeprefix("updates_last_"))
        optimiser = optax.adam(float(re.findall(r"AdamW ([0-9.e-]+)", values["optimiser"])[0]))
        params, state = net.params, optimiser.init(net.params)
        for expected in values[key]:
            (_, (found, image)), gradients = run[last](params)
            for name, number in (("loss", found.loss), ("depth_loss", found.depth_loss), ("aesthetic", found.aesthetic)):
                limit = case.limit(UPDATE, REWARD_FLOAT32)
                yield Row("reward", f"update {expected['step']}, {name}, relative", off(number, expected[name]), limit)
            updates, state = jax.jit(optimiser.update)(gradients, state)
            params: Any = optax.apply_updates(params, updates)
        yield Row("reward", "image after", of_rms(image, golden["image_after"]), case.limit(UPDATE, REWARD_FLOAT32))


def net_encode(vae: Vae, params: Any, image: jax.Array) -> jax.Array:
    """An image's scaled latent, the mean."""
    moments: Any = vae.module.apply({"params": params}, image, method="encode")
    return scale_latent(Gaussian.of(moments).mean, vae.config)


def check_manifests(case: Case) -> Iterator[Row]:
    """The published networks: every tensor of a manifest has its parameter, and the reverse, by `eval_shape`."""
    from bridgedepth_jax.systems.bridge_mde.manifests import uncovered

    for name in ("flux_depth_dev", "vae_flux", "clip_vit_l14", "aesthetic_mlp"):
        manifest = case.json(f"manifest_{name}.json")
        wrong, parameters = uncovered(name, manifest)
        yield Row(name, f"{manifest['entries_count']} tensors, uncovered", float(len(wrong)), 0)
        yield Row(name, "parameters", float(abs(parameters - manifest["parameters"])), 0)


# Kind -> the file without which there is nothing to compare, and the comparison.
KINDS: dict[str, tuple[str, Callable[[Case], Iterator[Row]]]] = {
    "losses": ("losses.npz", check_losses),
    "evaluation": ("evaluation.npz", check_evaluation),
    "fusion": ("fusion.npz", check_fusion),
    "metric": ("metric_*.npz", check_metric),
    "scale_head": ("scale_head.npz", check_scale),
    "flow": ("flow_sigmas.json", check_flow),
    "flux": ("flux_tiny.npz", check_flux),
    "vae": ("vae_tiny.npz", check_vae),
    "aesthetic": ("aesthetic_tiny.npz", check_aesthetic),
    "reward": ("reward_update.npz", check_reward),
    "manifest": ("manifest_*.json", check_manifests),
}


def compare(reference: Path, golden: Path | None = None, *, kinds: Sequence[str] = (), float64: bool = False) -> Iterator[Row]:
    """All comparisons with the goldens in `golden` (REFERENCE/mono_training), of some kinds or all.

    With float64, everything is, under jax_enable_x64. Files that a kind needs and the folder has not are the reference's.
    """
    case = Case(golden or reference / FOLDER, reference, float64=float64)
    for kind, (file, check) in KINDS.items():
        if kind in (kinds or KINDS) and any(case.folder.glob(file)):
            with jax.default_matmul_precision("highest"):
                yield from check(case)
