"""The multi-scale fusion of DPT (arXiv 2103.13413), shared by its head and the stereo encoders.

Spec `architecture.md` sections 2.2 and 3. Letters: B batch, H W C a map, H2 W2 C2 the fused one.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Remat, conv, rematted
from bridgedepth_jax.ops.resize import resize_bilinear


class ResidualConvUnit(nn.Module):
    """x + conv2(relu(conv1(relu(x))))."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        y = conv(self.features, 3, dtype=self.dtype, name="conv1")(nn.relu(x))
        return x + conv(self.features, 3, dtype=self.dtype, name="conv2")(nn.relu(y))


class FeatureFusion(nn.Module):
    """Adds a skip map, refines, resizes to `size` (None: no resize) and projects.

    The 1x1 projection runs before the resize here and after it in the original: both are linear and the weights of a
    resize sum to one, so the result is the same at a quarter of the work.
    """

    features: int
    align_corners: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], skip: Float[Array, "B H W C"] | None, size: tuple[int, int] | None
    ) -> Float[Array, "B H2 W2 C"]:
        unit1 = ResidualConvUnit(self.features, self.dtype, name="resConfUnit1")
        if skip is not None:
            x = x + unit1(skip)
        elif self.is_initializing():
            unit1(x)  # in the checkpoints, never used
        x = ResidualConvUnit(self.features, self.dtype, name="resConfUnit2")(x)
        x = conv(self.features, 1, dtype=self.dtype, name="out_conv")(x)
        return x if size is None else resize_bilinear(x, size, align_corners=self.align_corners)


def _size(x: Float[Array, "B H W C"]) -> tuple[int, int]:
    _, height, width, _ = x.shape
    return height, width


def fuse(
    maps: Sequence[Float[Array, "B _ _ _"]],
    features: int,
    *,
    align_corners: bool,
    last_size: tuple[int, int] | None,
    dtype: Any,
    kept: Remat | None = None,
) -> Float[Array, "B H2 W2 C2"]:
    """Fuses maps, fine to coarse, into one at the finest's resolution, or `last_size`. Call inside a compact `scratch`."""
    levels = [conv(features, 3, use_bias=False, dtype=dtype, name=f"layer{i}_rn")(m) for i, m in enumerate(maps, 1)]
    path = None
    for i in range(len(levels), 0, -1):
        size = _size(levels[i - 2]) if i > 1 else last_size
        fusion = rematted(FeatureFusion, kept, (3,))(features, align_corners, dtype, name=f"refinenet{i}")
        path = fusion(levels[i - 1], None, size) if path is None else fusion(path, levels[i - 1], size)
    assert path is not None
    return path


class EncoderFusion(nn.Module):
    """The stereo encoders' `scratch`: three maps without aligned corners, at the finest's resolution."""

    features: int
    dtype: Any = jnp.float32
    kept: Remat | None = None

    @nn.compact
    def __call__(self, maps: list[Float[Array, "B _ _ _"]]) -> Float[Array, "B H W C"]:
        return fuse(maps, self.features, align_corners=False, last_size=None, dtype=self.dtype, kept=self.kept)
