"""The small interface through which the stages speak to networks, stereo and monocular, ours and other systems'.

A network needs a training pass (disparities with weights), an inference pass, and a mirror, which every image has. B batch,
H W an image's sides; images RGB 0..255; disparities in pixels of the image's width, x_right = x_left - d.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.ops.resize import resize_antialiased, resize_bilinear
from bridgedepth_jax.system import Rows, Teacher, Weights, find_system
from bridgedepth_jax.systems.reciprocal import losses
from bridgedepth_jax.systems.reciprocal.config import SingleNetConfig, StereoNetConfig
from bridgedepth_jax.systems.reciprocal.losses import Output

Images = tuple[Array, ...]  # left, or left and right
ENOUGH = 100  # visible pixels that scale and shift of a monocular network are fitted to


class Pass(NamedTuple):
    """What a training pass gives."""

    outputs: tuple[Output, ...]  # full resolution first or last, weights that sum to 1
    full: Array  # (B, H, W) the disparity that stands for all
    collections: Weights = {}  # noqa: RUF012  # new mutable ones
    raw: Any = None  # of the network itself, for losses of its own
    matching: tuple[losses.Matching, ...] = ()  # of each level, where a network has such


class View(NamedTuple):
    """What a network's own losses may look at."""

    left: Array  # (B, H, W, 3) RGB 0..1, clean
    right: Array
    occluded: Array  # (B, H, W) bool
    visible: Array  # pixels that are not, of the global batch
    target: Array  # (B, H, W) what may count as the true disparity ...
    trusted: Array  # ... and where, bool


class Network(NamedTuple):
    """A network that can be trained by the stages."""

    views: int  # images it looks at: 1 or 2
    train: Callable[[Weights, Images, Rows], Pass]
    observe: Callable[[Weights, Images, Rows], Array]  # (B, H, W) as in training, but nothing changes
    keys: tuple[str, ...] = ()  # names of the random keys of a training pass
    own: "Callable[[Pass, View, Rows], tuple[Array, dict[str, Array]]] | None" = None  # losses of its own: value, metrics


def split_weights(weights: Weights) -> dict[str, Any]:
    """Variables of Linen: parameters, and the running statistics where there are any."""
    found: dict[str, Any] = {"params": {name: tree for name, tree in weights.items() if name != "batch_stats"}}
    return found | {"batch_stats": weights["batch_stats"]} if "batch_stats" in weights else found


def stereonet(config: StereoNetConfig) -> Network:
    """StereoNet's scales count alike."""
    from bridgedepth_jax.systems.reciprocal.stereonet import StereoNet

    def disparities(weights: Weights, images: Images) -> Any:
        return StereoNet(config).apply(split_weights(weights), *images)

    def train(weights: Weights, images: Images, rows: Rows) -> Pass:
        found, sown = StereoNet(config).apply(split_weights(weights), *images, mutable=["matching"])
        matching = tuple(losses.Matching(*value) for (value,) in sown["matching"].values())
        return Pass(tuple(Output(d, 1 / len(found)) for d in found), found[0], matching=matching)

    return Network(2, train, lambda weights, images, rows: disparities(weights, images)[0])


def singlenet(config: SingleNetConfig) -> Network:
    """SingleNet's scales count alike; BatchNorm takes the statistics of the global batch."""
    from bridgedepth_jax.systems.reciprocal.singlenet import SingleNet, disparities

    network = SingleNet(config)

    def train(weights: Weights, images: Images, rows: Rows) -> Pass:
        (image,) = images
        mutable = ["batch_stats"]
        found, new = network.apply(split_weights(weights), image, train=True, axes=rows.axes, mutable=mutable)
        found = disparities(found, config, image.shape[2])
        return Pass(tuple(Output(d, 1 / len(found)) for d in found), found[0], new)

    def observe(weights: Weights, images: Images, rows: Rows) -> Array:
        found: Any = network.apply(split_weights(weights), images[0], train=True, axes=rows.axes)
        return disparities(found, config, images[0].shape[2])[0]

    return Network(1, train, observe)


def other_view(network: Network, weights: Weights, images: Images, rows: Rows) -> Float[Array, "B H W"]:
    """Disparity of the right view, d_right = mirror(net(mirror(right), mirror(left))), without gradient.

    `images` are left and right whatever the network looks at.
    """
    exchanged = tuple(image[:, :, ::-1] for image in reversed(images))[: network.views]
    found = network.observe(lax.stop_gradient(weights), exchanged, rows)
    return lax.stop_gradient(found[:, :, ::-1])


def stereo_teacher(name: str, teacher: Teacher) -> Callable[[Weights, Array, Array], Array]:
    """Inference pass of a frozen stereo network of any system that estimates: (weights, left, right) -> (B, H, W).

    InputError: the teacher is none.
    """
    system = find_system(teacher.system)
    if system.estimate is None or system.monocular:
        raise InputError(f"teacher {name} holds {teacher.system}, expected a stereo network as stereonet or bridgedepth")
    estimate = system.estimate(teacher.config)
    return lambda weights, left, right: lax.stop_gradient(estimate(weights, left, right).disparity)


def mirrored(forward: Callable[..., Array]) -> Callable[[Weights, Array, Array], Array]:
    """The same network on the exchanged and mirrored pair: disparity of the right view."""
    return lambda weights, left, right: forward(weights, right[:, :, ::-1], left[:, :, ::-1])[:, :, ::-1]


# D, O and the image -> D*, a disparity that also answers where D does not.
MonoTeacher = Callable[[Weights, Array, Array, Array], Array]


def mono_teacher(name: str, teacher: Teacher) -> MonoTeacher:
    """Disparity of a frozen monocular network: (weights, image, stereo disparity, occluded) -> (B, H, W). InputError: none."""
    if teacher.system not in MONOCULAR:
        raise InputError(f"teacher {name} holds {teacher.system}, expected a monocular network: {', '.join(MONOCULAR)}")
    run = MONOCULAR[teacher.system](teacher.config)
    return lambda weights, image, stereo, occluded: lax.stop_gradient(run(weights, image, stereo, occluded))


def _singlenet_teacher(config: SingleNetConfig) -> MonoTeacher:
    from bridgedepth_jax.systems.reciprocal.singlenet import SingleNet, disparities

    def run(weights: Weights, image: Array, stereo: Array, occluded: Array) -> Array:
        found: Any = SingleNet(config).apply(split_weights(weights), image)
        return disparities(found, config, image.shape[2])[0]

    return run


def _depth_anything_teacher(config: Any) -> MonoTeacher:
    from bridgedepth_jax.networks.depth_anything import DepthAnything
    from bridgedepth_jax.ops.image import normalize

    if config.metric:
        raise InputError("teacher mono gives metres, expected a network of relative inverse depth")

    def run(weights: Weights, image: Array, stereo: Array, occluded: Array) -> Array:
        height, width = image.shape[1:3]
        size = (height // 16 * config.patch, width // 16 * config.patch)
        small = normalize(resize_antialiased(image, size))
        found: Any = DepthAnything(config, image.dtype).apply({"params": weights}, small)
        full = resize_bilinear(found[..., None], (height, width), align_corners=False)[..., 0]
        return fit(full, stereo, occluded)

    return run


MONOCULAR: Mapping[str, Callable[[Any], MonoTeacher]] = {
    "singlenet": _singlenet_teacher,
    "depth-anything": _depth_anything_teacher,
    "bridge_mde": _depth_anything_teacher,
}


def fit(
    relative: Float[Array, "B H W"], stereo: Float[Array, "B H W"], occluded: Bool[Array, "B H W"]
) -> Float[Array, "B H W"]:
    """exp(s) r + t, at least 0: an inverse depth up to scale and shift as a disparity, by least squares where both see.

    Where the slope would not be positive it is the ratio of the deviations; a constant r gives the mean; with fewer than
    `ENOUGH` visible pixels the stereo network's answer stays (spec section 6).
    """
    visible = ~occluded
    count = jnp.sum(visible, axis=(1, 2), keepdims=True, dtype=stereo.dtype)
    average = lambda x: jnp.sum(jnp.where(visible, x, 0), axis=(1, 2), keepdims=True) / jnp.maximum(count, 1)
    r, d = relative - average(relative), stereo - average(stereo)
    variance = average(r * r)
    flat = variance <= 1e-12 * jnp.maximum(average(relative * relative), 1e-30)
    safe = jnp.where(flat, 1, variance)
    slope = average(r * d) / safe
    slope = jnp.where(slope > 0, slope, jnp.sqrt(average(d * d) / safe))
    slope = jnp.where(flat, 0, slope)
    fitted = jnp.maximum(slope * r + average(stereo), 0)
    return jnp.where(count >= ENOUGH, fitted, stereo)


def row_keys(key: Array, rows: Rows) -> Array:
    """A random key for each row, by its number in the global batch."""
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(rows.numbers)
