"""The diffusion floor: golden numbers of diffusers at the reference's tolerances, and what the goldens do not reach."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.diffusion import attention, parity, schedule
from bridgedepth_jax.networks.diffusion.autoencoder import AutoencoderKL, decode_tiled, encode_tiled
from bridgedepth_jax.networks.diffusion.config import AutoencoderConfig, ScheduleConfig, UNetConfig
from bridgedepth_jax.networks.diffusion.inpainting import (
    Basis,
    crop_edges,
    fill_rows,
    make_inpainter,
    pad_edges,
    space_to_depth_codec,
)
from bridgedepth_jax.networks.diffusion.unet import UNet2DConditionModel
from bridgedepth_jax.systems.zerostereo.fillers import Scene, row

TESTS = Path(__file__).parent
GOLDEN = TESTS / "reference" / "diffusion"
TINY = UNetConfig(
    in_channels=112,
    out_channels=48,
    block_out_channels=(16, 32),
    cross_attention=(False, True),
    layers_per_block=1,
    attention_heads=(2, 2),
    cross_attention_dim=8,
    norm_num_groups=8,
)


def check(kind: str, *, float64: bool) -> None:
    rows = list(parity.compare(TESTS, GOLDEN, kinds=[kind], float64=float64))
    assert rows
    assert not [row for row in rows if not row.ok]


@pytest.mark.parametrize("kind", ["unet", "vae", "schedulers", "clip"])
def test_golden(kind):
    check(kind, float64=False)


def test_golden_schedulers_float64():
    with jax.enable_x64(True):
        check("schedulers", float64=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unet", "vae", "inpainting"])
def test_golden_float64(kind):
    with jax.enable_x64(True):
        check(kind, float64=True)


@pytest.mark.slow
def test_golden_inpainting():
    check("inpainting", float64=False)


def draw(shapes, scale=0.1):
    """Parameters of given shapes, drawn without compiling a network's init."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.standard_normal(leaf.shape), leaf.dtype), shapes)


def test_attention_in_chunks_equals_the_whole(monkeypatch):
    """And no array of the compiled program holds the logits of all heads."""
    x = jax.random.normal(jax.random.key(0), (1, 100, 16))
    module = attention.Attention(heads=4)
    params = module.init(jax.random.key(1), x)
    run = lambda: jax.jit(module.apply).lower(params, x)
    whole, text = np.asarray(run().compile()(params, x)), run().as_text()
    assert "1x4x100x100xf32" in text
    monkeypatch.setattr(attention, "MAX_LOGITS", 100 * 100)
    assert "1x4x100x100xf32" not in run().as_text()
    np.testing.assert_allclose(np.asarray(jax.jit(module.apply)(params, x)), whole, atol=2e-6)


def test_tiles_of_a_local_function_equal_the_whole():
    """Pixels averaged in cells and repeated again: overlaps agree, so blending changes nothing; any size, slivers too."""
    shrink = lambda x: x.reshape(*x.shape[:1], x.shape[1] // 8, 8, x.shape[2] // 8, 8, -1).mean((2, 4))
    grow = lambda z: jnp.repeat(jnp.repeat(z, 8, 1), 8, 2)
    image = jax.random.normal(jax.random.key(0), (1, 72, 104, 3))
    latent = encode_tiled(shrink, image, 32)
    np.testing.assert_allclose(latent, shrink(image), atol=1e-6)
    np.testing.assert_allclose(decode_tiled(grow, latent, 32), grow(latent), atol=1e-6)


def test_fifty_steps_compile_the_network_once():
    traced = []

    def predict(x, t):
        traced.append(t)
        return x * (0.5 + t / 2000)

    for sampler in ("ddim", "pndm", "euler"):
        traced.clear()
        config = ScheduleConfig(sampler=sampler)
        x = jax.jit(lambda x, config=config: schedule.sample(predict, x, config, 50))(jnp.ones((1, 4)))
        assert len(traced) == 1 and np.isfinite(x).all()


@pytest.mark.parametrize("config", [
    ScheduleConfig(),
    ScheduleConfig("pndm"),
    ScheduleConfig("euler", spacing="trailing"),
    ScheduleConfig(prediction="v_prediction", spacing="trailing", zero_snr=True),
    ScheduleConfig(prediction="sample"),
])  # fmt: skip
def test_a_network_that_knows_the_answer_gets_there(config):
    """The prediction that is exact for one clean latent leads to it, from any noise."""
    clean = jax.random.normal(jax.random.key(1), (2, 5)) * 0.5
    table = jnp.asarray(schedule.alphas_cumprod(config))

    def predict(x, t):
        a = jnp.interp(t.astype(jnp.float32), jnp.arange(1000.0), table)
        signal, rest = jnp.sqrt(a), jnp.sqrt(1 - a)
        noise = (x - signal * clean) / rest
        return {"epsilon": noise, "sample": clean, "v_prediction": signal * noise - rest * clean}[config.prediction]

    found = jax.jit(lambda x: schedule.sample(predict, x, config, 20))(jax.random.normal(jax.random.key(2), (2, 5)))
    last = np.sqrt(1 - float(table[0])) * 4  # without set_alpha_to_one the last step leaves the first noise level
    assert np.abs(np.asarray(found) - np.asarray(clean)).max() < (1e-3 if config.sampler == "euler" else last)


def test_a_sample_does_not_depend_on_its_batch():
    model = UNet2DConditionModel(TINY)
    x = jax.random.normal(jax.random.key(0), (3, 5, 7, 112))
    t, context = jnp.array([1.0, 500.5, 999.0]), jnp.zeros((1, 2, 8))
    params = draw(jax.eval_shape(model.init, jax.random.key(1), x, t, context))
    whole = jax.jit(model.apply)(params, x, t, context)
    alone = jax.jit(model.apply)(params, x[1:2], t[1:2], context)
    assert whole.shape == (3, 5, 7, 48)
    np.testing.assert_allclose(whole[1:2], alone, atol=2e-5)
    half = dataclasses.replace(TINY, dtype="bfloat16")
    low = jax.jit(UNet2DConditionModel(half).apply)(params, x, t, context)
    assert low.dtype == jnp.float32
    assert np.abs(np.asarray(low - whole)).max() < 0.1 * np.abs(np.asarray(whole)).max()


def test_rows_are_filled_as_by_the_filler_and_a_difference_is_undone():
    rng = np.random.default_rng(0)
    image, hole = rng.uniform(-1, 1, (2, 9, 14, 3)).astype(np.float32), rng.random((2, 9, 14)) < 0.4
    hole[0, 3], hole[1, :, -5:] = True, True
    filled = np.asarray(jax.jit(fill_rows)(jnp.asarray(image), jnp.asarray(hole, jnp.float32)))
    for number in range(2):
        levels = np.where(hole[number][..., None], 0, image[number] * 127.5 + 127.5)
        scene = Scene(levels, hole[number], np.zeros((9, 14, 3), np.uint8), lambda: np.zeros((9, 14, 3), np.uint8))
        empty = hole[number].all(1)
        np.testing.assert_array_equal(row(scene)[~empty], np.round(filled[number][~empty] * 127.5 + 127.5))
        assert not filled[number][empty].any()
    for basis in (Basis(), Basis(3.0)):
        known = basis.known(jnp.asarray(image), jnp.asarray(hole, jnp.float32))
        drawn = basis.unknown(jnp.asarray(image), known)
        np.testing.assert_allclose(basis.whole(drawn, known), image, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(known)[~hole], image[~hole])
        assert basis.gain == 0 or not np.asarray(drawn)[~hole].any()


@pytest.mark.parametrize("basis", [Basis(), Basis(3.0)])
def test_inpainting_keeps_what_is_no_hole(basis):
    codec = space_to_depth_codec(4)
    image = jax.random.uniform(jax.random.key(0), (1, 18, 27, 3), minval=-1)
    mask = jnp.zeros((1, 18, 27)).at[:, 3:9, 5:20].set(1)
    padded = pad_edges(image, 4)
    np.testing.assert_array_equal(codec.decode(None, codec.encode(None, padded)), padded)
    np.testing.assert_array_equal(crop_edges(padded, (18, 27), 4), image)
    context = jnp.zeros((1, 2, 8))
    start = jax.random.normal(jax.random.key(1), (1, 5, 7, 48))
    model = UNet2DConditionModel(TINY)
    params = draw(jax.eval_shape(model.init, jax.random.key(2), jnp.zeros((1, 5, 7, 112)), 0, context))["params"]
    inpaint = make_inpainter(TINY, codec, ScheduleConfig(), 3, basis=basis)
    found = inpaint({"unet": params}, image, mask, context, start)
    np.testing.assert_array_equal(found.blended[0][mask[0] == 0], image[0][mask[0] == 0])
    np.testing.assert_array_equal(found.blended[0][mask[0] == 1], found.decoded[0][mask[0] == 1])
    assert found.image.dtype == jnp.uint8 and np.abs(np.asarray(found.decoded)).max() <= 1
    # What lies in a hole must not be seen: another image there gives the same filling.
    other = inpaint({"unet": params}, jnp.where(mask[..., None] == 1, -image, image), mask, context, start)
    np.testing.assert_array_equal(found.image, other.image)


def test_configs_there_and_back():
    for config in (UNetConfig(), TINY, AutoencoderConfig(), ScheduleConfig(), ScheduleConfig("euler", spacing="trailing")):
        assert type(config).from_diffusers(config.to_diffusers(), "config.json") == config


@pytest.mark.parametrize(("config", "change", "says"), [
    (UNetConfig(), {"class_embed_type": "timestep"}, "class_embed_type 'timestep' is not implemented"),
    (UNetConfig(), {"addition_embed_type": "text"}, "addition_embed_type"),
    (UNetConfig(), {"something_new": 1}, "unknown key 'something_new'"),
    (UNetConfig(), {"down_block_types": ["AttnDownBlock2D"] * 4}, "AttnDownBlock2D"),
    (UNetConfig(), {"act_fn": "gelu"}, "act_fn 'gelu'"),
    (UNetConfig(), {"norm_eps": "small"}, "norm_eps 'small'"),
    (UNetConfig(), {"block_out_channels": [320, 640, 1280]}, "expected as many of each"),
    (AutoencoderConfig(), {"up_block_types": ["UpBlock2D"] * 4}, "up_block_types"),
    (AutoencoderConfig(), {"_class_name": "VQModel"}, "VQModel"),
    (ScheduleConfig(), {"beta_schedule": "linear"}, "beta_schedule 'linear'"),
    (ScheduleConfig(), {"_class_name": "DDPMScheduler"}, "DDPMScheduler"),
    (ScheduleConfig(), {"thresholding": True}, "thresholding True"),
    (ScheduleConfig("pndm"), {"skip_prk_steps": False}, "skip_prk_steps"),
])  # fmt: skip
def test_other_mathematics_is_refused_by_name(config, change, says):
    with pytest.raises(InputError, match=says) as error:
        type(config).from_diffusers(config.to_diffusers() | change, "folder/config.json")
    assert "folder/config.json" in str(error.value)


def test_sizes_of_stable_diffusion():
    """Parameter counts of the real networks, without computing anything."""
    count = lambda model, *shapes: sum(
        leaf.size
        for leaf in jax.tree.leaves(
            jax.eval_shape(model.init, jax.random.key(0), *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
        )
    )
    assert count(UNet2DConditionModel(UNetConfig()), (1, 8, 8, 9), (1,), (1, 2, 1024)) == 865_925_124
    assert count(AutoencoderKL(AutoencoderConfig()), (1, 8, 8, 3)) == 83_653_863
