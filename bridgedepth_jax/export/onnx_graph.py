"""An ONNX graph while it is built: values, constants, nodes, and the file in the end (spec `export.md`).

A `Value` stands for an array of the JAX program. A broadcast is held as its small tensor, whose axes are 1 where the value
repeats; ONNX operators broadcast those themselves, and `Graph.full` makes the whole where one does not. Equal constants and
equal nodes exist once, a transpose of a transpose and a reshape of a reshape are one.
"""

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from bridgedepth_jax.errors import InputError

try:
    import onnx
except ImportError:
    raise InputError("onnx is not installed: pip install 'bridgedepth-jax[onnx]'") from None
from onnx import TensorProto, helper

OPSET, IR_VERSION = 17, 8  # read by onnxruntime 1.12 and TensorRT 8.6, and by all after them
SMALL = 1024  # bytes: below, a constant stays in the graph and as it is
ALIGNMENT = 4096  # of tensors in a weights file, so that it can be mapped into memory
LARGEST = 2**31 - 2**20  # bytes of one protobuf message
TYPES = {
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.int8): TensorProto.INT8,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.uint32): TensorProto.UINT32,
    np.dtype(np.bool_): TensorProto.BOOL,
}


class Value(NamedTuple):
    """An array of the program: a tensor of the graph, or a constant that no node has asked for yet."""

    shape: tuple[int, ...]
    dtype: np.dtype
    held: tuple[int, ...]  # shape of the tensor or constant: broadcasts to `shape`
    name: str = ""  # of the tensor
    array: np.ndarray | None = None  # of shape `held`

    @property
    def bytes(self) -> int:
        return math.prod(self.held) * self.dtype.itemsize


def constant(array: Any, shape: Sequence[int] | None = None) -> Value:
    """A constant, `shape` is what it broadcasts to."""
    array = np.asarray(array)
    return Value(array.shape if shape is None else tuple(shape), array.dtype, array.shape, "", array)


class Node(NamedTuple):
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[tuple[str, Any], ...]
    scope: str = ""  # of the modules that it comes from


class Graph:
    """Nodes in order, constants by name."""

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.nodes: list[Node] = []
        self.scope = ""  # of nodes from now on
        self.constants: dict[str, np.ndarray] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._made: dict[Any, tuple[str, ...]] = {}
        self._maker: dict[str, Node] = {}
        self._names = itertools.count()

    def body(self) -> "Graph":
        """An empty graph for the body of a loop in this one: it sees all that is known here, and its constants lie here."""
        inner = Graph()
        inner.constants, inner.dtypes, inner.shapes = self.constants, self.dtypes, self.shapes
        inner._names, inner.scope = self._names, self.scope
        return inner

    def new_name(self) -> str:
        return f"t{next(self._names)}"

    # What is known of tensors

    def add_input(self, name: str, shape: Sequence[int], dtype: np.dtype) -> Value:
        self.inputs.append(helper.make_tensor_value_info(name, onnx_type(dtype, f"input {name}"), shape))
        return self._tensor(name, tuple(shape), np.dtype(dtype))

    def add_output(self, name: str, value: Value) -> None:
        source = self.full(value)
        self.nodes.append(Node("Identity", (source,), (name,), ()))
        self.outputs.append(helper.make_tensor_value_info(name, onnx_type(value.dtype, f"output {name}"), value.shape))

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Value:
        self.dtypes[name], self.shapes[name] = dtype, shape
        return Value(shape, dtype, shape, name)

    def tensor(self, value: Value) -> str:
        """The name of the tensor that holds a value, of shape `value.held`."""
        return value.name or self.constant(value.array)

    def full(self, value: Value) -> str:
        """The name of a tensor of the whole shape."""
        if value.held == value.shape:
            return self.tensor(value)
        size = math.prod(value.shape) * value.dtype.itemsize
        if value.array is not None and size <= SMALL:
            return self.constant(np.broadcast_to(value.array, value.shape))
        return self.node("Expand", [self.tensor(value), self.integers(value.shape)], value.shape, value.dtype).name

    def constant(self, array: Any) -> str:
        """The name of a constant tensor."""
        array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        onnx_type(array.dtype, "a constant")
        name = f"c_{hashlib.sha256(f'{array.dtype}{array.shape}'.encode() + array.tobytes()).hexdigest()[:16]}"
        if name not in self.constants:
            self.constants[name], self.dtypes[name], self.shapes[name] = array, array.dtype, array.shape
        return name

    def integers(self, numbers: Iterable[int]) -> str:
        return self.constant(np.asarray([int(number) for number in numbers], np.int64))

    # Nodes

    def nodes_of(
        self, operator: str, inputs: Sequence[str], results: Sequence[tuple[Sequence[int], Any]], **attributes: Any
    ) -> list[Value]:
        """A node with several outputs, `results` are their shapes and dtypes. An equal one that exists is taken."""
        marks = tuple(sorted((key, tuple(v) if isinstance(v, list) else v) for key, v in attributes.items()))
        key = operator, tuple(inputs), marks
        if key not in self._made:
            names = tuple(self.new_name() for _ in results)
            node = Node(operator, tuple(inputs), names, marks, self.scope)
            self.nodes.append(node)
            self._made[key] = names
            for name in names:
                self._maker[name] = node
        return [
            self._tensor(n, tuple(shape), np.dtype(dtype)) for n, (shape, dtype) in zip(self._made[key], results, strict=True)
        ]

    def node(self, operator: str, inputs: Sequence[str], shape: Sequence[int], dtype: Any, **attributes: Any) -> Value:
        """A node with one output."""
        return self.nodes_of(operator, inputs, [(shape, dtype)], **attributes)[0]

    def cast(self, value: Value, dtype: Any) -> Value:
        dtype = np.dtype(dtype)
        if value.dtype == dtype:
            return value
        if value.array is not None:
            with np.errstate(over="ignore"):  # infinity is found where the graph is measured
                return value._replace(array=value.array.astype(dtype), dtype=dtype)
        to = onnx_type(dtype, "a conversion")
        return value._replace(name=self.node("Cast", [value.name], value.held, dtype, to=to).name, dtype=dtype)

    def transpose(self, value: Value, permutation: Sequence[int]) -> Value:
        permutation = tuple(int(axis) for axis in permutation)
        shape = tuple(value.shape[axis] for axis in permutation)
        held = tuple(value.held[axis] for axis in permutation)
        if value.array is not None:
            return Value(shape, value.dtype, held, "", value.array.transpose(permutation))
        maker = self._maker.get(value.name)
        source = value.name
        if maker is not None and maker.operator == "Transpose":
            before = dict(maker.attributes)["perm"]
            source, permutation = maker.inputs[0], tuple(before[axis] for axis in permutation)
        if permutation == tuple(range(len(shape))):
            return Value(shape, value.dtype, held, source)
        moved = [axis for axis in permutation if self.shapes[source][axis] != 1]
        if moved == sorted(moved):  # only axes of one element move
            return self._reshape(source, shape, held, value.dtype)
        return Value(shape, value.dtype, held, self.node("Transpose", [source], held, value.dtype, perm=permutation).name)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        shape = tuple(int(size) for size in shape)
        if shape == value.shape:
            return value
        if value.held != value.shape:
            held = _held_through(value, shape)
            if held is None:
                value = self._tensor(self.full(value), value.shape, value.dtype)
                held = shape
        else:
            held = shape
        if value.array is not None:
            return Value(shape, value.dtype, held, "", value.array.reshape(held))
        return self._reshape(value.name, shape, held, value.dtype)

    def _reshape(self, source: str, shape: tuple[int, ...], held: tuple[int, ...], dtype: np.dtype) -> Value:
        maker = self._maker.get(source)
        if maker is not None and maker.operator == "Reshape":
            source = maker.inputs[0]
        if self.shapes[source] == held:
            return Value(shape, dtype, held, source)
        return Value(shape, dtype, held, self.node("Reshape", [source, self.integers(held)], held, dtype).name)

    def whole(self, value: Value) -> Value:
        """The value with nothing left to broadcast."""
        return value if value.held == value.shape else self._tensor(self.full(value), value.shape, value.dtype)

    # The file

    def prune(self) -> None:
        """Drops nodes and constants that no output needs."""
        needed = self._prune_nodes()
        self.constants = {name: array for name, array in self.constants.items() if name in needed}

    def _prune_nodes(self) -> set[str]:
        """Returns the names of all that is needed, of what lies around this graph too."""
        needed = {output.name for output in self.outputs}
        kept = []
        for node in reversed(self.nodes):
            if needed & set(node.outputs):
                needed.update(node.inputs)
                for inner in bodies(node):
                    needed |= inner._prune_nodes()
                kept.append(node)
        self.nodes = kept[::-1]
        return needed

    def count(self) -> int:
        """Nodes, those of loops once."""
        return len(self.nodes) + sum(inner.count() for node in self.nodes for inner in bodies(node))


def bodies(node: Node) -> list[Graph]:
    """The graphs inside a node, which is a loop then."""
    return [value for _, value in node.attributes if isinstance(value, Graph)]


def _held_through(value: Value, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """What is held of a broadcast after a reshape that moves only axes of one element; None for any other."""
    if math.prod(value.held) == 1:
        return (1,) * len(shape)
    old = [(size, held) for size, held in zip(value.shape, value.held, strict=True) if size != 1]
    new = [size for size in shape if size != 1]
    if [size for size, _ in old] != new:
        return None
    rest = iter(held for _, held in old)
    return tuple(1 if size == 1 else next(rest) for size in shape)


def onnx_type(dtype: Any, what: str) -> int:
    try:
        return TYPES[np.dtype(dtype)]
    except KeyError:
        raise InputError(f"{what} has dtype {dtype}, which cannot be written to ONNX, expected float32 or float16") from None


def large(graph: Graph) -> dict[str, np.ndarray]:
    """The constants that may lie in a weights file, as they are stored."""
    return {name: stored(array) for name, array in graph.constants.items() if array.nbytes > SMALL}


def stored(array: np.ndarray) -> np.ndarray:
    """The array in float16 if that changes nothing: half the file. Small ones stay."""
    if array.dtype != np.float32 or array.nbytes <= SMALL:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), array) else array


class Location(NamedTuple):
    """Where a tensor lies in a weights file."""

    file: str
    offset: int
    length: int


def write_weights(stream: IO[bytes], name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Location]:
    """Writes arrays one after the other to the file that graphs know as `name`."""
    places, position = {}, 0
    for key, array in arrays.items():
        gap = -position % ALIGNMENT
        stream.write(bytes(gap) + array.tobytes())
        places[key] = Location(name, position + gap, array.nbytes)
        position += gap + array.nbytes
    return places


def write(path: Path, graph: Graph, metadata: Mapping[str, str], places: Mapping[str, Location] | None = None) -> None:
    """Writes one .onnx file; constants in `places` are not in it but beside it. It is checked as ONNX's own checker does."""
    places = places or {}
    tensors, casts = [], []
    for name, array in graph.constants.items():
        half = stored(array)
        own = name if half is array else f"{name}_half"
        tensor = TensorProto(name=own, data_type=TYPES[half.dtype], dims=half.shape)
        if name in places:
            tensor.data_location = TensorProto.EXTERNAL
            for key, entry in zip(("location", "offset", "length"), places[name], strict=True):
                tensor.external_data.add(key=key, value=str(entry))
        else:
            tensor.raw_data = half.tobytes()
        tensors.append(tensor)
        if half is not array:
            casts.append(helper.make_node("Cast", [own], [name], to=TYPES[array.dtype]))
    proto = helper.make_graph(casts + _nodes(graph), "main", graph.inputs, graph.outputs, tensors)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        proto, opset_imports=opset, producer_name="bridgedepth_jax", producer_version=version("bridgedepth-jax")
    )
    model.ir_version = IR_VERSION
    helper.set_model_props(model, dict(metadata))
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))


def _nodes(graph: Graph) -> list[Any]:
    """As ONNX has them."""
    made = []
    for node in graph.nodes:
        attributes: dict[str, Any] = dict(node.attributes)
        for key, value in node.attributes:
            if isinstance(value, Graph):
                attributes[key] = helper.make_graph(_nodes(value), node.outputs[0], value.inputs, value.outputs)
        made.append(helper.make_node(node.operator, node.inputs, node.outputs, name=node.outputs[0], **attributes))
    return made
