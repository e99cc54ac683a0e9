"""BridgeDepth (ICCV 2025) in JAX/Flax. Importing this package loads no JAX and touches no device."""

import importlib

__version__ = "0.2.0"

_LAZY = {
    "DepthPredictor": "bridgedepth_jax.inference.depth",
    "ModelConfig": "bridgedepth_jax.systems.bridgedepth.config",
    "BridgeDepth": "bridgedepth_jax.systems.bridgedepth.network",
    "StereoOutput": "bridgedepth_jax.systems.bridgedepth.network",
    "InputError": "bridgedepth_jax.errors",
    "Predictor": "bridgedepth_jax.inference.stereo",
    "Prediction": "bridgedepth_jax.inference.stereo",
}
__all__ = sorted(_LAZY)


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
