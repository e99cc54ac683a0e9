"""What a training run is made of, beside the model and the data: frozen dataclasses with the original's defaults.

`build` turns a plain tree (an `ml_collections` config, JSON) into any of our config dataclasses and checks keys and types.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from bridgedepth_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class SolverConfig:
    """Optimiser, schedule and losses (spec `training.md`)."""

    max_iter: int = 300_000  # optimiser steps
    batch_size: int = 8  # pairs a step, over all devices and processes
    accumulate: int = 1  # the batch goes through in so many parts; changes memory, not the result
    base_lr: float = 5e-4  # peak of the one-cycle schedule
    weight_decay: float = 1e-5  # decoupled, of everything without a row of its own
    weight_decay_norm: float = 1e-5  # of norm scales and shifts
    backbone_weight_decay: float = 1e-5  # of stereo_encoder.backbone
    grad_clip: float = 1.0  # largest global gradient norm
    train_mono: bool = False  # train the monocular branch too
    mono_rate: float = 0.1  # then: factor on its learning rate
    loss_type: Literal["L1", "SMOOTH_L1"] = "L1"
    max_disp: int = 192  # pixels; ground truth from here on counts as unknown
    loss_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.4, 1.4, 1.4, 1.4, 1.6, 2.0, 2.0)  # coarse outputs, then fine ones
    max_bad_steps: int = 20  # stop after so many steps in a row without a finite loss and gradient
    no_resume_optimizer: bool = True  # starting from a training run of ours: leave its optimiser and step behind
    strict_resume: bool = True  # starting from a checkpoint: every parameter must be in it, and fit

    def __post_init__(self) -> None:
        for name in ("max_iter", "batch_size", "accumulate", "max_disp", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"solver.{name} = {getattr(self, name)}, expected at least 1")
        for name in ("base_lr", "grad_clip"):
            if not getattr(self, name) > 0:
                raise InputError(f"solver.{name} = {getattr(self, name)}, expected more than 0")
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
    profile_at: int = 0  # step at which a trace of 3 steps is written to WORKDIR/profile; 0: none

    def __post_init__(self) -> None:
        for name in ("fsdp", "latest_every", "keep", "milestone_every", "print_every"):
            if getattr(self, name) < 1:
                raise InputError(f"run.{name} = {getattr(self, name)}, expected at least 1")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation during training, and by `evaluate.py`: each data set by the paper's protocol for it."""

    datasets: tuple[str, ...] = ("things",)
    every: int = 20_000  # steps; 0: only at the end
    limit: int = 0  # pairs of each data set during training; 0: all
    batch: int = 1  # images at once and process


def build(cls: Any, tree: Any, where: str) -> Any:
    """An instance of the dataclass `cls` from a mapping. InputError names an unknown key or a value of another type."""
    if not isinstance(tree, Mapping):
        raise InputError(f"{where} = {tree!r}, expected a mapping")
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(tree) - fields):
        raise InputError(f"unknown key {where}.{unknown[0]}, expected one of {', '.join(sorted(fields))}")
    values = {name: _value(hints[name], value, f"{where}.{name}") for name, value in tree.items()}
    try:
        return cls(**values)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)
    if origin is Literal and value in parts:
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _value(next(part for part in parts if part is not types.NoneType), value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else list(parts)
        if len(kinds) == len(value):
            return tuple(_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is Any or (origin is None and isinstance(kind, type) and type(value) is kind):
        return value
    raise InputError(f"{where} = {value!r}, expected {kind.__name__ if isinstance(kind, type) and not parts else kind}")
