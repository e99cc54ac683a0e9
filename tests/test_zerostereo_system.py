"""Fine-tuning of the inpainting network as the loop sees it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, UNetConfig
from bridgedepth_jax.ops.forward_warp import forward_warp
from bridgedepth_jax.system import Rows, find_system
from bridgedepth_jax.systems.zerostereo.config import InpaintingTask, StereoGenConfig
from bridgedepth_jax.training.config import SolverConfig
from bridgedepth_jax.training.configfile import read_config
from bridgedepth_jax.training.experiment import Experiment

TINY = StereoGenConfig(
    UNetConfig(112, 48, (8,), (False,), 1, (1,), cross_attention_dim=4, norm_num_groups=4),
    None,
)
SYSTEM = find_system("zerostereo")


def batch_of(rows=4, height=16, width=32):
    rng = np.random.default_rng(0)
    return {
        "left": jnp.asarray(rng.integers(0, 256, (rows, height, width, 3)), jnp.uint8),
        "right": jnp.asarray(rng.integers(0, 256, (rows, height, width, 3)), jnp.uint8),
        "disparity": jnp.asarray(rng.integers(0, 1500, (rows, height, width)) / 256, jnp.float32),
        "valid": jnp.asarray(rng.random((rows, height, width)) < 0.9),
    }


def rows_of(numbers, total):
    keys = {"time": jax.random.key(1), "noise": jax.random.key(2)}
    return Rows(jnp.asarray(numbers), total, jnp.int32(0), keys, lambda name, value: value, ())


@pytest.fixture(scope="module")
def weights():
    return jax.jit(functools.partial(SYSTEM.init, TINY))(jax.random.key(0))


def test_parts_of_a_batch_add_up(weights):
    objective = SYSTEM.objective(TINY, InpaintingTask(), {})
    batch = batch_of()
    counts = objective.count(batch)
    step = jax.jit(lambda w, b, n: objective.loss(w, {}, b, counts, rows_of(n, 4)))
    whole, result = step(weights, batch, jnp.arange(4))
    parts = [step(weights, {k: v[i : i + 2] for k, v in batch.items()}, jnp.arange(i, i + 2)) for i in (0, 2)]
    np.testing.assert_allclose(whole, sum(value for value, _ in parts), rtol=1e-5)
    np.testing.assert_allclose(result.metrics["holes"], sum(part.metrics["holes"] for _, part in parts), rtol=1e-5)
    assert 0.5 < float(whole) < 2  # of a network that says nothing yet: the noise's variance
    warped = forward_warp(np.asarray(batch["left"][0]), np.asarray(batch["disparity"][0]), np.asarray(batch["valid"][0]))
    np.testing.assert_allclose(result.shown[0], warped.right, atol=1e-2)


def test_only_the_unet_is_trained():
    config = StereoGenConfig(
        dataclasses.replace(TINY.unet, in_channels=9, out_channels=4),
        AutoencoderConfig(block_out_channels=(4,), norm_num_groups=4),
    )
    objective = SYSTEM.objective(config, InpaintingTask(), {})
    shapes = jax.eval_shape(functools.partial(SYSTEM.init, config), jax.random.key(0))
    assert set(shapes) == {"unet", "vae", "empty_prompt"}
    assert objective.trained("unet/conv_in/kernel") and not objective.trained("vae/encoder/conv_in/kernel")
    assert not objective.trained("empty_prompt")
    (group,) = objective.groups(SolverConfig(weight_decay=0.01))
    assert group.decay == 0.01


@pytest.mark.parametrize("name", ["inpaint_sd2", "inpaint_nano"])
def test_configs(name):
    experiment = Experiment.from_dict(read_config(f"configs/zerostereo/{name}.py").to_dict())
    assert experiment.system == "zerostereo" and experiment.solver.weight_decay == 0.01
    shapes = jax.eval_shape(functools.partial(SYSTEM.init, experiment.model), jax.random.key(0))
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes["unet"]))
    assert size == 865_925_124 if name == "inpaint_sd2" else size <= 2_000_000
    colour = experiment.data.augment
    assert colour.asymmetric_probability == 0 and colour.eraser_probability == 0 and not colour.y_jitter


def test_channels_that_do_not_fit():
    with pytest.raises(ValueError, match="unet channels 9 in, 4 out, expected 112 and 48"):
        StereoGenConfig(UNetConfig(), None)
