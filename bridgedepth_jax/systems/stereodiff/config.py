"""What the second stage is made of and how it runs (spec `video.md` section 3)."""

import dataclasses
from typing import Literal, Self

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.video.config import (
    ImageEncoderConfig,
    VideoAutoencoderConfig,
    VideoScheduleConfig,
    VideoUNetConfig,
)


@dataclasses.dataclass(frozen=True)
class VideoDiffusionConfig:
    """A video diffusion model of depth; the defaults are DepthCrafter's."""

    unet: VideoUNetConfig = dataclasses.field(default_factory=VideoUNetConfig)
    vae: VideoAutoencoderConfig = dataclasses.field(default_factory=VideoAutoencoderConfig)
    image_encoder: ImageEncoderConfig = dataclasses.field(default_factory=ImageEncoderConfig)
    schedule: VideoScheduleConfig = dataclasses.field(default_factory=VideoScheduleConfig)

    def __post_init__(self) -> None:
        latent = self.vae.latent_channels
        if (self.unet.in_channels, self.unet.out_channels) != (2 * latent, latent):
            raise ValueError(
                f"unet channels {self.unet.in_channels} in, {self.unet.out_channels} out, expected {2 * latent} and {latent}"
            )
        if self.unet.cross_attention_dim != self.image_encoder.projection_dim:
            raise ValueError(
                f"unet.cross_attention_dim {self.unet.cross_attention_dim}, expected the image encoder's projection_dim "
                f"{self.image_encoder.projection_dim}"
            )

    @property
    def multiple(self) -> int:
        """Pixels of which frames' sides are multiples: the latent's factor times that of the U-Net's levels."""
        return self.vae.factor * self.unet.multiple

    @classmethod
    def tiny(cls) -> Self:
        """A model to train on procedural clips alone (spec section 6, but for latents of 4 x 4 pixels instead of 8 x 8).

        Four numbers for 8 x 8 pixels leave too little of an image to see depth in, and of a disparity its edges.
        """
        return cls(
            VideoUNetConfig(
                block_out_channels=(24, 40, 40),
                cross_attention=(False, True, True),
                layers_per_block=1,
                attention_heads=(2, 4, 4),
                cross_attention_dim=32,
                addition_time_embed_dim=16,
                norm_num_groups=8,
            ),
            VideoAutoencoderConfig(block_out_channels=(8, 16, 32), layers_per_block=1, norm_num_groups=8, scaling_factor=1.0),
            ImageEncoderConfig(32, 64, 2, 2, 112, 14, 32),
        )


@dataclasses.dataclass(frozen=True)
class PairTask:
    """What the pair network learns: DUSt3R's loss on two frames of a clip."""

    far: float = 70.0  # metres: what is farther does not count
    hold: float = 0.01  # of the squared logarithm of a pair's scale, which the loss leaves free

    def __post_init__(self) -> None:
        if not self.far > 0 or self.hold < 0:
            raise InputError(f"task.far {self.far}, task.hold {self.hold}, expected more than 0, and 0 or more")


@dataclasses.dataclass(frozen=True)
class VideoTask:
    """What the video diffusion model learns: its autoencoder, then, in a run of its own, to take noise from disparities."""

    stage: Literal["autoencoder", "diffusion"] = "diffusion"
    decoded: int = 8  # frames that are decoded together then: `RefineOptions.chunk`
    kl: float = 1e-3  # weight of the latent's distance from a normal distribution
    hold: float = 0.1  # weight of the scaled latents' mean square's distance from 1
    level_mean: float = 0.7  # of the logarithm of the noise level
    level_deviation: float = 1.6

    def __post_init__(self) -> None:
        if self.stage not in ("autoencoder", "diffusion"):
            raise InputError(f"task.stage {self.stage!r}, expected autoencoder or diffusion")
        if self.decoded < 1:
            raise InputError(f"task.decoded {self.decoded}, expected at least 1")


@dataclasses.dataclass(frozen=True)
class RefineOptions:
    """How the second stage runs; the defaults are StereoDiff's: one step, windows of their own."""

    steps: int = 4  # of the schedule
    first: int | None = 2  # step at which noise is added to the first stage; None: from noise alone, all steps (DepthCrafter)
    passes: int | None = 1  # of the U-Net from there; None: all that are left
    window: int = 110  # frames
    overlap: int = 25  # frames that neighbouring windows share
    share: bool = False  # latents of the window before, noised, begin the next one (DepthCrafter)
    chunk: int = 8  # frames that are decoded together: changes the result
    low: float = 0.0  # quantiles of the video's disparity that become 0 and 1; others than 0 and 1 clip
    high: float = 1.0
    seed: int = 0  # of all noise
    longest: int = 1024  # pixels of a frame's long side, at most

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.window:
            raise ValueError(f"window {self.window} and overlap {self.overlap}, expected a window above the overlap")
        if self.steps < 1 or (self.first is not None and not 0 <= self.first < self.steps):
            raise ValueError(f"first {self.first} of {self.steps} steps, expected 0 to {self.steps - 1}")
        if self.passes is not None and not 1 <= self.passes <= self.steps - (self.first or 0):
            raise ValueError(
                f"passes {self.passes} from step {self.first or 0} of {self.steps}, expected at least 1 that exist"
            )
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"quantiles {self.low} and {self.high}, expected 0 <= low < high <= 1")
        if self.chunk < 1:
            raise ValueError(f"chunk {self.chunk}, expected at least 1")

    @classmethod
    def from_noise(cls, **fields) -> Self:
        """DepthCrafter alone: all steps from noise, latents shared between windows."""
        return cls(**{"first": None, "passes": None, "share": True, **fields})
