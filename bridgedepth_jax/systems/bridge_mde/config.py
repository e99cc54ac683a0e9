"""What is learnt of single images (spec `mono-training.md` sections 1 and 3). The network is `networks.config.DepthConfig`."""

import dataclasses

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.config import DepthConfig


@dataclasses.dataclass(frozen=True)
class MonoTask:
    """The section `task`. Which loss it is follows from the head: relative ssi and gm, metric and scale SiLog."""

    trim: int = 10  # per cent of a pseudo-labelled image's valid pixels that are left out; ground truth: none
    renormalise: int = 0  # times that scale and shift are found again among the kept pixels (2 against far outliers)
    trim_gradient: bool = True  # whether the gradient term leaves them out too
    ssi: float = 1.0  # weights
    gm: float = 4.0
    encoder_rate: float = 0.1  # of the learning rate, for `pretrained/`

    def __post_init__(self) -> None:
        if not 0 <= self.trim < 100:
            raise InputError(f"task.trim = {self.trim}, expected per cent, 0 to 99")
        for name in ("renormalise", "ssi", "gm", "encoder_rate"):
            if getattr(self, name) < 0:
                raise InputError(f"task.{name} = {getattr(self, name)}, expected 0 or more")


def nano() -> DepthConfig:
    """1 M parameters: four blocks of width 128, all of them read, for 112x140 pixels."""
    return DepthConfig(
        "nano", dim=128, depth=4, heads=4, taps=(0, 1, 2, 3), pos_grid=8, features=32, out_channels=(24, 48, 96, 96)
    )
