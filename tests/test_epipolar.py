"""Errors of rectification that were made are found again, to a tenth of a pixel."""

import cv2
import numpy as np
import pytest

from bridgedepth_jax.data.epipolar import align
from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo

HEIGHT, WIDTH = 240, 320
TOLERANCE = 0.1  # pixels


@pytest.fixture(scope="module")
def rendered():
    return SyntheticStereo(HEIGHT, WIDTH, config=SyntheticConfig().clean(), seed=5)[2]


def moved(image, offset: float, degrees: float, stretch: float):
    """An image whose content lies lower by `offset` pixels, is turned clockwise, and taller by a share."""
    a, (cx, cy) = np.deg2rad(degrees), ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.diag([1, 1 + stretch])
    matrix = np.column_stack([turn, np.array([cx, cy + offset]) - turn @ [cx, cy]])
    return cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize(
    ("offset", "degrees", "stretch"), [(0, 0, 0), (0.6, 0, 0), (-7, 0, 0), (0, 0.4, 0), (1.5, -2, 0), (0, 0, 0.01)]
)
def test_what_was_made_is_found(rendered, offset, degrees, stretch):
    found = align(rendered["left"], moved(rendered["right"], offset, degrees, stretch))
    assert found is not None and found.matches > 100 and found.error < TOLERANCE / 2
    assert abs(found.offset - offset) < TOLERANCE
    assert abs(found.slope - np.sin(np.deg2rad(degrees))) * WIDTH / 2 < TOLERANCE
    assert abs(found.stretch - stretch) * HEIGHT / 2 < TOLERANCE
    assert found.share > 0.5


def test_disparities_of_the_matches_are_those_of_the_scene(rendered):
    found = align(rendered["left"], rendered["right"])
    assert found is not None
    x, y = np.rint(found.left).astype(int).T
    error = np.abs(found.disparity - rendered["disparity"][y, x])
    assert np.median(error) < TOLERANCE and np.mean(error < 1) > 0.95
    turned = align(rendered["right"], rendered["left"])
    assert turned is not None and np.median(turned.disparity) == pytest.approx(-np.median(found.disparity), abs=0.5)


def test_a_large_image_is_measured_in_its_own_pixels(rendered):
    large = [cv2.resize(rendered[side], None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC) for side in ("left", "right")]
    moved_by = cv2.warpAffine(
        large[1], np.float32([[1, 0, 0], [0, 1, 4]]), large[1].shape[1::-1], borderMode=cv2.BORDER_REPLICATE
    )
    found = align(large[0], moved_by)
    assert found is not None and found.offset == pytest.approx(4, abs=5 * TOLERANCE)


def test_nothing_is_said_where_nothing_matches(rendered):
    other = SyntheticStereo(HEIGHT, WIDTH, config=SyntheticConfig().clean(), seed=6)[7]
    blank = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for right in (other["right"], blank, cv2.rotate(rendered["right"], cv2.ROTATE_180)):
        assert align(rendered["left"], right) is None
    assert align(blank, blank) is None
