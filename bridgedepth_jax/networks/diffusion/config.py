"""What the diffusion networks are made of, and how diffusers' config.json says it (spec `diffusion.md` sections 2 to 4, 6).

Frozen, hashable dataclasses. `from_diffusers` reads a config.json value by value: a key that is not known, or a value that
would change the mathematics, is an InputError with its name; `to_diffusers` writes one.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Self

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.config import Dtype

PredictionType = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["leading", "trailing", "linspace"]
Sampler = Literal["ddim", "pndm", "euler"]

# Values of keys that are not fields of ours: others would be other mathematics. A key that is absent has the first one.
_UNET_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "center_input_sample": (False,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1, 1.0),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False,),
    "dual_cross_attention": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
    "transformer_layers_per_block": (1,),
    "reverse_transformer_layers_per_block": (None,),
    "attention_type": ("default",),
    "num_attention_heads": (None,),
    "dropout": (0.0, 0),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "projection_class_embeddings_input_dim": (None,),
    "class_embeddings_concat": (False,),
    "addition_embed_type": (None,),
    "addition_time_embed_dim": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1.0, 1),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
}
_VAE_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "mid_block_add_attention": (True,),
    "latents_mean": (None,),
    "latents_std": (None,),
}
# Keys without any effect on a forward pass. The softmax is float32 here whatever `upcast_attention` says.
_WITHOUT_EFFECT = ("sample_size", "upcast_attention", "addition_embed_type_num_heads", "force_upcast")


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """UNet2DConditionModel; the defaults are the inpainting network of Stable Diffusion 2."""

    in_channels: int = 9
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    cross_attention: tuple[bool, ...] = (True, True, True, False)  # levels with attention, on the way down and up
    layers_per_block: int = 2
    attention_heads: tuple[int, ...] = (5, 10, 20, 20)  # `attention_head_dim` of diffusers: the number of heads
    cross_attention_dim: int = 1024
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    use_linear_projection: bool = True
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
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
                    f"unet.block_out_channels {channels} must be a multiple of norm_num_groups {self.norm_num_groups} "
                    f"and of its attention_heads {heads}"
                )

    @property
    def multiple(self) -> int:
        """Sides of a latent that every level halves without a remainder; others work too."""
        return 2 ** (len(self.block_out_channels) - 1)

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], source: str) -> Self:
        """Of unet/config.json. InputError, with `source`, for what is not implemented."""
        check_class(config, "UNet2DConditionModel", source)
        widths = get(config, "block_out_channels", source)
        down = get(config, "down_block_types", source)
        up = get(config, "up_block_types", source)
        cross = [{"CrossAttnDownBlock2D": True, "DownBlock2D": False}.get(name) for name in down]
        mirrored = [{"CrossAttnUpBlock2D": True, "UpBlock2D": False}.get(name) for name in reversed(up)]
        if None in cross or mirrored != cross:
            raise InputError(
                f"{source}: down_block_types {down} and up_block_types {up}, expected [CrossAttn]DownBlock2D and their mirror"
            )
        heads = config.get("attention_head_dim", 8)
        heads = [heads] * len(widths) if isinstance(heads, int) else heads
        keys = ("in_channels", "out_channels", "layers_per_block", "cross_attention_dim", "norm_num_groups", "norm_eps")
        optional = ("use_linear_projection", "flip_sin_to_cos", "freq_shift")
        handled = {*keys, *optional, "block_out_channels", "down_block_types", "up_block_types", "attention_head_dim"}
        check_rest(config, _UNET_FIXED, handled, source)
        values = {key: get(config, key, source) for key in keys}
        values["use_linear_projection"] = config.get("use_linear_projection", False)  # the library's default
        values["flip_sin_to_cos"], values["freq_shift"] = config.get("flip_sin_to_cos", True), config.get("freq_shift", 0)
        return make(
            cls, source, block_out_channels=tuple(widths), cross_attention=tuple(cross), attention_heads=tuple(heads), **values
        )

    def to_diffusers(self) -> dict[str, Any]:
        """The config.json of this network."""
        return {
            "_class_name": "UNet2DConditionModel",
            "act_fn": "silu",
            "attention_head_dim": list(self.attention_heads),
            "block_out_channels": list(self.block_out_channels),
            "cross_attention_dim": self.cross_attention_dim,
            "down_block_types": ["CrossAttnDownBlock2D" if c else "DownBlock2D" for c in self.cross_attention],
            "downsample_padding": 1,
            "flip_sin_to_cos": self.flip_sin_to_cos,
            "freq_shift": self.freq_shift,
            "in_channels": self.in_channels,
            "layers_per_block": self.layers_per_block,
            "norm_eps": self.norm_eps,
            "norm_num_groups": self.norm_num_groups,
            "out_channels": self.out_channels,
            "up_block_types": ["CrossAttnUpBlock2D" if c else "UpBlock2D" for c in reversed(self.cross_attention)],
            "use_linear_projection": self.use_linear_projection,
        }


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """AutoencoderKL; the defaults are Stable Diffusion's."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-6
    scaling_factor: float = 0.18215  # a network downstream sees (latent - shift_factor) * scaling_factor
    shift_factor: float = 0.0
    quant_conv: bool = True  # 1x1 convolutions between the networks and the latent
    dtype: Dtype = "float32"  # float16 overflows in Stable Diffusion's weights

    def __post_init__(self) -> None:
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"vae.block_out_channels {channels} is not a multiple of norm_num_groups {self.norm_num_groups}"
                )

    @property
    def factor(self) -> int:
        """Pixels of a latent's side."""
        return 2 ** (len(self.block_out_channels) - 1)

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], source: str) -> Self:
        """Of vae/config.json. InputError, with `source`, for what is not implemented."""
        check_class(config, "AutoencoderKL", source)
        keys = ("in_channels", "out_channels", "latent_channels", "layers_per_block", "norm_num_groups")
        widths = tuple(get(config, "block_out_channels", source))
        for key, name in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            if get(config, key, source) != [name] * len(widths):
                raise InputError(f"{source}: {key} {config[key]}, expected {len(widths)} times {name}")
        quant = (config.get("use_quant_conv", True), config.get("use_post_quant_conv", True))
        if quant[0] != quant[1]:
            raise InputError(
                f"{source}: use_quant_conv {quant[0]} and use_post_quant_conv {quant[1]}, expected the same of both"
            )
        more = ("scaling_factor", "shift_factor", "use_quant_conv", "use_post_quant_conv")
        handled = {*keys, *more, "block_out_channels", "down_block_types", "up_block_types"}
        check_rest(config, _VAE_FIXED, handled, source)
        values = {key: get(config, key, source) for key in keys}
        values["shift_factor"], values["quant_conv"] = config.get("shift_factor") or 0.0, quant[0]
        # Files from before the key existed are Stable Diffusion's, whose factor is the library's default.
        return make(
            cls, source, block_out_channels=widths, scaling_factor=config.get("scaling_factor", cls.scaling_factor), **values
        )

    def to_diffusers(self) -> dict[str, Any]:
        """The config.json of this network."""
        levels = len(self.block_out_channels)
        return {
            "_class_name": "AutoencoderKL",
            "act_fn": "silu",
            "block_out_channels": list(self.block_out_channels),
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "in_channels": self.in_channels,
            "latent_channels": self.latent_channels,
            "layers_per_block": self.layers_per_block,
            "norm_num_groups": self.norm_num_groups,
            "out_channels": self.out_channels,
            "scaling_factor": self.scaling_factor,
            "shift_factor": self.shift_factor or None,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "use_post_quant_conv": self.quant_conv,
            "use_quant_conv": self.quant_conv,
        }


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Noise levels and how they are walked down; the defaults are ZeroStereo's paper."""

    sampler: Sampler = "ddim"
    prediction: PredictionType = "epsilon"
    spacing: Spacing = "leading"
    steps_offset: int = 1  # of the spacing `leading`
    set_alpha_to_one: bool = False  # DDIM and PNDM: what comes after the last step; else the table's first entry
    clip_sample: bool = False  # DDIM: x0 to +-1
    zero_snr: bool = False  # the last noise level holds no signal
    train_steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012

    def __post_init__(self) -> None:
        for name, value, known in (
            ("sampler", self.sampler, ("ddim", "pndm", "euler")),
            ("prediction", self.prediction, ("epsilon", "v_prediction", "sample")),
            ("spacing", self.spacing, ("leading", "trailing", "linspace")),
        ):
            if value not in known:
                raise ValueError(f"schedule.{name} {value!r}, expected one of {', '.join(known)}")
        if self.zero_snr and self.prediction == "epsilon":
            raise ValueError("schedule.zero_snr leaves no signal at the last noise level, of which epsilon says nothing")
        if self.sampler == "pndm" and self.spacing != "leading":
            raise ValueError(f"schedule.spacing {self.spacing!r}, expected 'leading' for pndm")
        if self.sampler == "pndm" and self.prediction == "sample":
            raise ValueError("schedule.prediction 'sample', expected 'epsilon' or 'v_prediction' for pndm")

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], source: str) -> Self:
        """Of scheduler/scheduler_config.json. InputError, with `source`, for what is not implemented."""
        name = config.get("_class_name", "PNDMScheduler")
        samplers = {"DDIMScheduler": "ddim", "PNDMScheduler": "pndm", "EulerDiscreteScheduler": "euler"}
        if name not in samplers:
            raise InputError(f"{source}: scheduler {name!r}, expected one of {', '.join(samplers)}")
        sampler = samplers[name]
        fixed: dict[str, tuple[Any, ...]] = {
            "beta_schedule": ("scaled_linear",),
            "trained_betas": (None,),
            "thresholding": (False,),
            "clip_sample_range": (1.0, 1),
            "dynamic_thresholding_ratio": (0.995,),
            "sample_max_value": (1.0,),
            "interpolation_type": ("linear",),
            "use_karras_sigmas": (False, None),
            "use_exponential_sigmas": (False, None),
            "use_beta_sigmas": (False, None),
            "sigma_min": (None,),
            "sigma_max": (None,),
            "timestep_type": ("discrete",),
            "final_sigmas_type": ("zero",),
        }
        keys = {
            "num_train_timesteps": "train_steps",
            "beta_start": "beta_start",
            "beta_end": "beta_end",
            "prediction_type": "prediction",
            "timestep_spacing": "spacing",
            "steps_offset": "steps_offset",
            "set_alpha_to_one": "set_alpha_to_one",
            "clip_sample": "clip_sample",
            "rescale_betas_zero_snr": "zero_snr",
        }
        if get(config, "beta_schedule", source) not in fixed["beta_schedule"]:
            raise InputError(f"{source}: beta_schedule {config['beta_schedule']!r}, expected 'scaled_linear'")
        if sampler == "pndm" and not config.get("skip_prk_steps", False):
            raise InputError(f"{source}: skip_prk_steps false, expected true")
        check_rest(config, fixed, {*keys, "skip_prk_steps"}, source)
        # The library's own defaults where a file is silent.
        values: dict[str, Any] = {
            "spacing": {"euler": "linspace"}.get(sampler, "leading"),
            "steps_offset": 0,
            "set_alpha_to_one": sampler == "ddim",
            "clip_sample": sampler == "ddim",
            **{field: get(config, key, source) for key, field in keys.items() if key in config},
        }
        if sampler != "ddim":
            values["clip_sample"] = False  # such keys of other samplers are left in files and are not read
        return make(cls, source, sampler=sampler, **values)

    def to_diffusers(self) -> dict[str, Any]:
        """The scheduler_config.json of this schedule."""
        names = {"ddim": "DDIMScheduler", "pndm": "PNDMScheduler", "euler": "EulerDiscreteScheduler"}
        config: dict[str, Any] = {
            "_class_name": names[self.sampler],
            "beta_end": self.beta_end,
            "beta_schedule": "scaled_linear",
            "beta_start": self.beta_start,
            "num_train_timesteps": self.train_steps,
            "prediction_type": self.prediction,
            "steps_offset": self.steps_offset,
            "timestep_spacing": self.spacing,
            "trained_betas": None,
        }
        if self.sampler != "euler":
            config["set_alpha_to_one"] = self.set_alpha_to_one
        if self.sampler == "ddim":
            config["clip_sample"] = self.clip_sample
        if self.sampler == "pndm":
            config["skip_prk_steps"] = True
        else:
            config["rescale_betas_zero_snr"] = self.zero_snr
        return config


@dataclasses.dataclass(frozen=True)
class FluxConfig:
    """FluxTransformer2DModel; the defaults are FLUX.1-Depth-dev's (spec `mono-training.md` section 7)."""

    in_channels: int = 128  # of a token: packed latents and packed control
    out_channels: int = 64
    num_layers: int = 19  # double blocks
    num_single_layers: int = 38
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 4096  # of the text's tokens
    pooled_projection_dim: int = 768
    axes_dims_rope: tuple[int, ...] = (16, 56, 56)
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        if sum(self.axes_dims_rope) != self.attention_head_dim or any(width % 2 for width in self.axes_dims_rope):
            raise ValueError(
                f"axes_dims_rope {self.axes_dims_rope}, expected even widths that add up to {self.attention_head_dim}"
            )
        if self.in_channels % self.out_channels:
            raise ValueError(f"in_channels {self.in_channels} is not a multiple of out_channels {self.out_channels}")

    @property
    def dim(self) -> int:
        return self.attention_head_dim * self.num_attention_heads

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], source: str) -> Self:
        """Of transformer/config.json. InputError, with `source`, for what is not implemented."""
        check_class(config, "FluxTransformer2DModel", source)
        keys = [field.name for field in dataclasses.fields(cls) if field.name not in ("dtype", "axes_dims_rope")]
        check_rest(config, {"patch_size": (1,), "guidance_embeds": (True,)}, {*keys, "axes_dims_rope"}, source)
        values = {key: get(config, key, source) for key in keys}
        axes = get(config, "axes_dims_rope", source)
        if not isinstance(axes, list) or not all(isinstance(width, int) for width in axes):
            raise InputError(f"{source}: axes_dims_rope {axes!r:.60}, expected whole numbers")
        return make(cls, source, axes_dims_rope=tuple(axes), **values)

    def to_diffusers(self) -> dict[str, Any]:
        """The config.json of this network."""
        values = dataclasses.asdict(self) | {"axes_dims_rope": list(self.axes_dims_rope)}
        del values["dtype"]
        return {"_class_name": "FluxTransformer2DModel", "guidance_embeds": True, "patch_size": 1, **values}


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """Flow matching with a shift of the noise levels that grows with the number of image tokens; FLUX's defaults."""

    base_shift: float = 0.5  # at `base_tokens`
    max_shift: float = 1.15  # at `max_tokens`
    base_tokens: int = 256
    max_tokens: int = 4096
    train_steps: int = 1000

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], source: str) -> Self:
        """Of scheduler/scheduler_config.json. InputError, with `source`, for what is not implemented."""
        check_class(config, "FlowMatchEulerDiscreteScheduler", source)
        keys = {
            "base_shift": "base_shift",
            "max_shift": "max_shift",
            "base_image_seq_len": "base_tokens",
            "max_image_seq_len": "max_tokens",
            "num_train_timesteps": "train_steps",
        }
        fixed: dict[str, tuple[Any, ...]] = {
            "use_dynamic_shifting": (True,),
            "invert_sigmas": (False,),
            "shift_terminal": (None,),
            "stochastic_sampling": (False,),
            "time_shift_type": ("exponential",),
            "use_beta_sigmas": (False,),
            "use_exponential_sigmas": (False,),
            "use_karras_sigmas": (False,),
        }
        get(config, "use_dynamic_shifting", source)
        check_rest(config, fixed, {*keys, "shift"}, source)  # `shift` has no effect where the shift is dynamic
        return make(cls, source, **{name: config[key] for key, name in keys.items() if key in config})


def get(config: Mapping[str, Any], key: str, source: str) -> Any:
    """The value of a key that must be there."""
    if key not in config:
        raise InputError(f"{source}: has no {key}")
    return config[key]


def check_class(config: Mapping[str, Any], name: str, source: str) -> None:
    """InputError: a file of another class."""
    found = config.get("_class_name", name)
    if found != name:
        raise InputError(f"{source}: _class_name {found!r}, expected {name!r}")


def check_rest(config: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]], handled: set[str], source: str) -> None:
    """InputError: a key that is neither `handled` nor without effect, with a value that `fixed` does not have."""
    for key, value in config.items():
        if key.startswith("_") or key in handled or key in _WITHOUT_EFFECT:
            continue
        if key not in fixed:
            raise InputError(f"{source}: unknown key {key!r} (value {value!r:.60})")
        if value not in fixed[key]:
            raise InputError(f"{source}: {key} {value!r:.60} is not implemented, expected {fixed[key][0]!r}")


def make(cls: type, source: str, **values: Any) -> Any:
    """A config of values from a file. InputError: a value of another type, or that the class refuses."""
    for name, value in values.items():
        kind = {field.name: field.type for field in dataclasses.fields(cls)}[name]
        plain = {int: int, float: (int, float), bool: bool}.get(kind)  # type: ignore[arg-type]
        if plain is not None and (not isinstance(value, plain) or (isinstance(value, bool) and kind is not bool)):
            raise InputError(f"{source}: {name} {value!r:.60}, expected {getattr(kind, '__name__', kind)}")
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{source}: {error}") from error
