"""Optimiser and schedule against PyTorch's own numbers."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from bridgedepth_jax.systems.bridgedepth.losses import StereoTask
from bridgedepth_jax.systems.bridgedepth.system import groups
from bridgedepth_jax.training import optimizer
from bridgedepth_jax.training.config import SolverConfig
from bridgedepth_jax.training.schedule import one_cycle

REFERENCE = Path(__file__).parent / "reference" / "train"


@pytest.mark.parametrize("case", list(json.loads((REFERENCE / "schedule.json").read_text()).items()), ids=lambda c: c[0])
def test_schedule(case):
    settings = dict(item.split("=") for item in case[0].split(","))
    for step, rate in case[1].items():
        ours = one_cycle(int(step), float(settings["base_lr"]), int(settings["max_iter"]))
        assert float(ours) == pytest.approx(rate, rel=1e-6), step


def _names(torch_name: str) -> tuple[str, ...]:
    """Path of a parameter whose layout does not matter to the optimiser."""
    name = torch_name.replace("layers.0", "layers_0").replace("layers.2", "layers_2").replace("norms.0", "norms_0")
    is_norm = name.rsplit(".", 2)[-2].startswith("norm")
    return tuple((name[: -len("weight")] + ("scale" if is_norm else "kernel") if name.endswith("weight") else name).split("."))


def test_five_steps_equal_torch():
    golden, data = json.loads((REFERENCE / "optimizer.json").read_text()), np.load(REFERENCE / "optimizer.npz")

    def tree(prefix):
        return traverse_util.unflatten_dict({_names(name): data[f"{prefix}|{name}"] for name in golden["groups"]})

    decay = golden["weight_decay"]
    solver = SolverConfig(
        max_iter=golden["max_iter"],
        base_lr=golden["base_lr"],
        grad_clip=golden["grad_clip"],
        weight_decay=decay["other"],
        weight_decay_norm=decay["norm"],
    )
    table = groups(StereoTask(backbone_weight_decay=decay["backbone"]), solver)
    params = tree("init")
    update = optimizer.make_optimizer(table)
    state = update.init(params)
    for i, step in enumerate(golden["steps"]):
        gradients, norm = optimizer.clip(tree(f"grad{i}"), solver.grad_clip)
        rate = one_cycle(i, solver.base_lr, solver.max_iter)
        assert float(norm) == pytest.approx(step["grad_norm"], rel=1e-6)
        assert float(rate) == pytest.approx(step["lr"], rel=1e-6)
        updates, state = update.update(gradients, state, params, rate=rate)
        params = jax.tree.map(jnp.add, params, updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), params, tree(f"after{i}"))


def test_moments_of_half_precision_parameters_are_float32():
    update = optimizer.make_optimizer(groups(StereoTask(), SolverConfig()))
    params = {"refine_head": {"bias": jnp.zeros(4, jnp.bfloat16)}}
    state = update.init(params)
    updates, state = update.update(params, state, params, rate=jnp.float32(1))
    assert {leaf.dtype for leaf in jax.tree.leaves((state.mu, state.nu))} == {jnp.dtype("float32")}
    assert updates["refine_head"]["bias"].dtype == jnp.bfloat16


def test_each_parameter_needs_exactly_one_group():
    table = groups(StereoTask(), SolverConfig())
    params = {"a": {"kernel": 0}, "stereo_encoder": {"backbone": {"norm1": {"scale": 0}}}, "mono": {"norm": {"bias": 0}}}
    names = jax.tree.map(lambda g: g.name, optimizer.assign(params, table), is_leaf=lambda x: isinstance(x, optimizer.Group))
    assert names == {"a": {"kernel": "other"}, "stereo_encoder": {"backbone": {"norm1": {"scale": "backbone"}}},
                     "mono": {"norm": {"bias": "mono"}}}  # fmt: skip
    with pytest.raises(ValueError, match=r"a/kernel: \['other', 'again'\]"):
        optimizer.assign(params, (*table, optimizer.Group("again", "a/", 0.0)))
    with pytest.raises(ValueError, match=r"a/kernel: \[\]"):
        optimizer.assign(params, table[:3])
