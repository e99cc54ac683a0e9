"""The training losses (spec `training.md`, Losses): functions of arrays and masks, static shapes, no host sync.

B batch, H W full resolution, h w 1/8 resolution, N candidates, D disparity levels, L refinement outputs, M coarse
outputs, K monocular outputs. Disparities in pixels unless said otherwise.

Every mean divides by a count that depends on the ground truth alone (`Counts`). Counted once over the global batch, the
losses of its parts add up to the loss of the whole, so gradient accumulation changes nothing but rounding.

With `task.loss` "zero" (spec `zerostereo.md`, section 5) a label counts by its confidence, and where it is not trusted the
images decide. A confidence of 1 and mu 0 give the other losses to the bit.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.systems.zerostereo.losses import matched, photometric_map

CERTAIN = 2.0  # pixels within which the learned confidence calls a disparity right
FUSION_WEIGHT = 2.0  # of the last choice, as of the last refinement
RECURRENT_OUTPUTS = 10  # for which the original's decay of the recurrent loss is meant (5 + 5 layers)


@dataclasses.dataclass(frozen=True)
class ZeroConfig:
    """ZeroStereo's loss, for pairs made from photographs."""

    mu: float = 0.1  # weight of the photometric term
    beta: float = 0.85  # share of SSIM in it; the rest is L1
    scale: float = 255.0  # white, on the scale of the photometric term: mu is tuned to grey levels
    coarse_photometric: bool = False  # of the two coarse candidates too, of which one is meant to be wrong

    def __post_init__(self) -> None:
        if self.mu < 0 or not 0 <= self.beta <= 1 or not self.scale > 0:
            raise InputError(
                f"task.zero: mu {self.mu}, beta {self.beta}, scale {self.scale}; expected mu >= 0, beta in 0..1, scale > 0"
            )


@dataclasses.dataclass(frozen=True)
class StereoTask:
    """What is learnt, and from which losses (spec `training.md`): the section `task` of an experiment."""

    train_mono: bool = False  # train the monocular branch too
    mono_rate: float = 0.1  # then: factor on its learning rate
    only: tuple[str, ...] = ()  # beginnings of the paths of what is trained, the rest frozen; none: everything
    backbone_weight_decay: float = 1e-5  # of stereo_encoder.backbone
    loss_type: Literal["L1", "SMOOTH_L1"] = "L1"
    max_disp: int = 192  # pixels; ground truth from here on counts as unknown
    loss_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.4, 1.4, 1.4, 1.4, 1.6, 2.0, 2.0)  # coarse outputs, then fine ones
    loss: Literal["labels", "zero"] = "labels"  # zero: by confidence and images, for pairs that have them
    zero: ZeroConfig = dataclasses.field(default_factory=ZeroConfig)

    def __post_init__(self) -> None:
        if self.max_disp < 1:
            raise InputError(f"task.max_disp = {self.max_disp}, expected at least 1")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """All that the losses depend on beside arrays: of the task, and of the network that it trains."""

    max_disp: int  # pixels; ground truth from here on counts as unknown
    search: int  # pixels, range of the cost volume
    loss_type: Literal["L1", "SMOOTH_L1"]
    coarse_weights: tuple[float, ...]  # of the outputs of the first stage, shallow to deep
    fine_weights: tuple[float, ...]  # of those of the second
    recurrent_weight: float
    recurrent_gamma: float
    certainty_weight: float = 0.0  # of the learned confidence; 0 where the network has none
    zero: ZeroConfig | None = None  # ZeroStereo's loss
    fusion_weight: float = 0.0  # of the last choice; 0 where the network has none

    @classmethod
    def of(cls, model: ModelConfig, task: StereoTask) -> Self:
        """InputError: another number of weights than of outputs."""
        coarse, outputs = model.nmp.infer_layers, model.nmp.infer_layers + model.nmp.refine_layers
        if len(task.loss_weights) != outputs:
            raise InputError(f"task.loss_weights has {len(task.loss_weights)} numbers, the model {outputs} outputs")
        return cls(
            max_disp=task.max_disp,
            search=model.dpn.max_disp,
            loss_type=task.loss_type,
            coarse_weights=task.loss_weights[:coarse],
            fine_weights=task.loss_weights[coarse:],
            recurrent_weight=model.recurrent_loss_weight,
            recurrent_gamma=model.recurrent_loss_gamma,
            certainty_weight=float(model.learned_confidence),
            zero=task.zero if task.loss == "zero" else None,
            fusion_weight=FUSION_WEIGHT if model.fusion else 0.0,
        )

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each loss in the total."""
        coarse = zip(_layer_names("loss_coarse_disp", len(self.coarse_weights)), self.coarse_weights, strict=True)
        fine = zip(_layer_names("loss_disp", len(self.fine_weights)), self.fine_weights, strict=True)
        certainty = {"loss_certainty": self.certainty_weight} if self.certainty_weight else {}
        fusion = {"loss_fusion": self.fusion_weight} if self.fusion_weight else {}
        return {
            "loss_prop": 1.0,
            "init": 1.0,
            "loss_recurrent": self.recurrent_weight,
            **dict(coarse),
            **dict(fine),
            **certainty,
            **fusion,
        }


class Counts(NamedTuple):
    """What the masked means divide by, over the global batch."""

    proposals: Array  # pixels with 0 < gt < max_disp within the range of the cost volume
    cells: Array  # 1/8 pixels that hold any such pixel with its match inside the right image
    pixels: Array  # pixels with 0 < gt < max_disp
    images: Array
    matched: Array | float = 0.0  # pixels of `Trust.seen`


class Trust(NamedTuple):
    """What the loss of pairs made from photographs knows beside the label."""

    confidence: Float[Array, "B H W"]  # 0..1, of the label
    left: Float[Array, "B H W 3"]  # clean views, black 0 and white `ZeroConfig.scale`
    right: Float[Array, "B H W 3"]
    seen: Bool[Array, "B H W"]  # left pixels whose match is visible in the right view and was not made up


TRUSTED = ("left_clean", "right_clean", "confidence", "nonocc", "inpaint")  # arrays of a batch that `trust_of` reads


def trust_of(batch: Mapping[str, Array], config: LossConfig) -> Trust | None:
    """Of a batch, if the loss asks for it."""
    if config.zero is None:
        return None
    gt = jnp.where(batch["valid"], batch["disparity"], 0)
    left, right = (batch[side].astype(gt.dtype) * (config.zero.scale / 255) for side in ("left_clean", "right_clean"))
    return Trust(batch["confidence"].astype(gt.dtype), left, right, matched(gt, batch["nonocc"], batch["inpaint"]))


def count(
    disparity: Float[Array, "B H W"],
    valid: Bool[Array, "B H W"],
    config: LossConfig,
    seen: Bool[Array, "B H W"] | None = None,
) -> Counts:
    """`Counts` of a batch; disparity in pixels, anything where not valid; `seen` of its `Trust`."""
    gt = jnp.where(valid, disparity, 0)
    return Counts(
        proposals=jnp.sum(_proposal_mask(gt, config), dtype=gt.dtype),
        cells=jnp.sum(jnp.any(_blocks(_matchable(gt, config)), axis=-1), dtype=gt.dtype),
        pixels=jnp.sum(_pixel_mask(gt, config), dtype=gt.dtype),
        images=jnp.asarray(gt.shape[0], gt.dtype),
        matched=jnp.sum(seen, dtype=gt.dtype) if seen is not None else jnp.zeros((), gt.dtype),
    )


def losses(
    output,  # StereoOutput of a training pass; not annotated, so that this file needs no network
    disparity: Float[Array, "B H W"],
    valid: Bool[Array, "B H W"],
    config: LossConfig,
    counts: Counts | None = None,
    trust: Trust | None = None,
) -> dict[str, Array]:
    """Unweighted losses by the names of the specification, and `epe_train`; counts of the batch itself by default.

    With `trust` those of the zero loss, and `photometric`, the last output's unlikeness where its label is not trusted.
    """
    gt = jnp.where(valid, disparity, 0).astype(output.disparities.dtype)
    counts = count(disparity, valid, config, None if trust is None else trust.seen) if counts is None else counts
    counts = Counts(*(jnp.asarray(value, gt.dtype) for value in counts))
    mask = _pixel_mask(gt, config)[None]
    distance = _DISTANCES[config.loss_type]
    confidence = None if trust is None else trust.confidence

    def mean(error: Float[Array, "L B H W"]) -> Float[Array, "L"]:
        return jnp.sum(jnp.where(mask, error, 0), axis=(1, 2, 3)) / jnp.maximum(counts.pixels, 1)

    def trusted(error: Float[Array, "L B H W"]) -> Float[Array, "L B H W"]:
        return error if trust is None else trust.confidence[None] * error

    weight = jax.nn.softmax(output.logits, axis=-1)
    coarse = mean(trusted(jnp.sum(weight * distance(output.coarse_disparities - gt[None, ..., None]), axis=-1)))
    fine = mean(trusted(distance(output.disparities - gt[None])))
    error = jnp.abs(output.disparity - gt)[None]
    certainty, pictures = {}, {}
    if trust is not None and config.zero is not None and config.zero.mu:
        unlike = photometric(output.disparities, trust, config.zero, counts)
        fine = fine + config.zero.mu * unlike
        pictures = {"photometric": unlike[-1]}
        if config.zero.coarse_photometric:
            candidates = jnp.moveaxis(output.coarse_disparities, -1, 1)  # L N B H W
            shares = jnp.moveaxis(weight, -1, 1).reshape(-1, *gt.shape)
            unlike = photometric(candidates.reshape(shares.shape), trust, config.zero, counts, shares)
            coarse = coarse + config.zero.mu * jnp.sum(unlike.reshape(candidates.shape[:2]), axis=1)
    if config.certainty_weight:  # cross entropy with whether the pixel is right
        right = lax.stop_gradient(error < CERTAIN)
        logit = output.certainty[None]
        certainty = {"loss_certainty": mean(trusted(jax.nn.softplus(jnp.where(right, -logit, logit))))[0]}
    if config.fusion_weight:
        certainty["loss_fusion"] = mean(trusted(mixture_loss(output.choices, output.choice_logits, gt)[None]))[0]
    return {
        "loss_prop": proposal_loss(output.proposals, gt, config, counts, confidence),
        "init": initial_loss(output.prob, gt, config, counts, confidence),
        **{name: coarse[i] for i, name in enumerate(_layer_names("loss_coarse_disp", len(coarse)))},
        **{name: fine[i] for i, name in enumerate(_layer_names("loss_disp", len(fine)))},
        "loss_recurrent": recurrent_loss(output.mono, disparity.astype(gt.dtype), valid, config, counts),
        **certainty,
        **pictures,
        "epe_train": mean(error)[0],
    }


def mixture_loss(choices: Float[Array, "B H W K"], logits: Float[Array, "B H W K"], gt: Float[Array, "B H W"]) -> Array:
    """Negative log likelihood, less that of the best choice alone, of a mixture of Laplace distributions 1 px wide.

    Equal choices share their probability, which a cross entropy with the best of them would not allow.
    """
    near = -jnp.abs(choices - gt[..., None])
    joint = jax.nn.logsumexp(jax.nn.log_softmax(logits) + near, axis=-1)
    return jnp.max(near, axis=-1) - joint


def total(values: dict[str, Array], config: LossConfig) -> Array:
    """The weighted sum that is minimised."""
    return sum(weight * values[name] for name, weight in config.weights.items())  # type: ignore[return-value]


def photometric(
    predictions: Float[Array, "L B H W"],
    trust: Trust,
    config: ZeroConfig,
    counts: Counts,
    shares: Float[Array, "L B H W"] | None = None,
) -> Float[Array, "L"]:
    """Mean over `Trust.seen` of (1 - confidence) times the photometric map of each prediction, and times `shares`."""

    @jax.checkpoint  # its windows are many times the images
    def one(prediction: Array, share: Array) -> Array:
        unlike = photometric_map(trust.left, trust.right, prediction, config.beta)
        return jnp.sum(jnp.where(trust.seen, (1 - trust.confidence) * share * unlike, 0))

    shares = jnp.ones_like(predictions) if shares is None else shares
    return lax.map(lambda row: one(*row), (predictions, shares)) / jnp.maximum(jnp.asarray(counts.matched), 1)


def proposal_loss(
    proposals: Float[Array, "B h w N"],
    gt: Float[Array, "B H W"],
    config: LossConfig,
    counts: Counts,
    confidence: Float[Array, "B H W"] | None = None,
) -> Array:
    """Smooth L1 between each gt value and the nearest of its cell's proposals (given in 1/8 pixels), weighted by confidence."""
    mask = _blocks(_proposal_mask(gt, config))
    error = 8 * proposals[..., None, :] - _blocks(gt)[..., None]  # B h w 64 N
    nearest = jnp.argmin(jnp.abs(error), axis=-1, keepdims=True)
    error = jnp.sum(jnp.where(lax.broadcasted_iota(nearest.dtype, error.shape, error.ndim - 1) == nearest, error, 0), axis=-1)
    error = _smooth_l1(error) if confidence is None else _blocks(confidence) * _smooth_l1(error)
    return jnp.sum(jnp.where(mask, error, 0)) / (counts.proposals + 1e-6)


def initial_loss(
    prob: Float[Array, "B h w D"],
    gt: Float[Array, "B H W"],
    config: LossConfig,
    counts: Counts,
    confidence: Float[Array, "B H W"] | None = None,
) -> Array:
    """Cross entropy of the matching distribution with a soft histogram of the cell's gt, each weighted by confidence."""
    levels = prob.shape[-1]
    mask = _blocks(_matchable(gt, config))
    position = jnp.minimum(_blocks(gt) / 8, levels - 1)
    # The triangle of width 1 around a value is exactly its linear spread over the two nearest levels.
    level = lax.broadcasted_iota(gt.dtype, (*position.shape, levels), position.ndim)
    spread = jax.nn.relu(1 - jnp.abs(position[..., None] - level))
    spread = spread if confidence is None else _blocks(confidence)[..., None] * spread
    histogram = jnp.sum(jnp.where(mask[..., None], spread, 0), axis=-2)
    label = histogram / jnp.maximum(jnp.sum(histogram, axis=-1, keepdims=True), 1e-3)
    return -jnp.sum(label * jnp.log(jnp.maximum(prob, 1e-6))) / (counts.cells + 1e-6)


def recurrent_loss(
    mono: Float[Array, "K B H W"],
    disparity: Float[Array, "B H W"],
    valid: Bool[Array, "B H W"],
    config: LossConfig,
    counts: Counts,
) -> Array:
    """L1 between the monocular predictions and gt, each image of each free of its own shift and scale."""
    outputs, batch = mono.shape[:2]
    mask = (valid & (disparity < config.max_disp)).reshape(batch, -1)
    target = normalise(jnp.where(mask, disparity.reshape(batch, -1), 0), mask)
    prediction = normalise(mono.reshape(outputs, batch, -1), jnp.broadcast_to(mask, (outputs, *mask.shape)))
    pixels = jnp.sum(mask, axis=-1, dtype=mono.dtype)
    error = jnp.sum(jnp.where(mask[None], jnp.abs(prediction - target[None]), 0), axis=-1) / (pixels[None] + 1e-6)
    gamma = config.recurrent_gamma ** (RECURRENT_OUTPUTS / max(outputs - 1, 1))
    weight = gamma ** (outputs - 1 - jnp.arange(outputs, dtype=mono.dtype))
    return jnp.sum(weight[:, None] * error) / counts.images


def normalise(x: Float[Array, "*S P"], mask: Bool[Array, "*S P"]) -> Float[Array, "*S P"]:
    """(x - median) / mean absolute deviation from it, both over the mask; unchanged where the mask is empty."""
    pixels = jnp.sum(mask, axis=-1, keepdims=True, dtype=x.dtype)
    shifted = x - masked_median(x, mask)[..., None]
    deviation = jnp.sum(jnp.where(mask, jnp.abs(shifted), 0), axis=-1, keepdims=True) / jnp.maximum(pixels, 1)
    return shifted / jnp.where(pixels > 0, deviation + 1e-6, 1)


def masked_median(x: Float[Array, "*S P"], mask: Bool[Array, "*S P"]) -> Float[Array, "*S"]:
    """Median over the mask, halfway between the middle two of an even count; 0 without any pixel.

    The gradient goes to the one or two pixels that are the median, as through `torch.quantile`.
    """
    pixels = jnp.sum(mask, axis=-1, keepdims=True)
    fixed = lax.stop_gradient(x)
    ordered = jnp.sort(jnp.where(mask, fixed, jnp.inf), axis=-1)

    def pixel_of_rank(rank: Array) -> Array:
        value = jnp.take_along_axis(ordered, rank, axis=-1)
        index = jnp.argmin(jnp.where(mask, jnp.abs(fixed - value), jnp.inf), axis=-1, keepdims=True)
        return jnp.take_along_axis(x, index, axis=-1)

    low, high = pixel_of_rank(jnp.maximum(pixels - 1, 0) // 2), pixel_of_rank(jnp.minimum(pixels // 2, x.shape[-1] - 1))
    return jnp.where(pixels > 0, low + 0.5 * (high - low), 0)[..., 0]


def _smooth_l1(error: Array) -> Array:
    size = jnp.abs(error)
    return jnp.where(size < 1, 0.5 * size * size, size - 0.5)


_DISTANCES = {"L1": jnp.abs, "SMOOTH_L1": _smooth_l1}


def _pixel_mask(gt: Array, config: LossConfig) -> Array:
    return (gt > 0) & (gt < config.max_disp)


def _proposal_mask(gt: Array, config: LossConfig) -> Array:
    return _pixel_mask(gt, config) & (gt < config.search)


def _matchable(gt: Array, config: LossConfig) -> Array:
    return (gt > 0) & (gt < config.search) & (lax.broadcasted_iota(gt.dtype, gt.shape, 2) - gt >= 0)


def _blocks(x: Array) -> Array:
    """(B, H, W) -> (B, H/8, W/8, 64)."""
    batch, height, width = x.shape
    return x.reshape(batch, height // 8, 8, width // 8, 8).swapaxes(2, 3).reshape(batch, height // 8, width // 8, 64)


def _layer_names(name: str, layers: int) -> list[str]:
    return [f"{name}_{i}_aux" for i in range(layers - 1)] + [name]
