"""The constant embedding of the empty prompt, in numpy (spec `diffusion.md` section 5).

Stable Diffusion 2's text model (CLIP) on two tokens, begin and end. Only the rows of those tokens are read, and one layer at a
time, so memory stays small. T = 2 tokens, C channels, G heads.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import erf

from bridgedepth_jax.errors import InputError

Read = Callable[[str], np.ndarray]  # name of a tensor: the tensor, or a view of the file

_FIXED = {"hidden_act": "gelu", "layer_norm_eps": 1e-5}


def empty_prompt(read: Read, config: Mapping[str, Any], source: str) -> Float[np.ndarray, "2 C"]:
    """Last hidden state of the text model on its two special tokens, the last two of the vocabulary; float64.

    `config` is text_encoder/config.json; InputError, with `source`, for another kind of text model.
    """
    for key, value in _FIXED.items():
        if config.get(key) != value:
            raise InputError(f"{source}: {key} {config.get(key)!r}, expected {value!r}")
    try:
        width, layers, heads = (int(config[key]) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
        vocabulary = int(config["vocab_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source}: {error} is missing or no number") from error
    tokens = read("text_model.embeddings.token_embedding.weight")[vocabulary - 2 : vocabulary]
    positions = read("text_model.embeddings.position_embedding.weight")[:2]
    x = tokens.astype(np.float64) + positions.astype(np.float64)
    causal = np.where(np.tri(2, dtype=bool), 0.0, -np.inf)
    for layer in range(layers):
        prefix = f"text_model.encoder.layers.{layer}."
        linear = lambda name, x, prefix=prefix: _linear(read, prefix + name, x)
        h = _norm(read, f"{prefix}layer_norm1", x)
        q, k, v = (linear(f"self_attn.{name}_proj", h).reshape(2, heads, -1) for name in "qkv")
        logits = np.einsum("tgc,sgc->gts", q, k) * (width // heads) ** -0.5 + causal
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        h = np.einsum("gts,sgc->tgc", weights / weights.sum(-1, keepdims=True), v).reshape(2, width)
        x = x + linear("self_attn.out_proj", h)
        h = linear("mlp.fc1", _norm(read, f"{prefix}layer_norm2", x))
        x = x + linear("mlp.fc2", 0.5 * h * (1 + erf(h * 0.5**0.5)))
    return _norm(read, "text_model.final_layer_norm", x)


def _linear(read: Read, name: str, x: np.ndarray) -> np.ndarray:
    return x @ read(f"{name}.weight").astype(np.float64).T + read(f"{name}.bias").astype(np.float64)


def _norm(read: Read, name: str, x: np.ndarray) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5)
    return x * read(f"{name}.weight").astype(np.float64) + read(f"{name}.bias").astype(np.float64)
