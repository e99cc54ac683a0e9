"""Low-rank changes of the transformer's attention (spec `mono-training.md` section 8): W + B A, apart from the base.

R the rank, I inputs, O outputs of a layer.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from bridgedepth_jax.store.checkpoint import flatten, unflatten

RANK = 16
ATTENTION = re.compile(r"/attn/(to_q|to_k|to_v|to_out_0|add_q_proj|add_k_proj|add_v_proj|to_add_out)/kernel$")


def init_lora(transformer: Mapping[str, Any], key: Array, rank: int = RANK) -> dict[str, Any]:
    """{path of a kernel: {a (I, R), b (R, O)}}: a normal with deviation 1/R, b zero, so that nothing changes at first."""
    found = {}
    for path, leaf in flatten(transformer).items():
        if ATTENTION.search(path):
            key, own = jax.random.split(key)
            found[f"{path}/a"] = jax.random.normal(own, (leaf.shape[0], rank)) / rank
            found[f"{path}/b"] = jnp.zeros((rank, leaf.shape[1]))
    return unflatten(found)


def merge_lora(transformer: Mapping[str, Any], lora: Mapping[str, Any], *, alpha: float = RANK) -> dict[str, Any]:
    """The transformer's parameters with the changes in them, times alpha / rank."""
    base, changes = flatten(transformer), flatten(lora)
    for path in {name.rpartition("/")[0] for name in changes}:
        a, b = changes[f"{path}/a"], changes[f"{path}/b"]
        base[path] = base[path] + ((a @ b) * (alpha / a.shape[1])).astype(base[path].dtype)
    return unflatten(base)
