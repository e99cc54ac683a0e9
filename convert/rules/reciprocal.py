"""Rules of StereoNet and SingleNet. The first has no public original: its names are those of the specification.

SingleNet's are monodepth2's: `encoder.` and the names in its `encoder.pth`, `depth.` and those in its `depth.pth`.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bridgedepth_jax.convert.engine import CONV, NORM, SAME, Rules, convert_state, table
from bridgedepth_jax.convert.pth import read_pth, state_dict
from bridgedepth_jax.store.checkpoint import expected_shapes
from bridgedepth_jax.systems.reciprocal.config import VARIANTS, SingleNetConfig, StereoNetConfig

BACKBONE = "encoder.encoder."  # what torchvision's names lack
CLASSES = 1000  # of ImageNet
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
    config, default = known[depths, bottleneck], SingleNetConfig()
    height, width = (state.get(f"encoder.{name}", side) for name, side in zip(("height", "width"), default.size, strict=True))
    if not all(isinstance(side, int) and side > 0 for side in (height, width)):
        raise ValueError(f"height {height!r:.40} and width {width!r:.40}, expected numbers of pixels")
    return dataclasses.replace(config, size=(height, width), metric=bool(state.get("encoder.use_stereo", True)))


def monodepth2(config: SingleNetConfig, state: dict[str, Any]) -> dict[str, Any]:
    """What monodepth2's loader expects beside our tensors: the size of training, and a classifier, which nothing uses."""
    height, width = config.size
    channels = 8 * config.width * (4 if config.bottleneck else 1)
    unused = {"weight": np.zeros((CLASSES, channels), np.float32), "bias": np.zeros(CLASSES, np.float32)}
    unused = {f"encoder.encoder.fc.{name}": value for name, value in unused.items()}
    return {**state, **unused, "encoder.height": height, "encoder.width": width, "encoder.use_stereo": config.metric}


def read_resnet(path: str, config: SingleNetConfig) -> dict[str, Any]:
    """torchvision's ImageNet weights of the ResNet, {path: array}: the same names without `encoder.encoder.`.

    InputError: a file that does not fit the config's ResNet.
    """
    state = state_dict(Path(path), read_pth(path))
    state = {f"{BACKBONE}{name}": value for name, value in state.items()}
    shapes = expected_shapes("singlenet", config)
    expected = {name: shape for name, shape in shapes.items() if SINGLENET.name(name).startswith(BACKBONE)}
    return convert_state(SINGLENET, state, expected, source=path)


STEREONET = Rules(
    layouts=table(("bias", SAME), ("weight", CONV)),
    order=ORDER,
    config_of=stereonet_config,
    licence=lambda config: "unknown",
    content=lambda config, state: state,
    variants={"unet": StereoNetConfig, "pyramid": functools.partial(StereoNetConfig, "pyramid")},
)
SINGLENET = Rules(
    layouts=table((r"(bn[123]|downsample\.1)\.weight", NORM), ("bias", SAME), ("weight", CONV)),
    order=ORDER,
    config_of=singlenet_config,
    licence=lambda config: "unknown",
    content=monodepth2,
    files=(("encoder", "encoder.pth"), ("depth", "depth.pth")),
    backbone=BACKBONE,
    variants={name: functools.partial(SingleNetConfig.named, name) for name in VARIANTS},
    ignored=re.compile(r"^encoder\.(encoder\.fc\.(weight|bias)|height|width|use_stereo)$"),
)
