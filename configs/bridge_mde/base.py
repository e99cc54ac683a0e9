"""What the stages share (spec `mono-training.md` section 3): 518x518, the encoder at a tenth of the rate of the rest.

Files take the size as an argument: `--config bridge_mde/student:vitl`. Relative stages: Adam, no decay, a rate that falls
straight to 0; metric ones AdamW with decay 0.01 and (1 - step/steps)^0.9. Hardware and time: not published, and not run by us.
"""

import dataclasses

from ml_collections import ConfigDict

from bridgedepth_jax.configs import default
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.config import VITS, DepthConfig

RATE = 5e-5  # of what is not the encoder; that has a tenth


def get_config(vit: str, *, head: str = "relative", max_depth: float | None = None) -> ConfigDict:
    if vit not in VITS:
        raise InputError(f"network {vit!r}, expected one of {', '.join(VITS)}")
    config = default.get_config("bridge_mde")
    network = dataclasses.replace(DepthConfig.named(vit), head=head, max_depth=max_depth, remat=vit == "vitg")  # type: ignore[arg-type]
    config.model = ConfigDict(dataclasses.asdict(network))
    config.init = "random"  # with --imagenet dinov2_vit*14_pretrain.pth the encoder is DINOv2's
    config.data.update(views="single", crop=(518, 518))
    config.solver.update(base_lr=RATE, schedule="linear", weight_decay=0.0, weight_decay_norm=0.0, grad_clip=1.0)
    config.run.update(latest_every=1000, milestone_every=20_000)
    config.eval.update(datasets=(), every=0)
    return config


def metric(vit: str, max_depth: float, data: str, images: int) -> ConfigDict:
    """A relative network's encoder, a new head, 120 epochs of 32 images."""
    config = get_config(vit, head="metric", max_depth=max_depth)
    config.init = f"depth_anything_v2_{vit}"
    config.data.train = ((data, 1),)
    config.data.mono.colours = False
    config.solver.update(schedule="polynomial", weight_decay=0.01, start_with="pretrained/", batch_size=32)
    config.solver.max_iter = 120 * (images // 32)
    return config
