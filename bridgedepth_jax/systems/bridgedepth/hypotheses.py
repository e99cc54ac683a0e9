"""The stereo branch: shared encoder, proposals and the embedding of disparity hypotheses.

BridgeDepth (arXiv 2508.04611), stereo branch; spec `architecture.md` sections 3 to 5, `stereo_encoder` of the original. Its
names: `concatconv` gives the features of a pixel and of its match that are concatenated, `gw` those whose group-wise
correlation is taken (as in GwcNet), `dpn` is the disparity proposal network, `ffn` the embedding's feed-forward network.

Letters: B batch, H W map at the stated resolution, N candidates, C channels, G groups.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from bridgedepth_jax.layers import Mlp, at_least_float32, conv, instance_norm, normal_002, rematted
from bridgedepth_jax.networks.convnext import ConvNeXt
from bridgedepth_jax.networks.resnet import ResNet
from bridgedepth_jax.networks.swin import Swin
from bridgedepth_jax.ops.fourier import fourier_features
from bridgedepth_jax.ops.sampling import sample_matches
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.systems.bridgedepth.proposals import ProposalNetwork

BACKBONES: dict[str, Any] = {"resnet": ResNet, "convnext": ConvNeXt, "swin": Swin}


class Level(NamedTuple):
    """Maps of both images at one resolution: `concat` of `concatconv`, `group` of `gw`."""

    concat_left: Array  # (B, H, W, 64)
    concat_right: Array
    group_left: Array  # (B, H, W, 256)
    group_right: Array


class StereoEncoder(nn.Module):
    """Features of both images, disparity proposals, and the embedding of disparity hypotheses."""

    config: ModelConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        c = self.config
        self.backbone = BACKBONES[c.backbone.model_type](c.backbone, self.dtype, c.kept)
        plain = {"use_bias": False, "dtype": self.dtype}
        self.concatconv_0 = conv(c.nmp.concat_hidden, 3, **plain)
        self.concatconv_3 = conv(c.nmp.concat_dim, 1, **plain)
        self.gw_0 = conv(c.nmp.concat_hidden, 3, **plain)
        self.gw_3 = conv(c.nmp.correlation_dim, 1, **plain)
        self.dpn = ProposalNetwork(c.dpn, c.nmp, self.dtype, c.kept, c.exact_phases)
        self.ffn = Mlp(c.nmp.dim, c.nmp.dim, normal_002, self.dtype)

    def __call__(
        self,
        left: Float[Array, "B Y X 3"],
        right: Float[Array, "B Y X 3"],
        depth_prior: Float[Array, "B H W C"],
        *,
        train: bool,
    ) -> tuple[Level, Level, Float[Array, "B H W N"], Float[Array, "B H W N"], Float[Array, "B H W D"]]:
        """Levels at 1/8 and 1/4, proposals in 1/8 pixels, what their rounding took off them, and the level probabilities."""
        fmap4 = self.backbone(jnp.concatenate([left, right]), train=train)
        b, h, w, c = fmap4.shape
        fmap8 = fmap4.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
        self.sow("taps", "fmap8", fmap8)
        self.sow("taps", "fmap4", fmap4)
        left8, right8 = jnp.split(fmap8, 2)
        level = rematted(StereoEncoder._level, self.config.kept)
        return level(self, fmap8), level(self, fmap4), *self.dpn(left8, right8, depth_prior)

    def _level(self, fmap: Float[Array, "B2 H W C"]) -> Level:
        concat = self.concatconv_3(nn.relu(instance_norm(self.concatconv_0(fmap))))
        group = self.gw_3(nn.relu(instance_norm(self.gw_0(fmap))))
        (concat_left, concat_right), (group_left, group_right) = jnp.split(concat, 2), jnp.split(group, 2)
        return Level(concat_left, concat_right, group_left, group_right)

    def embed(
        self, disparity: Float[Array, "B H W N"], level: Level, levels: int, rest: Float[Array, "B H W N"] | None = None
    ) -> tuple[Float[Array, "B H W N C"], Float[Array, "B H W N 31"]]:
        """Tokens and fourier features of candidate disparities, in pixels of the level (spec `architecture.md` section 5).

        `levels` scales the fourier features, `rest` is what rounding took off the disparities, where it is known
        (`ops.fourier`). No gradient passes to either.
        """
        delicate = at_least_float32(self.dtype)
        disparity = lax.stop_gradient(disparity)
        rest = lax.stop_gradient(rest) if self.config.exact_phases and rest is not None else None
        dim = level.concat_right.shape[-1]
        right = jnp.concatenate([level.concat_right, level.group_right], -1)
        sampled = sample_matches(right.astype(delicate), disparity)
        concat, group = sampled[..., :dim], sampled[..., dim:]
        product = group * level.group_left.astype(delicate)[..., None, :]
        groups = self.config.nmp.correlation_groups
        correlation = product.reshape(*product.shape[:-1], groups, -1).mean(-1)
        left = jnp.broadcast_to(level.concat_left.astype(delicate)[..., None, :], (*concat.shape[:-1], dim))
        tokens = self.ffn(jnp.concatenate([left, concat, correlation], -1)).astype(delicate)
        return tokens, fourier_features(disparity, levels, rest)
