"""What a training run is made of, whatever system it trains: frozen dataclasses with BridgeDepth's published defaults."""

import dataclasses
from typing import Literal

from bridgedepth_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class SolverConfig:
    """Optimiser and schedule. What is learnt, and from which losses, is the system's `task`."""

    max_iter: int = 300_000  # optimiser steps
    batch_size: int = 8  # pairs a step, over all devices and processes
    accumulate: int = 1  # the batch goes through in so many parts; changes memory, not the result
    base_lr: float = 5e-4  # peak of the schedule
    schedule: Literal["one_cycle", "constant", "drop", "linear", "polynomial"] = "one_cycle"  # see training/schedule.py
    weight_decay: float = 1e-5  # decoupled, of everything without a row of its own
    weight_decay_norm: float = 1e-5  # of norm scales and shifts
    grad_clip: float | None = 1.0  # largest global gradient norm; None: any
    average: float = 0.0  # decay of the running average of the weights (0.999), which is evaluated and exported; 0: none
    max_bad_steps: int = 20  # stop after so many steps in a row without a finite loss and gradient
    no_resume_optimizer: bool = True  # starting from a training run of ours: leave its optimiser and step behind
    start_with: str = ""  # starting from a checkpoint: take only parameters whose path begins so, "pretrained/"; "": all
    strict_resume: bool = True  # starting from a checkpoint: every parameter must be in it, and fit

    def __post_init__(self) -> None:
        for name in ("max_iter", "batch_size", "accumulate", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"solver.{name} = {getattr(self, name)}, expected at least 1")
        for name in ("base_lr", "grad_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"solver.{name} = {value}, expected more than 0")
        if not 0 <= self.average < 1:
            raise InputError(f"solver.average = {self.average}, expected 0, or a decay below 1")
        if self.batch_size % self.accumulate:
            raise InputError(f"solver.batch_size {self.batch_size} is not a multiple of solver.accumulate {self.accumulate}")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Devices, checkpoints and logs: nothing here changes what is learnt."""

    fsdp: int = 1  # devices that share one copy of parameters and optimiser; the others repeat it
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"  # how the frozen monocular branch is held
    latest_every: int = 1000  # steps between checkpoints of which `keep` are kept
    keep: int = 2
    milestone_every: int = 100_000  # steps between checkpoints kept for ever
    images_every: int = 1000  # steps between pictures of prediction and error; 0: none
    print_every: int = 20  # steps between progress lines
    health_every: int = 0  # steps between sizes of activations and shares of the gradient in the log; 0: none
    profile_at: int = 0  # step at which a trace of 3 steps is written to WORKDIR/profile; 0: none

    def __post_init__(self) -> None:
        for name in ("fsdp", "latest_every", "keep", "milestone_every", "print_every"):
            if getattr(self, name) < 1:
                raise InputError(f"run.{name} = {getattr(self, name)}, expected at least 1")
        if self.health_every < 0:
            raise InputError(f"run.health_every = {self.health_every}, expected 0 or more")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation during training, and by `bridgedepth evaluate`: each data set by the paper's protocol for it."""

    datasets: tuple[str, ...] = ("things",)
    every: int = 20_000  # steps; 0: only at the end
    limit: int = 0  # pairs of each data set during training; 0: all
    batch: int = 1  # images at once and process
