"""How large the numbers inside a float16 graph get: whether float16 can hold them (spec `export.md`, float16).

The graph is run with float32 in the place of float16, so each number that it would round is seen as it is.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import helper

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.export.onnx_graph import LARGEST, TYPES, Graph, Node, large, write, write_weights
from bridgedepth_jax.export.runtime import session

LIMIT = float(np.finfo(np.float16).max)
HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)


def measured(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """The graph in float32, with the largest and the smallest element of each tensor that was float16 as its outputs.

    Returns it and {tensor: layer}; outputs are called TENSOR_max and TENSOR_min. Weights stay rounded to float16.
    """
    wide, layers = Graph(), {}
    wide.inputs = graph.inputs
    wide.constants = {n: a.astype(SINGLE) if a.dtype == HALF else a for n, a in graph.constants.items()}
    for node in graph.nodes:
        attributes = tuple((key, TYPES[SINGLE] if (key, v) == ("to", TYPES[HALF]) else v) for key, v in node.attributes)
        wide.nodes.append(node._replace(attributes=attributes))
        for name in node.outputs:
            if graph.dtypes.get(name) == HALF and 0 not in graph.shapes[name]:
                layers[name] = node.scope or node.operator
                for end in ("max", "min"):
                    kind = (("keepdims", 0),)
                    wide.nodes.append(Node(f"Reduce{end.capitalize()}", (name,), (f"{name}_{end}",), kind))
                    wide.outputs.append(helper.make_tensor_value_info(f"{name}_{end}", TYPES[SINGLE], ()))
    return wide, layers


def largest_activations(graph: Graph, inputs: Mapping[str, np.ndarray], scratch: Path) -> dict[str, float]:
    """The largest magnitude of float16 numbers in each layer of a float16 graph, in the order of reaching them.

    Layers are the scopes that modules open, "mono/blocks_3/attn". Minus infinity, which masks, is not counted; what is no
    number comes out as infinity. `scratch` is a folder for the time being.
    """
    wide, layers = measured(graph)
    arrays, places = large(wide), {}
    if sum(array.nbytes for array in arrays.values()) > LARGEST:
        with open(scratch / "activations.weights", "wb") as stream:
            places = write_weights(stream, "activations.weights", arrays)
    write(scratch / "activations.onnx", wide, {}, places)
    results = session(scratch / "activations.onnx").run(None, dict(inputs))
    values = dict(zip((output.name for output in wide.outputs), results, strict=True))
    found: dict[str, float] = {}
    for name, layer in layers.items():
        high, low = (float(np.asarray(values[f"{name}_{end}"])) for end in ("max", "min"))
        size = max(abs(high), 0.0 if low == -np.inf else abs(low))
        size = np.inf if np.isnan(high + low) and low != -np.inf else size
        if layer not in found or size > found[layer]:
            found.pop(layer, None)  # its place is where it reaches its largest number
            found[layer] = size
    for file in scratch.glob("activations.*"):
        file.unlink()
    return found


def check_float16(largest: Mapping[str, float]) -> None:
    """Raises InputError, naming the first layer, where float16 would overflow."""
    for name, value in largest.items():
        if not value <= LIMIT:
            raise InputError(f"layer {name} reaches {value:.3g}, float16 ends at {LIMIT:.0f}: export this model in float32")
