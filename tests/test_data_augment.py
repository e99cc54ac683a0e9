"""Augmentation: geometry keeps disparity true, colour does what its formulas say, draws have their ranges."""

import cv2
import numpy as np
import pytest

from bridgedepth_jax.data.augment import (
    AugmentConfig,
    Colour,
    Geometry,
    augment,
    draw_colours,
    draw_geometry,
    draw_rectangles,
    jitter,
    transform_image,
    transform_rectangle,
)
from bridgedepth_jax.data.pairs import Sample
from bridgedepth_jax.errors import InputError

PLAIN = AugmentConfig(eraser_probability=0, asymmetric_probability=0)  # colour the same in both views


def scene(height=150, width=260, sparse=False, seed=0) -> Sample:
    """A slanted surface with smooth texture: disparity 8 + y / 20 + x / 40 in the left view, both views exact."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (height, width * 2, 3)).astype(np.float32), (0, 0), 4)
    texture = np.clip((texture - texture.mean()) * 6 + 128, 0, 255)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    disparity = 8 + y / 20 + x / 40
    # The left pixel x lies at x - d(x, y) in the right view: solved for x, what a right pixel shows.
    x_left = (x + 8 + y / 20) / (1 - 1 / 40)
    left, right = (cv2.remap(texture, columns + 20, y, cv2.INTER_LINEAR) for columns in (x, x_left))
    valid = x - disparity >= 0
    if sparse:
        valid &= rng.random(valid.shape) < 0.3
    return Sample(
        left=np.round(left).astype(np.uint8),
        right=np.round(right).astype(np.uint8),
        disparity=np.where(valid, disparity, 0).astype(np.float32) if sparse else disparity,
        valid=valid,
        name="scene",
        right_disparity=(x_left - x).astype(np.float32),
    )


def warp_error(made: dict, known: np.ndarray, factor: float = 1.0) -> float:
    """Mean absolute difference of left and right warped by factor * disparity, where known and inside."""
    height, width = made["disparity"].shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    source = x - factor * made["disparity"]
    warped = cv2.remap(made["right"].astype(np.float32), source, y, cv2.INTER_LINEAR)
    seen = known & (source >= 0) & (source <= width - 1)
    assert seen.sum() > 50
    return float(np.abs(warped - made["left"])[seen].mean())


GEOMETRIES = {
    "crop": ("dense", dict()),
    "resize": ("dense", dict(dense_resize_probability=1.0)),
    "hf": ("dense", dict(flip="hf", dense_resize_probability=0.5)),
    "h": ("dense", dict(flip="h", dense_resize_probability=0.5)),
    "v": ("dense", dict(flip="v", dense_resize_probability=0.5)),
    "masked": ("masked", dict(dense_resize_probability=1.0)),
    "sparse": ("sparse", dict(sparse_resize_probability=1.0)),
    "sparse v": ("sparse", dict(flip="v")),
}


@pytest.mark.parametrize("case", GEOMETRIES)
def test_right_warped_by_disparity_is_left(case):
    kind, options = GEOMETRIES[case]
    config = AugmentConfig(eraser_probability=0, asymmetric_probability=0, saturation=(0.5, 1.4), **options)
    flips = 0
    for seed in range(25):
        sample = scene(sparse=kind == "sparse", seed=seed)
        made = augment(sample, kind, (96, 160), config, np.random.default_rng(seed))
        assert made["left"].shape == made["right"].shape == (96, 160, 3)
        assert made["disparity"].shape == made["valid"].shape == (96, 160)
        assert made["left"].dtype == np.uint8 and made["disparity"].dtype == np.float32 and made["valid"].dtype == bool
        negative = (made["disparity"] < 0).any()
        flips += negative
        assert not made["valid"][made["disparity"] < 0].any()
        known = made["disparity"] != 0 if negative else made["valid"]
        error = warp_error(made, known)
        assert error < 3 and error < 0.5 * min(warp_error(made, known, factor) for factor in (0.85, 1.15))
    assert (flips > 5) == (options.get("flip") == "hf")


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_small_images_are_resized_to_fit_the_crop(kind):
    config = AugmentConfig(eraser_probability=0, asymmetric_probability=0, saturation=(1, 1))
    for seed in range(5):
        made = augment(scene(90, 200, kind == "sparse", seed), kind, (120, 240), config, np.random.default_rng(seed))
        assert made["left"].shape == (120, 240, 3)
        assert warp_error(made, made["valid"]) < 3


def test_y_jitter_moves_the_right_crop_only():
    config = AugmentConfig(enabled=True, y_jitter=True, eraser_probability=0)
    seen = set()
    for seed in range(60):
        geometry = draw_geometry((150, 260), "dense", (96, 160), config, np.random.default_rng(seed))
        seen.add(geometry.right_y - geometry.y)
    assert seen == {-2, -1, 0, 1, 2}


def test_the_same_generator_gives_the_same_sample_and_the_input_is_left_alone():
    sample = scene()
    before = {key: value.copy() for key, value in sample.items() if isinstance(value, np.ndarray)}
    config = AugmentConfig(dense_resize_probability=0.5)
    first, second = (augment(sample, "dense", (96, 160), config, np.random.default_rng(3)) for _ in range(2))
    other = augment(sample, "dense", (96, 160), config, np.random.default_rng(4))
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])
    assert not np.array_equal(first["left"], other["left"])
    for key, value in before.items():
        np.testing.assert_array_equal(sample[key], value)


def test_disabled_augmentation_only_crops():
    sample = scene()
    made = augment(sample, "dense", (150, 260), AugmentConfig(enabled=False), np.random.default_rng(0))
    for key in ("left", "right", "disparity"):
        np.testing.assert_array_equal(made[key], sample[key])


def test_valid_of_dense_masked_and_sparse_samples():
    sample = scene()
    sample["disparity"][0, :4] = [600, 0, 5, 5]
    sample["valid"][0, :4] = [True, False, False, True]
    for kind, want in (("dense", [0, 0, 1, 1]), ("masked", [0, 0, 0, 1]), ("sparse", [1, 0, 0, 1])):
        made = augment(sample, kind, (150, 260), AugmentConfig(enabled=False), np.random.default_rng(0))
        np.testing.assert_array_equal(made["valid"][0, :4], np.array(want, bool))


def test_unknown_disparity_is_not_interpolated():
    sample = scene()
    sample["disparity"][60:70] = 0
    sample["valid"][60:70] = False
    config = AugmentConfig(dense_resize_probability=1.0, eraser_probability=0)
    for kind in ("dense", "masked"):
        made = augment(sample, kind, (140, 250), config, np.random.default_rng(1))
        assert (~made["valid"]).sum() > 0 and made["disparity"][made["valid"]].min() > 6


def test_swapping_views_needs_the_right_disparity():
    sample = scene()
    del sample["right_disparity"]
    with pytest.raises(ValueError, match="right view"):
        for seed in range(10):
            augment(sample, "dense", (96, 160), AugmentConfig(flip="h"), np.random.default_rng(seed))


def test_eraser_fills_rectangles_of_the_right_image_with_its_mean_colour():
    sample = scene(300, 500)
    rng = np.random.default_rng(5)
    config = AugmentConfig(eraser_probability=1.0, asymmetric_probability=0, saturation=(1, 1))
    kept = augment(
        sample, "dense", (300, 500), AugmentConfig(eraser_probability=0.0, saturation=(1, 1), asymmetric_probability=0), rng
    )
    erased = augment(sample, "dense", (300, 500), config, np.random.default_rng(5))
    rectangles = draw_rectangles((300, 500), config, _after_colours(config, 5))
    inside = np.zeros((300, 500), bool)
    for y0, x0, y1, x1 in rectangles:
        assert 0 < y1 - y0 <= 99 and 0 < x1 - x0 <= 99
        inside[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(erased["right"][~inside], kept["right"][~inside])
    np.testing.assert_allclose(erased["right"][inside], np.broadcast_to(kept["right"].mean((0, 1)), (inside.sum(), 3)), atol=2)
    np.testing.assert_array_equal(erased["left"], kept["left"])


@pytest.mark.parametrize("flip", ["", "hf", "h", "v"])
def test_eraser_rectangles_follow_the_geometry(flip):
    rng = np.random.default_rng(0)
    for _ in range(20):
        y0, x0 = int(rng.integers(150)), int(rng.integers(260))
        rectangle = (y0, x0, min(y0 + 60, 150), min(x0 + 80, 260))
        painted = np.zeros((150, 260, 3), np.uint8)
        painted[rectangle[0] : rectangle[2], rectangle[1] : rectangle[3]] = 255
        geometry = Geometry((180, 300), flip, int(rng.integers(84)), int(rng.integers(140)), int(rng.integers(84)))
        want = transform_image(painted, geometry, (96, 160), "right")[..., 0] > 127
        y0, x0, y1, x1 = transform_rectangle(rectangle, (150, 260), geometry, (96, 160))
        made = np.zeros((96, 160), bool)
        made[y0:y1, x0:x1] = True
        assert np.sum(made != want) <= 2 * (96 + 160)  # at most a pixel around


def _after_colours(config, seed):
    rng = np.random.default_rng(seed)
    draw_colours("dense", config, rng)
    return rng


def test_eraser_draws():
    rng = np.random.default_rng(0)
    counts = [len(draw_rectangles((400, 800), AugmentConfig(), rng)) for _ in range(2000)]
    assert set(counts) == {0, 1, 2} and abs(np.mean(np.array(counts) == 0) - 0.5) < 0.05


@pytest.mark.parametrize(("kind", "strength", "hue", "asymmetric"), [("dense", 0.4, 0.5, 0.2), ("sparse", 0.3, 0.3, 0.0)])
def test_colour_draws(kind, strength, hue, asymmetric):
    rng = np.random.default_rng(0)
    draws = [draw_colours(kind, AugmentConfig(), rng) for _ in range(2000)]
    assert abs(np.mean([a is not b for a, b in draws]) - asymmetric) < 0.03
    for field, low, high in (
        ("brightness", 1 - strength, 1 + strength),
        ("contrast", 1 - strength, 1 + strength),
        ("saturation", 0, 1.4),
        ("hue", -hue / 3.14, hue / 3.14),
        ("gamma", 1, 1),
    ):
        values = np.array([getattr(a, field) for a, _ in draws])
        assert low <= values.min() <= low + 0.02 and high - 0.02 <= values.max() <= high
    assert len({a.order for a, _ in draws}) == 24


def _jitter_slowly(pixels, probe, colour):
    """The formulas of the specification in float64, on pixels (M, 3) and the probe whose mean the contrast takes."""
    import colorsys

    for number in colour.order:
        new = []
        mean = np.round((probe @ [0.299, 0.587, 0.114]).mean())
        for values in (pixels, probe):
            grey = (values @ [0.299, 0.587, 0.114])[:, None]
            if number == 0:
                out = values * colour.brightness
            elif number == 1:
                out = mean + colour.contrast * (values - mean)
            elif number == 2:
                out = grey + colour.saturation * (values - grey)
            else:
                hsv = [colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in values]
                out = np.array([colorsys.hsv_to_rgb((h + colour.hue) % 1, s, v) for h, s, v in hsv]) * 255
            new.append(np.clip(out, 0, 255))
        pixels, probe = new
    return 255 * (pixels / 255) ** colour.gamma


@pytest.mark.parametrize("seed", range(6))
def test_colour_equals_its_formulas(seed):
    rng = np.random.default_rng(seed)
    # Not grey: the hue of a nearly grey pixel is lost in 8 bits, whoever computes it.
    image = np.stack([rng.integers(120, 220, (12, 12)), rng.integers(60, 120, (12, 12)), rng.integers(10, 60, (12, 12))], -1)
    image = image.astype(np.uint8)
    (colour, _) = draw_colours("dense", AugmentConfig(saturation=(0.6, 1.4), gamma=(0.8, 1.2)), rng)
    made, probe = jitter(image, image, colour)
    np.testing.assert_array_equal(made, probe)
    flat = image.reshape(-1, 3).astype(float)
    error = np.abs(made.reshape(-1, 3) - _jitter_slowly(flat, flat, colour))
    assert error.mean() < 1.5 and error.max() < 12


def test_neutral_colour_changes_nothing_but_the_rounding_of_hue():
    image = scene()["left"]
    neutral = Colour((0, 1, 2, 3), 1.0, 1.0, 1.0, 0.0, 1.0)
    made, _ = jitter(image, image[::4, ::4], neutral)
    assert np.abs(made.astype(int) - image).max() <= 6 and np.abs(made.astype(int) - image).mean() < 1


def test_crop_positions_cover_the_image():
    dense = [draw_geometry((110, 260), "dense", (96, 160), PLAIN, np.random.default_rng(s)) for s in range(600)]
    assert {g.y for g in dense} == set(range(15)) and min(g.x for g in dense) == 0 and max(g.x for g in dense) == 100
    config = AugmentConfig(sparse_resize_probability=0)
    sparse = [draw_geometry((110, 260), "sparse", (96, 160), config, np.random.default_rng(s)) for s in range(600)]
    assert {g.y for g in sparse} <= set(range(15)) and np.mean([g.y == 14 for g in sparse]) > 0.5  # 20 of 34 draws, and more
    assert np.mean([g.x == 0 for g in sparse]) > 0.2 and np.mean([g.x == 100 for g in sparse]) > 0.2


@pytest.mark.parametrize(("probability", "resized"), [(0.0, 0.0), (0.5, 0.5)])
def test_how_often_a_dense_sample_is_resized(probability, resized):
    config = AugmentConfig(dense_resize_probability=probability)
    sizes = [draw_geometry((150, 260), "dense", (96, 160), config, np.random.default_rng(s)).size for s in range(400)]
    assert abs(np.mean([size != (150, 260) for size in sizes]) - resized) < 0.08


def test_config_refuses_what_it_cannot_do():
    with pytest.raises(InputError, match="flip"):
        AugmentConfig(flip="x")
    with pytest.raises(InputError, match="gamma"):
        AugmentConfig(gamma=(1.2, 0.8))
