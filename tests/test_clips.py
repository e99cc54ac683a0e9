"""Procedural clips: geometry that agrees between views, and a function of (seed, index) alone (spec `video.md` section 6)."""

import dataclasses

import numpy as np
import pytest

from bridgedepth_jax.data.procedural.clips import ClipConfig, SyntheticClips, reproject
from bridgedepth_jax.errors import InputError

SCENE = dataclasses.replace(ClipConfig().scene, textures=12, ready_textures=12)
STATIC = ClipConfig(scene=SCENE, moving=0.0)


def clips(**options) -> SyntheticClips:
    return SyntheticClips(64, 80, options.pop("views", 6), photos=False, **{"config": STATIC, **options})


@pytest.mark.parametrize("index", range(4))
def test_depth_of_a_frame_agrees_with_that_of_the_next(index):
    """Where a surface is seen in both views the median relative error is below 0.1 %, and most pixels are seen."""
    clip = clips()[index]
    for k in range(5):
        expected, seen, same = reproject(clip["depth"], clip["K"], clip["pose"], k, k + 1)
        assert same.mean() > 0.5
        error = np.abs(seen / expected - 1)
        inside = np.isfinite(error) & (expected > 0) & (seen > 0) & same
        assert np.median(error[inside]) < 1e-3


def test_colours_agree_with_the_geometry():
    """A pixel goes where its depth says: the colours there are nearer than those of the same pixel."""
    clip = clips(views=4)[1]
    import cv2

    height, width = clip["depth"].shape[1:]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    points = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(clip["K"]).T * clip["depth"][0][..., None]
    move = np.linalg.inv(clip["pose"][3])
    pixels = (points @ move[:3, :3].T + move[:3, 3]) @ clip["K"].T
    _, _, same = reproject(clip["depth"], clip["K"], clip["pose"], 0, 3)
    u, v = (np.where(same, pixels[..., k] / pixels[..., 2], 0).astype(np.float32) for k in (0, 1))
    there = cv2.remap(clip["image"][3], u, v, cv2.INTER_LINEAR).astype(float)
    first = clip["image"][0].astype(float)
    apart = np.abs(there - first).mean(-1)[same]
    still = np.abs(clip["image"][3].astype(float) - first).mean(-1)[same]
    assert apart.mean() < 0.7 * still.mean()


def test_a_camera_at_rest_sees_equal_frames():
    clip = clips(config=dataclasses.replace(STATIC, still=True))[0]
    assert np.all(clip["image"] == clip["image"][:1])
    assert np.all(clip["depth"] == clip["depth"][:1])
    assert np.all(clip["pose"] == np.eye(4))
    assert not clip["moving"].any()


def test_a_thing_that_moves_before_a_camera_at_rest_is_all_that_changes():
    config = dataclasses.replace(STATIC, still=True, moving=1.0)
    clip = clips(config=config)[2]
    moved = clip["moving"].any(0)
    assert 0 < moved.mean() < 0.9
    changed = np.any(clip["depth"] != clip["depth"][:1], axis=0)
    assert not np.any(changed & ~moved)
    assert np.any(clip["depth"][0] != clip["depth"][-1])


def test_a_clip_is_a_function_of_seed_and_index():
    one, two = clips(seed=3), clips(seed=3)
    two[5]  # what was drawn before does not matter
    for name, value in one[1].items():
        np.testing.assert_array_equal(value, two[1][name])
    assert not np.array_equal(one[1]["image"], one[2]["image"])
    assert not np.array_equal(one[1]["image"], clips(seed=4)[1]["image"])


def test_the_right_view_of_a_stereo_clip_is_the_left_moved_by_its_disparity():
    clip = clips(stereo=True, views=2)[3]
    height, width = clip["depth"].shape[1:]
    disparity = clip["K"][0, 0] * clip["baseline"] / clip["depth"][0]
    x = np.arange(width)[None] - disparity
    inside = x >= 0
    import cv2

    rows = np.broadcast_to(np.arange(height, dtype=np.float32)[:, None], x.shape)
    there = cv2.remap(clip["right"][0], x.astype(np.float32), np.ascontiguousarray(rows), cv2.INTER_LINEAR)
    apart = np.abs(there.astype(float) - clip["image"][0]).mean(-1)[inside]
    assert np.median(apart) < 6


def test_every_pixel_has_a_depth():
    for index in range(3):
        depth = clips(views=3)[index]["depth"]
        assert np.all(np.isfinite(depth) & (depth > 0))


@pytest.mark.parametrize("change", [{"height": 16}, {"views": 0}, {"seed": -1}])
def test_sizes_that_cannot_be_are_refused(change):
    sizes = {"height": 64, "width": 64, "views": 2, **change}
    with pytest.raises(InputError, match="clips: "):
        SyntheticClips(sizes["height"], sizes["width"], sizes["views"], seed=change.get("seed", 0))


def test_haze_takes_colour_with_distance_and_changes_nothing_else():
    """Each view keeps exp(-Z / reach) of its own colours; the rest is one colour, the same in all views and both eyes."""
    clear, hazy = (clips(stereo=True, views=2, config=dataclasses.replace(STATIC, haze=haze)) for haze in (0.0, 1.0))
    for index in range(2):
        one, two, haze = clear[index], hazy[index], hazy.open(index).haze
        assert clear.open(index).haze is None and haze is not None
        assert ClipConfig().haze_reach[0] <= haze.reach <= ClipConfig().haze_reach[1]
        for name in ("depth", "K", "pose", "moving"):
            np.testing.assert_array_equal(one[name], two[name])
        own = np.exp(-one["depth"].astype(float) / haze.reach)[..., None]
        for name in ("image", "right"):
            if name == "image":
                expected = own * one[name] + (1 - own) * haze.colour
                assert np.abs(two[name] - expected).max() < 0.51
            assert np.abs(two[name].astype(float) - haze.colour).mean() < np.abs(one[name] - haze.colour).mean()


def test_a_share_of_the_clips_is_hazy():
    made = clips(config=dataclasses.replace(STATIC, haze=0.5))
    hazy = [made.open(index).haze is not None for index in range(12)]
    assert 2 <= sum(hazy) <= 10
