"""Pictures of disparities: what each colour means, and that invalid pixels are black."""

import numpy as np
import pytest

from bridgedepth_jax.visualize import colorize, error_colors

LOW, HIGH = (48, 18, 59), (122, 4, 3)  # the two ends of Turbo


def test_colorize_ends_of_the_range():
    picture = colorize(np.array([[0, 50, 100, 200]], np.float32), max_disparity=100)
    assert picture.dtype == np.uint8 and picture.shape == (1, 4, 3)
    assert tuple(picture[0, 0]) == LOW and tuple(picture[0, 2]) == tuple(picture[0, 3]) == HIGH
    r, g, b = picture[0, 1].astype(int)
    assert g > r and g > b  # Turbo is green in the middle


def test_colorize_own_range_ignores_invalid_pixels():
    disparity = np.array([[10, 20, 1e6, np.inf, np.nan]], np.float32)
    picture = colorize(disparity, valid=np.array([[1, 1, 0, 1, 1]], bool))
    assert tuple(picture[0, 1]) == HIGH
    assert not picture[0, 2:].any()


def test_colorize_nothing_valid_or_all_zero():
    assert not colorize(np.full((2, 3), np.nan)).any()
    assert (colorize(np.zeros((2, 3))) == LOW).all()


@pytest.mark.parametrize("limit", [0, -1, np.inf, np.nan])
def test_colorize_refuses_a_bad_range(limit):
    with pytest.raises(ValueError, match="max_disparity"):
        colorize(np.zeros((2, 2)), max_disparity=limit)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"\(1, 2, 2\)"):
        colorize(np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        colorize(np.zeros((2, 2)), valid=np.ones((3, 2), bool))
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        error_colors(np.zeros((2, 2)), np.zeros((2, 3)))


def test_error_colors_follow_kitti():
    gt = np.full((1, 10), 10.0)
    # At 10 px the 3 px limit is the looser one, so the bins are at 3 px times 1/16, 1/8, ... 16.
    middle = 3 * np.array([0.03, 0.09, 0.19, 0.37, 0.75, 1.5, 3, 6, 12, 20])
    colors = error_colors(gt + middle, gt)
    assert colors[0].tolist()[:2] == [[49, 54, 149], [69, 117, 180]] and colors[0, 9].tolist() == [165, 0, 38]
    assert len({tuple(c) for c in colors[0].tolist()}) == 10
    # The outlier limit is 3 px and 5 %: at 200 px an error of 9 px is still blue-white.
    assert error_colors(np.array([[209.0]]), np.array([[200.0]]))[0, 0].tolist() == [224, 243, 248]
    assert error_colors(np.array([[211.0]]), np.array([[200.0]]))[0, 0].tolist() == [254, 224, 144]


def test_error_colors_invalid():
    gt = np.array([[0, np.inf, 5, 5, 5]])
    prediction = np.array([[5, 5, 5, 5, np.nan]])
    assert error_colors(prediction, gt).tolist() == [[[0] * 3, [0] * 3, [49, 54, 149], [49, 54, 149], [165, 0, 38]]]
    masked = error_colors(prediction, gt, np.array([[1, 1, 1, 0, 1]], bool))
    assert not masked[0, 3].any() and masked[0, 2].any()
