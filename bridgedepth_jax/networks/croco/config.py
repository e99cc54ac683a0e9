"""What a pair network is made of, with the words of the originals' model strings (spec `video.md` sections 1.2 and 1.3)."""

import dataclasses
from typing import Literal, Self

from bridgedepth_jax.networks.config import Dtype


@dataclasses.dataclass(frozen=True)
class PairConfig:
    """DUSt3R, MonST3R or MASt3R; the defaults are ViT-L with dense heads for images whose long side is 512."""

    head_type: Literal["dpt", "linear"] = "dpt"
    img_size: tuple[int, int] = (512, 512)  # largest side in pixels; 224 x 224 means square images
    enc_embed_dim: int = 1024
    enc_depth: int = 24
    enc_num_heads: int = 16
    dec_embed_dim: int = 768
    dec_depth: int = 12
    dec_num_heads: int = 12
    feature_dim: int = 256  # of the dense heads' fusion
    last_dim: int = 128  # of their last hidden layer
    layer_dims: tuple[int, ...] = (96, 192, 384, 768)  # of their four levels
    patch: int = 16  # pixels of a token's side
    mlp_ratio: int = 4
    rope_base: float = 100.0
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        for name, dim, heads in (
            ("enc", self.enc_embed_dim, self.enc_num_heads),
            ("dec", self.dec_embed_dim, self.dec_num_heads),
        ):
            if dim % (4 * heads):
                raise ValueError(f"{name}_embed_dim {dim}, expected a multiple of 4 times {name}_num_heads {heads}")
        if self.head_type not in ("dpt", "linear"):
            raise ValueError(f"head_type {self.head_type!r}, expected 'dpt' or 'linear'")
        if self.patch < 1 or (self.head_type == "dpt" and self.patch != 16):
            raise ValueError(f"patch {self.patch}, expected 16 with head_type 'dpt', whose maps are 16 times the tokens' grid")
        if len(self.layer_dims) != 4:
            raise ValueError(f"layer_dims {self.layer_dims}, expected four widths")
        if self.head_type == "dpt" and self.dec_depth % 4:
            raise ValueError(f"dec_depth {self.dec_depth}, expected a multiple of 4 with head_type 'dpt'")

    @property
    def hooks(self) -> tuple[int, int, int, int]:
        """Which outputs a dense head reads: 0 is the encoder's, k that of step k of the decoder."""
        return 0, self.dec_depth // 2, self.dec_depth * 3 // 4, self.dec_depth

    @classmethod
    def small(cls) -> Self:
        """224 x 224 with linear heads: `DUSt3R_ViTLarge_BaseDecoder_224_linear`."""
        return cls("linear", (224, 224))

    @classmethod
    def tiny(cls) -> Self:
        """Less than three million parameters for images of 96 x 128, to train on clips alone (half of spec section 6's)."""
        return cls(
            img_size=(128, 128),
            enc_embed_dim=128,
            enc_depth=4,
            enc_num_heads=4,
            dec_embed_dim=96,
            dec_depth=4,
            dec_num_heads=3,
            feature_dim=32,
            last_dim=16,
            layer_dims=(24, 32, 48, 64),
        )
