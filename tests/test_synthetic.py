"""Procedural stereo: deterministic, geometrically exact, correctly occluded, within its ranges."""

import dataclasses
import pickle
from typing import Any

import cv2
import numpy as np
import pytest

from bridgedepth_jax.data.preview import contact_sheet, warped_error
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo
from bridgedepth_jax.data.procedural.render import MASK_SCALE, Canvas, Layer
from bridgedepth_jax.data.procedural.scene import LAYOUTS
from bridgedepth_jax.data.procedural.textures import WHEEL_PHOTOS, find_photos
from bridgedepth_jax.data.procedural.warp import right_disparity
from bridgedepth_jax.errors import InputError

SIZE = 96, 160
FEW = dataclasses.replace(SyntheticConfig(), textures=25, ready_textures=20)  # fewer textures to make
CLEAN = dataclasses.replace(FEW.clean(), flat=0.0)


def make(config=FEW, **arguments) -> SyntheticStereo:
    return SyntheticStereo(*SIZE, **{"max_disparity": 48, "photos": False, "config": config} | arguments)


def same(a, b) -> bool:
    return all(np.array_equal(a[key], b[key]) for key in a)


def test_a_sample_is_a_function_of_seed_and_index():
    data = make()
    assert same(make()[3], [data[i] for i in (5, 3)][1])  # whatever was rendered before
    assert same(pickle.loads(pickle.dumps(data))[7], data[7])
    for other in (make()[4], make(seed=1)[3]):
        assert not np.array_equal(other["left"], data[3]["left"])
        assert not np.array_equal(other["disparity"], data[3]["disparity"])
    assert len({data[i]["left"].tobytes() for i in range(12)}) == 12
    assert data[3]["name"] != data[4]["name"]


@pytest.mark.parametrize("height, width, limit", [(96, 160, 48.0), (64, 208, 20.0), (130, 90, 64.0)])
def test_sizes_types_and_ranges(height, width, limit):
    data = SyntheticStereo(height, width, max_disparity=limit, size=30, config=FEW)
    assert len(data) == 30
    largest = 0.0
    for i in range(30):
        sample = data[i]
        for side in ("left", "right"):
            assert sample[side].shape == (height, width, 3) and sample[side].dtype == np.uint8
        disparity = sample["disparity"]
        assert disparity.shape == sample["valid"].shape == sample["nonocc"].shape == (height, width)
        assert disparity.dtype == np.float32 and sample["valid"].dtype == sample["nonocc"].dtype == bool
        assert np.isfinite(disparity).all() and disparity.min() >= 0 and disparity.max() <= limit
        columns = np.arange(width)[None]
        assert not (sample["nonocc"] & (columns - disparity < 0)).any()
        assert sample["valid"].mean() > 0.3
        largest = max(largest, float(disparity.max()))
    assert largest > 0.6 * limit
    with pytest.raises(IndexError):
        data[30]


def comparable(sample) -> np.ndarray:
    """Visible pixels away from depth edges, where a colour is that of one surface."""
    disparity = sample["disparity"]
    steps = np.maximum(cv2.dilate(disparity, np.ones((5, 5))) - disparity, disparity - cv2.erode(disparity, np.ones((5, 5))))
    return cv2.erode((sample["nonocc"] & sample["valid"] & (steps < 2.5)).astype(np.uint8), np.ones((3, 5))) > 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_right_view_matches_at_the_disparity(layout):
    data = SyntheticStereo(
        160, 256, max_disparity=96, photos=False, config=dataclasses.replace(CLEAN, layouts=((layout, 1.0),))
    )
    errors = np.zeros(3)
    for i in range(8):
        sample = data[i]
        where = comparable(sample)
        for k, scale in enumerate((1.0, 0.98, 1.02)):
            scaled = sample | {"disparity": sample["disparity"] * np.float32(scale)}
            errors[k] += warped_error(scaled)[where].mean()
    assert errors[0] / 8 < 2  # grey levels; interpolating the right view costs about that
    assert errors[0] < 0.8 * errors[1] and errors[0] < 0.8 * errors[2]


def test_every_layout_stays_in_range():
    config = dataclasses.replace(FEW, transparent=0.0)
    for layout in LAYOUTS:
        data = SyntheticStereo(
            64, 96, max_disparity=50, seed=5, photos=False, config=dataclasses.replace(config, layouts=((layout, 1.0),))
        )
        for i in range(40):
            sample = data[i]
            assert sample["valid"].all() and sample["disparity"].min() >= 0 and sample["disparity"].max() <= 50


def noise_texture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (256, 256, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def layer(seed: int, plane, box=None, relief=None) -> Layer:
    mask = None if box is None else np.full(((box[3] - box[1]) * MASK_SCALE, (box[2] - box[0]) * MASK_SCALE), 255, np.uint8)
    return Layer(plane, [noise_texture(seed)], np.eye(3), box or (0, 0, 110, 40), mask, relief)


def test_sub_pixel_planes_and_reliefs():
    """A quarter pixel of disparity more is a worse match, on a slanted and on a curved surface."""
    y, x = np.mgrid[:40, :110].astype(np.float32)
    relief = 3 * np.sin(x / 15) * np.cos(y / 11)
    for surface in (layer(1, (0.05, -0.03, 7.3)), layer(1, (0.05, 0.0, 8.0), relief=relief)):
        canvas = Canvas(40, 80)
        canvas.paint(surface)
        sample = {"left": canvas.left.image, "right": canvas.right.image, "nonocc": canvas.visible()}
        sample["valid"] = sample["nonocc"]
        error = [
            warped_error(sample | {"disparity": canvas.left.disparity + np.float32(shift)})[sample["nonocc"]].mean()
            for shift in (0, -0.25, 0.25)
        ]
        assert sample["nonocc"].mean() > 0.75
        assert error[0] < 0.5 and min(error[1:]) > 2 * error[0]


def test_occlusion_equals_brute_force():
    """Against projecting every sub-pixel point of every surface into the right view and keeping the nearest."""
    height, width = 24, 64
    hump = np.repeat(4 * np.clip(1 - ((np.arange(40, dtype=np.float32) - 20) / 20) ** 2, 0, None)[None], height, 0)
    scene = [
        layer(1, (0.0, 0.0, 2.5), (0, 0, 90, 24)),
        layer(2, (0.05, 0.05, 4.0), (20, 2, 45, 20)),
        layer(3, (-0.1, 0.0, 14.0), (38, 6, 60, 24)),
        layer(4, (0.0, 0.0, 6.0), (5, 0, 45, 24), hump),
        layer(5, (0.0, 0.0, 18.25), (30, 8, 33, 16)),
    ]
    canvas = Canvas(height, width)
    for surface in scene:
        canvas.paint(surface)
    nearest = np.full((height, width), -np.inf)  # of the right view, at whole pixels
    for surface in scene:
        x0, y0, x1, y1 = surface.box
        for row in range(y0, y1):
            for left_x in np.arange(x0, x1 - 1, 0.01):
                a, b, c = surface.plane
                d = a * left_x + b * row + c
                if surface.relief is not None:
                    i = int(left_x - x0)
                    d += np.interp(left_x - x0 - i, (0, 1), surface.relief[row - y0, i : i + 2])
                column = left_x - d
                if abs(column - round(column)) < 0.01 and 0 <= round(column) < width:
                    nearest[row, round(column)] = max(nearest[row, round(column)], d)
    own = canvas.left.disparity
    match = np.arange(width)[None] - own
    expected = np.zeros((height, width), bool)
    for row, column in np.ndindex(height, width):
        if 0 <= match[row, column] <= width - 1:
            around = [nearest[row, f(match[row, column])] for f in (lambda v: int(np.floor(v)), lambda v: int(np.ceil(v)))]
            expected[row, column] = max(around) <= own[row, column] + 0.75
    found = canvas.visible()
    assert 0.2 < expected.mean() < 0.9
    assert (found != expected).mean() < 0.01


def test_a_see_through_pane_is_not_valid():
    data = make(dataclasses.replace(FEW, transparent=1.0))
    shares = [data[i]["valid"].mean() for i in range(6)]
    assert 0.2 < np.mean(shares) < 0.999
    assert all(make(CLEAN)[i]["valid"].all() for i in range(3))


def test_photometry_differs_between_the_views_and_leaves_the_geometry():
    noisy, clean = make(), make(dataclasses.replace(FEW.clean(), flat=FEW.flat))
    for i in range(4):
        assert np.array_equal(clean[i]["left"].shape, noisy[i]["left"].shape)
    strong = dataclasses.replace(CLEAN, asymmetry=1.0, view_exposure=0.5, noise=1.0, jpeg=1.0, misaligned=1.0)
    weak = make(CLEAN)
    for i in range(4):
        a, b = weak[i], make(strong)[i]
        assert np.array_equal(a["disparity"], b["disparity"]) and np.array_equal(a["nonocc"], b["nonocc"])
        assert warped_error(b).sum() > warped_error(a).sum()


def test_right_disparity_takes_the_nearest_surface_and_leaves_holes():
    left = np.full((1, 40), 4.0, np.float32)
    left[0, 20:30] = 9.5
    right = right_disparity(left)[0]
    assert np.all(right[:10] == 4.0) and np.all(right[11:20] == 9.5)
    assert np.isneginf(right[20:26]).all() and np.isneginf(right[36:]).all()


def test_photographs():
    names = {path.name for path in find_photos(None)}
    assert names and names <= set(WHEEL_PHOTOS)
    assert not any("motorcycle" in name for name in WHEEL_PHOTOS)
    data = SyntheticStereo(64, 96, max_disparity=20, config=dataclasses.replace(FEW, layouts=(("photo", 1.0),)))
    assert {path.name for path in data.bank.photos} == names
    assert data[0]["left"].std() > 1


def test_a_users_folder(tmp_path):
    picture = np.zeros((80, 120, 3), np.uint8)
    picture[..., 2] = np.arange(120)[None] * 2  # red in BGR
    assert cv2.imwrite(str(tmp_path / "one.png"), picture)
    config = dataclasses.replace(CLEAN, layouts=(("photo", 1.0),), shadows=0.0)
    data = SyntheticStereo(48, 64, max_disparity=10, photos=tmp_path, config=config)
    assert any(data[i]["left"][..., 1].max() == 0 and data[i]["left"][..., 0].max() > 50 for i in range(6))
    with pytest.raises(InputError, match="not a folder"):
        SyntheticStereo(48, 64, photos=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image"):
        SyntheticStereo(48, 64, photos=tmp_path / "empty")
    (tmp_path / "one.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"one\.png"):
        data = SyntheticStereo(48, 64, photos=tmp_path, config=config)
        data[0]


def test_bad_sizes():
    with pytest.raises(InputError, match="16 x 512"):
        SyntheticStereo(16, 512)
    with pytest.raises(InputError, match="max_disparity"):
        SyntheticStereo(64, 64, max_disparity=0)
    with pytest.raises(InputError, match="seed -1"):
        SyntheticStereo(64, 64, seed=-1)


def test_contact_sheet():
    data = make(size=2)
    sheet = contact_sheet([data[0], data[1]], width=80)
    assert sheet.shape == (2 * (48 + 4), 5 * (80 + 4), 3) and sheet.dtype == np.uint8


def test_crowded_scenes_have_more_things_and_the_sparse_ones_are_as_before():
    few = dict(textures=25, ready_textures=20)
    sparse, crowded = (make(dataclasses.replace(SyntheticConfig.named(name), **few)) for name in ("sparse", "crowded"))
    assert same(sparse[3], make()[3])

    def edges(data):
        return np.mean([(np.abs(np.diff(data[i]["disparity"], axis=1)) > 1).mean() for i in range(24)])

    assert edges(crowded) > 1.2 * edges(sparse)
    for i in range(24):
        disparity = crowded[i]["disparity"]
        assert np.isfinite(disparity).all() and disparity.min() >= 0 and disparity.max() <= 48


def test_a_fine_scene_is_a_larger_one_reduced():
    clean = dataclasses.replace(SyntheticConfig.named("crowded").clean(), textures=25, ready_textures=20, transparent=0.3)
    arguments: Any = dict(max_disparity=64, photos=False)
    reduced = SyntheticStereo(48, 80, config=dataclasses.replace(clean, fine=1.0), **arguments)
    large = SyntheticStereo(96, 160, config=clean, **arguments)
    edges = 0
    for i in range(12):
        small, whole = reduced[i], large[i]
        for side in ("left", "right"):
            np.testing.assert_array_equal(small[side], cv2.resize(whole[side], (80, 48), interpolation=cv2.INTER_AREA))
        for y, x in np.ndindex(48, 80):
            block = np.s_[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            there = np.sort(whole["disparity"][block].ravel())
            mine = [d for d in there if abs(d - there[1]) <= 1]
            assert small["disparity"][y, x] == pytest.approx(np.mean(mine) / 2, abs=1e-5)
            edges += there[3] - there[0] > 2
            assert small["valid"][y, x] == whole["valid"][block].all()
            assert small["nonocc"][y, x] == whole["nonocc"][block].all()
    assert edges > 1000


def test_half_of_the_mixed_scenes_are_fine_and_the_others_as_before():
    few: Any = dict(textures=25, ready_textures=20)
    kinds = {name: make(dataclasses.replace(SyntheticConfig.named(name), **few)) for name in ("crowded", "fine", "mixed")}
    matches = [[same(kinds["mixed"][i], kinds[name][i]) for name in ("crowded", "fine")] for i in range(24)]
    assert all(sum(match) == 1 for match in matches)
    assert 6 <= sum(match[0] for match in matches) <= 18


def test_hazy_scenes_fade_with_distance():
    """Beside the same scenes without the veil, which is drawn last: the far half loses contrast, the nearest keep it."""
    hazy = dataclasses.replace(SyntheticConfig.named("hazy"), textures=25, ready_textures=20)
    veiled, clear = make(hazy), make(dataclasses.replace(hazy, haze=0.0))
    kept = {"far": [], "near": []}
    for i in range(24):
        disparity = clear[i]["disparity"]
        np.testing.assert_array_equal(veiled[i]["disparity"], disparity)
        grey = [data[i]["left"].mean(-1) for data in (veiled, clear)]
        low, high = np.quantile(disparity, [0.5, 0.9])
        for name, part in (("far", disparity <= low), ("near", disparity >= high)):
            kept[name].append(grey[0][part].std() / max(grey[1][part].std(), 1))
    assert np.median(kept["far"]) < 0.57 and np.median(kept["near"]) > 0.65


def test_the_choice_of_scenes_has_a_say_in_the_fingerprint_unless_it_is_the_old_one():
    from bridgedepth_jax.data.sources import SyntheticOptions, open_source

    prints = {
        scenes: open_source("synthetic", "", synthetic=SyntheticOptions(scenes=scenes)).fingerprint
        for scenes in ("sparse", "crowded", "fine", "mixed", "hazy")
    }
    assert len(set(prints.values())) == 5
    assert open_source("synthetic", "", synthetic=SyntheticOptions()).fingerprint == prints["sparse"]
