"""A JAX function as an ONNX graph, by way of its jaxpr (spec `export.md`).

Any function of weights and arrays with static shapes; nothing here knows a network. The tables in `onnx_ops.py` say what
each primitive and each named jitted function becomes.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.export.onnx_graph import SMALL, Graph, Value, constant
from bridgedepth_jax.export.onnx_ops import ELEMENTWISE, NAMED, ROWS, slice_of

INLINED = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat", "remat2")
SHORT = 8  # steps of a loop up to which it is unrolled
UNROLLED = 256  # and at most, where it must be


def to_graph(
    function: Callable[..., Any],
    weights: Any,
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    outputs: Sequence[str],
) -> Graph:
    """The graph of function(weights, *inputs).

    Args:
      function: returns an array or a tuple of arrays, one for each name in `outputs`.
      weights: pytree of arrays, constants of the graph.
      inputs: name, shape and dtype of each argument after the weights.

    Raises InputError: a primitive that ONNX cannot say, or that has no row yet; it is named.
    """
    leaves, tree = jax.tree.flatten(weights)
    shapes = [jax.ShapeDtypeStruct(np.shape(leaf), np.asarray(leaf).dtype) for leaf in leaves]
    closed = jax.make_jaxpr(lambda w, *x: function(jax.tree.unflatten(tree, w), *x))(shapes, *inputs.values())
    if len(outputs) != len(closed.jaxpr.outvars):
        raise ValueError(f"the function returns {len(closed.jaxpr.outvars)} arrays, and {len(outputs)} names are given")
    graph = Graph()
    arguments = [constant(leaf) for leaf in leaves]
    arguments += [graph.add_input(name, x.shape, np.dtype(x.dtype)) for name, x in inputs.items()]
    results = convert(graph, closed.jaxpr, [constant(c) for c in closed.consts], arguments)
    for name, value in zip(outputs, results, strict=True):
        graph.add_output(name, value)
    graph.prune()
    return graph


def convert(graph: Graph, jaxpr: Any, consts: Sequence[Value], arguments: Sequence[Value]) -> list[Value]:
    """Adds a program's equations to the graph; returns the values of its results."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(var: Any) -> Value:
        return constant(np.asarray(var.val, var.aval.dtype)) if hasattr(var, "val") else values[var]

    outer = graph.scope
    for equation in jaxpr.eqns:
        graph.scope = "/".join(part for part in (outer, str(equation.source_info.name_stack)) if part)
        inputs = [read(var) for var in equation.invars]
        results = translate(graph, equation, inputs)
        for var, value in zip(equation.outvars, results, strict=True):
            if value.shape != var.aval.shape or value.dtype != var.aval.dtype:
                raise AssertionError(f"{equation.primitive.name}: {value.shape} {value.dtype} for {var.aval}")
            values[var] = value
    graph.scope = outer
    return [read(var) for var in jaxpr.outvars]


def translate(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    """One equation."""
    name = equation.primitive.name
    if name in INLINED:
        called = equation.params.get("name")
        if called in NAMED:
            return NAMED[called](graph, equation, inputs)
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        jaxpr, consts = (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())
        return convert(graph, jaxpr, [constant(c) for c in consts], inputs)
    if name == "scan":
        return _loop(graph, equation, inputs)
    if name == "iota":
        axis, shape = equation.params["dimension"], equation.outvars[0].aval.shape
        held = [shape[axis] if i == axis else 1 for i in range(len(shape))]
        return [constant(np.arange(shape[axis], dtype=equation.params["dtype"]).reshape(held), shape)]
    folded = _fold(equation, inputs)
    if folded is not None:
        return folded
    if name not in ROWS:
        raise InputError(f"primitive {name} has no row in bridgedepth_jax/export/onnx_ops.py, so it cannot be written to ONNX")
    return ROWS[name](graph, equation, inputs)


SHAPES = ("reshape", "squeeze", "expand_dims", "transpose", "broadcast_in_dim", "convert_element_type", "stop_gradient", "copy")


def _fold(equation: Any, inputs: list[Value]) -> list[Value] | None:
    """The results of an equation whose inputs are constants, None where they are not or where the file would grow.

    Rows fold changes of shape and dtype themselves.
    """
    if equation.primitive.name in SHAPES or any(value.array is None for value in inputs):
        return None
    arrays = [np.asarray(value.array) for value in inputs]
    outs = [var.aval for var in equation.outvars]
    if equation.primitive.name in ELEMENTWISE:
        rank = len(outs[0].shape)
        held = np.broadcast_shapes(*(value.held for value in inputs), (1,) * rank)
        (result,) = _evaluate(equation, [np.broadcast_to(array, held) if array.ndim else array for array in arrays])
        return [constant(np.broadcast_to(result, held), outs[0].shape)]
    size = sum(math.prod(out.shape) * out.dtype.itemsize for out in outs)
    if size > max(SMALL, sum(value.bytes for value in inputs)):
        return None
    full = [np.broadcast_to(array, value.shape) for array, value in zip(arrays, inputs, strict=True)]
    return [constant(result) for result in _evaluate(equation, full)]


def _evaluate(equation: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        results = equation.primitive.bind(*map(jax.numpy.asarray, arrays), **equation.params)
    return [np.asarray(result) for result in (results if equation.primitive.multiple_results else [results])]


def _loop(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    """A loop of known length: ONNX's Scan, or one step after the other where it is short or computes in float16.

    Numbers inside a Scan are not measured (`activations.py`), so it holds none that could overflow.
    """
    length = equation.params["length"]
    if length > SHORT:
        made = _scan(graph, equation, inputs)
        if made is not None:
            return made
    if length > UNROLLED:
        raise InputError(f"primitive scan of {length} steps in float16 cannot be written to ONNX, expected at most {UNROLLED}")
    return _unroll(graph, equation, inputs)


def _kinds(equation: Any) -> tuple[int, int]:
    """How many of a loop's inputs are the same in each step, and how many are carried from one to the next."""
    p = equation.params
    if "num_consts" in p:
        return p["num_consts"], p["num_carry"]
    same, carried, _ = (len(part) for part in p["ft_in"].unpack())  # JAX 0.12
    return same, carried


def _scan(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value] | None:
    p = equation.params
    (n_consts, n_carry), closed = _kinds(equation), p["jaxpr"]
    fixed = [value if value.array is not None else graph.whole(value) for value in inputs[:n_consts]]
    outer = [graph.full(value) for value in inputs[n_consts:]]
    shapes = [value.shape for value in inputs[n_consts : n_consts + n_carry]]
    shapes += [value.shape[1:] for value in inputs[n_consts + n_carry :]]
    body = graph.body()
    dtypes = [value.dtype for value in inputs[n_consts:]]
    arguments = [body.add_input(graph.new_name(), shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    results = convert(body, closed.jaxpr, [constant(c) for c in closed.consts], [*fixed, *arguments])
    for value in results:
        body.add_output(graph.new_name(), value)
    if any(body.dtypes.get(name) == np.float16 for node in body.nodes for name in node.outputs):
        return None
    way = int(p["reverse"])
    made = graph.nodes_of(
        "Scan",
        outer,
        [(var.aval.shape, var.aval.dtype) for var in equation.outvars],
        body=body,
        num_scan_inputs=len(outer) - n_carry,
        scan_input_directions=(way,) * (len(outer) - n_carry),
        scan_output_directions=(way,) * (len(results) - n_carry),
    )
    return made


def _unroll(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    """One step after the other."""
    p = equation.params
    length, (n_consts, n_carry), closed = p["length"], _kinds(equation), p["jaxpr"]
    inner = functools.partial(convert, graph, closed.jaxpr, [constant(c) for c in closed.consts])
    fixed, carry, xs = inputs[:n_consts], inputs[n_consts : n_consts + n_carry], inputs[n_consts + n_carry :]
    steps: dict[int, list[Value]] = {}
    for i in reversed(range(length)) if p["reverse"] else range(length):
        rows = [graph.reshape(slice_of(graph, graph.whole(x), [i], [i + 1], [0]), x.shape[1:]) for x in xs]
        results = inner([*fixed, *carry, *rows])
        carry, steps[i] = results[:n_carry], results[n_carry:]
    stacked = []
    for k, var in enumerate(equation.outvars[n_carry:]):
        parts = [graph.full(graph.reshape(steps[i][k], (1, *steps[i][k].shape))) for i in range(length)]
        stacked.append(graph.node("Concat", parts, var.aval.shape, var.aval.dtype, axis=0))
    return [*carry, *stacked]
