"""Properties of the whole network that no golden number shows, on the smallest network."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.extend.core import ClosedJaxpr, Jaxpr

from bridgedepth_jax.convert.rules.bridgedepth_config import from_original, to_original
from bridgedepth_jax.networks.config import BackboneConfig, MonoConfig
from bridgedepth_jax.systems.bridgedepth.config import VARIANTS, ModelConfig
from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth, init_params

HEIGHT, WIDTH = 64, 96
DEEPER = tiny.MODEL.replace(nmp=dataclasses.replace(tiny.MODEL.nmp, infer_layers=2, refine_layers=3))


def pair(batch: int = 1, height: int = HEIGHT, width: int = WIDTH) -> list[jax.Array]:
    sides = zip(*(tiny.images(height, width, seed=i) for i in range(batch)), strict=True)
    return [jnp.asarray(np.stack(side).astype(np.float32)) for side in sides]


@functools.cache
def forward(config: ModelConfig, *, train: bool = False):
    return jax.jit(lambda params, *images: BridgeDepth(config).apply({"params": params}, *images, train=train))


@functools.cache
def params_of(config: ModelConfig):
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    return tiny.params(BridgeDepth(config), image, image)


def assert_same(disparity: jax.Array, other: jax.Array) -> None:
    """Of two programs: rounding differs, and single pixels choose another candidate (see the reference's tolerance)."""
    difference = np.abs(np.asarray(disparity) - np.asarray(other))
    assert np.median(difference) <= 5e-4 and np.mean(difference > 0.05) <= 0.02


def test_outputs_have_the_shapes_and_types_they_promise():
    params = params_of(DEEPER)
    out = jax.eval_shape(forward(DEEPER), params, *pair(2, 50, 90))
    assert out.disparities.shape == (1, 2, 50, 90)
    assert out.coarse_disparities.shape == out.logits.shape == (1, 2, 64, 96, 2)
    assert out.proposals.shape == (2, 8, 12, 2) and out.prob.shape == (2, 8, 12, 8)
    assert out.mono is None
    out = jax.eval_shape(forward(DEEPER, train=True), params, *pair(2))
    assert out.disparities.shape == (3, 2, HEIGHT, WIDTH)
    assert out.coarse_disparities.shape == out.logits.shape == (2, 2, HEIGHT, WIDTH, 2)
    assert out.mono.shape == (5, 2, HEIGHT, WIDTH)


def test_training_outputs_end_with_those_of_inference():
    images, params = pair(), params_of(DEEPER)
    trained, inferred = forward(DEEPER, train=True)(params, *images), forward(DEEPER)(params, *images)
    assert_same(trained.disparity, inferred.disparity)
    assert_same(trained.coarse_disparities[-1], inferred.coarse_disparities[0])
    assert inferred.confidence.shape == inferred.disparity.shape == (1, HEIGHT, WIDTH)
    assert inferred.confidence.min() >= 0.5 and inferred.confidence.max() <= 1  # of two candidates


@pytest.mark.parametrize("train_mono", [False, True])
def test_gradient_reaches_the_monocular_branch_only_on_request(train_mono):
    images, params = pair(), params_of(tiny.MODEL)

    def total(params):
        model = BridgeDepth(tiny.MODEL)
        out = model.apply({"params": params}, *images, train=True, train_mono=train_mono)
        parts = out.disparities, out.coarse_disparities, jax.nn.softmax(out.logits) ** 2, out.proposals, out.mono, out.prob**2
        return sum(jnp.mean(part) for part in parts)

    gradient = jax.jit(jax.grad(total))(params)
    frozen = jax.tree.map(lambda leaf: not np.any(leaf), gradient.pop("mono"))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all(jax.tree.leaves(frozen)) != train_mono
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["align_1"]["layers_0"]["readout"]["attn"]["projq"]["kernel"]))


def test_pairs_of_a_batch_do_not_see_each_other():
    params, images = params_of(tiny.MODEL), pair(3)
    others = [image.at[1].set(image[2]) for image in images]
    before, after = (forward(tiny.MODEL)(params, *batch).disparity for batch in (images, others))
    np.testing.assert_array_equal(before[0], after[0])
    assert np.any(before[1] != after[1])


def test_padding_inside_equals_padding_outside():
    params, (left, right) = params_of(tiny.MODEL), pair(1, 50, 90)
    pad = lambda image: jnp.pad(image, ((0, 0), (14, 0), (0, 6), (0, 0)), mode="edge")
    outside = forward(tiny.MODEL)(params, pad(left), pad(right)).disparity[:, 14:, :90]
    assert_same(forward(tiny.MODEL)(params, left, right).disparity, outside)


@pytest.mark.parametrize("encoder", ["resnet", "convnext", "swin"])
def test_every_encoder_runs_with_own_widths(encoder):
    backbone = BackboneConfig(encoder, out_channels=16, dims=(8, 8, 16), depths=(1, 2, 1), heads=(1, 2, 2), window=4)
    config = tiny.MODEL.replace(backbone=backbone)
    assert np.isfinite(forward(config)(params_of(config), *pair()).disparity).all()


@pytest.mark.parametrize("encoder", ["convnext", "swin"])
def test_drop_path_acts_in_training_alone(encoder):
    backbone = dataclasses.replace(tiny.MODEL.backbone, model_type=encoder, drop_path=0.9, heads=(1, 2, 2), window=4)
    config = tiny.MODEL.replace(backbone=backbone)
    model, params, images = BridgeDepth(config), params_of(config), pair()

    @jax.jit
    def train(params, key):
        return model.apply({"params": params}, *images, train=True, rngs={"drop_path": jax.random.key(key)}).prob

    probs = [train(params, key) for key in range(4)]
    assert any(not np.array_equal(probs[0], other) for other in probs[1:])
    np.testing.assert_array_equal(train(params, 2), probs[2])
    np.testing.assert_array_equal(forward(config)(params, *images).prob, forward(config)(params, *images).prob)


def test_bfloat16_keeps_what_is_delicate_in_float32():
    config = tiny.MODEL.replace(dtype="bfloat16")
    params, images = params_of(tiny.MODEL), pair()
    out = forward(config)(params, *images)
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {np.dtype(np.float32)}
    exact = forward(tiny.MODEL)(params, *images)
    assert 0 < np.abs(out.prob - exact.prob).max() < 0.05


def equations(jaxpr: Jaxpr) -> Iterator[Any]:
    """All equations, those of inner functions included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, (Jaxpr, ClosedJaxpr)):
                    yield from equations(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)


def trace(config: ModelConfig, height: int, width: int) -> Jaxpr:
    image = jax.ShapeDtypeStruct((1, height, width, 3), np.float32)
    return forward(config).trace(params_of(config), image, image).jaxpr.jaxpr


def test_float32_products_ask_for_float32_on_every_device():
    products = [e for e in equations(trace(tiny.MODEL, 64, 96)) if e.primitive.name in ("dot_general", "conv_general_dilated")]
    assert len(products) > 50
    for equation in products:
        assert set(equation.params["precision"]) == {jax.lax.Precision.HIGHEST}, equation


def test_nothing_grows_with_the_square_of_the_pixels():
    config = tiny.MODEL

    def largest(height, width):
        sizes = [
            out.aval.size for e in equations(trace(config, height, width)) for out in e.outvars if hasattr(out.aval, "size")
        ]
        return max(sizes)

    # Four times the pixels: the largest array may grow with the pixels times one side of a stripe, so eight times at most.
    # The global attention of the ViT grows 16 times until it is cut into chunks, and is small here.
    assert largest(512, 1024) <= 8 * largest(256, 512)


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ((1, 64, 96, 3), (1, 64, 80, 3), "64, 80"),
        ((64, 96, 3), (64, 96, 3), "64, 96, 3"),
        ((1, 64, 96, 1), (1, 64, 96, 1), "expected"),
        ((1, 31, 96, 3), (1, 31, 96, 3), "31x96"),
    ],
)
def test_wrong_images_are_refused_with_their_numbers(left, right, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(forward(tiny.MODEL), params_of(tiny.MODEL), jnp.zeros(left), jnp.zeros(right))


def test_training_needs_multiples_of_16():
    with pytest.raises(ValueError, match="60x96 is not a multiple of 16"):
        jax.eval_shape(forward(tiny.MODEL, train=True), params_of(tiny.MODEL), *pair(1, 60, 96))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_parameters_are_float32_but_for_a_float64_network(dtype):
    with jax.enable_x64(dtype == "float64"):
        shapes = jax.eval_shape(lambda: init_params(tiny.MODEL.replace(dtype=dtype), jax.random.key(0)))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(shapes)} == {"float64" if dtype == "float64" else "float32"}


def test_initial_values_follow_the_original():
    params = init_params(tiny.MODEL, jax.random.key(0))
    deviation = lambda leaf, expected: np.std(leaf) == pytest.approx(expected, rel=0.15)
    block = params["align_0"]["layers_0"]["readout"]
    assert deviation(block["attn"]["projkv"]["kernel"], 0.02)
    assert not np.any(block["attn"]["projkv"]["bias"])
    bound = 1 / np.sqrt(16)  # PyTorch's default of a Linear with 16 inputs
    for leaf in block["mlp"]["fc1"].values():
        assert 0.8 * bound < np.abs(leaf).max() <= bound
    assert deviation(params["stereo_encoder"]["concatconv_0"]["kernel"], np.sqrt(2 / (9 * 8)))  # Kaiming, fan out
    assert not np.any(params["stereo_encoder"]["dpn"]["prop_head"]["layers_2"]["kernel"])
    assert np.all(params["align_1"]["norm"]["scale"] == 1) and not np.any(params["align_1"]["norm"]["bias"])


def test_config_round_trips():
    for name in VARIANTS:
        config = ModelConfig.variant(name)
        assert from_original(to_original(config)) == config
        assert from_original(to_original(config.replace(remat=True, remat_policy="dots"))) == config
        assert ModelConfig.from_dict(config.to_dict()) == config
        assert isinstance(hash(config), int)
    assert ModelConfig.variant("sf").backbone.model_type == "resnet"
    assert ModelConfig.from_dict(tiny.MODEL.to_dict()) == tiny.MODEL
    for config in (tiny.MODEL, tiny.MODEL.replace(mono=MonoConfig.named("vits"))):
        with pytest.raises(ValueError, match="cannot express"):
            to_original(config)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"BACKBONE": {"NORM_FN": "batch"}}, "no published weights"),
        ({"BACKBONE": {"MODEL_TYPE": "vgg"}}, "vgg"),
        ({"BACKBONE": {"DEPTH": 3}}, "BACKBONE.DEPTH"),
        ({"HEAD": {}}, "HEAD"),
        ({"NMP": {"ATTN_DROP": 0.1}}, "ATTN_DROP"),
        ({"NMP": {"WINDOW_SIZE": 5}}, "even"),
        ({"DPN": {"MAX_DISP": 300}}, "multiple of 8"),
        ({"BRIDGEDEPTH": {"ENCODER_VIT": "vith"}}, "vith"),
    ],
)
def test_configs_that_make_no_network_are_refused(tree, message):
    with pytest.raises(ValueError, match=message):
        from_original(tree)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"mono": {"dims": 3}}, "dims"),
        ({"dtype": 32}, "dtype"),
        ({"dtype": "float8"}, "model.dtype = 'float8', expected one of"),
        ({"mono": {"taps": "1234"}}, "taps"),
        ({"mono": 3}, "mapping"),
    ],
)
def test_unknown_or_wrong_fields_are_refused(tree, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict(tree)


def test_taps_must_rise_within_the_depth():
    with pytest.raises(ValueError, match="taps"):
        MonoConfig("own", dim=16, depth=4, heads=2, taps=(0, 1, 2, 4))
