"""StereoDiff's parts against golden numbers (tolerances: the reference's README of video depth).

Weights are those of REFERENCE/synth.py on the originals' names, taken through the converter's rules. Goldens may be of any
size, seed and options: whatever they need to be computed again is read from the files.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.convert.engine import convert_state
from bridgedepth_jax.convert.pth import read_pth, state_dict
from bridgedepth_jax.convert.rules.dust3r import RULES, head_widths, parse_model
from bridgedepth_jax.convert.video import read_network
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import video as measures
from bridgedepth_jax.networks.croco.blocks import rotate
from bridgedepth_jax.networks.croco.config import PairConfig
from bridgedepth_jax.networks.croco.network import PairNetwork
from bridgedepth_jax.networks.video import schedule
from bridgedepth_jax.networks.video.autoencoder import AutoencoderKLTemporalDecoder
from bridgedepth_jax.networks.video.clip import FrameEncoder, resize_frames
from bridgedepth_jax.networks.video.config import (
    ImageEncoderConfig,
    VideoAutoencoderConfig,
    VideoScheduleConfig,
    VideoUNetConfig,
)
from bridgedepth_jax.networks.video.unet import UNetSpatioTemporalConditionModel
from bridgedepth_jax.parity import Row, load_synth, relative
from bridgedepth_jax.store.checkpoint import expected_shapes, unflatten
from bridgedepth_jax.systems.stereodiff import fusion, losses, preprocess, windows
from bridgedepth_jax.systems.stereodiff.config import RefineOptions, VideoDiffusionConfig
from bridgedepth_jax.systems.stereodiff.refine import VideoDiffusion, refine

FOLDER = "video"  # under the reference: manifest/, golden/ and two containers
# Limits, from the reference's README, of an array's RMS.
NETWORK, NETWORK_FLOAT32 = 1e-9, 1e-4
POINTS_FLOAT32 = 1e-3  # they pass expm1
EXACT, EXACT_FLOAT32 = 1e-12, 1e-4  # geometry, windows, metrics: host code, float64 whatever the networks are
STORED_FLOAT32 = 1e-6  # of arrays that are kept as float32
PNP = 1e-3  # OpenCV's RANSAC
GREY_LEVELS = 1.0
LIBRARY_FLOAT32 = 1e-5  # of diffusers' scheduler, which computes in float32 ...
ZERO_SNR = 1e-3  # ... from sigma 4096 ...
TERMINAL = 1e-4  # ... and takes zero SNR through float32 betas
OVERLAP, CHUNK, FIRST = 2, 4, 2  # of `stage2_tiny.npz`, as the reference's README says
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass
class Context:
    """Where goldens and manifests are, and the precision of a run."""

    reference: Path
    folder: Path
    float64: bool

    @property
    def dtype(self) -> Any:
        return jnp.dtype("float64" if self.float64 else "float32")

    @property
    def network(self) -> float:
        return NETWORK if self.float64 else NETWORK_FLOAT32

    @property
    def points(self) -> float:
        return NETWORK if self.float64 else POINTS_FLOAT32

    def find(self, *names: str) -> Path:
        """The first of these files that is there: in FOLDER, below or beside it, or else of the reference's."""
        places = [self.folder, self.folder / "golden", self.folder / "manifest", self.folder.parent / "manifest"]
        places += [self.reference / FOLDER / "manifest", self.reference / FOLDER / "golden", self.reference / FOLDER]
        found = [place / name for name in names for place in places if (place / name).is_file()]
        if not found:
            raise InputError(
                f"{self.folder} and {self.reference / FOLDER} have no {names[0]}, expected the folder of the reference"
            )
        return found[0]

    def manifest(self, *names: str) -> dict[str, Any]:
        return json.loads(self.find(*names).read_text())

    def values(self, manifest: Mapping[str, Any]) -> Arrays:
        """The state dict of a manifest's network."""
        synth = load_synth(self.reference)
        rows = manifest["entries"]
        state = {row["name"]: synth.synth_value(row["name"], row["shape"]) for row in rows if row["kind"] != "alias"}
        return {row["name"]: state[row.get("alias_of", row["name"])] for row in rows}

    def cast(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, self.dtype), tree)

    def pair_network(self, kind: str) -> tuple[PairConfig, Any]:
        """Golden pair network, "dpt" or "linear"."""
        manifest = self.manifest(f"dust3r_tiny_{kind}.json")
        state, said = self.values(manifest), manifest["config"]
        names = [field.name for field in dataclasses.fields(PairConfig)]
        fields = {name: said[name] for name in names if name in said}
        config = PairConfig(**{**fields, **head_widths(state), "img_size": tuple(fields["img_size"])})
        if "hooks" in said and tuple(said["hooks"]) != config.hooks:
            raise InputError(f"dust3r_tiny_{kind}.json: hooks {said['hooks']}, expected {list(config.hooks)}")
        leaves = convert_state(RULES, dict(state), expected_shapes("dust3r", config), source=f"dust3r_tiny_{kind}.json")
        return dataclasses.replace(config, dtype=self.dtype.name), self.cast(unflatten(leaves))

    def diffusion(self, name: str) -> tuple[Any, Any]:
        """Config and parameters of a golden network of the second stage: unet, vae or clip."""
        cls = {"unet": VideoUNetConfig, "vae": VideoAutoencoderConfig, "clip": ImageEncoderConfig}[name]
        manifest = self.manifest(f"{name}_tiny.json")
        config = cls.from_diffusers(manifest["config"], f"{name}_tiny.json")
        params = read_network(self.values(manifest), config, f"{name}_tiny.json")
        return dataclasses.replace(config, dtype=self.dtype.name), self.cast(params)


def check_dust3r(case: str, golden: Arrays, context: Context) -> Iterator[Row]:
    """Points, confidences and what is on the way to them."""
    groups: dict[tuple[str, str], tuple[str, str, bool]] = {}
    for key in golden:
        if found := re.fullmatch(r"(.*?)(swapped_)?pts3d_1", key):
            kind = "linear" if found[1].startswith("linear") else "dpt"
            images = found[1] if f"{found[1]}image1" in golden else ""
            groups[found[1] + (found[2] or ""), kind] = (f"{images}image1", f"{images}image2", bool(found[2]))
    networks = {kind: context.pair_network(kind) for kind in sorted({kind for _, kind in groups})}
    source = golden if any("image1" in key for key in golden) else {}
    if not all(names[0] in source for names in groups.values()):
        with np.load(context.find("dust3r_tiny_dpt.npz")) as other:  # the pair that both files are about
            source = {**{key: other[key] for key in ("image1", "image2")}, **source}
    for (prefix, kind), (name1, name2, swapped) in groups.items():
        config, params = networks[kind]
        images = [jnp.asarray(preprocess.normalized(source[name], np.float64)[None], context.dtype) for name in (name1, name2)]
        images = images[::-1] if swapped else images
        tapped = any(key.startswith("tap_") for key in golden) and not prefix
        network = PairNetwork(config)

        @jax.jit
        def run(params, one, two, network=network, tapped=tapped):
            keep = (lambda module, _: True) if tapped else False
            return network.apply({"params": params}, one, two, capture_intermediates=keep, mutable=["intermediates"])

        found, state = run(params, *images)
        for view, points, confidence in ((1, found.points1, found.confidence1), (2, found.points2, found.confidence2)):  # type: ignore[union-attr]
            label = f"{prefix}points {view}".replace("_", " ")
            yield Row(case, f"{label}, of RMS", relative(points[0], golden[f"{prefix}pts3d_{view}"]), context.points)
            label = f"{prefix}confidence {view}".replace("_", " ")
            yield Row(case, f"{label}, of RMS", relative(confidence[0], golden[f"{prefix}conf_{view}"]), context.network)
        for key in golden if tapped else ():
            if key.startswith("tap_"):
                value = _pair_tap(state["intermediates"], key.removeprefix("tap_"), golden[key])
                yield Row(
                    case, f"{key.removeprefix('tap_')}, of RMS", relative(value, golden[key]), _stored(golden[key], context)
                )


def _pair_tap(tree: Any, name: str, golden: np.ndarray) -> Any:
    """What the module of that name in the golden gave: the encoder's of both images, the decoder's of each."""
    calls = lambda *path: _at(tree, *path)["__call__"]
    if name == "patch_embed":
        return jnp.concatenate(calls("patch_embed"))
    if name == "enc_norm":
        return jnp.concatenate(calls("enc_norm"))
    if found := re.fullmatch(r"enc_(\d+)", name):
        return jnp.concatenate(calls(f"enc_blocks_{found[1]}"))
    if found := re.fullmatch(r"dec([12])_(\d+)", name):
        return calls(f"dec_blocks{found[1].replace('1', '')}_{found[2]}")[0][0]
    if found := re.fullmatch(r"head([12])_path(\d)", name):
        return calls(f"downstream_head{found[1]}", "dpt", "scratch", f"refinenet{found[2]}")[0][0]
    if found := re.fullmatch(r"head([12])_raw", name):
        return calls(f"downstream_head{found[1]}")[0][0]
    raise InputError(f"the golden has a tap {name!r}, expected one of the pair network")


def _at(tree: Any, *path: str) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _stored(golden: np.ndarray, context: Context) -> float:
    """Limit of a tap, which may be kept as float32."""
    return max(context.network, STORED_FLOAT32) if golden.dtype == np.float32 else context.network


def check_geometry(case: str, golden: Arrays, context: Context) -> Iterator[Row]:
    """Rotary positions, focal length and registration."""
    x = jnp.asarray(golden["rope_in"], context.dtype)[None]
    limit = EXACT if context.float64 else EXACT_FLOAT32
    yield Row(case, "rope, of RMS", relative(rotate(x, golden["rope_pos"], 100.0)[0], golden["rope_out"]), limit)
    yield Row(case, "focal steps, of RMS", relative(fusion.focal_steps(golden["focal_points"]), golden["focal_steps"]), EXACT)
    x, y, w = golden["reg_x"], golden["reg_y"], golden["reg_weight"]
    for name, source in (("reg", x), ("reg_mirrored", x * np.array([1.0, 1.0, -1.0]))):
        found = fusion.register(source, y, w)
        for key, value in (("s", found.scale), ("R", found.rotation), ("t", found.translation)):
            yield Row(case, f"{name} {key}, of RMS", relative(value, golden[f"{name}_{key}"]), EXACT)


def check_closed(case: str, golden: Arrays, context: Context) -> Iterator[Row]:
    """The fusion, in closed form or with PnP for frames that the tree leaves without a pose."""
    pnp = "from_tree" not in golden
    source = golden
    if "edges" not in golden:
        with np.load(context.find("closed_form.npz")) as arrays:
            source = dict(arrays)
    edges = source["edges"]
    maps = [source[name] for name in ("pred_i", "pred_j", "conf_i", "conf_j")]
    reach = int(np.abs(edges[:, 0] - edges[:, 1]).max())
    ours = fusion.pairs_of(int(edges.max()) + 1, max(reach, 1))
    yield Row(case, "pairs that differ", _differ(ours, edges), 0)
    found = fusion.fuse(edges, *maps, pose="pnp" if pnp else "procrustes")
    limit = PNP if pnp else EXACT
    if "im_conf" in golden:
        best = fusion.best_confidence(edges, *maps[2:])
        yield Row(case, "largest confidence, of RMS", relative(best, golden["im_conf"]), EXACT)
    values = {
        "score": found.scores,
        "focal": found.focal,
        "pose": found.pose,
        "depth": found.depth,
        "points": found.points,
        "scale_factor": found.scale_factor,
        "edge_scale": found.edge_scales,
    }
    for key, numbers in (("tree", found.tree), ("order", found.order)):
        if key in golden:
            yield Row(case, f"{key}, edges that differ", _differ(edges[numbers], golden[key]), 0)
    if "from_tree" in golden:
        yield Row(case, "frames of the tree that differ", _differ(np.array(found.from_tree), golden["from_tree"]), 0)
    for key, value in values.items():
        if key in golden:
            yield Row(case, f"{key}, of RMS", relative(value, golden[key]), limit)


def check_preprocess(case: str, golden: Arrays, context: Context) -> Iterator[Row]:
    """Pixels of every way to the network's size."""
    for key in golden:
        if found := re.fullmatch(r"(lanczos|bicubic)_(crop|resize)", key):
            image = golden["image" if found[1] == "lanczos" else "small"]
            side = max(golden[key].shape[:2])
            ours = preprocess.prepare(image, side, found[2])  # type: ignore[arg-type]
            same = ours.shape == golden[key].shape
            apart = float(np.abs(ours.astype(int) - golden[key]).max()) if same else float("inf")
            yield Row(case, f"{key.replace('_', ' ')}, grey levels", apart, GREY_LEVELS)


def check_sizes(case: str, rows: list[dict[str, Any]], context: Context) -> Iterator[Row]:
    """Sizes of the network's input."""
    for row in rows:
        wrong = 0
        for key, size in row.items():
            if key != "in":
                side, _, fit = key.partition("_")
                wrong += preprocess.network_size(*row["in"], int(side), fit or "crop") != tuple(size)  # type: ignore[arg-type]
        yield Row(case, f"{row['in'][0]} x {row['in'][1]}, sizes that differ", wrong, 0)


def check_pair(case: str, golden: Arrays, context: Context) -> Iterator[Row]:
    """The loss and its gradients."""
    array = lambda name: jnp.asarray(golden[name], context.dtype if golden[name].dtype.kind == "f" else None)
    seen = array("valid1"), array("valid2")
    true = [losses.to_camera(array(f"world{k}"), array("pose1")) for k in (1, 2)]
    truth = losses.PairTruth(true[0], true[1], seen[0], seen[1])
    loss = lambda *x: losses.pair_loss(x[0], x[1], x[2], x[3], truth)
    names = ("pred1", "conf1", "pred2", "conf2")
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(*(array(name) for name in names))
    limit = EXACT if context.float64 else EXACT_FLOAT32
    yield Row(case, "loss, relative", abs(float(value) / float(golden["loss"]) - 1), limit)
    for name, gradient in zip(names, gradients, strict=True):
        if f"grad_{name}" in golden:
            yield Row(case, f"gradient of {name}, of RMS", relative(gradient, golden[f"grad_{name}"]), limit)


def check_unet(case: str, golden: Arrays, context: Context) -> Iterator[Row]:
    """Output and taps."""
    config, params = context.diffusion("unet")
    network = UNetSpatioTemporalConditionModel(config)
    inputs = [jnp.asarray(golden[name], context.dtype) for name in ("sample", "timestep", "context", "time_ids")]

    @jax.jit
    def run(params, *inputs):
        return network.apply({"params": params}, *inputs, capture_intermediates=True, mutable=["intermediates"])

    output, state = run(params, *inputs)
    yield Row(case, "output, of RMS", relative(output, golden["out"]), context.network)
    for key, value in golden.items():
        if key.startswith("tap_"):
            name = key.removeprefix("tap_")
            found = np.asarray(_unet_tap(state["intermediates"], name))
            found = np.tile(found, (len(value) // len(found), 1)) if name.endswith("time_pos") else found.reshape(value.shape)
            yield Row(case, f"{name}, of RMS", relative(found, value), _stored(value, context))


def _unet_tap(tree: Any, name: str) -> Any:
    """down0_res0_spatial: the output of down_blocks_0/resnets_0/spatial_res_block, and so on."""
    words = {
        "mid": "mid_block",
        "spatial": None,
        "temporal": None,
        "time_pos": "time_pos_embed",
    }
    if name in ("time_embedding", "add_embedding", "conv_in"):
        return _at(tree, name)["__call__"][0]
    path: list[str] = []
    for part in name.replace("time_pos", "timepos").split("_"):
        if found := re.fullmatch(r"(down|up)(\d+)", part):
            path.append(f"{found[1]}_blocks_{found[2]}")
        elif found := re.fullmatch(r"(res|attn)(\d+)", part):
            path.append(f"{'resnets' if found[1] == 'res' else 'attentions'}_{found[2]}")
        elif part in ("spatial", "temporal"):
            inside_resnet = path[-1].startswith("resnets")
            block = "transformer_blocks_0" if part == "spatial" else "temporal_transformer_blocks_0"
            path.append(f"{part}_res_block" if inside_resnet else block)
        elif part == "timepos":
            path.append("time_pos_embed")
        elif part in words:
            path.append(words[part] or part)
        else:
            raise InputError(f"the golden has a tap {name!r}, expected one of the U-Net")
    node = _at(tree, *path)["__call__"][0]
    return node[0] if isinstance(node, tuple) else node


def check_vae(case: str, golden: Arrays, context: Context) -> Iterator[Row]:
    """Encoder, and the decoder with all frames together and in chunks."""
    config, params = context.diffusion("vae")
    network = AutoencoderKLTemporalDecoder(config)
    encode = jax.jit(lambda p, x: network.apply({"params": p}, x, method="encode"))
    decode = jax.jit(lambda p, z: network.apply({"params": p}, z[None], method="decode")[0])  # type: ignore[index]
    latent = jnp.asarray(golden["latent"], context.dtype)
    found = encode(params, jnp.asarray(golden["images"], context.dtype))
    yield Row(case, "latent, of RMS", relative(found, golden["latent"]), context.network)
    for key in golden:
        if match := re.fullmatch(r"decoded(?:_chunks_of_(\d+))?", key):
            size = int(match[1] or len(latent))
            parts = [decode(params, latent[start : start + size]) for start in range(0, len(latent), size)]
            yield Row(case, f"{key.replace('_', ' ')}, of RMS", relative(jnp.concatenate(parts), golden[key]), context.network)


def check_clip(case: str, golden: Arrays, context: Context) -> Iterator[Row]:
    """Resizes and embeddings."""
    config, params = context.diffusion("clip")
    images = jnp.asarray(golden["images"], context.dtype)
    for key in golden:
        if match := re.fullmatch(r"(big_)?resized_(\d+)(?:x(\d+))?(?:_every_(\d+)th)?", key):
            source = images if not match[1] else jnp.asarray(golden["big"], context.dtype)
            if match[1] and golden["big"].dtype == np.uint8:
                source = source / 255
            size = int(match[2]), int(match[3] or match[2])
            every = int(match[4] or 1)
            found = resize_frames(source, size)[:, ::every, ::every]
            yield Row(case, f"{key.replace('_', ' ')}, of RMS", relative(found, golden[key]), context.network)
    network = FrameEncoder(config)
    embedding, tokens = jax.jit(lambda p, x: network.apply({"params": p}, x))(params, images)  # type: ignore[misc]
    yield Row(case, "image embedding, of RMS", relative(embedding, golden["image_embeds"]), context.network)
    for key in golden:
        if match := re.fullmatch(r"last_hidden_first(\d+)", key):
            yield Row(
                case, f"{key.replace('_', ' ')}, of RMS", relative(tokens[:, : int(match[1])], golden[key]), context.network
            )


def check_scheduler(case: str, golden: dict[str, Any], context: Context) -> Iterator[Row]:
    """Noise levels, times and steps of every variant; the library computes them in float32."""
    arrays = {key: np.asarray(value, context.dtype).reshape(golden["shape"]) for key, value in golden["arrays"].items()}
    for name, variant in golden["cases"].items():
        config = VideoScheduleConfig.from_diffusers({**golden["config"], **variant["change"]}, f"{case}, {name}")
        limit = LIBRARY_FLOAT32 if not config.zero_snr else ZERO_SNR
        for key, expected in variant.items():
            if key.isdigit():
                sigmas = schedule.sigmas_of(config, int(key))
                apart = _apart(sigmas, np.array(expected["sigmas"]))
                yield Row(case, f"{name} {key} steps, sigmas", apart, TERMINAL if config.zero_snr else LIBRARY_FLOAT32)
                times = np.array(expected["timesteps"])
                apart = float(np.abs(schedule.timesteps_of(sigmas) - times).max())
                yield Row(case, f"{name} {key} steps, times", apart, TERMINAL if config.zero_snr else LIBRARY_FLOAT32)
                scale = schedule.initial_scale(config, sigmas) / expected["init_noise_sigma"] - 1
                yield Row(case, f"{name} {key} steps, first scale", abs(scale), LIBRARY_FLOAT32)
            elif match := re.fullmatch(r"one_step_T(\d+)_index(\d+)", key):
                steps, index = int(match[1]), int(match[2])
                sigmas = schedule.sigmas_of(config, steps)
                sigma, after = sigmas[index], sigmas[index + 1]
                x = arrays["z"] + context.dtype.type(sigma) * arrays["noise"]
                values = {
                    "x": x,
                    "model_input": schedule.scale_input(x, sigma),
                    "x0": schedule.denoised(x, arrays["v"], sigma),
                    "prev": schedule.euler_step(x, arrays["v"], sigma, after),
                }
                for part, value in values.items():
                    if part in expected:
                        wanted = np.asarray(expected[part], np.float64).reshape(golden["shape"])
                        yield Row(case, f"{name} step, {part}, of RMS", relative(value, wanted), limit)
            elif key == "train_alpha_cumprod_first_last":
                table = 1 / (1 + schedule.noise_table(config) ** 2)
                apart = _apart(table[[0, -1]], np.array(expected))
                yield Row(case, f"{name} signal, first and last", apart, TERMINAL if config.zero_snr else LIBRARY_FLOAT32)


def check_windows(case: str, golden: Arrays, context: Context) -> Iterator[Row]:
    """Where windows are, their noise, and how they are joined."""
    for name in [key.removesuffix("_t_window_overlap") for key in golden if key.endswith("_t_window_overlap")]:
        total, window, overlap = golden[f"{name}_t_window_overlap"].tolist()
        spans = windows.spans_of(total, window, overlap)
        yield Row(case, f"{name}, spans that differ", _differ(np.array(spans), golden[f"{name}_spans"]), 0)
        noises = windows.noise_of(golden[f"{name}_noise"], spans, overlap)
        parts = [golden[f"{name}_part{i}"] for i in range(len(spans))]
        for i, noise in enumerate(noises):
            yield Row(case, f"{name}, noise {i} that differs", _differ(noise, golden[f"{name}_noise{i}"]), 0)
        blended = parts[0]
        for part in parts[1:]:
            blended = windows.blend(blended, part, overlap)
        yield Row(case, f"{name}, blended, of RMS", relative(blended, golden[f"{name}_blended"]), EXACT)


def check_stage2(case: str, golden: Arrays, context: Context) -> Iterator[Row]:
    """The whole second stage from given noise, in all three modes."""
    configs, params = {}, {}
    for name, part in (("unet", "unet"), ("vae", "vae"), ("image_encoder", "clip")):
        configs[name], params[name] = context.diffusion(part)
    model = VideoDiffusion(VideoDiffusionConfig(**configs), params)
    steps, frames = len(golden["sigmas"]) - 1, golden["frames"]
    frames = frames.astype(np.float64) / 255 if frames.dtype == np.uint8 else frames
    noise = lambda k: golden["pixel_noise"][k], golden["latent_noise"]
    start = list(golden["stage1_disparity"].astype(np.float64))
    window = len(golden["latent_noise"])

    def run(mode: str, overlap: int, chunk: int) -> Any:
        fields: dict[str, Any] = {"steps": steps, "window": window, "overlap": overlap, "chunk": chunk}
        if mode == "from_noise":
            options = RefineOptions.from_noise(**fields)
        else:
            options = RefineOptions(first=FIRST, passes=1, share=mode.endswith("shared"), **fields)
        return refine(model, list(frames), start, options, noise=noise)

    # A file says neither how many frames windows share nor how many are decoded together: what the reference's README says, or
    # else, of another folder, those that reproduce it; the rows name them.
    agrees = lambda value, key: relative(value, golden[key]) <= context.network
    overlap, chunk = min(OVERLAP, window - 1), CHUNK
    if "onestep_latents" in golden:
        found = (o for o in (overlap, *range(window)) if agrees(run("onestep", o, chunk).latents, "onestep_latents"))
        overlap = next(found, overlap)
    if "onestep_disparity" in golden:
        found = (
            c for c in (chunk, *range(1, len(frames) + 1)) if agrees(run("onestep", overlap, c).disparity, "onestep_disparity")
        )
        chunk = next(found, chunk)
    sigmas = schedule.sigmas_of(model.config.schedule, steps)
    yield Row(case, "sigmas, relative", _apart(sigmas, golden["sigmas"]), EXACT)
    for mode in ("onestep", "onestep_shared", "from_noise"):
        if f"{mode}_disparity" not in golden and f"{mode}_latents" not in golden:
            continue
        found = run(mode, overlap, chunk)
        values: dict[str, Any] = {f"{mode}_latents": found.latents, f"{mode}_disparity": found.disparity}
        if mode == "onestep":
            values |= {"image_embeds": found.embeddings, "condition": found.condition, "stage1_latents": found.start}
        for key, value in values.items():
            if key in golden:
                words = f"{key.replace('_', ' ')}, overlap {overlap}, chunk {chunk}, of RMS"
                yield Row(case, words, relative(value, golden[key]), context.network)


def check_metrics(case: str, golden: Arrays, context: Context) -> Iterator[Row]:
    """Fits, error sequences, means and spectra. A file does not say its largest depth, so all of its ground truth counts."""
    numbers, far = json.loads(context.find("metrics.json").read_text()), max(measures.FAR.values())
    truth = golden["truth"].astype(np.float64)
    valid = measures.valid_truth(truth, far)
    for space in ("disparity", "depth"):
        prediction = measures.nearest(golden[f"prediction_{space}"], *truth.shape[1:])
        for protocol in ("video", "frame", "dynamic", "static"):
            prefix = f"{space}_{protocol}"
            if f"{prefix}_fit" not in golden:
                continue
            found = measures.fit(prediction, truth, valid, space, per_frame=protocol == "frame")
            depth = measures.to_depth(prediction, found, space, far)
            seen = {"dynamic": valid & golden["moving"], "static": valid & ~golden["moving"]}.get(protocol, valid)
            errors = measures.frame_errors(depth, truth, seen)
            ours = np.stack([found.scale, found.shift], -1)
            known = ~np.isnan(golden[f"{prefix}_fit"])
            wrong = float((np.isnan(ours) == known).sum())
            yield Row(case, f"{prefix} fit, frames that differ", wrong, 0)
            yield Row(case, f"{prefix} fit, of RMS", relative(ours[known], golden[f"{prefix}_fit"][known]), EXACT)
            yield Row(case, f"{prefix} frames that differ", _differ(errors.frames, golden[f"{prefix}_frames"]), 0)
            for name in measures.NAMES:
                yield Row(case, f"{prefix} {name}, of RMS", relative(getattr(errors, name), golden[f"{prefix}_{name}"]), EXACT)
            for name, value in numbers.get(prefix, {}).items():
                yield Row(case, f"{prefix} mean {name}", abs(errors.means()[name] - value), EXACT)
            if protocol == "video" and f"{space}_spectrum_magnitude" in golden:
                spectrum = measures.spectrum_of(errors.absrel)
                yield Row(case, f"{space} bands that differ", _differ(spectrum.band, golden[f"{space}_spectrum_band"]), 0)
                for name in ("magnitude", "amplitude", "energy"):
                    value = relative(getattr(spectrum, name), golden[f"{space}_spectrum_{name}"])
                    yield Row(case, f"{space} {name}, of RMS", value, EXACT)
    for key in golden:
        if match := re.fullmatch(r"random_(\d+)", key):
            yield Row(
                case,
                f"bands of {match[1]} that differ",
                _differ(measures.bands_of(int(match[1])), golden[f"bands_{match[1]}"]),
                0,
            )
            amplitude = measures.spectrum_of(golden[key]).amplitude
            yield Row(case, f"amplitudes of {match[1]}, of RMS", relative(amplitude, golden[f"{key}_amplitude"]), EXACT)


def check_sample(path: Path, context: Context) -> Iterator[Row]:
    """A container as DUSt3R's training saves it: its tensors, and the literals of its model string."""
    content = read_pth(path, RULES.classes)
    state = state_dict(path, content)
    with np.load(context.find("sample_dust3r_expected.npz")) as arrays:
        expected = dict(arrays)
    yield Row(path.stem, "tensors with other names", len(set(state) ^ set(expected)), 0)
    wrong = sum(not np.array_equal(state[name], value) for name, value in expected.items() if name in state)
    yield Row(path.stem, "tensors that differ", wrong, 0)
    keywords = parse_model(content["args"]["model"])
    manifest = context.manifest("dust3r_vitl_512_dpt.json")["config"]
    plain = lambda value: [plain(item) for item in value] if isinstance(value, (list, tuple)) else str(value)
    wrong = sum(plain(value) != plain(keywords.get(name)) for name, value in manifest.items())
    yield Row(path.stem, "keywords that differ", wrong, 0)


ARRAYS: dict[str, Callable[..., Iterator[Row]]] = {
    "dust3r": check_dust3r,
    "geometry": check_geometry,
    "closed": check_closed,
    "preprocess": check_preprocess,
    "pair": check_pair,
    "unet": check_unet,
    "vae": check_vae,
    "clip": check_clip,
    "windows": check_windows,
    "stage2": check_stage2,
    "metrics": check_metrics,
}
TEXTS: dict[str, Callable[..., Iterator[Row]]] = {"preprocess": check_sizes, "scheduler": check_scheduler}
KINDS = {**ARRAYS, **TEXTS, "sample": check_sample}


def compare(reference: Path, golden: Path | None = None, *, kinds: Sequence[str] = (), float64: bool = False) -> Iterator[Row]:
    """All comparisons with the goldens in `golden` (REFERENCE/video), of some kinds or all.

    A file's kind is what its name begins with; files may lie in the folder or in its `golden`. With float64, everything is,
    under jax_enable_x64.
    """
    folder = golden or reference / FOLDER
    context = Context(reference, folder, float64)
    paths = [path for place in (folder, folder / "golden") for path in sorted(place.glob("*"))]
    for path in paths:
        kind = path.stem.split("_")[0]
        if kind not in (kinds or KINDS):
            continue
        with jax.default_matmul_precision("highest"):
            if path.suffix == ".pth" and kind == "sample":
                yield from check_sample(path, context)
            elif path.suffix == ".npz" and kind in ARRAYS:
                with np.load(path) as arrays:
                    yield from ARRAYS[kind](path.stem, dict(arrays), context)
            elif path.suffix == ".json" and kind in TEXTS:
                yield from TEXTS[kind](path.stem, json.loads(path.read_text()), context)


def _differ(value: np.ndarray, golden: np.ndarray) -> float:
    """Number of entries that differ, of arrays that must be equal."""
    return float(np.sum(value != golden)) if value.shape == golden.shape else float("inf")


def _apart(value: np.ndarray, golden: np.ndarray) -> float:
    """Largest relative difference, absolute of what should be 0."""
    golden = golden.astype(np.float64)
    if value.shape != golden.shape:
        return float("inf")
    return float(np.max(np.abs(value - golden) / np.where(golden == 0, 1, np.abs(golden))))
