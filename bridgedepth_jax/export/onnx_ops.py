"""JAX's primitives as ONNX operators: a table with a row for each, and one for named jitted functions (spec `export.md`).

A row takes (graph, equation, inputs) and returns the values of the equation's outputs. What an equation computes from
constants alone does not get here. A newcomer adds a function with `@row("primitive")`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.export.onnx_graph import Graph, Value, constant

Operator = Callable[[Graph, Any, list[Value]], list[Value]]
ROWS: dict[str, Operator] = {}
NAMED: dict[str, Operator] = {}
ELEMENTWISE: set[str] = set()  # primitives that work on held broadcasts as they are


def row(*names: str, table: dict[str, Operator] | None = None) -> Callable[[Operator], Operator]:
    def add(function: Operator) -> Operator:
        (ROWS if table is None else table).update(dict.fromkeys(names, function))
        return function

    return add


def shape_of(equation: Any, i: int = 0) -> tuple[int, ...]:
    return equation.outvars[i].aval.shape


def dtype_of(equation: Any, i: int = 0) -> np.dtype:
    return np.dtype(equation.outvars[i].aval.dtype)


def cannot(equation: Any, why: str) -> InputError:
    return InputError(f"primitive {equation.primitive.name} with {why} cannot be written to ONNX")


# Elementwise. A table of operators, and the few that have none of their own.

OPERATORS = {
    "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow",
    "neg": "Neg", "abs": "Abs", "sign": "Sign", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "tanh": "Tanh", "erf": "Erf", "logistic": "Sigmoid", "floor": "Floor", "ceil": "Ceil",
    "eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual",
}  # fmt: skip
LOGICAL = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}


def elementwise(
    graph: Graph, operator: str, values: Sequence[Value], equation: Any, dtype: Any = None, **attributes: Any
) -> Value:
    """One operator over values that broadcast; the result is held as small as they are."""
    held = np.broadcast_shapes(*(value.held for value in values))
    names = [graph.tensor(value) for value in values]
    return graph.node(operator, names, held, dtype or dtype_of(equation), **attributes)._replace(shape=shape_of(equation))


def _plain(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [elementwise(graph, OPERATORS[equation.primitive.name], values, equation)]


ROWS.update(dict.fromkeys(OPERATORS, _plain))


@row(*LOGICAL)
def _logical(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    if values[0].dtype != np.bool_:
        raise cannot(equation, f"dtype {values[0].dtype}")
    return [elementwise(graph, LOGICAL[equation.primitive.name], values, equation)]


@row("ne")
def _not_equal(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    equal = elementwise(graph, "Equal", values, equation)
    return [elementwise(graph, "Not", [equal], equation)]


@row("square", "integer_pow")
def _power(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    (x,), power = values, equation.params.get("y", 2)
    if abs(power) > 8:
        return [elementwise(graph, "Pow", [x, constant(x.dtype.type(power))], equation)]
    result = None
    for _ in range(abs(power)):
        result = x if result is None else elementwise(graph, "Mul", [result, x], equation)
    if result is None:
        return [constant(np.ones((1,) * len(x.shape), x.dtype), x.shape)]
    return [result if power > 0 else elementwise(graph, "Reciprocal", [result], equation)]


@row("rsqrt")
def _rsqrt(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [elementwise(graph, "Reciprocal", [elementwise(graph, "Sqrt", values, equation)], equation)]


@row("round")
def _round(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    if equation.params["rounding_method"] != lax.RoundingMethod.TO_NEAREST_EVEN:
        raise cannot(equation, "halves away from zero")
    return [elementwise(graph, "Round", values, equation)]


@row("rem")
def _remainder(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [elementwise(graph, "Mod", values, equation, fmod=1)]


@row("is_finite")
def _is_finite(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    size = elementwise(graph, "Abs", values, equation, values[0].dtype)
    return [elementwise(graph, "Less", [size, constant(values[0].dtype.type(np.inf))], equation)]  # false for NaN too


@row("clamp")
def _clamp(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    low, x, high = values
    return [elementwise(graph, "Min", [elementwise(graph, "Max", [low, x], equation), high], equation)]


@row("select_n")
def _select(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    which, *cases = values
    if which.dtype != np.bool_ or len(cases) != 2:
        raise cannot(equation, f"{len(cases)} cases chosen by {which.dtype}")
    return [chosen(graph, which, cases[1], cases[0], equation)]


def chosen(graph: Graph, which: Value, yes: Value, no: Value, equation: Any) -> Value:
    if no.dtype != np.bool_:
        return elementwise(graph, "Where", [which, yes, no], equation)
    # onnxruntime has no Where of booleans
    kept = elementwise(graph, "And", [elementwise(graph, "Not", [which], equation), no], equation)
    return elementwise(graph, "Or", [elementwise(graph, "And", [which, yes], equation), kept], equation)


@row("convert_element_type")
def _convert(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [graph.cast(values[0], equation.params["new_dtype"])]


@row("stop_gradient", "copy", "copy_p", "optimization_barrier", "device_put")
def _same(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return values


ELEMENTWISE.update(
    OPERATORS, LOGICAL, ("ne", "square", "integer_pow", "rsqrt", "round", "rem", "is_finite", "clamp", "select_n")
)


# Shapes


@row("reshape", "squeeze", "expand_dims")
def _reshape(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    if equation.params.get("dimensions") is not None and equation.primitive.name == "reshape":
        raise cannot(equation, "dimensions")
    return [graph.reshape(values[0], shape_of(equation))]


@row("transpose")
def _transpose(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [graph.transpose(values[0], equation.params["permutation"])]


@row("broadcast_in_dim")
def _broadcast(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    (x,), shape = values, shape_of(equation)
    aligned = [1] * len(shape)
    for axis, size in zip(equation.params["broadcast_dimensions"], x.shape, strict=True):
        aligned[axis] = size
    return [graph.reshape(x, aligned)._replace(shape=shape)]


@row("concatenate")
def _concatenate(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    axis = equation.params["dimension"]
    names = [graph.full(value) for value in values if value.shape[axis]]  # ONNX cannot expand to nothing
    if len(names) == 1:
        return [next(value for value in values if value.shape[axis])]
    return [graph.node("Concat", names, shape_of(equation), dtype_of(equation), axis=axis)]


@row("stack")
def _stack(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    axis, shape = equation.params["axis"], list(shape_of(equation))
    shape[axis] = 1
    parts = [graph.full(graph.reshape(value, shape)) for value in values]
    return [graph.node("Concat", parts, shape_of(equation), dtype_of(equation), axis=axis)]


@row("split")
def _split(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    results = [(out.aval.shape, out.aval.dtype) for out in equation.outvars]
    sizes = graph.integers(equation.params["sizes"])
    return graph.nodes_of("Split", [graph.full(values[0]), sizes], results, axis=equation.params["axis"])


@row("unstack")
def _unstack(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    axis, (x,) = equation.params["axis"], values
    parts = [slice_of(graph, x, [i], [i + 1], [axis]) for i in range(x.shape[axis])]
    return [graph.reshape(part, shape_of(equation)) for part in parts]


@row("tile")
def _tile(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    (x,), shape = values, shape_of(equation)
    repeats = [size // old for size, old in zip(shape, x.shape, strict=True)]
    if all(repeat == 1 or old == 1 for repeat, old in zip(repeats, x.shape, strict=True)):
        return [x._replace(shape=shape)]
    return [graph.node("Tile", [graph.full(x), graph.integers(repeats)], shape, x.dtype)]


def slice_of(
    graph: Graph, x: Value, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int] | None = None
) -> Value:
    """x[start:end:step] along some axes; those that change nothing are left out."""
    chosen = [
        (start, end, axis, step)
        for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(axes), strict=True)
        if (start, end, step) != (0, x.shape[axis], 1)
    ]
    if not chosen:
        return x
    x, shape = graph.whole(x), list(x.shape)
    for start, end, axis, step in chosen:
        shape[axis] = len(range(start, max(end, -1), step))
    limits = [graph.integers(numbers) for numbers in zip(*chosen, strict=True)]
    if all(step == 1 for *_, step in chosen):
        limits.pop()
    return graph.node("Slice", [graph.tensor(x), *limits], shape, x.dtype)


@row("slice")
def _slice(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    p = equation.params
    return [slice_of(graph, values[0], p["start_indices"], p["limit_indices"], range(len(values[0].shape)), p["strides"])]


@row("rev")
def _reverse(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    x, axes = graph.whole(values[0]), equation.params["dimensions"]
    minus = graph.integers([-1] * len(axes))
    ends = graph.integers([-(2**31)] * len(axes))
    return [graph.node("Slice", [graph.tensor(x), minus, ends, graph.integers(axes), minus], x.shape, x.dtype)]


@row("pad")
def _pad(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    x, fill = values
    config = equation.params["padding_config"]
    if any(interior for *_, interior in config):
        raise cannot(equation, "interior padding")
    starts = [max(-low, 0) for low, _, _ in config]
    ends = [size - max(-high, 0) for size, (_, high, _) in zip(x.shape, config, strict=True)]
    x = slice_of(graph, x, starts, ends, range(len(starts)))
    pads = [max(low, 0) for low, _, _ in config] + [max(high, 0) for _, high, _ in config]
    if not any(pads):
        return [x]
    dtype = x.dtype
    if dtype == np.bool_:  # not in onnxruntime
        x, fill = graph.cast(x, np.int32), graph.cast(fill, np.int32)
    names = [graph.full(x), graph.integers(pads), graph.tensor(fill)]
    return [graph.cast(graph.node("Pad", names, shape_of(equation), x.dtype, mode="constant"), dtype)]


# Reductions and order

REDUCTIONS = {"reduce_max": "ReduceMax", "reduce_min": "ReduceMin", "reduce_prod": "ReduceProd"}


@row("reduce_sum", *REDUCTIONS)
def _reduce(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    axes, name = equation.params["axes"], graph.full(values[0])
    if equation.primitive.name == "reduce_sum":  # the only one whose axes are an input in opset 17
        inputs = [name, graph.integers(axes)]
        return [graph.node("ReduceSum", inputs, shape_of(equation), dtype_of(equation), keepdims=0)]
    operator = REDUCTIONS[equation.primitive.name]
    return [graph.node(operator, [name], shape_of(equation), dtype_of(equation), axes=tuple(axes), keepdims=0)]


@row("reduce_and", "reduce_or")
def _reduce_logical(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    operator = "ReduceMin" if equation.primitive.name == "reduce_and" else "ReduceMax"
    name = graph.full(graph.cast(values[0], np.int32))
    axes = tuple(equation.params["axes"])
    return [graph.cast(graph.node(operator, [name], shape_of(equation), np.int32, axes=axes, keepdims=0), np.bool_)]


@row("argmax", "argmin")
def _argument(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    operator = "ArgMax" if equation.primitive.name == "argmax" else "ArgMin"
    (axis,) = equation.params["axes"]
    found = graph.node(operator, [graph.full(values[0])], shape_of(equation), np.int64, axis=axis, keepdims=0)
    return [graph.cast(found, dtype_of(equation))]


@row("top_k")
def _top_k(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    """Equal values by lowest index in both; but JAX puts 0 before -0, which are equal to ONNX."""
    (x,), shape = values, shape_of(equation)
    axis = equation.params.get("axis", -1)
    inputs = [graph.full(x), graph.integers([equation.params["k"]])]
    top, index = graph.nodes_of("TopK", inputs, [(shape, x.dtype), (shape, np.int64)], axis=axis, largest=1, sorted=1)
    return [top, graph.cast(index, dtype_of(equation, 1))]


@row("sort")
def _sort(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    """By the first operand, equal ones as they were; the others follow it."""
    if equation.params["num_keys"] != 1:
        raise cannot(equation, f"{equation.params['num_keys']} keys")
    x, axis = values[0], equation.params["dimension"]
    inputs, results = [graph.full(x), graph.integers([x.shape[axis]])], [(x.shape, x.dtype), (x.shape, np.int64)]
    ordered, index = graph.nodes_of("TopK", inputs, results, axis=axis, largest=0, sorted=1)
    followers = [
        graph.node("GatherElements", [graph.full(y), graph.tensor(index)], y.shape, y.dtype, axis=axis) for y in values[1:]
    ]
    return [ordered, *followers]


@row("cumsum")
def _cumulative_sum(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    axis, reverse = graph.constant(np.int64(equation.params["axis"])), int(equation.params["reverse"])
    return [graph.node("CumSum", [graph.full(values[0]), axis], shape_of(equation), dtype_of(equation), reverse=reverse)]


# Products


FEW, MANY = 4, 1024  # numbers of rows, columns, and of matrices


def _small_dots(graph: Graph, equation: Any, values: Sequence[Value], free: Sequence[list[int]]) -> Value:
    """Many products of matrices of a few rows, as a product of numbers and a sum, in the order of the larger operand's axes.

    A MatMul would need both transposed, a few numbers at a time.
    """
    contract, batch = equation.params["dimension_numbers"]
    large = int(values[1].bytes > values[0].bytes)
    small = 1 - large
    partner = {j: i for pairs in (contract, batch) for i, j in zip(pairs[small], pairs[large], strict=True)}
    axes = list(range(len(values[large].shape)))
    at = next((i for i in axes if i not in batch[large]), len(axes))  # where the other's own axes go
    inserted = len(free[small])
    moved = [*axes[:at], *[None] * inserted, *axes[at:]]
    shape = [1 if axis is None else values[large].shape[axis] for axis in moved]
    one = graph.reshape(values[large], shape)
    order = [*(partner[i] for i in axes[:at]), *free[small], *(partner[i] for i in axes[at:] if i in partner)]
    other = graph.transpose(values[small], order)
    sizes = iter(other.shape)
    other = graph.reshape(other, [1 if axis is not None and axis not in partner else next(sizes) for axis in moved])
    product = np.broadcast_shapes(one.shape, other.shape)
    y = graph.node("Mul", [graph.full(one), graph.full(other)], product, dtype_of(equation))
    places = {axis: i for i, axis in enumerate(moved) if axis is not None}
    summed = sorted(places[i] for i in contract[large])
    kept = [i for i in range(len(moved)) if i not in summed]
    shape = [product[i] for i in kept]
    y = graph.node("ReduceSum", [y.name, graph.integers(summed)], shape, dtype_of(equation), keepdims=0)
    own, others = [places[i] for i in free[large]], list(range(at, at + inserted))
    result = [*(places[i] for i in batch[large]), *(own + others if small else others + own)]
    return graph.transpose(y, [kept.index(i) for i in result])


@row("dot_general")
def _dot(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    (contract, batch), out = equation.params["dimension_numbers"], dtype_of(equation)
    a, b = (graph.whole(graph.cast(value, out)) for value in values)
    free = [[i for i in range(len(v.shape)) if i not in (*c, *n)] for v, c, n in zip((a, b), contract, batch, strict=True)]
    shared = [a.shape[i] for i in batch[0]]
    inner = math.prod(a.shape[i] for i in contract[0])
    rows, columns = (math.prod(v.shape[i] for i in axes) for v, axes in zip((a, b), free, strict=True))
    if math.prod(shared) >= MANY and sorted((rows, columns, inner))[1] <= FEW:
        return [_small_dots(graph, equation, (a, b), free)]
    a = graph.transpose(a, [*batch[0], *free[0], *contract[0]])
    b = graph.transpose(b, [*batch[1], *contract[1], *free[1]])
    if shared or len(contract[0]) != 1 or not free[0]:
        a = graph.reshape(a, [*shared, rows, inner])
    b = graph.reshape(b, [*shared, inner, columns])
    product = graph.node("MatMul", [graph.tensor(a), graph.tensor(b)], [*a.shape[:-1], columns], out)
    return [graph.reshape(product, shape_of(equation))]


@row("conv_general_dilated")
def _conv(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    p, out = equation.params, dtype_of(equation)
    if p["batch_group_count"] != 1 or any(step != 1 for step in p["lhs_dilation"]):
        raise cannot(equation, "dilated inputs or grouped batches")
    numbers = p["dimension_numbers"]
    x = graph.transpose(graph.cast(values[0], out), numbers.lhs_spec)
    kernel = graph.transpose(graph.cast(values[1], out), numbers.rhs_spec)
    shape = [shape_of(equation)[axis] for axis in numbers.out_spec]
    y = graph.node(
        "Conv",
        [graph.full(x), graph.full(kernel)],
        shape,
        out,
        kernel_shape=kernel.shape[2:],
        strides=tuple(p["window_strides"]),
        dilations=tuple(p["rhs_dilation"]),
        pads=tuple(low for low, _ in p["padding"]) + tuple(high for _, high in p["padding"]),
        group=p["feature_group_count"],
    )
    return [graph.transpose(y, np.argsort(numbers.out_spec).tolist())]


# Gather


@row("gather")
def _gather(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    """Rows of the operand at computed places, in one of four ways; axes that are taken whole follow the places."""
    x, index = values
    p = equation.params
    numbers, mode, sizes = p["dimension_numbers"], p["mode"], p["slice_sizes"]
    batched, looked = list(numbers.operand_batching_dims), list(numbers.start_index_map)
    rest = [i for i in range(len(x.shape)) if i not in (*batched, *looked)]
    if sorted(numbers.collapsed_slice_dims) != sorted(looked):
        raise cannot(equation, f"slices of {sizes} of {x.shape}")
    x = slice_of(graph, x, [0] * len(rest), [sizes[i] for i in rest], rest)  # starts at 0 where nothing is looked up
    limits = np.asarray([x.shape[i] - 1 for i in looked], index.dtype)
    inside = None
    if mode == lax.GatherScatterMode.FILL_OR_DROP:
        inside = _inside(graph, index, limits)
    if mode != lax.GatherScatterMode.PROMISE_IN_BOUNDS:
        index = _limited(graph, index, limits)

    # Places (batched axes, other axes), with the axis of the index vector last.
    places = list(range(len(index.shape) - 1))
    order = list(numbers.start_indices_batching_dims)
    free = [i for i in places if i not in order]
    index = graph.transpose(index, [*order, *free, len(places)])
    counts = [index.shape[i] for i in range(len(places))]
    ordered = graph.transpose(x, [*batched, *looked, *rest])
    tail = [x.shape[i] for i in rest]
    found_shape = [*counts, *tail]
    if len(looked) == 1 and not batched:
        found = _gather_axis(graph, x, index, looked[0], found_shape)
    elif len(looked) == 1 and index.array is not None:
        found = _gather_flat(graph, x, index, [*batched, looked[0]], rest, found_shape)
    elif len(looked) == 1 and math.prod(tail) == 1:
        flat = [*counts[: len(batched)], math.prod(counts[len(batched) :])]
        data = graph.full(graph.reshape(ordered, [*flat[:-1], x.shape[looked[0]]]))
        elements = graph.node(
            "GatherElements", [data, graph.full(graph.reshape(index, flat))], flat, x.dtype, axis=len(flat) - 1
        )
        found = graph.reshape(elements, found_shape)
    else:
        names = [graph.full(ordered), graph.full(graph.cast(index, np.int64))]
        found = graph.node("GatherND", names, found_shape, x.dtype, batch_dims=len(batched))

    # `found` is (batched, free, rest); the output has its places in their old order between the offset axes.
    positions = [i for i in range(len(shape_of(equation))) if i not in numbers.offset_dims]
    source = [0] * len(shape_of(equation))
    for at, place in zip(positions, places, strict=True):
        source[at] = [*order, *free].index(place)
    for i, at in enumerate(numbers.offset_dims):
        source[at] = len(places) + i
    found = graph.transpose(found, source)
    if inside is None:
        return [found]
    spread = [1] * len(source)
    for at, place in zip(positions, places, strict=True):
        spread[at] = inside.shape[place]
    return [chosen(graph, graph.reshape(inside, spread), found, constant(x.dtype.type(p["fill_value"])), equation)]


def _inside(graph: Graph, index: Value, limits: np.ndarray) -> Value | None:
    """Which places exist, without the axis of the index vector; None: all of them."""
    if index.array is not None:
        known = ((index.array >= 0) & (index.array <= limits)).all(-1)
        return None if known.all() else constant(known)
    parts, name = [], graph.full(index)
    for operator, bound in (("GreaterOrEqual", 0 * limits), ("LessOrEqual", limits)):
        parts.append(graph.node(operator, [name, graph.constant(bound)], index.shape, np.bool_).name)
    both = graph.node("And", parts, index.shape, np.bool_)
    if len(limits) == 1:
        return graph.reshape(both, index.shape[:-1])
    lowest = graph.node("ReduceMin", [graph.cast(both, np.int32).name], index.shape[:-1], np.int32, axes=(-1,), keepdims=0)
    return graph.cast(lowest, np.bool_)


def _limited(graph: Graph, index: Value, limits: np.ndarray) -> Value:
    if index.array is not None:
        return index._replace(array=np.clip(index.array, 0, limits))
    above = graph.node("Max", [graph.full(index), graph.constant(0 * limits)], index.shape, index.dtype)
    return graph.node("Min", [above.name, graph.constant(limits)], index.shape, index.dtype)


def _gather_axis(graph: Graph, x: Value, index: Value, axis: int, shape: list[int]) -> Value:
    """One axis is looked up, no other depends on where. (places, rest) of ONNX's (before, places, after)."""
    places = index.shape[:-1]
    index = graph.reshape(index, places)
    made = [*x.shape[:axis], *places, *x.shape[axis + 1 :]]
    y = graph.node("Gather", [graph.full(x), graph.full(index)], made, x.dtype, axis=axis)
    n = len(places)
    return graph.transpose(y, [*range(axis, axis + n), *range(axis), *range(axis + n, len(made))])


def _gather_flat(graph: Graph, x: Value, index: Value, axes: list[int], rest: list[int], shape: list[int]) -> Value:
    """Known places, other ones in each row of the batched axes: one look-up in the axes as one."""
    sizes = [x.shape[i] for i in axes]
    before = [i for i in rest if i < axes[0]]
    after = [i for i in rest if i > axes[0]]
    x = graph.transpose(x, [*before, *axes, *after])
    x = graph.reshape(x, [*(x.shape[i] for i in range(len(before))), math.prod(sizes), *x.shape[len(before) + len(axes) :]])
    assert index.array is not None
    places = np.broadcast_to(index.array, index.shape)[..., 0]
    rows = np.arange(math.prod(sizes[:-1])).reshape(*sizes[:-1], *(1,) * (places.ndim - len(sizes) + 1))
    flat = constant((rows * sizes[-1] + places).astype(index.dtype)[..., None])
    return _gather_axis(graph, x, flat, len(before), shape)


# Named functions: what their name says, whatever they are made of.


@row("relu", table=NAMED)
def _relu(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [elementwise(graph, "Relu", values, equation)]


@row("gelu", table=NAMED)
def _gelu(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    """The five nodes that onnxruntime takes for one: with a division, and the half last."""
    (x,) = values
    number = lambda value: constant(x.dtype.type(value))
    y = elementwise(graph, "Erf", [elementwise(graph, "Div", [x, number(math.sqrt(2))], equation)], equation)
    y = elementwise(graph, "Mul", [x, elementwise(graph, "Add", [y, number(1)], equation)], equation)
    return [elementwise(graph, "Mul", [y, number(0.5)], equation)]


@row("softmax", table=NAMED)
def _softmax(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    """Over the last axis."""
    (x,) = values
    return [graph.node("Softmax", [graph.full(x)], x.shape, x.dtype, axis=-1)]


@row("normalize_channels", table=NAMED)
def _layer_norm(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    """(x, scale (C,), bias (C,), eps) with float32 statistics."""
    x, scale, bias, eps = (graph.cast(value, np.float32) for value in values)
    assert eps.array is not None
    names = [graph.full(value) for value in (x, scale, bias)]
    y = graph.node("LayerNormalization", names, x.shape, np.float32, axis=-1, epsilon=float(eps.array))
    return [graph.cast(y, dtype_of(equation))]


@row("instance_norm", table=NAMED)
def _instance_norm(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    """(B, H, W, C) over H and W, eps 1e-5, float32 statistics.

    Not by InstanceNormalization: onnxruntime's for the browser adds a map's numbers one after the other, which is 1e-5 off.
    """
    x = graph.transpose(graph.cast(values[0], np.float32), (0, 3, 1, 2))
    rows, one = (*x.shape[:3], 1), (*x.shape[:2], 1, 1)
    number = lambda value: graph.constant(np.float32(value))
    node = lambda operator, inputs, shape, **attributes: graph.node(operator, inputs, shape, np.float32, **attributes).name
    mean = node("ReduceMean", [graph.full(x)], rows, axes=(3,), keepdims=1)
    mean = node("ReduceMean", [mean], one, axes=(2,), keepdims=1)
    centred = node("Sub", [graph.full(x), mean], x.shape)
    squares = node("ReduceSumSquare", [centred], rows, axes=(3,), keepdims=1)
    variance = node("Mul", [node("ReduceMean", [squares], one, axes=(2,), keepdims=1), number(1 / x.shape[3])], one)
    scale = node("Reciprocal", [node("Sqrt", [node("Add", [variance, number(1e-5)], one)], one)], one)
    y = graph.node("Mul", [centred, scale], x.shape, np.float32)
    return [graph.cast(graph.transpose(y, (0, 2, 3, 1)), dtype_of(equation))]


@row("depthwise_conv", table=NAMED)
def _depthwise_conv(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    """(B, H, W, C), (k, k, 1, C)."""
    x, kernel = graph.transpose(values[0], (0, 3, 1, 2)), graph.transpose(values[1], (3, 2, 0, 1))
    k = kernel.shape[-1]
    names = [graph.full(x), graph.full(kernel)]
    y = graph.node("Conv", names, x.shape, x.dtype, kernel_shape=(k, k), pads=(k // 2,) * 4, group=x.shape[1])
    return [graph.transpose(y, (0, 2, 3, 1))]
