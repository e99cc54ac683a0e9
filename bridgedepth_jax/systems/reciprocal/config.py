"""The two networks' sizes, and what is learnt (spec `self-supervised.md`). Defaults are the paper's."""

import dataclasses
from typing import Literal

from bridgedepth_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class StereoNetConfig:
    """PWC-Lite in one dimension with a U-Net as encoder (spec section 1)."""

    encoder: Literal["unet", "pyramid"] = "unet"  # pyramid: without the way up, the ablation of Table 3
    widths: tuple[int, ...] = (16, 32, 64, 96, 128, 192)  # of the encoder's levels, level i has stride 2^(i+1)
    finest: int = 1  # last level to estimate at, stride 2^(finest + 1); one output for each but the coarsest
    projected: int = 32  # channels of a level's features in the estimator
    radius: int = 4  # of the correlation, pixels of the level
    estimator: tuple[int, ...] = (128, 128, 96, 64, 32)
    context: tuple[int, ...] = (128, 128, 128, 96, 64, 32)
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 1)
    zero_predict: bool = False  # both last convolutions start at 0
    normalize_features: bool = False  # of a pair and level, to mean 0 and deviation 1 before the correlation
    normalize_channels: bool = False  # the same for each channel on its own

    def __post_init__(self) -> None:
        if not 0 <= self.finest < len(self.widths) - 1:
            raise InputError(f"model.finest = {self.finest}, expected a level below the coarsest, 0 to {len(self.widths) - 2}")
        if len(self.estimator) != 5:
            raise InputError(f"model.estimator has {len(self.estimator)} widths, expected 5")
        if len(self.context) != len(self.dilations):
            raise InputError(
                f"model.context has {len(self.context)} widths and {len(self.dilations)} dilations, expected as many"
            )

    @property
    def multiple(self) -> int:
        """Of the sides of an image."""
        return 2 ** len(self.widths)


# Blocks of the four stages, and whether they are bottlenecks (1x1, 3x3, 1x1 to four times the width).
_RESNETS = {"resnet18": ((2, 2, 2, 2), False), "resnet34": ((3, 4, 6, 3), False), "resnet50": ((3, 4, 6, 3), True)}


@dataclasses.dataclass(frozen=True)
class SingleNetConfig:
    """monodepth2's network: a ResNet of torchvision and a decoder with skips (spec section 2)."""

    depths: tuple[int, ...] = (3, 4, 6, 3)  # blocks of the four stages
    bottleneck: bool = True
    width: int = 64  # of the first convolution; the stages have 1, 2, 4, 8 times as many
    decoder: tuple[int, ...] = (16, 32, 64, 128, 256)  # from full to 1/16 resolution
    smallest: float = 0.01  # disparity of sigmoid 0 ...
    largest: float = 10.0  # ... and of sigmoid 1
    factor: float = 0.058  # of the two, times the image's width: focal 0.58 of the width, baseline 0.1
    size: tuple[int, int] = (320, 1024)  # height and width of the images that it was trained on
    metric: bool = True  # trained on pairs, so that disparities have a unit; False: on video alone (monodepth2's `mono`)
    bias: float = -4.0  # initial, of the convolutions before the sigmoids: at 0 training would start mostly out of view

    @classmethod
    def named(cls, name: str) -> "SingleNetConfig":
        """resnet18, resnet34 or resnet50."""
        depths, bottleneck = _RESNETS[name]
        return cls(depths=depths, bottleneck=bottleneck)

    @property
    def multiple(self) -> int:
        """Of the sides of an image."""
        return 2 ** len(self.decoder)


VARIANTS = tuple(_RESNETS)

Stage = Literal["photometric", "distil", "fusion"]
ALPHA = {"photometric": 0.1, "distil": 0.01, "fusion": 0.01}


@dataclasses.dataclass(frozen=True)
class ReciprocalTask:
    """The section `task`: one of the three stages (spec sections 3 and 4).

    photometric: from the pairs alone (a stereo network; or a monocular one, the row `self` of Table 4). distil: a monocular
    network from the frozen teacher `stereo`. fusion: a stereo network from the frozen teachers `stereo` and `mono`.
    """

    stage: Stage = "photometric"
    alpha: float | None = None  # share of the disparities that two views may differ by; None: the stage's of the paper
    smoothness: float = 0.1  # weight
    occlusion_warmup: int = 0  # first steps in which only what is out of view counts as occluded
    mirror: float = 0.5  # probability that a pair is mirrored, its views exchanged
    colour: float = 0.5  # probability that the networks see other colours, the same for both views
    # What starts the matching where a network begins from nothing; none of it is the paper's (spec section 7).
    search: int = 0  # first steps that also pull the student towards the best match that a search of the images finds
    search_range: float = 64.0  # pixels, the largest disparity that the search tries
    search_scale: int = 2  # it looks at images averaged over so many pixels a side
    image_pyramid: bool = False  # compares each scale's disparity on images of its own size, not at full size
    keep: float = (
        0.0  # photometric: weight of the log-L1, where both views do not agree, to what a frozen teacher `stereo` says
    )
    pseudo: float = 1.0  # BridgeDepth: weight of its supervised losses on its own visible disparities
    bootstrap: int = 0  # BridgeDepth: first steps that also train its matching distribution on the photometric error

    def __post_init__(self) -> None:
        for name in ("mirror", "colour"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"task.{name} = {getattr(self, name)}, expected a probability")
        counts = ("occlusion_warmup", "search", "keep", "pseudo", "bootstrap")
        for name in ("smoothness", *counts, *(("alpha",) if self.alpha is not None else ())):
            if getattr(self, name) < 0:
                raise InputError(f"task.{name} = {getattr(self, name)}, expected 0 or more")
        if self.keep and self.stage != "photometric":
            raise InputError(f"task.keep = {self.keep}: only stage photometric keeps what it cannot see, expected 0")
        if self.search_scale < 1 or self.search_range < self.search_scale:
            raise InputError(
                f"task.search_range = {self.search_range}, task.search_scale = {self.search_scale}: expected at least one level"
            )

    @property
    def occlusion_alpha(self) -> float:
        return ALPHA[self.stage] if self.alpha is None else self.alpha
