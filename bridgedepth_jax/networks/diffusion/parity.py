"""The diffusion parts against golden numbers of diffusers and transformers (tolerances: the reference's README).

Weights are those of REFERENCE/synth.py on diffusers' names, taken through the converter's rules. Goldens may be of any size.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bridgedepth_jax.convert.diffusion import name_of, read_state
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.diffusion import schedule
from bridgedepth_jax.networks.diffusion.autoencoder import AutoencoderKL, Gaussian, decode_tiled, encode_tiled
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, ScheduleConfig, UNetConfig
from bridgedepth_jax.networks.diffusion.inpainting import IMAGE, autoencoder_codec, make_inpainter, masked_condition
from bridgedepth_jax.networks.diffusion.text import empty_prompt
from bridgedepth_jax.networks.diffusion.unet import UNet2DConditionModel, time_features
from bridgedepth_jax.parity import Row, load_synth, relative
from bridgedepth_jax.store.checkpoint import flatten

FOLDER = "diffusion"  # under the reference
# Limits, from the reference's README, of an array's RMS.
FLOAT64 = 1e-10
FLOAT32 = 3e-5  # the library against itself: 4e-6 to 9e-6
EULER = 1e-5  # the library steps in float32 ...
EULER_ZERO_SNR = 1e-3  # ... from sigma 4096
GRADIENTS = 1e-6
VANISHING = 1e-9  # of the largest gradient norm
CLIP = 1e-6  # the library's softmax is float32
GREY_LEVELS = 1.0
TABLE = 1e-12  # relative, float64; ...
TABLE_FLOAT32 = 2e-6  # ... the library's product in float32
TABLE_ZERO_SNR = 1e-4  # ... and its way through float32 betas
TILE = 32  # pixels
SAMPLING_STEPS = 5  # of `inpainting_*.npz`
SHARED = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
SAMPLERS = {"ddim": "DDIMScheduler", "pndm": "PNDMScheduler", "euler": "EulerDiscreteScheduler"}


class Networks(NamedTuple):
    """Golden networks with their weights in the precision of the run, and golden.json."""

    unet: UNetConfig
    vae: AutoencoderConfig
    unet_params: Any
    vae_params: Any
    text: dict[str, Any]  # manifest
    synth: ModuleType
    golden: dict[str, Any]
    table: np.ndarray  # the library's, whose float32 product differs from ours by up to 9e-7

    @property
    def dtype(self) -> Any:
        return jnp.dtype(self.unet.dtype)

    @property
    def limit(self) -> float:
        return FLOAT64 if self.unet.dtype == "float64" else FLOAT32


def load(reference: Path, folder: Path, *, float64: bool) -> Networks:
    """The tiny networks of FOLDER's manifests, or else of the reference's."""

    def find(name: str) -> Path:
        found = [path for path in (folder / name, reference / FOLDER / name) if path.is_file()]
        if not found:
            raise InputError(f"{reference / FOLDER} has no {name}, expected the folder of the reference")
        return found[0]

    def read_json(name: str) -> dict[str, Any]:
        return json.loads(find(name).read_text())

    synth, dtype = load_synth(reference), "float64" if float64 else "float32"
    manifests = {name: read_json(f"manifest/tiny_{name}.json") for name in ("unet", "vae", "text_encoder")}
    params, configs = {}, {}
    for name, cls in (("unet", UNetConfig), ("vae", AutoencoderConfig)):
        manifest = manifests[name]
        config = cls.from_diffusers(manifest["config"], f"manifest/tiny_{name}.json")
        state = {entry: synth.synth_value(entry, shape) for entry, shape in manifest["entries"]}
        leaves = read_state(state, config, f"manifest/tiny_{name}.json")
        params[name] = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), leaves)
        configs[name] = dataclasses.replace(config, dtype=dtype)
    with np.load(find("schedulers.npz")) as arrays:
        table = arrays["alphas_cumprod"]
    return Networks(
        configs["unet"],
        configs["vae"],
        params["unet"],
        params["vae"],
        manifests["text_encoder"],
        synth,
        read_json("golden.json"),
        table,
    )


def check_unet(case: str, nets: Networks, golden: dict[str, np.ndarray]) -> Iterator[Row]:
    """Output, and what the library's modules gave on the way."""
    model = UNet2DConditionModel(nets.unet)
    taps = {key: key.removeprefix("tap:") for key in golden if key.startswith("tap:")}
    wanted = {_path(name) for name in taps.values()}

    @jax.jit
    def run(params, sample, t, context):
        keep = lambda module, _: "/".join(module.path) in wanted
        return model.apply({"params": params}, sample, t, context, capture_intermediates=keep)

    arrays = [jnp.asarray(golden[key], nets.dtype) for key in ("sample", "timestep", "context")]
    output, state = run(nets.unet_params, *arrays)
    yield Row(case, "output, of RMS", relative(output, golden["output64"]), nets.limit)
    for key, name in taps.items():
        if name == "time_proj":
            c = nets.unet
            width = c.block_out_channels[0]
            value = time_features(
                arrays[1], width, flip_sin_to_cos=c.flip_sin_to_cos, freq_shift=c.freq_shift, dtype=nets.dtype
            )
        else:
            value = _captured(state["intermediates"], name)
        yield Row(case, f"{name}, of RMS", relative(value, golden[key]), nets.limit)


def check_vae(case: str, nets: Networks, golden: dict[str, np.ndarray]) -> Iterator[Row]:
    """Both networks, the distribution, and both in tiles."""
    model, dtype = AutoencoderKL(nets.vae), nets.dtype
    taps = {key: key.removeprefix("tap:") for key in golden if key.startswith("tap:")}
    wanted = {_path(name) for name in taps.values()}
    keep = lambda module, _: "/".join(module.path) in wanted

    @jax.jit
    def encode(image):
        return model.apply({"params": nets.vae_params}, image, method="encode", capture_intermediates=keep)

    @jax.jit
    def decode(latent):
        return model.apply({"params": nets.vae_params}, latent, method="decode", capture_intermediates=keep)

    image, latent = jnp.asarray(golden["image"], dtype), jnp.asarray(golden["latent"], dtype)
    moments, encoder = encode(image)
    decoded, decoder = decode(latent)
    gaussian = Gaussian.of(moments)
    values = {"moments64": moments, "mode": gaussian.mean, "std": gaussian.std, "decoded64": decoded}
    values["tiled_mode"] = Gaussian.of(encode_tiled(lambda x: encode(x)[0], image, TILE, nets.vae.factor)).mean
    values["tiled_decoded"] = decode_tiled(lambda x: decode(x)[0], latent, TILE, nets.vae.factor)
    for key, value in values.items():
        yield Row(case, f"{key.removesuffix('64')}, of RMS", relative(value, golden[key]), nets.limit)
    for key, name in taps.items():
        side = encoder if name.startswith("encoder.") else decoder
        value = _captured(side["intermediates"], name)[: len(golden[key])]
        yield Row(case, f"{name}, of RMS", relative(value, golden[key]), nets.limit)


def check_schedulers(case: str, nets: Networks, golden: dict[str, np.ndarray]) -> Iterator[Row]:
    """Tables, timesteps, both targets, and every trajectory on a network that is a formula."""
    float64 = nets.unet.dtype == "float64"
    ours, ours_zero = (schedule.alphas_cumprod(ScheduleConfig(zero_snr=z, prediction="sample")) for z in (False, True))
    largest = lambda value, key: float(np.abs(value - golden[key].astype(np.float64)).max())
    yield Row(case, "table, absolute", largest(ours, "alphas_cumprod_float64"), TABLE)
    yield Row(case, "table, of the library", _apart(ours, golden["alphas_cumprod"]), TABLE_FLOAT32)
    yield Row(case, "table, zero SNR", _apart(ours_zero, golden["alphas_cumprod_zero_snr"]), TABLE_ZERO_SNR)
    for key in golden:
        if key.startswith("timesteps_"):
            spacing, steps = key.removeprefix("timesteps_").rsplit("_", 1)
            name = spacing.rstrip("0123456789")
            config = ScheduleConfig(spacing=name, steps_offset=int(spacing.removeprefix(name)))  # type: ignore[arg-type]
            yield Row(case, key, _differ(schedule.timesteps(config, int(steps)), golden[key]), 0)
    dtype = nets.dtype
    start, noise = (jnp.asarray(golden[key], dtype) for key in ("start", "noise"))
    t, table = jnp.asarray(golden["add_noise_t"]), golden["alphas_cumprod"]
    noisy = schedule.add_noise(start, noise, t, table)
    velocity = schedule.target(start, noise, t, table, "v_prediction")
    yield Row(case, "add_noise, of RMS", relative(noisy, golden["add_noise"]), nets.limit)
    yield Row(case, "velocity, of RMS", relative(velocity, golden["velocity"]), nets.limit)
    variance = jnp.asarray(golden["variance_noise"], dtype)
    predict = lambda x, t: jnp.tanh(x * (0.5 + t / 2000)) + 0.05 * x
    for name, options in nets.golden["schedulers"].items():
        sampler = name.split("_")[0]
        fields = {key: value for key, value in options.items() if key not in ("steps", "eta", "kept", "init_noise_sigma")}
        config = ScheduleConfig.from_diffusers({"_class_name": SAMPLERS[sampler], **fields}, f"golden.json, {name}")
        steps, eta = options["steps"], options.get("eta", 0.0)
        table = golden["alphas_cumprod_zero_snr" if config.zero_snr else "alphas_cumprod"]
        run = jax.jit(
            lambda x, config=config, steps=steps, table=table, eta=eta: schedule.sample(
                predict, x, config, steps, table=table, eta=eta, noise=lambda i: variance[i], trajectory=True
            )
        )
        limit = (EULER_ZERO_SNR if config.zero_snr else EULER) if sampler == "euler" else nets.limit
        if sampler != "euler" and not float64 and config.zero_snr:
            limit = EULER_ZERO_SNR  # float32 divides by the root of what is left at the end
        samples = np.asarray(run(noise))[-len(golden[name]) :]
        yield Row(case, f"{name}, of RMS", max(map(relative, samples, golden[name])), limit)
        if sampler == "euler":
            sigmas = schedule.euler_sigmas(config, table.astype(np.float64), steps)
            yield Row(case, f"{name}, sigmas", relative(sigmas, golden[f"{name}:sigmas"]), EULER)
            yield Row(case, f"{name}, times", relative(schedule.timesteps(config, steps), golden[f"{name}:t"]), EULER)
        else:
            yield Row(case, f"{name}, times", _differ(schedule.timesteps(config, steps), golden[f"{name}:t"]), 0)


def check_inpainting(case: str, nets: Networks, golden: dict[str, np.ndarray]) -> Iterator[Row]:
    """One training step with all its gradients, and one sampling of an image whose sides are no multiples of 8."""
    unet, codec, dtype = UNet2DConditionModel(nets.unet), autoencoder_codec(nets.vae), nets.dtype
    arrays = {key: jnp.asarray(value, dtype) for key, value in golden.items() if value.dtype.kind == "f"}
    arrays |= {key: arrays[key] / 127.5 - 1 for key in ("right", "warped")}  # grey levels to -1..1
    config = ScheduleConfig()
    table = nets.table

    known = IMAGE.known(arrays["warped"], arrays["mask"])
    condition = masked_condition(codec, nets.vae_params, known, arrays["mask"])
    latent = codec.encode(nets.vae_params, arrays["right"])
    t = jnp.asarray(golden["timestep"])
    network_input = jnp.concatenate([schedule.add_noise(latent, arrays["noise"], t, table), condition], axis=-1)

    def loss_of(params):
        prediction = unet.apply({"params": params}, network_input, t, arrays["context"])
        aim = schedule.target(latent, arrays["noise"], t, table, config.prediction)
        return jnp.mean(jnp.square(prediction - aim)), prediction  # type: ignore[operator]

    (loss, prediction), gradients = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(nets.unet_params)
    values = {
        "small_mask": condition[..., :1],
        "latent": latent,
        "condition_latent": condition[..., 1:],
        "unet_input": network_input,
        "prediction": prediction,
    }
    for key, value in values.items():
        yield Row(case, f"{key}, of RMS", relative(value, golden[key]), nets.limit)
    yield Row(case, "loss, relative", abs(float(loss) / nets.golden["loss"] - 1), nets.limit)
    if nets.unet.dtype == "float64":
        expected = nets.golden["gradient_norms"]
        norms = {name_of(path): float(jnp.linalg.norm(leaf.reshape(-1))) for path, leaf in flatten(gradients).items()}
        if set(norms) != set(expected):
            raise InputError(f"golden.json: gradient norms of {len(expected)} parameters, ours are {len(norms)} of other names")
        largest = max(expected.values())
        floor = VANISHING * largest
        differences = [abs(norms[name] - v) / (v if v > floor else largest) for name, v in expected.items()]
        yield Row(case, f"{len(differences)} gradient norms", max(differences), GRADIENTS)

    height, width = golden["sample_decoded"].shape[1:3]
    warped, holes = (arrays[key][:1, :height, :width] for key in ("warped", "mask"))
    inpaint = make_inpainter(nets.unet, codec, config, SAMPLING_STEPS, table=table)
    params = {"unet": nets.unet_params, "vae": nets.vae_params}
    found = inpaint(params, warped, holes, arrays["context"], arrays["sample_start"])
    for key, value in (("latent", found.latent), ("decoded", found.decoded), ("blended", found.blended)):
        yield Row(case, f"sample_{key}, of RMS", relative(value, golden[f"sample_{key}"]), nets.limit)
    apart = np.abs(np.asarray(found.image, np.int64) - golden["sample_uint8"]).max()
    yield Row(case, "sample_uint8, grey levels", float(apart), 0 if nets.unet.dtype == "float64" else GREY_LEVELS)


def check_clip(case: str, nets: Networks, golden: dict[str, np.ndarray]) -> Iterator[Row]:
    """The constant embedding of the empty prompt."""
    shapes = dict(map(tuple, nets.text["entries"]))
    value = empty_prompt(lambda name: nets.synth.synth_value(name, shapes[name]), nets.text["config"], "tiny_text_encoder.json")
    yield Row(case, "embedding, of RMS", relative(value, golden["embedding"]), CLIP)


KINDS: dict[str, Callable[..., Iterator[Row]]] = {
    "unet": check_unet,
    "vae": check_vae,
    "schedulers": check_schedulers,
    "inpainting": check_inpainting,
    "clip": check_clip,
}


def compare(reference: Path, golden: Path | None = None, *, kinds: Sequence[str] = (), float64: bool = False) -> Iterator[Row]:
    """All comparisons with the goldens in `golden` (REFERENCE/diffusion), of some kinds or all.

    A file's kind is what its name begins with. With float64, everything is, under jax_enable_x64.
    """
    folder = golden or reference / FOLDER
    nets = None
    for path in sorted(folder.glob("*.npz")):
        kind = path.stem.split("_")[0]
        if kind not in (kinds or KINDS):
            continue
        nets = nets or load(reference, folder, float64=float64)
        with np.load(path) as arrays, jax.default_matmul_precision("highest"):
            yield from KINDS[kind](path.stem, nets, dict(arrays))


def _path(name: str) -> str:
    """down_blocks.0.resnets.1 -> down_blocks_0/resnets_1."""
    path: list[str] = []
    for part in name.split("."):
        if part.isdigit():
            path[-1] += f"_{part}"
        else:
            path.append(part)
    return "/".join(path)


def _captured(tree: Any, name: str) -> Any:
    """What the module of that name gave; of a level on the way down the map without its skips."""
    for part in _path(name).split("/"):
        tree = tree[part]
    (value,) = tree["__call__"]
    return value[0] if isinstance(value, tuple) else value


def _apart(value: np.ndarray, golden: np.ndarray) -> float:
    """Largest relative difference, of entries that are not zero."""
    golden = golden.astype(np.float64)
    return float(np.max(np.abs(value - golden) / np.where(golden > 1e-6, golden, 1)))


def _differ(value: np.ndarray, golden: np.ndarray) -> float:
    """Number of entries that differ, of arrays that must be equal."""
    return float(np.sum(value != golden)) if value.shape == golden.shape else float("inf")
