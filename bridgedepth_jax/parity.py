"""Comparisons with golden numbers of the originals: what a system's `parity.py` yields and `scripts/parity.py` prints.

A system has a module with `compare(reference, golden, kind=..., float64=...)`, an iterator of `Row`; `KINDS`, the kinds of
golden files it knows; and `FOLDER`, where its goldens lie under the reference.
"""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bridgedepth_jax.errors import InputError

# What can be compared, and where the comparison lives.
MODULES = {
    "bridgedepth": "bridgedepth_jax.systems.bridgedepth.parity",
    "diffusion": "bridgedepth_jax.networks.diffusion.parity",
    "zerostereo": "bridgedepth_jax.systems.zerostereo.parity",
    "reciprocal": "bridgedepth_jax.systems.reciprocal.parity",
    "stereodiff": "bridgedepth_jax.systems.stereodiff.parity",
    "bridge_mde": "bridgedepth_jax.systems.bridge_mde.parity",
}


class Row(NamedTuple):
    """One comparison: `value` must not exceed `limit`; a value that is no number is beyond it."""

    case: str
    quantity: str
    value: float
    limit: float

    @property
    def ok(self) -> bool:
        return bool(self.value <= self.limit)


def load_synth(reference: Path) -> ModuleType:
    """REFERENCE/synth.py, the generator of name-seeded weights, as a module."""
    spec = importlib.util.spec_from_file_location("synth", reference / "synth.py")
    if spec is None or spec.loader is None or not (reference / "synth.py").is_file():
        raise InputError(f"{reference} has no synth.py, expected the folder of the reference")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def relative(value: Any, golden: np.ndarray) -> float:
    """Largest difference over the golden's RMS."""
    golden = golden.astype(np.float64)
    return float(np.abs(np.asarray(value, np.float64) - golden).max() / np.sqrt(np.mean(golden**2)))
