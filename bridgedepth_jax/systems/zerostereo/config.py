"""What the inpainting network of ZeroStereo is made of, and how it is fine-tuned (spec `zerostereo.md` sections 3 and 4)."""

import dataclasses

from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, ScheduleConfig, UNetConfig


@dataclasses.dataclass(frozen=True)
class StereoGenConfig:
    """A latent diffusion inpainting network; the defaults are the paper's, Stable Diffusion 2's."""

    unet: UNetConfig = dataclasses.field(default_factory=UNetConfig)
    vae: AutoencoderConfig | None = dataclasses.field(default_factory=AutoencoderConfig)  # None: space to depth by `cell`
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    cell: int = 4  # pixels of a latent's side without an autoencoder
    residual: float = 0.0  # above 0: draws so many times the difference from the view with filled rows, without an autoencoder
    context_tokens: int = 2  # of the empty prompt: begin and end
    context_dim: int | None = None  # its width, if it is not the U-Net's; such a prompt is kept, and the network refuses it

    def __post_init__(self) -> None:
        latent = 3 * self.cell**2 if self.vae is None else self.vae.latent_channels
        mask = self.cell**2 if self.vae is None else 1
        found = (self.unet.in_channels, self.unet.out_channels)
        if found != (2 * latent + mask, latent):
            raise ValueError(f"unet channels {found[0]} in, {found[1]} out, expected {2 * latent + mask} and {latent}")

        if self.residual < 0 or (self.residual and self.vae is not None):
            raise ValueError(f"residual {self.residual}, expected 0, or more than 0 without an autoencoder")

    @property
    def factor(self) -> int:
        """Pixels of a latent's side."""
        return self.cell if self.vae is None else self.vae.factor

    @classmethod
    def nano(cls) -> "StereoGenConfig":
        """Less than two million parameters and no autoencoder.

        Of 48 channels of noise in a latent a network this narrow cannot say each one: it predicts the image ("sample"), and of
        that what row filling leaves open.
        """
        unet = UNetConfig(
            in_channels=112,
            out_channels=48,
            block_out_channels=(48, 64, 72),
            cross_attention=(False, False, True),
            layers_per_block=1,
            attention_heads=(2, 2, 2),
            cross_attention_dim=16,
            norm_num_groups=8,
        )
        schedule = ScheduleConfig(sampler="ddim", prediction="sample")
        return cls(unet, None, schedule, residual=3.0)


@dataclasses.dataclass(frozen=True)
class InpaintingTask:
    """The section `task`: nothing to choose but what is told apart from the paper's."""

    left_out: bool = True  # pixels without a disparity neither land nor hide; False: they land with disparity 0, as published
