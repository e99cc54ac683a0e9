"""What the depth-to-image generator is made of, and how it is rewarded (spec `mono-training.md` sections 7 and 8)."""

import dataclasses
from typing import Literal

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, FlowConfig, FluxConfig


def flux_vae() -> AutoencoderConfig:
    """FLUX's autoencoder: 16 channels, no layers between it and the latent."""
    return AutoencoderConfig(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159, quant_conv=False)


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """FLUX.1-Depth-dev; the prompt's embeddings are constants that lie with the weights."""

    transformer: FluxConfig = dataclasses.field(default_factory=FluxConfig)
    vae: AutoencoderConfig = dataclasses.field(default_factory=flux_vae)
    flow: FlowConfig = dataclasses.field(default_factory=FlowConfig)
    text_tokens: int = 512
    steps: int = 30
    guidance: float = 10.0

    def __post_init__(self) -> None:
        if self.transformer.out_channels != 4 * self.vae.latent_channels:
            raise ValueError(
                f"transformer.out_channels {self.transformer.out_channels}, expected four latents of {self.vae.latent_channels}"
            )

    @property
    def multiple(self) -> int:
        """Of an image's sides: two latents a token."""
        return 2 * self.vae.factor


@dataclasses.dataclass(frozen=True)
class RewardTask:
    """Stage 2: reward gradients through the last steps of the sampler."""

    steps: int = 8
    last: int | Literal["random"] = 1  # steps that carry a gradient
    depth: float = 0.9  # weights
    aesthetic: float = 0.1
    centred: bool = True
    remat: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or (self.last != "random" and not 1 <= self.last <= self.steps):
            raise InputError(f"task.last = {self.last} of {self.steps} steps, expected 1 to {self.steps}, or random")
