"""Disparity proposals at 1/8: from the matching cost of all levels to N hypotheses a pixel.

BridgeDepth (arXiv 2508.04611), stereo branch; spec `architecture.md` section 4. `dpn` in names of parameters is the original's
disparity proposal network.

Letters: B batch, H W map at 1/8, D disparity levels, G groups, N candidates, C channels.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from bridgedepth_jax.layers import Head, Linear, Remat, at_least_float32, conv, kaiming_normal, normal_002, softmax, zeros
from bridgedepth_jax.ops.correlation import correlation_volume, lookup
from bridgedepth_jax.systems.bridgedepth.config import NMPConfig, ProposalConfig
from bridgedepth_jax.systems.bridgedepth.propagation import Propagation

SUPPRESSED = 1e-3  # value of a level that is not a local maximum; the original's
LEVEL_KERNEL = 5  # width of the convolutions over disparity, the original's
CONV1D = ("NWC", "WIO", "NWC")


def select_seeds(prob: Float[Array, "B H W D"], count: int) -> Int[Array, "B H W N"]:
    """The `count` most probable local maxima along D, descending; equal values by lowest level first.

    Levels below the maximum of their neighbours are lowered to 1e-3, so they still serve where maxima are few.
    """
    neighbours = jnp.pad(prob, ((0, 0), (0, 0), (0, 0), (1, 1)), constant_values=-jnp.inf)
    filtered = jnp.maximum(jnp.maximum(neighbours[..., :-2], neighbours[..., 2:]), prob)
    kept = jnp.where((prob < filtered) & (prob > SUPPRESSED), SUPPRESSED, prob)
    return lax.top_k(kept, count)[1]


class LevelConv(nn.Module):
    """1-d convolution along D, for every pixel: (pixels, D, I) to (pixels, D, O)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "P D I"]) -> Float[Array, "P D O"]:
        kernel = self.param("kernel", kaiming_normal, (LEVEL_KERNEL, x.shape[-1], self.features)).astype(self.dtype)
        bias = self.param("bias", zeros, (self.features,)).astype(self.dtype)
        pads = [(LEVEL_KERNEL // 2, LEVEL_KERNEL // 2)]
        y = lax.conv_general_dilated(x.astype(self.dtype), kernel, (1,), pads, dimension_numbers=CONV1D)
        return y + bias.reshape(1, 1, -1)


class ProposalNetwork(nn.Module):
    """Left and right maps and the monocular state to N disparities a pixel, in 1/8 pixels, what rounding took off them, and
    the level probabilities."""

    config: ProposalConfig
    nmp: NMPConfig
    dtype: Any = jnp.float32
    kept: Remat | None = None
    exact_phases: bool = False

    @nn.compact
    def __call__(
        self,
        left: Float[Array, "B H W C"],
        right: Float[Array, "B H W C"],
        depth_prior: Float[Array, "B H W C2"],
    ) -> tuple[Float[Array, "B H W N"], Float[Array, "B H W N"], Float[Array, "B H W D"]]:
        c = self.config
        delicate = at_least_float32(self.dtype)
        volume = correlation_volume(left.astype(delicate), right.astype(delicate), c.cost_groups, c.levels)
        self.sow("taps", "volume", volume)

        x = volume.reshape(-1, *volume.shape[3:])
        for name, features in zip(("mlp_0", "mlp_2"), c.mlp_dims, strict=True):
            x = nn.relu(LevelConv(features, delicate, name=name)(x))
        prob = softmax(LevelConv(1, delicate, name="mlp_4")(x).reshape(volume.shape[:4]))
        seeds = select_seeds(lax.stop_gradient(prob), c.num_proposals)
        self.sow("taps", "seeds", seeds)

        context = nn.relu(conv(self.nmp.dim, 3, use_bias=False, dtype=self.dtype, name="proj_0")(left))
        context = conv(c.context_dim, 1, use_bias=False, dtype=self.dtype, name="proj_2")(context)
        prior = Linear(c.seed_dim, kernel_init=normal_002, dtype=self.dtype, name="prior_proj")(depth_prior)

        propagation = Propagation(c, self.nmp, self.dtype, self.kept, self.exact_phases, name="propagation")
        tokens = propagation(lookup(volume, seeds, c.lookup_radius), seeds, context, prior)
        self.sow("taps", "prop_tokens", tokens)
        head = Head((self.nmp.prop_dim, self.nmp.prop_dim, 1), normal_002, last_init=zeros, dtype=self.dtype, name="prop_head")
        update = head(tokens)[..., 0].astype(delicate)
        first = seeds.astype(delicate)
        found = first + update
        rest = jnp.where(found > 0, (first - found) + update, 0)
        return nn.relu(found), rest, prob
