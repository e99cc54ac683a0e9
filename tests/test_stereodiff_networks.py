"""StereoDiff's networks: golden numbers, manifests of the real ones, and what must hold of any (spec `video.md` 1, 4 and 6)."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.convert.diffusion import file_shape, name_of
from bridgedepth_jax.convert.engine import restore_state
from bridgedepth_jax.convert.rules.dust3r import RULES
from bridgedepth_jax.convert.video import expected_of
from bridgedepth_jax.networks.croco.blocks import grid_positions, rotate
from bridgedepth_jax.networks.croco.config import PairConfig
from bridgedepth_jax.networks.diffusion.attention import Attention
from bridgedepth_jax.networks.video.clip import resize_frames
from bridgedepth_jax.networks.video.config import ImageEncoderConfig, VideoAutoencoderConfig, VideoUNetConfig
from bridgedepth_jax.networks.video.temporal import TemporalConv
from bridgedepth_jax.parity import Row
from bridgedepth_jax.store.checkpoint import expected_shapes
from bridgedepth_jax.systems.stereodiff import losses, parity
from bridgedepth_jax.systems.stereodiff.config import VideoDiffusionConfig

TESTS = Path(__file__).parent
GOLDEN = TESTS / "reference" / "video"


def compared(kind: str, *, float64: bool = True) -> list[Row]:
    with jax.enable_x64(float64):
        rows = list(parity.compare(TESTS, GOLDEN, kinds=[kind], float64=float64))
    assert rows
    assert not [row for row in rows if not row.ok]
    return rows


@pytest.mark.parametrize("kind", ["pair", "vae", "clip", "unet", "dust3r"])
def test_golden(kind):
    """In float64; `scripts/parity.py --system stereodiff` compares more."""
    compared(kind)


@pytest.mark.slow
def test_golden_of_the_second_stage():
    """With the overlap and the chunk that the reference names, although its file does not."""
    named = [row.quantity for row in compared("stage2") if "chunk" in row.quantity]
    assert named and all("overlap 2, chunk 4" in name for name in named)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(parity.KINDS))
def test_golden_in_float32(kind):
    compared(kind, float64=False)


def entries(name: str) -> dict[str, tuple[int, ...]]:
    manifest = json.loads((GOLDEN / "manifest" / name).read_text())
    return {row["name"]: tuple(row["shape"]) for row in manifest["entries"]}


@pytest.mark.parametrize(
    ("name", "config", "parameters"),
    [
        pytest.param("svd_unet", VideoUNetConfig(), 1_524_623_082, marks=pytest.mark.slow),
        ("svd_vae", VideoAutoencoderConfig(), 97_742_847),
        pytest.param("svd_image_encoder", ImageEncoderConfig(), 632_076_800, marks=pytest.mark.slow),
    ],
)
def test_the_real_networks_of_the_second_stage_have_the_published_tensors(name, config, parameters):
    """Names and shapes by `eval_shape`: nothing is computed."""
    found = {name_of(path): file_shape(path, shape) for path, shape in expected_of(config).items()}
    assert found == entries(f"{name}.json")
    assert sum(int(np.prod(shape)) for shape in found.values()) == parameters


def test_the_default_configs_are_the_published_ones():
    for name, cls in (
        ("svd_unet", VideoUNetConfig),
        ("svd_vae", VideoAutoencoderConfig),
        ("svd_image_encoder", ImageEncoderConfig),
    ):
        said = json.loads((GOLDEN / "manifest" / f"{name}.json").read_text())["config"]
        assert cls.from_diffusers(said, name) == cls()
        assert cls.from_diffusers(cls().to_diffusers(), name) == cls()


@pytest.mark.slow
def test_the_real_pair_network_has_the_published_tensors_in_their_order():
    expected = expected_shapes("dust3r", PairConfig())
    state = restore_state(RULES, {path: np.broadcast_to(np.float32(0), shape) for path, shape in expected.items()})
    assert [(name, value.shape) for name, value in state.items()] == list(entries("dust3r_vitl_512_dpt.json").items())
    assert sum(int(np.prod(shape)) for shape in expected.values()) == 571_171_208


def test_rotation_is_a_loop_over_channels():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 2, 6, 16))
    positions = grid_positions(2, 3)
    assert positions.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    expected = np.empty_like(x)
    for token in range(6):
        for axis in range(2):
            for k in range(4):
                angle = positions[token, axis] * 100.0 ** (-2 * k / 8)
                a, b = x[0, :, token, 8 * axis + k], x[0, :, token, 8 * axis + k + 4]
                expected[0, :, token, 8 * axis + k] = a * np.cos(angle) - b * np.sin(angle)
                expected[0, :, token, 8 * axis + k + 4] = b * np.cos(angle) + a * np.sin(angle)
    np.testing.assert_allclose(rotate(jnp.asarray(x, jnp.float32), positions, 100.0), expected, atol=1e-5)


def test_attention_to_one_key_is_the_full_one():
    """The short way through one token, and the long way through the same token twice."""
    rng = np.random.default_rng(0)
    x, token = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((2, 5, 16), (2, 1, 12)))
    layer = Attention(4)
    params = layer.init(jax.random.key(0), x, token)
    assert set(params["params"]) == {"to_q", "to_k", "to_v", "to_out_0"}
    twice = jnp.repeat(token, 2, axis=1)
    short, full = (np.asarray(layer.apply(params, x, context)) for context in (token, twice))
    np.testing.assert_allclose(short, full, atol=1e-6)

    def flops(context: jax.Array) -> float:
        cost = jax.jit(layer.apply).lower(params, x, context).compile().cost_analysis()
        assert cost is not None
        return cost["flops"]

    assert flops(token) < flops(twice) / 2


def test_a_convolution_over_frames_is_the_loop():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((1, 4, 2, 3, 5)), jnp.float32)
    layer = TemporalConv(6)
    params = layer.init(jax.random.key(0), x)
    kernel, bias = (np.asarray(params["params"][name], np.float64) for name in ("kernel", "bias"))
    expected = np.zeros((1, 4, 2, 3, 6)) + bias
    for frame in range(4):
        for tap in range(3):
            if 0 <= frame + tap - 1 < 4:
                expected[:, frame] += np.asarray(x)[:, frame + tap - 1] @ kernel[tap, 0, 0]
    np.testing.assert_allclose(np.asarray(layer.apply(params, x)), expected, atol=1e-5)


def test_resizing_a_constant_frame_changes_nothing():
    frame = jnp.full((1, 300, 250, 3), 0.3)
    np.testing.assert_allclose(resize_frames(frame, (112, 112)), 0.3, atol=1e-6)


def test_the_pair_loss_does_not_know_the_scale():
    rng = np.random.default_rng(0)
    points = [jnp.asarray(rng.uniform(1, 3, (2, 4, 5, 3)), jnp.float32) for _ in range(4)]
    confidence = [jnp.asarray(rng.uniform(1, 3, (2, 4, 5)), jnp.float32) for _ in range(2)]
    seen = [jnp.asarray(rng.random((2, 4, 5)) < 0.7) for _ in range(2)]
    truth = losses.PairTruth(points[2], points[3], *seen)
    value = lambda scale: losses.pair_loss(points[0] * scale, confidence[0], points[1] * scale, confidence[1], truth)
    np.testing.assert_allclose(value(1.0), value(7.0), rtol=1e-5)
    perfect = losses.pair_loss(points[2] * 3, confidence[0] * 0 + 1, points[3] * 3, confidence[1] * 0 + 1, truth)
    np.testing.assert_allclose(perfect, 0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block_out_channels": (32, 60)}, "multiple of norm_num_groups"),
        ({"attention_heads": (2,)}, "expected as many of each"),
    ],
)
def test_a_unet_that_cannot_be_is_refused(change, words):
    sizes = {"block_out_channels": (32, 64), "attention_heads": (2, 4), "cross_attention": (True, False)}
    with pytest.raises(ValueError, match=words):
        VideoUNetConfig(**{**sizes, **change})


def test_parts_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="cross_attention_dim 1024, expected the image encoder's"):
        VideoDiffusionConfig(image_encoder=dataclasses.replace(ImageEncoderConfig(), projection_dim=512))
