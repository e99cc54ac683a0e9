"""BridgeDepth (ICCV 2025) in JAX/Flax. Importing this package loads no JAX and touches no device."""

import importlib

_LAZY = {
    "DepthPredictor": "bridgedepth_jax.depth_predictor",
    "ModelConfig": "bridgedepth_jax.config",
    "BridgeDepth": "bridgedepth_jax.model",
    "StereoOutput": "bridgedepth_jax.model",
    "InputError": "bridgedepth_jax.errors",
    "Predictor": "bridgedepth_jax.predictor",
    "Prediction": "bridgedepth_jax.predictor",
}
__all__ = sorted(_LAZY)


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
