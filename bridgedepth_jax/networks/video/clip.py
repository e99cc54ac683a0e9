"""How a frame comes to the size that CLIP's image encoder sees, and what it says of it (spec `video.md` section 4.3).

B frames, H W pixels, T tokens (class token first), D width, E width of the embedding.
"""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Linear, at_least_float32
from bridgedepth_jax.networks.clip_vision import ClipVisionTransformer, clip_normalize
from bridgedepth_jax.networks.video.config import ImageEncoderConfig
from bridgedepth_jax.ops.resize import Taps, cubic_weights


def antialiased_cubic(size: int, out: int) -> Float[np.ndarray, "O I"]:
    """One axis of the resize as a matrix: a Gaussian with reflected borders, then cubic taps with aligned corners."""
    sigma = max((size / out - 1) / 2, 0.001)
    width = int(max(4 * sigma, 3))
    width += 1 - width % 2
    offsets = np.arange(width) - width // 2
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    if width // 2 >= size:
        raise ValueError(f"a side of {size} pixels, expected more than {width // 2} to be made {out}")
    blur = np.zeros((size, size))
    seen = np.abs(np.arange(size)[:, None] + offsets)
    seen = np.where(seen >= size, 2 * (size - 1) - seen, seen)
    np.add.at(blur, (np.arange(size)[:, None], seen), kernel)
    taps = aligned_cubic_taps(size, out)
    cubic = np.zeros((out, size))
    np.add.at(cubic, (np.arange(out)[:, None], taps.indices), taps.weights)
    return cubic @ blur


def aligned_cubic_taps(size: int, out: int) -> Taps:
    """Cubic convolution with a = -0.75, aligned corners, border clamped."""
    source = np.arange(out) * ((size - 1) / (out - 1)) if out > 1 else np.zeros(1)
    low = np.floor(source).astype(int)
    reach = low[:, None] + np.arange(-1, 3)
    return Taps(np.clip(reach, 0, size - 1), cubic_weights(source[:, None] - reach))


def resize_frames(images: Float[Array, "B H W 3"], size: tuple[int, int]) -> Float[Array, "B H2 W2 3"]:
    """To `size` = (height, width), antialiased; values may leave the range a little."""
    rows, columns = (
        jnp.asarray(antialiased_cubic(side, out), images.dtype) for side, out in zip(images.shape[1:3], size, strict=True)
    )
    return jnp.einsum("oh,bhwc,pw->bopc", rows, images, columns, precision="highest")


def normalize_frames(images: Float[Array, "B H W 3"], side: int) -> Float[Array, "B S S 3"]:
    """Frames in -1..1 at any size, as the encoder wants them."""
    return clip_normalize((resize_frames(images, (side, side)) + 1) / 2)


class FrameEncoder(nn.Module):
    """Embeddings (B, E) of frames (B, H, W, 3) in -1..1 of any size, and CLIP's tokens after the last layer."""

    config: ImageEncoderConfig

    @nn.compact
    def __call__(self, frames: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B E"], Float[Array, "B T D"]]:
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        pixels = normalize_frames(frames.astype(at_least_float32(frames.dtype)), c.image_size)
        tokens, pooled = ClipVisionTransformer(c, name="vision_model")(pixels)
        embedding = Linear(c.projection_dim, use_bias=False, dtype=dtype, name="visual_projection")(pooled)
        return embedding.astype(at_least_float32(dtype)), tokens
