"""The depth-to-image generator around its networks: conversion, packing, noise, gradients of the last steps, LoRA."""

import json
from dataclasses import asdict

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from bridgedepth_jax import commands
from bridgedepth_jax.convert import diffusion, flux
from bridgedepth_jax.convert.aesthetic import read_judge
from bridgedepth_jax.convert.pth import write_pth
from bridgedepth_jax.convert.rules.bridge_mde import FLUX
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.clip_vision import ClipVisionConfig
from bridgedepth_jax.networks.diffusion import flow
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, FlowConfig, FluxConfig
from bridgedepth_jax.store.checkpoint import flatten, load_checkpoint
from bridgedepth_jax.store.safetensors import write_safetensors
from bridgedepth_jax.systems.bridge_mde.generator import lora, pipeline
from bridgedepth_jax.systems.bridge_mde.generator.aesthetic import aesthetic_score
from bridgedepth_jax.systems.bridge_mde.generator.config import GeneratorConfig, RewardTask
from bridgedepth_jax.systems.bridge_mde.generator.reward import draw_last, reward_loss, see_depth
from bridgedepth_jax.systems.bridge_mde.manifests import expected_tensors

TRANSFORMER = FluxConfig(
    in_channels=32, out_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
    joint_attention_dim=12, pooled_projection_dim=10, axes_dims_rope=(2, 2, 4),
)  # fmt: skip
VAE = AutoencoderConfig(
    latent_channels=4, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.3611,
    shift_factor=0.1159, quant_conv=False,
)  # fmt: skip
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "shift": 3.0, "base_shift": 0.5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in the diffusers layout, the transformer in two shards of bfloat16; and its tensors by name."""
    folder = tmp_path_factory.mktemp("flux")
    rng = np.random.default_rng(0)
    for part, config in (("transformer", TRANSFORMER.to_diffusers()), ("vae", VAE.to_diffusers()), ("scheduler", SCHEDULER)):
        (folder / part).mkdir()
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (folder / part / name).write_text(json.dumps(config))
    shapes = expected_tensors("flux_depth_dev", TRANSFORMER.to_diffusers())
    tensors = {name: (0.2 * rng.standard_normal(shape)).astype(ml_dtypes.bfloat16) for name, shape in shapes.items()}
    names, table = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        table |= dict.fromkeys(part, file)
        entries = {name: (tensors[name].dtype, tensors[name].shape) for name in part}
        write_safetensors(folder / "transformer" / file, entries, (tensors[name] for name in part), {})
    (folder / "transformer" / flux.INDEX).write_text(json.dumps({"weight_map": table}))
    shapes = {diffusion.name_of(p): diffusion.file_shape(p, s) for p, s in diffusion.expected_shapes(VAE).items()}
    vae = {name: (0.2 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    entries = {name: (value.dtype, value.shape) for name, value in vae.items()}
    write_safetensors(folder / "vae" / f"{flux.STEM}.safetensors", entries, vae.values(), {})
    np.savez(folder / "empty.npz", prompt_embeds=np.ones((1, 5, 12)), pooled_prompt_embeds=np.ones((1, 10)))
    return folder, tensors


def test_a_sharded_folder_converts_to_the_bit(made, tmp_path):
    folder, tensors = made
    commands.main(["convert", "flux-depth", str(folder), str(tmp_path / "out"), "--prompt-embeds", str(folder / "empty.npz")])
    found = load_checkpoint(tmp_path / "out", dtype=None)
    assert found.config == GeneratorConfig(TRANSFORMER, VAE, FlowConfig(), text_tokens=5)
    leaves = flatten(found.params["transformer"])
    assert len(leaves) == len(tensors)
    for path, leaf in leaves.items():
        value = tensors[FLUX.name(path)]
        assert leaf.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal((leaf.T if path.endswith("kernel") else leaf).view(np.uint16), value.view(np.uint16))
    assert found.params["prompt_embeds"].shape == (5, 12) and "Non-Commercial" in found.provenance["licence"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("shard", "00002-of-00002.safetensors: missing"),
        ("truncated", "truncated"),
        ("tensor", "has no tensor x_embedder.bias"),
        ("lost", "1 missing: x_embedder.bias"),
        ("prompt", "expected an .npz with prompt_embeds and pooled_prompt_embeds, or zeros"),
        ("width", r"prompt_embeds has shape \(1, 5, 13\)"),
    ],
)
def test_bad_folders(made, tmp_path, fault, words):
    import shutil

    folder, _ = made
    copy, prompt = tmp_path / "copy", str(folder / "empty.npz")
    shutil.copytree(folder, copy)
    second = copy / "transformer" / "diffusion_pytorch_model-00002-of-00002.safetensors"
    index = json.loads((copy / "transformer" / flux.INDEX).read_text())
    if fault == "shard":
        second.unlink()
    elif fault == "truncated":
        second.write_bytes(second.read_bytes()[:-100])
    elif fault == "tensor":
        table = index["weight_map"]
        table["x_embedder.bias"] = next(file for file in table.values() if file != table["x_embedder.bias"])
    elif fault == "lost":
        del index["weight_map"]["x_embedder.bias"]
    elif fault == "width":
        prompt = str(tmp_path / "wide.npz")
        np.savez(prompt, prompt_embeds=np.ones((1, 5, 13)), pooled_prompt_embeds=np.ones(10))
    else:
        prompt = str(tmp_path / "none.npz")
    (copy / "transformer" / flux.INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=words):
        flux.convert_flux(copy, prompt)
    assert not (tmp_path / "out").exists()


def test_no_prompt_is_refused_and_zeros_must_be_asked_for(made, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        commands.main(["convert", "flux-depth", str(made[0]), str(tmp_path / "out")])
    assert error.value.code == 2 and "--prompt-embeds" in capsys.readouterr().err
    assert not flux.convert_flux(made[0], "zeros").params["prompt_embeds"].any()


def test_packing_is_channels_then_rows_then_columns():
    latent = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3).astype(jnp.float32)
    packed = flow.pack(latent)
    assert packed.shape == (2, 6, 12)
    for token, (row, column) in enumerate((r, c) for r in range(2) for c in range(3)):
        cell = latent[1, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(packed[1, token], np.moveaxis(np.asarray(cell), 2, 0).reshape(-1))
    np.testing.assert_array_equal(flow.unpack(packed, 2, 3), latent)


LEVELS = np.array([1.0, 0.7, 0.4, 0.2, 0.0])


def toy(params, x, told):
    return jnp.sin(params["a"] * x + told) + params["b"]


@pytest.mark.parametrize("last", [0, 1, 2, 4])
@pytest.mark.parametrize("remat", [False, True])
def test_gradients_of_the_last_steps_are_those_of_the_unrolled_loop(last, remat):
    params = {"a": jnp.float32(0.7), "b": jnp.float32(-0.3)}
    noise, told = jnp.array([0.5, -1.2, 2.0]), jnp.arange(4.0)

    def unrolled(params):
        x = noise
        for i in range(4):
            weights = params if i >= 4 - last else jax.lax.stop_gradient(params)
            if i == 4 - last:
                x = jax.lax.stop_gradient(x)
            x = x + (LEVELS[i + 1] - LEVELS[i]) * toy(weights, x, told[i])
        return jnp.sum(x**2)

    ours = lambda params: jnp.sum(flow.sample(toy, params, noise, LEVELS, told, last=last, remat=remat) ** 2)
    (expected, slope), (value, gradient) = jax.value_and_grad(unrolled)(params), jax.value_and_grad(ours)(params)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for name in params:
        np.testing.assert_allclose(gradient[name], slope[name], rtol=1e-5, atol=1e-7)
        assert (slope[name] == 0) == (last == 0)


def test_a_random_cutoff_is_the_same_gradient():
    params, noise = {"a": jnp.float32(0.7), "b": jnp.float32(-0.3)}, jnp.array([0.5, -1.2])
    told = jnp.arange(4.0)
    loss = lambda params, last: jnp.sum(flow.sample(toy, params, noise, LEVELS, told, last=last) ** 2)
    for last in (1, 3):
        fixed, drawn = jax.grad(loss)(params, last), jax.jit(jax.grad(loss))(params, jnp.int32(last))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), fixed, drawn)


def test_noise_depends_on_seed_path_and_draw_alone():
    draw = lambda *key: np.asarray(pipeline.draw_noise(*key, (2, 3, 4)))
    first = draw(0, "a/b.npy", 1)
    np.testing.assert_array_equal(first, draw(0, "a/b.npy", 1))
    for other in ((1, "a/b.npy", 1), (0, "a/c.npy", 1), (0, "a/b.npy", 2)):
        assert np.abs(first - draw(*other)).max() > 0.01


def test_control_and_sides():
    control = pipeline.control_image(jnp.array([[[1.0, 3.0], [2.0, 1.0]], [[5.0, 5.0], [5.0, 5.0]]]))
    np.testing.assert_allclose(control[0, ..., 2], [[-1, 1], [0, -1]])
    np.testing.assert_allclose(control[1], -1)
    pipeline.check_side(32, 48, 16, "x")
    with pytest.raises(InputError, match=r"x\.npy: 40x48, expected sides that are multiples of 16"):
        pipeline.check_side(40, 48, 16, "x.npy")
    with pytest.raises(InputError, match=r"task.last = 9 of 8 steps"):
        RewardTask(last=9)


def test_lora_changes_nothing_at_first_and_merges():
    shapes = {"transformer_blocks_0/attn/to_q/kernel": (6, 8), "transformer_blocks_0/ff/net_2/kernel": (8, 6)}
    from bridgedepth_jax.store.checkpoint import unflatten

    base = unflatten({name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    changes = lora.init_lora(base, jax.random.key(0), rank=2)
    assert list(flatten(changes)) == [f"transformer_blocks_0/attn/to_q/kernel/{part}" for part in "ab"]
    jax.tree.map(np.testing.assert_array_equal, lora.merge_lora(base, changes), base)
    a = changes["transformer_blocks_0"]["attn"]["to_q"]["kernel"]
    a["b"] = jnp.ones((2, 8))
    merged = flatten(lora.merge_lora(base, changes, alpha=2))
    np.testing.assert_allclose(merged["transformer_blocks_0/attn/to_q/kernel"], 1 + a["a"] @ a["b"], rtol=1e-6)
    np.testing.assert_array_equal(merged["transformer_blocks_0/ff/net_2/kernel"], 1)


def test_files_of_the_aesthetic_reward(tmp_path):
    """Names as published, the text tower beside them; every tensor arrives, and one that is missing is named."""
    config = ClipVisionConfig(
        image_size=28, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, projection_dim=8
    )
    rng = np.random.default_rng(0)
    tower = {
        name: rng.normal(size=s).astype(np.float32) for name, s in expected_tensors("clip_vit_l14", asdict(config)).items()
    }
    layers = {
        name: rng.normal(size=s).astype(np.float32) for name, s in expected_tensors("aesthetic_mlp", {"width": 8}).items()
    }
    others = {"logit_scale": np.ones((), np.float32), "text_model.final_layer_norm.weight": np.ones(4, np.float32)}
    clip, mlp = tmp_path / "model.safetensors", tmp_path / "mlp.pth"

    def write(state):
        write_safetensors(clip, {name: (value.dtype, value.shape) for name, value in state.items()}, state.values(), {})

    write(tower | others)
    write_pth(mlp, layers)
    found = read_judge(clip, mlp, config)
    np.testing.assert_array_equal(found.mlp["layers_0"]["kernel"].T, layers["layers.0.weight"])
    assert sum(leaf.size for leaf in flatten(found.clip).values()) == sum(value.size for value in tower.values())
    image = jnp.asarray(rng.uniform(-1, 1, (2, 40, 30, 3)), jnp.float32)
    assert np.isfinite(aesthetic_score(found.clip, found.mlp, image, config)).all()
    write({name: value for name, value in tower.items() if name != "visual_projection.weight"})
    with pytest.raises(InputError, match=r"model.safetensors: .*1 missing: visual_projection.weight"):
        read_judge(clip, mlp, config)


@pytest.mark.slow
def test_an_update_by_rewards(made):
    """The loop's loss through all of a tiny generator: its weights, its gradient with and without remat, low-rank changes."""
    config = GeneratorConfig(TRANSFORMER, VAE, FlowConfig(), text_tokens=5, steps=3)
    weights = flux.convert_flux(made[0], "zeros").params
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)
    source, key = jax.random.uniform(jax.random.key(0), (1, 8, 12)), jax.random.key(1)
    noise = jax.random.normal(key, (1, 4, 6, 4))
    brightness = lambda image: jnp.mean(image, axis=(1, 2, 3))
    dark = lambda image: jnp.mean(see_depth(lambda x: 1 - jnp.mean(x, axis=-1) / 255, image, (8, 12)), axis=0, keepdims=True)

    def update(task, params, merge):
        made = pipeline.make_generator(config, remat=task.remat)

        def generate(params, source, noise, *, last):
            control = flow.pack(made.encode(weights, pipeline.control_image(source)))
            return made.decode(weights, made.sample({**weights, "transformer": merge(params)}, control, noise, last=last))

        loss = reward_loss(task, generate, dark, brightness)
        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params, source, noise, key)

    base = weights["transformer"]
    (value, (found, image)), plain = update(RewardTask(steps=3, last=2, remat=False), base, lambda p: p)
    np.testing.assert_allclose(value, 0.9 * found.depth_loss - 0.1 * found.aesthetic, rtol=1e-6)
    np.testing.assert_allclose(found.aesthetic, brightness(image)[0], rtol=1e-5)
    _, again = update(RewardTask(steps=3, last=2), base, lambda p: p)
    most = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain))
    assert most > 0
    for name, leaf in flatten(plain).items():
        assert jnp.abs(leaf - flatten(again)[name]).max() <= 1e-6 * most, name
    changes = lora.init_lora(base, key, rank=2)
    (same, _), low = update(RewardTask(steps=3, last=2), changes, lambda p: lora.merge_lora(base, p))
    np.testing.assert_allclose(same, value, rtol=1e-6)
    assert all(bool(jnp.any(leaf)) == name.endswith("/b") for name, leaf in flatten(low).items())
    drawn = {int(draw_last(RewardTask(steps=3, last="random"), jax.random.key(i))) for i in range(20)}
    assert drawn == {1, 2, 3}


def test_images_of_a_tiny_generator(made, tmp_path, monkeypatch):
    """By the script: two draws a map, the same whatever the shards."""
    import runpy
    import sys
    from pathlib import Path

    folder, _ = made
    checkpoint = tmp_path / "checkpoint"
    commands.main(["convert", "flux-depth", str(folder), str(checkpoint), "--prompt-embeds", str(folder / "empty.npz")])
    (tmp_path / "depth").mkdir()
    for i in range(2):
        np.save(tmp_path / "depth" / f"{i}.npy", np.random.default_rng(i).uniform(1, 9, (8, 12)))
    script = str(Path(__file__).parents[1] / "scripts" / "generate.py")

    def generate(out, *more):
        words = ["--checkpoint", str(checkpoint), "--depth", str(tmp_path / "depth"), "--out", str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", [script, *words, "--per-depth", "2", "--steps", "2", *more])
        runpy.run_path(script, run_name="__main__")
        return {path.name: path.read_bytes() for path in sorted((tmp_path / out).glob("*.png"))}

    whole = generate("one")
    assert list(whole) == ["0_0.png", "0_1.png", "1_0.png", "1_1.png"] and len(set(whole.values())) == 4
    generate("two", "--shard", "0/2")
    assert generate("two", "--shard", "1/2") == whole
    np.save(tmp_path / "depth" / "2.npy", np.ones((9, 12)))
    with pytest.raises(SystemExit) as error:
        generate("three")
    assert error.value.code == 2


def test_bytes_a_device_of_full_fine_tuning():
    """18 bytes a parameter, by shapes alone: 13.4 GB on each of 16 devices, 3.3 on each of 64."""
    for devices, gigabytes in ((16, 13.4), (64, 3.35)):
        found = flux.bytes_a_device(GeneratorConfig(), devices)
        assert abs(sum(found.values()) / 1e9 - gigabytes) < 0.05
