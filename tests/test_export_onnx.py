"""ONNX files against JAX: every row of the tables on its own, and a whole network as it is written by the command."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
from jax import lax

from bridgedepth_jax import layers
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.export import pairs
from bridgedepth_jax.export.activations import check_float16, largest_activations
from bridgedepth_jax.export.onnx import to_graph
from bridgedepth_jax.export.onnx_graph import write
from bridgedepth_jax.store.checkpoint import Checkpoint, save_checkpoint
from bridgedepth_jax.system import find_system
from bridgedepth_jax.systems.bridgedepth.config import SGMConfig
from bridgedepth_jax.systems.bridgedepth.network import BridgeDepth

HEIGHT, WIDTH = 37, 50  # padded to 48x64


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = random(2, 3, 4, 5)
INDEX = np.random.default_rng(1).integers(0, 4, (2, 3, 6)).astype(np.int32)
take = jnp.take_along_axis
PROGRAMS = {
    "operators": lambda x: jnp.sin(x) * jnp.cos(x) - jnp.exp(-x) / (1 + jnp.tanh(x) ** 2) + lax.erf(x) + jnp.abs(jnp.floor(x)),
    "more operators": lambda x: jnp.log(jnp.abs(x)) + jnp.tan(x) * jax.nn.sigmoid(x) - jnp.ceil(x),
    "powers": lambda x: jnp.square(x) + x**3 + lax.integer_pow(x, -2) + lax.rsqrt(jnp.sqrt(x * x + 1)) + jnp.abs(x) ** 0.7,
    "high and no powers": lambda x: lax.integer_pow(x, 9) + lax.integer_pow_p.bind(x, y=0),
    "comparisons": lambda x: jnp.where((x > 0) & ~(x == 1) | (x != x) | (x <= -1), jnp.clip(x, -0.5, 0.5), jnp.sign(x)),
    "comparisons of equals": lambda x: (x.round() < 1) ^ (x.round() <= -1) ^ (x.round() > 0) ^ (x.round() >= 2) | (x > 2),
    "limits": lambda x: lax.clamp(-0.5, x, 0.5) + lax.clamp(0.5, x, -0.5),  # the higher one wins
    "rounding": jnp.round,
    "chosen booleans": lambda x: jnp.where(x > 0.5, x < 1, x > -1),
    "finite": lambda x: jnp.isfinite(jnp.exp(1000 * x)) != jnp.isfinite(1e38 * jnp.log(jnp.round(x))),  # both infinities, NaN
    "remainder": lambda x: lax.rem(x, jnp.full_like(x, 0.3)) + lax.rem((10 * x).astype(int), 3),
    "reductions": lambda x: x.sum((1, 3)) + x.max((1, 3)) * x.min((1, 3)) + x.prod((1, 3)),
    "any and all": lambda x: jnp.any(x > 1, 2) | jnp.all(x > -1, 2),
    "running sums": lambda x: lax.cumsum(x, 2) + lax.cumsum(x, 2, reverse=True),
    "broadcasts": lambda x: jnp.broadcast_to(x[:, :1, :, None], (2, 3, 4, 6, 5)).sum(1) * jnp.arange(6.0).reshape(1, 1, 6, 1),
    "first of equals": lambda x: jnp.argmax(jnp.round(x), 3) - 10 * jnp.argmin(jnp.round(x), 3),
    "order": lambda x: jnp.sort(x, 2) + jnp.argmax(x, 2, keepdims=True) - jnp.argmin(x, 2, keepdims=True),
    "largest": lambda x: lax.top_k(x, 3)[0] * lax.top_k(jnp.abs(jnp.round(x)), 3)[1],  # equal values: the first one first
    "largest of the second axis": lambda x: lax.top_k(x, 2, axis=1)[0],
    "edges": lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)), mode="edge"),
    "padding and cuts": lambda x: lax.pad(x, 2.0, ((0, 0, 0), (1, 2, 0), (-1, 1, 0), (0, -2, 0))),
    "padded booleans": lambda x: lax.pad(x > 0, True, ((0, 0, 0), (1, 0, 0), (0, 0, 0), (0, 0, 0))),
    "pieces": lambda x: jnp.concatenate([*jnp.split(x, (1, 2), 2)[::-1], x[:, :, ::-2], jnp.flip(x, 3)], 2),
    "stacks": lambda x: jnp.stack([x, 2 * x], 1).transpose(3, 1, 0, 2, 4).reshape(4, -1),
    "unstacked": lambda x: sum(i * part for i, part in enumerate(jnp.unstack(x, axis=1))),
    "rolls and tiles": lambda x: jnp.tile(jnp.roll(x, (1, -2), (1, 3)), (1, 2, 1, 1)),
    "loops": lambda x: lax.scan(lambda c, row: (c + row, c * row), x[0], x, reverse=True)[1],
    "long loops": lambda x: jnp.vstack(
        lax.scan(lambda c, r: (c * 0.5 + r + x[0, 0, 1], c * r), x[0, 0, 0], x.reshape(-1, 5), reverse=True)
    ),
    "long loops ahead": lambda x: lax.scan(
        lambda c, r: (c + r.max(), jnp.minimum(c, jnp.pad(r, 1, constant_values=np.inf))), jnp.float32(0), x.reshape(-1, 5)
    )[1],
    "followers": lambda x: jnp.argsort(jnp.round(x), 2) + 10 * jnp.argsort(x, 3),  # equal values keep their order
    "maps": lambda x: lax.map(lambda row: row @ row.swapaxes(-1, -2), x),
    "products": lambda x: jnp.einsum("bhij,bkij->jhbk", x, x) + jnp.einsum("bhij,ck->bhkij", x, x[0, 0, :3]).sum(),
    "batched products": lambda x: jnp.einsum("bhij,bhkj->hbik", x, x),
    "batched products of two axes": lambda x: lax.dot_general(x, x[:, 0], (((3,), (2,)), ((0,), (0,)))),
    "products of crossed axes": lambda x: lax.dot_general(x, x.swapaxes(2, 3), (((2, 3), (3, 2)), ((), ()))),
    "products of halves": lambda x: lax.dot_general(
        x[0, 0].astype(np.float16), x[0, 1].T.astype(np.float16), (((1,), (0,)), ((), ())), preferred_element_type=np.float32
    ),
    "convolution": lambda x: lax.conv_general_dilated(
        x, random(3, 2, 5, 7), (2, 1), [(1, 0), (2, 1)], rhs_dilation=(1, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "grouped convolution": lambda x: lax.conv_general_dilated(
        x[..., :4], random(1, 2, 2, 6), (1, 1), "VALID", feature_group_count=2, dimension_numbers=("NHWC", "HWIO", "NCHW")
    ),
    "rows of one axis": lambda x: jnp.take(x, jnp.asarray([[3, 0], [1, 1]]), 2, mode="clip"),
    "rows beyond the ends": lambda x: jnp.take(x, 3 * jnp.argmax(x, 3) - 4, 2, mode="clip"),
    "known rows beyond the ends": lambda x: jnp.take(x, jnp.asarray([-7, 9, 1]), 2, mode="clip"),
    "filled rows": lambda x: take(x, 5 * jnp.argmax(x, 3, keepdims=True) - 8, 3),
    "rows filled with a number": lambda x: jnp.take(x, jnp.argmax(x, 3) + 2, 2, mode="fill", fill_value=7),
    "filled whole numbers": lambda x: jnp.take(x[0, 0].astype(int), jnp.argmax(x, 3) + 2, 0, mode="fill"),
    "filled counts": lambda x: jnp.take(jnp.abs(x[0, 0]).astype(np.uint32), jnp.argmax(x, 3) + 2, 0, mode="fill"),
    "filled booleans": lambda x: jnp.take(x[0, 0] > 0, jnp.argmax(x, 3) + 2, 0, mode="fill"),
    "filled places in two axes": lambda x: x.at[:, jnp.argmax(x[0, 0], 1), jnp.argmax(x[1, 0], 1)].get(mode="fill"),
    "known filled places": lambda x: x.at[:, jnp.asarray([0, 9, 1]), jnp.asarray([1, 0, -7])].get(mode="fill"),
    "known places": lambda x: take(x, jnp.asarray(INDEX[..., None]), 2, mode="promise_in_bounds"),
    "known places across": lambda x: take(x, jnp.asarray(INDEX[:, :1, :4, None] % 3), 1, mode="promise_in_bounds"),
    "known places around an axis": lambda x: jax.vmap(lambda a, i: a[:, i])(x, jnp.asarray(INDEX[:, 0])),
    "places by another order": lambda x: jax.vmap(lambda a, i: a[i], (0, 1))(x[..., 0], jnp.argmax(x.T, 0)[:, 0, :, None] % 3),
    "places of two axes in another order": lambda x: lax.gather(
        x[..., 0],
        (jnp.argmax(x, 3)[..., :1] % 4).swapaxes(0, 1),
        lax.GatherDimensionNumbers((), (2,), (2,), operand_batching_dims=(0, 1), start_indices_batching_dims=(1, 0)),
        (1, 1, 1),
    ),
    "pieces of rows": lambda x: lax.gather(
        x, jnp.argmax(x, 3)[..., None] % 4, lax.GatherDimensionNumbers((3, 4, 5), (2,), (2,)), (1, 3, 1, 2)
    ),
    "computed elements": lambda x: take(x[..., 0], jnp.argmax(x, 3) % 4, 2),
    "computed slices": lambda x: take(x, (jnp.argmax(x, 3) % 4)[..., None], 2, mode="promise_in_bounds"),
    "places in two axes": lambda x: x[:, jnp.argmax(x[0, 0], 1) % 3, jnp.argmax(x[1, 0], 1) % 4],
    "softmax": lambda x: layers.softmax(x),
    "gelu": layers.gelu,
    "layer norm": lambda x: layers.normalize_channels(x, random(5), random(5, seed=1), 1e-3),
    "instance norm": lambda x: layers.instance_norm(0.01 * x),
    "depthwise convolution": lambda x: layers.depthwise_conv(x, random(5, 5, 1, 5)),
    "relu": jax.nn.relu,
}  # fmt: skip


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def through_onnx(path, function, *arrays):
    inputs = {f"x{i}": jax.ShapeDtypeStruct(a.shape, a.dtype) for i, a in enumerate(arrays)}
    graph = to_graph(lambda _, *x: function(*x), (), inputs, ("y",))
    write(path, graph, {})
    return session(path).run(None, dict(zip(inputs, arrays, strict=True)))[0], graph


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_the_same(name, tmp_path):
    expected = np.asarray(jax.jit(PROGRAMS[name])(X))
    found, _ = through_onnx(tmp_path / "program.onnx", PROGRAMS[name], X)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_broadcast_and_a_growing_look_up_stay_small(tmp_path):
    table, index = random(50, 64), np.random.default_rng(0).integers(0, 50, (400,))
    program = lambda x: jnp.broadcast_to(x, (1000, 64)) * 2 + jnp.asarray(table)[index].sum()
    _, graph = through_onnx(tmp_path / "x.onnx", program, random(1, 64))
    assert (tmp_path / "x.onnx").stat().st_size < 30_000
    assert sum(node.operator == "Expand" for node in graph.nodes) == 1  # for the output


def test_transposes_are_joined(tmp_path):
    _, graph = through_onnx(tmp_path / "x.onnx", lambda x: x.transpose(1, 0, 3, 2).transpose(1, 0, 3, 2) + x, X)
    assert [node.operator for node in graph.nodes] == ["Add", "Identity"]


@pytest.mark.parametrize(
    ("products", "shapes"),
    [
        ("byxnhk,byxlhk->byxhnl", ((1, 32, 40, 3, 2, 24), (1, 32, 40, 2, 2, 24))),  # attention among a pixel's candidates
        ("byxhnl,byxlhk->byxnhk", ((1, 32, 40, 2, 3, 2), (1, 32, 40, 2, 2, 24))),
        ("byxlhk,byxhnl->byxnhk", ((1, 32, 40, 2, 2, 24), (1, 32, 40, 2, 3, 2))),
        ("pk,plk->pl", ((2000, 24), (2000, 2, 24))),
        ("pln,pkl->pnk", ((2000, 2, 3), (2000, 24, 2))),
        ("pabk,pbck->pabc", ((2000, 2, 2, 24), (2000, 2, 1, 24))),
        ("pnlm,plmk->pnk", ((2000, 1, 2, 2), (2000, 2, 2, 24))),
    ],
)
def test_many_small_products_need_no_matrices(products, shapes, tmp_path):
    arrays = [random(*shape, seed=i) for i, shape in enumerate(shapes)]
    found, graph = through_onnx(tmp_path / "x.onnx", lambda a, b: jnp.einsum(products, a, b), *arrays)
    np.testing.assert_allclose(found, np.einsum(products, *arrays), rtol=1e-5, atol=1e-5)
    assert not any(node.operator == "MatMul" for node in graph.nodes)
    assert sum(node.operator == "Transpose" for node in graph.nodes) <= 1


def test_gelu_is_what_onnxruntime_takes_for_one(tmp_path):
    through_onnx(tmp_path / "x.onnx", layers.gelu, X)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), options, providers=["CPUExecutionProvider"])
    assert "Gelu" in [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]


def test_a_long_loop_is_one_node_unless_it_computes_in_float16(tmp_path):
    def program(x, dtype):
        weight = jnp.asarray(random(5, 5, seed=3))
        step = lambda c, row: ((jnp.tanh(c @ weight + row)).astype(dtype).astype(np.float32), c)
        return lax.scan(step, x[0], x)[1]

    x = random(40, 5)
    for dtype, operators in ((np.float32, 1), (np.float16, 0)):
        found, graph = through_onnx(tmp_path / "x.onnx", lambda x, dtype=dtype: program(x, dtype), x)
        np.testing.assert_allclose(found, np.asarray(jax.jit(program, static_argnums=1)(x, dtype)), atol=2e-3)
        assert sum(node.operator == "Scan" for node in graph.nodes) == operators
        assert (graph.count() < 20) == bool(operators)
        assert all(name in graph.constants or not name.startswith("c_") for node in graph.nodes for name in node.inputs)
    with pytest.raises(InputError, match="scan of 300 steps in float16"):
        through_onnx(tmp_path / "x.onnx", lambda x: program(x, np.float16), random(300, 5))


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("rows of one axis", "Gather"),
        ("known places", "Gather"),
        ("computed elements", "GatherElements"),
        ("computed slices", "GatherND"),
        ("softmax", "Softmax"),
        ("layer norm", "LayerNormalization"),
        ("instance norm", "ReduceSumSquare"),
        ("depthwise convolution", "Conv"),
        ("relu", "Relu"),
    ],
)
def test_a_program_takes_the_operator_that_is_meant(name, operator):
    graph = to_graph(lambda _, x: PROGRAMS[name](x), (), {"x": jax.ShapeDtypeStruct(X.shape, X.dtype)}, ("y",))
    found = [node.operator for node in graph.nodes]
    assert found.count(operator) == 1


@pytest.mark.parametrize(
    ("program", "named"),
    [
        (lambda x: lax.erf_inv(x), "erf_inv"),
        (lambda x: lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, x), "while"),
        (lambda x: lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0))), "pad with interior padding"),
        (lambda x: lax.sort((x, x), num_keys=2)[0], "sort with 2 keys"),
        (lambda x: lax.reshape(x, (120,), (3, 2, 1, 0)), "reshape with dimensions"),
        (lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO), "round with halves away from zero"),
        (lambda x: x.astype(int) & 3, "and with dtype int32"),
        (lambda x: lax.select_n((x > 0).astype(int), x, x, x), "select_n with 3 cases"),
        (
            lambda x: lax.conv_general_dilated(x[0], x[0, :2, :, :2], (1,), [(1, 1)], lhs_dilation=(2,)),
            "conv_general_dilated with dilated inputs",
        ),
        (
            lambda x: lax.gather(
                x, jnp.argmax(x, 3)[..., None] % 2, lax.GatherDimensionNumbers((3, 4, 5, 6), (), (2,)), (2, 3, 2, 5)
            ),
            r"gather with slices of \(2, 3, 2, 5\)",
        ),
    ],
)
def test_what_has_no_row_is_named(program, named, tmp_path):
    jax.eval_shape(program, X)
    with pytest.raises(InputError, match=f"primitive {named}.* (has no row|cannot be written to ONNX)"):
        through_onnx(tmp_path / "x.onnx", program, X)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    found = Checkpoint("bridgedepth", tiny.model_params(), tiny.MODEL, {"licence": "MIT"})
    save_checkpoint(folder, found)
    return found, folder


@pytest.fixture(scope="module")
def pair():
    return tiny.images(HEIGHT, WIDTH)


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_network_of_two_inputs_and_batches(batch, checkpoint, pair, tmp_path):
    said = []
    sizes = ((HEIGHT, WIDTH), (48, 64))
    options = pairs.OnnxOptions(sizes, batch=batch, input="uint8")
    files = [row.path for row in pairs.export_onnx(*checkpoint, tmp_path / "out", "tiny", pair, options, said.append)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["tiny.weights", "tiny_37x50.onnx", "tiny_48x64.onnx"]
    one = pairs.OnnxOptions(sizes[:1], batch=batch)
    ((single, *_),) = pairs.export_onnx(*checkpoint, tmp_path / "float", "tiny", pair, one, said.append)
    assert [p.name for p in (tmp_path / "float").iterdir()] == ["tiny_37x50.onnx"]  # weights inside

    images = pairs.resized(*pair, HEIGHT, WIDTH, batch)
    from_bytes = pairs.run_onnx(files[0], images)
    from_floats = pairs.run_onnx(single, [image.astype(np.float32) for image in images])
    expected = jax.jit(pairs.nchw(find_system("bridgedepth"), tiny.MODEL))(checkpoint[0].params, *images)
    for a, b, c in zip(from_bytes, from_floats, expected, strict=True):
        assert a.shape == (batch, 1, HEIGHT, WIDTH)
        np.testing.assert_array_equal(a, b)
        difference = pairs.compare(a, np.asarray(c))
        assert difference.median <= 5e-4 and difference.beyond <= 0.02  # of synthetic weights
    nodes = int(re.search(r"tiny_37x50.onnx: (\d+) nodes", "\n".join(said))[1])
    assert nodes < 1600
    model = onnx.load(str(single))
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    words = {entry.key: entry.value for entry in model.metadata_props}
    assert (words["height"], words["width"], words["batch"]) == ("37", "50", str(batch))
    assert (words["dtype"], words["input"], words["licence"]) == ("float32", "float32", "MIT")
    assert len(words["checkpoint_sha256"]) == 64 and words["version"]


OPTIONS = tiny.MODEL.replace(
    bounded_prior=True, upsampling=8, learned_confidence=True, temperature=1.3, sgm=SGMConfig(candidates=2)
)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_all_options_together(dtype, checkpoint, pair, tmp_path):
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    found = Checkpoint("bridgedepth", tiny.params(BridgeDepth(OPTIONS), image, image), OPTIONS, {})
    options = pairs.OnnxOptions(((HEIGHT, WIDTH),), batch=2 if dtype == "float32" else 1, dtype=dtype)
    (exported,) = pairs.export_onnx(found, checkpoint[1], tmp_path, "all", pair, options, lambda _: None)
    if dtype == "float32":
        assert exported.difference.median <= 5e-4 and exported.difference.beyond <= 0.02
    operators = [node.op_type for node in onnx.load(str(exported.path)).graph.node]
    assert operators.count("Scan") == 4  # down and across, each both ways, of the coarse and of the fine matching


def test_float16_is_float16_where_it_may_be(checkpoint, pair, tmp_path):
    said = []
    options = pairs.OnnxOptions(((HEIGHT, WIDTH),), dtype="float16")
    ((file, *_),) = pairs.export_onnx(*checkpoint, tmp_path, "tiny", pair, options, said.append)
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(file))).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    of = lambda operator: {kinds[n.output[0]] for n in graph.node if n.op_type == operator}
    assert half in of("Conv") and half in of("MatMul")
    for delicate in ("Sin", "Cos", "Softmax", "LayerNormalization", "ReduceSumSquare", "TopK"):
        assert of(delicate) == {single}
    assert any("blocks_0" in line for line in said)  # the largest activation of each layer


def test_float16_that_overflows_names_the_layer(checkpoint, pair, tmp_path):
    found, folder = checkpoint
    huge = jax.tree.map(np.copy, found.params)
    huge["mono"]["depth_head"]["scratch"]["refinenet2"]["out_conv"]["kernel"] *= 3e4
    broken = Checkpoint(found.kind, huge, found.config, {})
    with pytest.raises(InputError, match=r"refinenet2/out_conv.* reaches .*e\+.* float16 ends at 65504"):
        pairs.export_onnx(broken, folder, tmp_path, "x", pair, pairs.OnnxOptions(((32, 48),), dtype="float16"), lambda _: None)
    assert not list(tmp_path.iterdir())


def test_activations_are_those_of_float32(tmp_path):
    def half(weight, x):
        with jax.named_scope("layer"):
            y = x.astype(np.float16) * weight
        with jax.named_scope("next"):
            return jnp.where(y > 0, -jnp.inf, y * 1000).astype(np.float32) / 1000  # minus infinity is a mask

    x = np.asarray([[32, -32]], np.float32)
    graph = to_graph(half, np.float16(8), {"x": jax.ShapeDtypeStruct(x.shape, x.dtype)}, ("y",))
    assert largest_activations(graph, {"x": x}, tmp_path) == {"layer": 256, "next": 256_000}
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="65504"):
        check_float16({"a": 1.0, "b": float("inf")})


def test_numbers_that_differ_are_refused(checkpoint, pair, tmp_path, monkeypatch):
    run = pairs.run_onnx
    monkeypatch.setattr(pairs, "run_onnx", lambda *args: [value + 0.001 for value in run(*args)])
    with pytest.raises(InputError, match="differs from JAX's"):
        pairs.export_onnx(*checkpoint, tmp_path, "x", pair, pairs.OnnxOptions(((32, 48),)), lambda _: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(sizes=((31, 48),)), "31x48, expected at least 32x32"),
        (dict(batch=0), "batch 0"),
        (dict(dtype="bfloat16"), "bfloat16.*expected one of float32, float16"),
        (dict(input="int8"), "int8"),
    ],
)
def test_bad_options(options, message, checkpoint, pair, tmp_path):
    with pytest.raises(InputError, match=message):
        pairs.export_onnx(*checkpoint, tmp_path, "x", pair, pairs.OnnxOptions(**{"sizes": ((32, 48),), **options}))


def test_an_output_that_exists_stays(checkpoint, pair, tmp_path):
    (tmp_path / "x_32x48.onnx").write_text("mine")
    with pytest.raises(InputError, match=r"x_32x48\.onnx exists"):
        pairs.export_onnx(*checkpoint, tmp_path, "x", pair, pairs.OnnxOptions(((32, 48),)))
    assert (tmp_path / "x_32x48.onnx").read_text() == "mine"
