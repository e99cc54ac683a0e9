"""Procedural stereo pairs with exact disparity: endless, seeded, addressed by index, in need of no files.

`SyntheticStereo(height, width)[index]` renders one sample; see `config.SyntheticConfig` for every range.
"""

from bridgedepth_jax.data.procedural.config import SyntheticConfig
from bridgedepth_jax.data.procedural.dataset import SyntheticStereo

__all__ = ["SyntheticConfig", "SyntheticStereo"]
