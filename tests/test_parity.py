"""Numbers of the original, block by block and whole, with name-seeded weights.

Tolerances are those of the reference; what the original in float32 reaches against itself in float64 stands beside.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synth import as_float64, synth_params

from bridgedepth_jax.networks.config import MonoConfig
from bridgedepth_jax.networks.depth_anything import DepthAnything
from bridgedepth_jax.ops.fourier import fourier_features
from bridgedepth_jax.ops.image import normalize
from bridgedepth_jax.ops.resize import resize_antialiased
from bridgedepth_jax.systems.bridgedepth.alignment import Alignment
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.systems.bridgedepth.hypotheses import StereoEncoder
from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth, pad_to_multiple
from bridgedepth_jax.systems.bridgedepth.parity import Weights, check_mono

GOLDEN = Path(__file__).parent / "reference" / "golden"
CONFIG = ModelConfig.size("convnext", "vits")
TAPS = GOLDEN / "convnext_vits_96x160_taps.npz"

FEATURES = 1e-4  # of the RMS; ours are below 3e-5
DISPARITY_MEDIAN = 5e-4  # px; the original's noise is 0.8e-4 to 1.9e-4
DISPARITY_FAR = 0.05, 0.02  # px and share of pixels beyond; the original's noise is up to 0.011
FLOAT64 = 1e-8  # px


@pytest.fixture(scope="module")
def golden():
    with np.load(TAPS) as file:
        return {key: file[key] for key in file}


def assert_close(actual, golden, limit=FEATURES):
    difference = np.abs(np.asarray(actual, np.float64) - golden.astype(np.float64)).max()
    assert difference <= limit * np.sqrt(np.mean(golden.astype(np.float64) ** 2))


def run(module, params, *args, method=None, **kwargs):
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda p, *a: module.apply({"params": p}, *a, method=method, **kwargs))(params, *args)


def as_float32(image):
    return jnp.asarray(image.astype(np.float32))


def test_monocular_branch(golden):
    left = pad_to_multiple(as_float32(golden["left"]))
    features = run(
        DepthAnything(CONFIG.mono), synth_params(CONFIG)["mono"], normalize(resize_antialiased(left, (84, 140))), features=True
    )
    assert_close(features, golden["mono_features"])


def test_stereo_encoder_and_proposals(golden):
    images = [as_float32(golden[side]) for side in ("left", "right")]
    encoder = StereoEncoder(CONFIG)
    prior = jnp.asarray(golden["depth_prior"])
    params = synth_params(CONFIG)["stereo_encoder"]
    (_, _, proposals, _, prob), state = run(encoder, params, *images, prior, train=False, mutable=["taps"])
    taps = state["taps"]
    assert_close(taps["fmap8"][0][:1], golden["fmap8_left"])
    assert_close(taps["fmap8"][0][1:], golden["fmap8_right"])
    assert_close(taps["fmap4"][0][:1], golden["fmap4_left"])
    assert_close(np.asarray(taps["dpn"]["volume"][0]).transpose(0, 3, 1, 2, 4), golden["volume_left"])
    np.testing.assert_array_equal(taps["dpn"]["seeds"][0], golden["seeds"])
    assert_close(taps["dpn"]["prop_tokens"][0], golden["prop_tokens"])
    assert_close(prob, golden["prob"])
    assert_close(proposals, golden["proposal"])


@pytest.mark.parametrize("stage", [0, 1])
def test_alignment_stages(golden, stage):
    c, params = CONFIG.nmp, synth_params(CONFIG)[f"align_{stage}"]
    if stage == 0:
        module = Alignment(c, c.infer_layers, c.window, c.window, True)
        mono, pos = golden["depth_prior"], fourier_features(jnp.asarray(golden["proposal"]), 64)
    else:
        # The golden has no disparity at 1/4: its first fourier phase, t, gives it back.
        module = Alignment(c, c.refine_layers, c.refine_window, c.refine_window // 2, False)
        mono, pos = golden["mono0"], jnp.asarray(golden["pos1"])
    stereos, monos = run(module, params, jnp.asarray(golden[f"hyp{stage}"]), jnp.asarray(mono), pos, train=False)
    assert len(stereos) == len(monos) == 1
    # float32 fourier features of proposals differ by 3e-2 for a difference of one ulp: see the reference on `pos0`.
    assert_close(stereos[0], golden[f"stereo{stage}"], 1e-3)
    assert_close(monos[0], golden[f"mono{stage}"], 1e-3)


def test_depth_anything_alone():
    """By the function of `scripts/parity.py`: patch tokens of the first and the last tap, and depth."""
    config = MonoConfig.named("vits")
    with np.load(GOLDEN / "mono_vits_126x168.npz") as golden:
        rows = list(check_mono("vits", Weights(config, synth_params(config)), dict(golden), float64=False))
    assert [row.quantity for row in rows] == [f"{name}, of RMS" for name in ("tokens_first", "tokens_last", "depth")]
    assert all(row.ok for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["convnext_vits_101x150_padded", "resnet_vits_96x160", "swin_vits_96x160"])
def test_whole_network(case):
    config = ModelConfig.size(*case.split("_")[:2])
    with np.load(GOLDEN / f"{case}.npz") as file:
        golden = dict(file)
    output = run(BridgeDepth(config), synth_params(config), as_float32(golden["left"]), as_float32(golden["right"]))
    difference = np.abs(np.asarray(output.disparity) - golden["disp"])
    assert np.median(difference) <= DISPARITY_MEDIAN
    assert (difference > DISPARITY_FAR[0]).mean() <= DISPARITY_FAR[1]
    assert_close(output.prob, golden["prob"])

    with jax.enable_x64(True):
        double = config.replace(dtype="float64")
        images = [jnp.asarray(golden[side].astype(np.float64)) for side in ("left", "right")]
        output = run(BridgeDepth(double), as_float64(synth_params(config)), *images)
        assert output.disparity.dtype == np.float64
        assert np.abs(np.asarray(output.disparity) - golden["disp_float64"]).max() <= FLOAT64
