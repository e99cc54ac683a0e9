"""The row of BRIDGE: Depth Anything's network, trained on generated images, pseudo-labels and true depth.

Spec `mono-training.md` sections 1 to 4. B batch, H W the crop. A batch holds image, inverse, valid and pseudo (`data/mono.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.networks.config import DepthConfig
from bridgedepth_jax.system import Batch, Group, Objective, Published, Result, Rows, System, Teacher, Weights
from bridgedepth_jax.systems.bridge_mde.config import MonoTask, nano

# In the checkpoints and without a gradient: they are kept and do not decay.
UNUSED = r"pretrained/mask_token$|depth_head/scratch/refinenet4/resConfUnit1/"


def init(config: DepthConfig, key: Array) -> Weights:
    """Random weights."""
    from bridgedepth_jax.networks.depth_anything import init_depth

    return init_depth(config, key)


def depth(config: DepthConfig) -> Callable[[Weights, Array], Array]:
    """See `networks.depth_anything.depth_of`."""
    from bridgedepth_jax.networks.depth_anything import depth_of

    return depth_of(config)


def objective(config: DepthConfig, task: MonoTask, teachers: Mapping[str, Teacher]) -> Objective:
    """ssi and gm of a relative head; SiLog of a metric one, and of the scale head, which alone is trained then."""
    from bridgedepth_jax.systems.bridge_mde import losses

    if teachers:
        raise InputError(f"teachers {', '.join(teachers)}: this system learns from labels in files, expected none")
    predict = depth(config)

    def metric_truth(batch: Batch) -> tuple[Array, Array]:
        """Metres, and the pixels that count."""
        known = batch["valid"] & (batch["inverse"] > 0)
        truth = 1 / jnp.where(known, batch["inverse"], 1)
        return truth, known & (truth >= config.min_depth) & (truth <= (config.max_depth or jnp.inf))

    def count(batch: Batch) -> Array:
        pixels = metric_truth(batch)[1] if config.metric else losses.counting(batch["valid"])
        return jnp.sum(pixels, dtype=jnp.float32)

    def relative(found: Array, batch: Batch, counts: Array, rows: Rows) -> tuple[Array, dict[str, Array]]:
        percent = jnp.where(batch["pseudo"], task.trim, 0)
        terms = losses.terms(
            found, batch["inverse"], batch["valid"], percent,
            renormalise=task.renormalise, trim_gradient=task.trim_gradient,
        )  # fmt: skip
        total = losses.total(terms, counts, ssi=task.ssi, gm=task.gm)
        return total.loss, {"ssi": total.ssi, "gm": total.gm}

    def metric(found: Array, batch: Batch, counts: Array, rows: Rows) -> tuple[Array, dict[str, Array]]:
        truth, valid = metric_truth(batch)
        here = losses.log_sums(found, truth.astype(found.dtype), valid)
        everywhere = losses.Logs(*(rows.across(f"log_{name}", value) for name, value in here._asdict().items()))
        value = losses.silog(here, everywhere, counts, len(found) / rows.total)
        return value, {"silog": value}

    of = metric if config.metric else relative

    def loss(weights: Weights, _: Any, batch: Batch, counts: Array, rows: Rows) -> tuple[Array, Result]:
        found = predict(weights, batch["image"])
        value, metrics = of(found, batch, counts, rows)
        return value, Result(metrics, jax.lax.stop_gradient(found))

    return Objective(
        trained=lambda path: path.startswith("scale_head/") or config.head != "scale",
        count=count,
        loss=loss,
        groups=lambda solver: groups(config, task, solver.weight_decay),
        headline=("silog",) if config.metric else ("ssi", "gm"),
        picture=picture,
    )


def groups(config: DepthConfig, task: MonoTask, decay: float) -> tuple[Group, ...]:
    """The encoder at its own rate; of a scale head nothing else is trained."""
    if config.head == "scale":
        return (Group("scale", "scale_head/", decay),)
    return (
        Group("unused", UNUSED, 0.0),
        Group("encoder", r"pretrained/(?!mask_token$)", decay, task.encoder_rate),
        Group("head", r"depth_head/(?!scratch/refinenet4/resConfUnit1/)", decay),
    )


def picture(host: Mapping[str, np.ndarray], shown: np.ndarray) -> np.ndarray:
    """Image, prediction, target, one above the other, (H, W, 3) uint8."""
    from bridgedepth_jax.visualize import colorize

    found, target, valid = np.asarray(shown)[0], host["inverse"][0], host["valid"][0]
    rows = [host["image"][0]]
    for values, mask in ((found, np.ones(found.shape, bool)), (target, valid)):
        low, high = np.quantile(values[mask], (0.01, 0.99)) if mask.any() else (0.0, 1.0)
        rows.append(colorize(np.clip((values - low) / max(high - low, 1e-9), 0, 1).astype(np.float32), 1.0, mask))
    return np.concatenate(rows)


def imagenet(path: str, config: DepthConfig) -> Mapping[str, Any]:
    """DINOv2's weights of the encoder, {path: array}."""
    from bridgedepth_jax.convert.rules.depth_anything import read_dinov2

    return read_dinov2(path, config)


SYSTEM = System(
    name="bridge_mde",
    config=DepthConfig,
    init=init,
    variants={"bridge_mde": lambda: DepthConfig.named("vitg"), "nano": nano},
    published={"bridge_mde": Published("bridge_mde", "Dingning/BRIDGE", "bridge.pth")},
    parts={"depth-anything": ""},
    task=MonoTask,
    objective=objective,
    depth=depth,
    multiple=14,
    minimum=14,
    rules="bridgedepth_jax.convert.rules.depth_anything:BRIDGE",
    imagenet=imagenet,
)
