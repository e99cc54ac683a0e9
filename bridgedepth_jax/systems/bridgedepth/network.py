"""BridgeDepth (arXiv 2508.04611): two images to disparity, the paper's overview from end to end.

Monocular state, disparity proposals, alignment of both at 1/8 (`align_0`), refinement of the chosen hypothesis at 1/4
(`align_1`). Spec `architecture.md`, sections 1, 6 and 7.

Letters: B batch, H W full size, h w size at 1/8, N candidates, D levels, L M K layers of an output, C channels.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax import struct
from jax import lax
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Head, Linear, at_least_float32, conv, rematted, softmax, torch_default, torch_default_bias
from bridgedepth_jax.networks.depth_anything import DepthAnything
from bridgedepth_jax.ops.image import normalize, padding
from bridgedepth_jax.ops.resize import resize_antialiased
from bridgedepth_jax.systems.bridgedepth.alignment import Alignment
from bridgedepth_jax.systems.bridgedepth.config import MINIMUM, MULTIPLE, ModelConfig
from bridgedepth_jax.systems.bridgedepth.fusion import TOGETHER, Fusion, choose
from bridgedepth_jax.systems.bridgedepth.hypotheses import StereoEncoder
from bridgedepth_jax.systems.bridgedepth.propagation import FOURIER_LEVELS
from bridgedepth_jax.systems.bridgedepth.sgm import ClassicalEvidence
from bridgedepth_jax.systems.bridgedepth.upsampling import ConvexUpsampling, unit_channels

COARSE, FINE = 8, 4  # pixels of a token's side in the first and the second stage
SCORE_SCALE = 0.25  # of the candidates' logits; the original's constant, which its weights were trained with
LOWER_MEDIAN = (FINE**2 - 1) // 2  # its place among a cell's sorted values: of an even count the lower of the middle two


@struct.dataclass
class StereoOutput:
    """What the network says. Layer axes run shallow to deep; their length is 1 at inference."""

    disparities: Float[Array, "L B H W"]  # pixels, refinement stage
    coarse_disparities: Float[Array, "M B H2 W2 N"]  # pixels, first stage, padded size
    logits: Float[Array, "M B H2 W2 N"]  # of the candidates
    proposals: Float[Array, "B h w P"]  # 1/8 pixels; the network's own among the N candidates
    prob: Float[Array, "B h w D"]  # of the disparity levels
    mono: Float[Array, "K B H W"] | None  # training only: the monocular state read out as relative disparity
    certainty: Float[Array, "B H W"] | None = None  # logit of being within 2 px, where the network learns it
    fused: Float[Array, "B H W"] | None = None  # pixels, chosen among `choices`, where there is a last choice (`fusion.py`)
    choices: Float[Array, "B H W K"] | None = None  # pixels
    choice_logits: Float[Array, "B H W K"] | None = None

    @property
    def disparity(self) -> Float[Array, "B H W"]:
        """Disparity of the left image in pixels: the match of (y, x) is (y, x - d)."""
        return self.disparities[-1] if self.fused is None else self.fused

    @property
    def confidence(self) -> Float[Array, "B H W"]:
        """Probability of the chosen candidate, or the learned one of being right; 0..1, cropped like `disparity`."""
        if self.certainty is not None:
            return jax.nn.sigmoid(self.certainty)
        height, width = self.disparities.shape[2:]
        return softmax(self.logits[-1]).max(-1)[:, -height:, :width]


def pad_to_multiple(image: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """Edge replication to multiples of 16: rows on top, columns on the right."""
    height, width = image.shape[1:3]
    return jnp.pad(image, ((0, 0), *padding(height, width, MULTIPLE), (0, 0)), mode="edge")


def unshuffle(x: Float[Array, "*B h w N S"], side: int) -> Float[Array, "*B H W N"]:
    """Each token's side x side values to pixels, rows first."""
    return rearrange(x, "... h w N (i j) -> ... (h i) (w j) N", i=side, j=side)


def best_candidate(coarse: Float[Array, "B H W N"], logit: Float[Array, "B H W N"]) -> Float[Array, "B h4 w4"]:
    """Per pixel the candidate of the largest logit (ties: the first), per 4x4 block the lower median.

    In the unit of `coarse`. H and W are multiples of 4.
    """
    chosen = jnp.take_along_axis(coarse, jnp.argmax(logit, -1, keepdims=True), -1)[..., 0]
    cells = rearrange(chosen, "B (h i) (w j) -> B h w (i j)", i=FINE, j=FINE)
    return jnp.sort(cells, -1)[..., LOWER_MEDIAN]


class BridgeDepth(nn.Module):
    """Left and right image, RGB in 0..255, to `StereoOutput`.

    Inference takes any size (padded to multiples of 16 inside, disparity cropped); training needs multiples of 16.
    The monocular branch gets no gradient unless `train_mono`.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        left: Array,
        right: Array,
        *,
        train: bool = False,
        train_mono: bool = False,
    ) -> StereoOutput:
        """Of (B, H, W, 3) twice. Raises ValueError for other shapes, and for sizes that the network cannot take."""
        check_images(left, right, train=train)
        with jax.default_matmul_precision(self.config.precision):
            return self._forward(left, right, train=train, train_mono=train_mono)

    def _forward(self, left: Array, right: Array, *, train: bool, train_mono: bool) -> StereoOutput:
        c, n = self.config, self.config.nmp
        dtype = jnp.dtype(c.dtype)
        delicate = at_least_float32(dtype)
        crop = left.shape[1:3]
        left, right = (pad_to_multiple(image.astype(delicate)) for image in (left, right))

        depth_prior = self._monocular_state(left, dtype, train_mono=train_mono)
        encoder = StereoEncoder(c, dtype, name="stereo_encoder")
        level8, level4, proposals, rest, prob = encoder(left, right, depth_prior, train=train)
        fixed = lax.stop_gradient(proposals)
        classical = None
        if c.sgm.candidates:
            classical = ClassicalEvidence(c, dtype, name="classical")
            found, cost, keep = classical(left, right, train=train)
            fixed, rest, told = classical.join(fixed, rest, found, keep)

        tokens, pos = encoder.embed(fixed, level8, FOURIER_LEVELS, rest)
        tokens = tokens if classical is None else tokens + told
        self._tap("0", tokens, pos)
        align = Alignment(n, n.infer_layers, n.window, n.window, True, dtype, c.kept, name="align_0")
        stereos, monos = align(tokens, depth_prior, pos, train=train)
        self.sow("taps", "stereo0", stereos[-1])
        self.sow("taps", "mono0", monos[-1])
        stereo = jnp.stack(stereos)
        head = rematted(Head, c.kept)
        update = head((n.dim, n.dim, COARSE**2), dtype=dtype, name="infer_head")(stereo).astype(delicate)
        score = Linear(COARSE**2, dtype=dtype, name="infer_score_head")(stereo).astype(delicate)
        coarse = unshuffle(nn.relu(fixed[None, ..., None] + update), COARSE)
        logits = unshuffle(score * (SCORE_SCALE / c.temperature), COARSE)

        estimate = lax.stop_gradient(best_candidate(COARSE // FINE * coarse[-1], logits[-1]))[..., None]
        tokens, pos = encoder.embed(estimate, level4, COARSE // FINE * FOURIER_LEVELS, jnp.zeros_like(estimate))
        tokens = tokens if classical is None else tokens + classical.beside(estimate, found, keep)
        self._tap("1", tokens, pos)
        align = Alignment(n, n.refine_layers, n.refine_window, n.refine_window // 2, False, dtype, c.kept, name="align_1")
        state = unit_channels(monos[-1]) if c.bounded_prior else monos[-1]
        stereos, refined_monos = align(tokens, state, pos, train=train)
        self.sow("taps", "stereo1", stereos[-1])
        self.sow("taps", "mono1", refined_monos[-1])
        stereo = jnp.stack(stereos)
        update = head((n.dim, n.dim, 1 if c.upsampling else FINE**2), dtype=dtype, name="refine_head")(stereo)
        fine, certainty = nn.relu(estimate[None, ..., None] + update.astype(delicate)), None
        if c.upsampling:
            upsample = ConvexUpsampling(c.upsampling, c.learned_confidence and not c.fusion, dtype, name="upsampling")
            fine, certainty = upsample(fine[..., 0, 0], stereo[..., 0, :], left)
            fine = fine[..., None, :]
        choices = choice_logits = fused = None
        if c.fusion:
            last = Fusion(c.fusion, c.fusion_reach, c.sgm, c.learned_confidence, dtype, name="fusion")
            choices, choice_logits, certainty = last(fine[-1, ..., 0, :], stereo[-1, ..., 0, :], left, found, cost, keep)
            fused = choose(choices, choice_logits, TOGETHER) * FINE
        disparities = unshuffle(fine, FINE)[..., 0] * FINE

        mono_output = head((n.dim, n.dim, COARSE**2), dtype=dtype, name="mono_output")
        mono = None
        if train or self.is_initializing():
            mono = mono_output(jnp.stack(monos + refined_monos)).astype(delicate)
            mono = unshuffle(nn.relu(mono)[..., None, :], COARSE)[..., 0]
        height, width = crop
        pixels = lambda x: unshuffle(x, FINE)[:, -height:, :width]
        if certainty is not None:
            certainty = pixels(certainty[..., None, :] / c.temperature)[..., 0]
        if choices is not None and choice_logits is not None and fused is not None:
            fused = pixels(fused[..., None, :])[..., 0]
            choices, choice_logits = (pixels(jnp.swapaxes(x, -1, -2)) for x in (choices * FINE, choice_logits))
        return StereoOutput(
            disparities=disparities[:, :, -height:, :width],
            coarse_disparities=COARSE * coarse,
            logits=logits,
            proposals=proposals,
            prob=prob,
            mono=mono,
            certainty=certainty,
            fused=fused,
            choices=choices,
            choice_logits=choice_logits,
        )

    def _monocular_state(self, left: Array, dtype: Any, *, train_mono: bool) -> Float[Array, "B h w C"]:
        c = self.config
        height, width = left.shape[1:3]
        size = height // MULTIPLE * c.mono.patch, width // MULTIPLE * c.mono.patch
        mono_input = normalize(resize_antialiased(left, size))
        self.sow("taps", "mono_input", mono_input)
        mono = DepthAnything(c.mono, dtype, c.kept if train_mono else None, name="mono")
        features = mono(mono_input, features=True)
        if not train_mono:
            features = lax.stop_gradient(features)
        if c.bounded_prior:
            features = unit_channels(features.astype(at_least_float32(dtype)))
        self.sow("taps", "mono_features", features)
        fan_in = features.shape[-1] * 16
        down = conv(
            c.nmp.dim,
            4,
            stride=4,
            padding=0,
            kernel_init=torch_default,
            bias_init=torch_default_bias(fan_in),
            dtype=dtype,
            name="depth_feature_down",
        )
        depth_prior = down(features).astype(at_least_float32(dtype))
        if c.bounded_prior:
            depth_prior = unit_channels(depth_prior)
        self.sow("taps", "depth_prior", depth_prior)
        return depth_prior

    def _tap(self, stage: str, tokens: Array, pos: Array) -> None:
        self.sow("taps", f"hyp{stage}", tokens)
        self.sow("taps", f"pos{stage}", pos)


def check_images(left: Array, right: Array, *, train: bool = False) -> None:
    """Raises ValueError unless both images are (B, H, W, 3) of one size that the network can take."""
    if left.ndim != 4 or left.shape[-1] != 3:
        raise ValueError(f"left image has shape {left.shape}, expected (B, H, W, 3)")
    if left.shape != right.shape:
        raise ValueError(f"left and right differ in shape: {left.shape} and {right.shape}")
    height, width = left.shape[1:3]
    if train and (height % MULTIPLE or width % MULTIPLE):
        raise ValueError(f"training crop {height}x{width} is not a multiple of {MULTIPLE}")
    if min(height, width) < MINIMUM:
        raise ValueError(f"image size {height}x{width} is below {MINIMUM} pixels")


@functools.partial(jax.jit, static_argnums=0)
def _init(config: ModelConfig, key: Array) -> Any:
    image = jnp.zeros((1, 64, 64, 3), jnp.float32)
    return BridgeDepth(config).init(key, image, image)["params"]


def init_params(config: ModelConfig, key: Array) -> Any:
    """Initial parameters (spec `architecture.md` section 8), float32, or float64 for a float64 network under jax_enable_x64.

    `jax.eval_shape(partial(init_params, config), key)` is free.
    """
    params = _init(config, key)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params) if config.dtype == "float64" else params
