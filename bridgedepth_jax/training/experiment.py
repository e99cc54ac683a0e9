"""An experiment: all a training run is made of. The one crossing point from `configs/` to frozen dataclasses."""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Self

import jax

from bridgedepth_jax.build import build, plain
from bridgedepth_jax.data.pipeline import DERIVED, DataConfig
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.system import DEFAULT, Objective, System, Teacher, Weights, find_system
from bridgedepth_jax.training import optimizer
from bridgedepth_jax.training.config import EvalConfig, RunConfig, SolverConfig
from bridgedepth_jax.training.step import TrainState, make_state, split


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Sections of a config file, `configs/default.py`. `model` and `task` are what the system makes of them."""

    system: str = DEFAULT  # what is trained: a name of `bridgedepth_jax.system.SYSTEMS`, or MODULE:NAME of a System
    model: Any = None  # the network: the system's config, its defaults if None
    task: Any = None  # what is learnt and from which losses: the system's task, its defaults if None
    data: DataConfig = field(default_factory=DataConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    run: RunConfig = field(default_factory=RunConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    seed: int = 326  # of initial weights, data order, augmentation and random draws
    init: str = ""  # what a fresh run starts from, unless --init says so: a checkpoint folder, a published name, random
    teachers: tuple[tuple[str, str], ...] = ()  # (name, checkpoint): frozen networks that the task asks for

    def __post_init__(self) -> None:
        system = self.how
        if system.task is None or system.objective is None:
            raise InputError(f"system {self.system} is not trained on its own, expected one with a task")
        for name, kind in (("model", system.config), ("task", system.task)):
            value = getattr(self, name)
            value = kind() if value is None else value
            if not isinstance(value, kind):
                raise InputError(f"{name} is a {type(value).__name__}, expected {kind.__name__} of system {self.system}")
            object.__setattr__(self, name, value)
        extras = system.extras(self.task) if system.extras else ()
        data = dataclasses.replace(self.data, batch_size=self.solver.batch_size, seed=self.seed, extras=extras)
        object.__setattr__(self, "data", data)
        if any(side % system.multiple for side in data.crop):
            raise InputError(f"data.crop = {data.crop}, expected multiples of {system.multiple}")
        if system.collections and self.solver.accumulate > 1:
            raise InputError(
                f"solver.accumulate = {self.solver.accumulate}: {', '.join(system.collections)} of {self.system} are statistics"
                " of the whole batch, which its parts do not know; expected 1"
            )
        if system.check is not None:
            system.check(self.model, self.task)

    @property
    def how(self) -> System:
        """The system that this experiment trains."""
        return find_system(self.system)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Self:
        """From a config or the JSON of one. InputError names an unknown key, a wrong type, or values that do not fit."""
        system = find_system(tree.get("system", DEFAULT))
        tree = moved(tree, system.moved)
        kinds = {"model": system.config, "task": system.task}
        sections = {name: build(kind, tree[name], f"config.{name}") for name, kind in kinds.items() if kind and name in tree}
        return build(cls, {**tree, **sections}, "config")

    def to_dict(self) -> dict[str, Any]:
        """Plain tree of JSON values; what follows from another value is left out."""
        tree = plain(self)
        for name in DERIVED:
            del tree["data"][name]
        return tree

    def objective(self, teachers: Mapping[str, Teacher] | None = None) -> Objective:
        """What is minimised; `teachers` say what the networks in `self.teachers` are."""
        assert self.how.objective is not None  # checked above
        return self.how.objective(self.model, self.task, teachers or {})

    def abstract_weights(self) -> Weights:
        """Shapes and dtypes of all weights of the network."""
        return _abstract_weights(self.system, self.model)

    def begin(self, objective: Objective, weights: Weights) -> tuple[TrainState, Weights]:
        """(first state, frozen parameters) of a run that starts from `weights`."""
        trained, frozen, collections = split(weights, objective.trained, self.how.collections)
        update = optimizer.make_optimizer(objective.groups(self.solver))
        return make_state(trained, self.solver, self.seed, update, collections), frozen

    def abstract_state(self, objective: Objective) -> tuple[TrainState, Weights]:
        """Shapes and dtypes of what `begin` gives."""
        return jax.eval_shape(lambda weights: self.begin(objective, weights), self.abstract_weights())


def moved(tree: Mapping[str, Any], table: Mapping[str, str]) -> dict[str, Any]:
    """A config whose keys are where they are now: those of the table at their old place go to their new one."""
    tree = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    for old, new in table.items():
        (section, key), (target, name) = old.split("."), new.split(".")
        if isinstance(tree.get(section), dict) and key in tree[section]:
            tree.setdefault(target, {})[name] = tree[section].pop(key)
    return tree


@functools.cache
def _abstract_weights(system: str, model: Any) -> Weights:
    return jax.eval_shape(lambda key: find_system(system).init(model, key), jax.random.key(0))
