"""How large the numbers inside a function get: whether a smaller dtype can hold them (spec `export.md`, float16).

The float16 program is run with float32 in the place of float16, so each number that it would round is seen as it is.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from bridgedepth_jax.errors import InputError

LIMIT = float(np.finfo(np.float16).max)
INLINED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat", "remat2")


def largest_activations(function: Callable[..., Any], weights: Any, *inputs: Any) -> Mapping[str, float]:
    """The largest magnitude of float16 numbers in each layer of a float16 function, in the order of the layers.

    Layers are the scopes that modules open, "mono/blocks_3/attn". Minus infinity, which masks, is not counted; plus
    infinity and NaN come out as infinity.
    """
    closed = jax.make_jaxpr(function)(weights, *inputs)
    names: list[str] = []

    def run(arguments: list[Any]) -> list[jax.Array]:
        found: dict[str, jax.Array] = {}
        _interpret(closed.jaxpr, closed.consts, arguments, found, "")
        names.extend(found)
        return list(found.values())

    values = jax.jit(run)(jax.tree.leaves((weights, *inputs)))
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def check_float16(largest: Mapping[str, float]) -> None:
    """Raises InputError, naming the first layer, where float16 would overflow."""
    for name, value in largest.items():
        if not value <= LIMIT:
            raise InputError(f"layer {name} reaches {value:.3g}, float16 ends at {LIMIT:.0f}: export this model in float32")


def _widened(value: Any) -> Any:
    return jnp.asarray(value, jnp.float32) if jnp.result_type(value) == jnp.float16 else value


def _wide_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The equation's parameters with float32 for float16."""
    narrow = lambda v: isinstance(v, type | np.dtype) and v in (np.float16, np.dtype(np.float16))
    return {key: np.dtype(np.float32) if narrow(value) else value for key, value in params.items()}


def _interpret(jaxpr: Any, consts: Any, arguments: Any, found: dict[str, jax.Array], scope: str) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [_widened(v) for v in (*consts, *arguments)], strict=True))
    # A literal has a value of its own.
    read = lambda var: _widened(np.asarray(var.val, var.aval.dtype)) if hasattr(var, "val") else values[var]
    for equation in jaxpr.eqns:
        inputs = [read(var) for var in equation.invars]
        name = "/".join(part for part in (scope, str(equation.source_info.name_stack)) if part)
        if equation.primitive.name in INLINED:
            inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            inner, own = (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())
            results = _interpret(inner, own, inputs, found, name)
        else:
            results = equation.primitive.bind(*inputs, **_wide_params(equation.params))
            results = results if equation.primitive.multiple_results else [results]
        for var, value in zip(equation.outvars, results, strict=True):
            values[var] = value
            if var.aval.dtype == jnp.float16 and value.size and equation.primitive.name not in INLINED:
                size = jnp.max(jnp.where(jnp.isneginf(value), 0, jnp.abs(value)))
                size = jnp.where(jnp.isnan(size), jnp.inf, size)
                found[name] = jnp.maximum(found[name], size) if name in found else size
    return [read(var) for var in jaxpr.outvars]
