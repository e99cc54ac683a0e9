"""What the video networks are made of, and how their config.json files say it (spec `video.md` sections 3 and 4).

As `networks/diffusion/config.py`: a key that is not known, or a value that would change the mathematics, is an InputError.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Self

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.clip_vision import ClipVisionConfig
from bridgedepth_jax.networks.config import Dtype
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, check_class, check_rest, get, make

CROSS, PLAIN = "CrossAttn{}BlockSpatioTemporal", "{}BlockSpatioTemporal"
_WITHOUT_EFFECT = ("sample_size", "num_frames", "force_upcast")
_CLIP_FIXED: dict[str, tuple[Any, ...]] = {"hidden_act": ("gelu",), "num_channels": (3,), "attention_dropout": (0.0, 0)}
_CLIP_WITHOUT_EFFECT = (
    *("architectures", "dropout", "initializer_factor", "initializer_range", "model_type", "torch_dtype", "dtype"),
    *("transformers_version",),
)
_SCHEDULE_FIXED: dict[str, tuple[Any, ...]] = {
    "trained_betas": (None,),
    "prediction_type": ("v_prediction",),
    "interpolation_type": ("linear",),
    "timestep_type": ("continuous",),
    "final_sigmas_type": ("zero",),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    # Of samplers whose files these settings were copied from; Euler's does not read them.
    "clip_sample": (False,),
    "set_alpha_to_one": (False,),
    "skip_prk_steps": (True,),
}


@dataclasses.dataclass(frozen=True)
class VideoUNetConfig:
    """UNetSpatioTemporalConditionModel; the defaults are those of Stable Video Diffusion and DepthCrafter."""

    in_channels: int = 8
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    cross_attention: tuple[bool, ...] = (True, True, True, False)  # levels with attention, on the way down and up
    layers_per_block: int = 2
    attention_heads: tuple[int, ...] = (5, 10, 20, 20)
    cross_attention_dim: int = 1024
    addition_time_embed_dim: int = 256
    time_ids: int = 3  # numbers that come with a clip: fps, motion bucket, noise augmentation
    norm_num_groups: int = 32
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        if len(self.cross_attention) != levels or len(self.attention_heads) != levels:
            raise ValueError(
                f"unet: {levels} block_out_channels, {len(self.cross_attention)} cross_attention and "
                f"{len(self.attention_heads)} attention_heads, expected as many of each"
            )
        for channels, heads in zip(self.block_out_channels, self.attention_heads, strict=True):
            if channels % self.norm_num_groups or channels % heads:
                raise ValueError(
                    f"unet.block_out_channels {channels}, expected a multiple of norm_num_groups {self.norm_num_groups} "
                    f"and of its attention_heads {heads}"
                )

    @property
    def multiple(self) -> int:
        """Sides of a latent that every level halves without a remainder; others work too."""
        return 2 ** (len(self.block_out_channels) - 1)

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], source: str) -> Self:
        """Of unet/config.json. InputError, with `source`, for what is not implemented."""
        check_class(config, "UNetSpatioTemporalConditionModel", source)
        widths = get(config, "block_out_channels", source)
        levels = len(widths)
        default = [CROSS] * (levels - 1) + [PLAIN]
        down = config.get("down_block_types", [name.format("Down") for name in default])
        up = config.get("up_block_types", [name.format("Up") for name in reversed(default)])
        cross = [{CROSS.format("Down"): True, PLAIN.format("Down"): False}.get(name) for name in down]
        mirrored = [{CROSS.format("Up"): True, PLAIN.format("Up"): False}.get(name) for name in reversed(up)]
        if None in cross or mirrored != cross:
            raise InputError(
                f"{source}: down_block_types {down} and up_block_types {up}, "
                "expected [CrossAttn]DownBlockSpatioTemporal and their mirror"
            )
        heads = get(config, "num_attention_heads", source)
        heads = [heads] * levels if isinstance(heads, int) else heads
        keys = ("in_channels", "out_channels", "layers_per_block", "cross_attention_dim", "addition_time_embed_dim")
        total = get(config, "projection_class_embeddings_input_dim", source)
        values = {key: get(config, key, source) for key in keys}
        each = values["addition_time_embed_dim"]
        if not isinstance(total, int) or not isinstance(each, int) or each < 2 or total % each:
            raise InputError(
                f"{source}: projection_class_embeddings_input_dim {total!r}, expected a multiple of "
                f"addition_time_embed_dim {each!r}"
            )
        handled = {*keys, "block_out_channels", "down_block_types", "up_block_types", "num_attention_heads"}
        handled |= {"projection_class_embeddings_input_dim", *_WITHOUT_EFFECT}
        check_rest(config, {"transformer_layers_per_block": (1, [1] * levels)}, handled, source)
        return make(
            cls,
            source,
            block_out_channels=tuple(widths),
            cross_attention=tuple(cross),
            attention_heads=tuple(heads),
            time_ids=total // each,
            **values,
        )

    def to_diffusers(self) -> dict[str, Any]:
        """The config.json of this network."""
        return {
            "_class_name": "UNetSpatioTemporalConditionModel",
            "addition_time_embed_dim": self.addition_time_embed_dim,
            "block_out_channels": list(self.block_out_channels),
            "cross_attention_dim": self.cross_attention_dim,
            "down_block_types": [(CROSS if c else PLAIN).format("Down") for c in self.cross_attention],
            "in_channels": self.in_channels,
            "layers_per_block": self.layers_per_block,
            "num_attention_heads": list(self.attention_heads),
            "num_frames": 25,
            "out_channels": self.out_channels,
            "projection_class_embeddings_input_dim": self.time_ids * self.addition_time_embed_dim,
            "sample_size": 96,
            "transformer_layers_per_block": 1,
            "up_block_types": [(CROSS if c else PLAIN).format("Up") for c in reversed(self.cross_attention)],
        }


@dataclasses.dataclass(frozen=True)
class VideoAutoencoderConfig(AutoencoderConfig):
    """AutoencoderKLTemporalDecoder: the encoder of `AutoencoderConfig` and a decoder that mixes frames."""

    temporal_eps: float = 1e-5  # of the decoder's norms over frames

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], source: str) -> Self:
        """Of vae/config.json. InputError, with `source`, for what is not implemented."""
        check_class(config, "AutoencoderKLTemporalDecoder", source)
        widths = tuple(get(config, "block_out_channels", source))
        if get(config, "down_block_types", source) != ["DownEncoderBlock2D"] * len(widths):
            raise InputError(
                f"{source}: down_block_types {config['down_block_types']}, expected {len(widths)} times DownEncoderBlock2D"
            )
        keys = ("in_channels", "out_channels", "latent_channels", "layers_per_block")
        check_rest(config, {}, {*keys, "block_out_channels", "down_block_types", "scaling_factor", *_WITHOUT_EFFECT}, source)
        values = {key: get(config, key, source) for key in keys}
        return make(
            cls, source, block_out_channels=widths, scaling_factor=config.get("scaling_factor", cls.scaling_factor), **values
        )

    def to_diffusers(self) -> dict[str, Any]:
        """The config.json of this network."""
        return {
            "_class_name": "AutoencoderKLTemporalDecoder",
            "block_out_channels": list(self.block_out_channels),
            "down_block_types": ["DownEncoderBlock2D"] * len(self.block_out_channels),
            "force_upcast": True,
            "in_channels": self.in_channels,
            "latent_channels": self.latent_channels,
            "layers_per_block": self.layers_per_block,
            "out_channels": self.out_channels,
            "sample_size": 768,
            "scaling_factor": self.scaling_factor,
        }


@dataclasses.dataclass(frozen=True)
class ImageEncoderConfig(ClipVisionConfig):
    """The image encoder of Stable Video Diffusion; the defaults are ViT-H/14's."""

    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 32
    projection_dim: int = 1024
    hidden_act: Literal["quick_gelu", "gelu"] = "gelu"

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], source: str) -> Self:
        """Of image_encoder/config.json. InputError, with `source`, for what is not implemented."""
        keys = [field.name for field in dataclasses.fields(cls) if field.name not in ("dtype", "hidden_act")]
        check_rest(config, _CLIP_FIXED, {*keys, *_CLIP_WITHOUT_EFFECT}, source)
        if config.get("hidden_act", "quick_gelu") != "gelu":  # the library's own default is another function
            raise InputError(f"{source}: has no hidden_act, expected 'gelu'")
        return make(cls, source, **{key: get(config, key, source) for key in keys if key != "layer_norm_eps" or key in config})

    def to_diffusers(self) -> dict[str, Any]:
        """The config.json of this network."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "dtype"}
        return {"architectures": ["CLIPVisionModelWithProjection"], "num_channels": 3, **values}


@dataclasses.dataclass(frozen=True)
class VideoScheduleConfig:
    """Noise levels of Euler's method with a v-prediction at continuous times; the defaults are Stable Video Diffusion's."""

    karras: bool = True
    sigma_min: float = 0.002  # with `karras`
    sigma_max: float = 700.0
    rho: float = 7.0
    spacing: Literal["leading", "trailing", "linspace"] = "leading"
    steps_offset: int = 1  # of the spacing `leading`
    train_steps: int = 1000
    beta_schedule: Literal["scaled_linear", "linear"] = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    zero_snr: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("spacing", self.spacing, ("leading", "trailing", "linspace")),
            ("beta_schedule", self.beta_schedule, ("scaled_linear", "linear")),
        ):
            if value not in known:
                raise ValueError(f"schedule.{name} {value!r}, expected one of {', '.join(known)}")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"schedule.sigma_min {self.sigma_min} and sigma_max {self.sigma_max}, expected 0 < min < max")

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], source: str) -> Self:
        """Of scheduler/scheduler_config.json. InputError, with `source`, for what is not implemented."""
        check_class(config, "EulerDiscreteScheduler", source)
        names = {
            "use_karras_sigmas": "karras",
            "sigma_min": "sigma_min",
            "sigma_max": "sigma_max",
            "timestep_spacing": "spacing",
            "steps_offset": "steps_offset",
            "num_train_timesteps": "train_steps",
            "beta_schedule": "beta_schedule",
            "beta_start": "beta_start",
            "beta_end": "beta_end",
            "rescale_betas_zero_snr": "zero_snr",
        }
        for key, value in (("prediction_type", "v_prediction"), ("timestep_type", "continuous")):
            if config.get(key) != value:  # the library's defaults are others
                raise InputError(f"{source}: {key} {config.get(key)!r}, expected {value!r}")
        check_rest(config, _SCHEDULE_FIXED, set(names), source)
        values: dict[str, Any] = {"karras": False, "spacing": "linspace", "steps_offset": 0}
        values |= {field: config[key] for key, field in names.items() if key in config}
        return make(cls, source, **values)

    def to_diffusers(self) -> dict[str, Any]:
        """The scheduler_config.json of this schedule."""
        return {
            "_class_name": "EulerDiscreteScheduler",
            "beta_end": self.beta_end,
            "beta_schedule": self.beta_schedule,
            "beta_start": self.beta_start,
            "interpolation_type": "linear",
            "num_train_timesteps": self.train_steps,
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": self.zero_snr,
            "sigma_max": self.sigma_max,
            "sigma_min": self.sigma_min,
            "steps_offset": self.steps_offset,
            "timestep_spacing": self.spacing,
            "timestep_type": "continuous",
            "use_karras_sigmas": self.karras,
        }
