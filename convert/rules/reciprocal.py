"""Rules of StereoNet and SingleNet. The first has no public original: its names are those of the specification.

SingleNet's are monodepth2's: `encoder.` and the names in its `encoder.pth`, `depth.` and those in its `depth.pth`.
"""

import re
from collections.abc import Mapping
from typing import Any

from bridgedepth_jax.convert.engine import CONV, NORM, SAME, Rules, table
from bridgedepth_jax.systems.reciprocal.config import VARIANTS, SingleNetConfig, StereoNetConfig

ORDER = """
    encoder depth decoder down up project estimator context conv1 bn1 conv2 bn2 conv3 bn3 conv4 conv5 conv relu downsample
    layer1 layer2 layer3 layer4 predict weight bias running_mean running_var num_batches_tracked
"""


def stereonet_config(content: Any, state: Mapping[str, Any], config: StereoNetConfig | None) -> StereoNetConfig:
    """The one given, or the paper's; without maps on the way up the pyramid."""
    if config is not None:
        return config
    return StereoNetConfig(encoder="unet" if any(name.startswith("encoder.up.") for name in state) else "pyramid")


def singlenet_config(content: Any, state: Mapping[str, Any], config: SingleNetConfig | None) -> SingleNetConfig:
    """The one given, or what the blocks say. Raises ValueError for none of torchvision's ResNets."""
    if config is not None:
        return config
    blocks = [{int(m[1]) for name in state if (m := re.search(rf"layer{stage}\.(\d+)\.", name))} for stage in (1, 2, 3, 4)]
    depths, bottleneck = tuple(map(len, blocks)), "encoder.encoder.layer1.0.conv3.weight" in state
    known = {(config.depths, config.bottleneck): config for config in map(SingleNetConfig.named, VARIANTS)}
    if (depths, bottleneck) not in known:
        raise ValueError(f"a ResNet of {depths} blocks, expected one of {', '.join(VARIANTS)}")
    return known[depths, bottleneck]


STEREONET = Rules(
    layouts=table(("bias", SAME), ("weight", CONV)),
    order=ORDER,
    config_of=stereonet_config,
    licence=lambda config: "unknown",
    content=lambda config, state: state,
)
SINGLENET = Rules(
    layouts=table((r"(bn[123]|downsample\.1)\.weight", NORM), ("bias", SAME), ("weight", CONV)),
    order=ORDER,
    config_of=singlenet_config,
    licence=lambda config: "unknown",
    content=lambda config, state: state,
    ignored=re.compile(r"^encoder\.(encoder\.fc\.(weight|bias)|height|width|use_stereo)$"),
)
