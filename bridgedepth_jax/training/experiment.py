"""An experiment: all a training run is made of. The one crossing point from `configs/*.py` to frozen dataclasses."""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Self

import jax

from bridgedepth_jax.data.pipeline import DataConfig
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.systems.bridgedepth import losses
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.systems.bridgedepth.network import MULTIPLE, init_params
from bridgedepth_jax.training.config import EvalConfig, RunConfig, SolverConfig, build
from bridgedepth_jax.training.state import TrainState, make_state, split


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Sections of a config file; `configs/default.py` explains them."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    run: RunConfig = field(default_factory=RunConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    seed: int = 326
    init: str = ""  # what a fresh run starts from, unless --init says so: a checkpoint folder, a published name, random-mono

    def __post_init__(self) -> None:
        data = dataclasses.replace(self.data, batch_size=self.solver.batch_size, seed=self.seed)
        object.__setattr__(self, "data", data)
        losses.weights(self.model, self.solver)  # raises if their number is wrong
        if any(side % MULTIPLE for side in data.crop):
            raise InputError(f"data.crop = {data.crop}, expected multiples of {MULTIPLE}")

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Self:
        """From a config or the JSON of one. InputError names an unknown key, a wrong type, or values that do not fit."""
        return build(cls, tree, "config")

    def to_dict(self) -> dict[str, Any]:
        """Plain tree of JSON values; what follows from another value is left out."""
        tree = _plain(dataclasses.asdict(self))
        del tree["data"]["batch_size"], tree["data"]["seed"]
        return tree

    def abstract_params(self) -> dict[str, Any]:
        """Shapes and dtypes of all parameters."""
        return _abstract_params(self.model)

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of the training state."""
        trained, _ = split(self.abstract_params(), self.solver)
        return jax.eval_shape(lambda params: make_state(params, self.solver, self.seed), trained)


@functools.cache
def _abstract_params(model: ModelConfig) -> dict[str, Any]:
    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
