"""Calibration files, depth, point clouds and PLY."""

import numpy as np
import pytest

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.geometry import Calibration, point_cloud, write_ply

MIDDLEBURY = """cam0=[999.421 0 294.182; 0 999.421 252.932; 0 0 1]
cam1=[999.421 0 326.96; 0 999.421 252.932; 0 0 1]
doffs=32.778
baseline=193.001
width=741
height=497
ndisp=70
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "calib.txt"
        path.write_text(text)
        return path

    return write


def test_middlebury_file(write):
    calibration = Calibration.from_middlebury(write(MIDDLEBURY))
    assert calibration == Calibration(999.421, 999.421, 294.182, 252.932, 193.001 / 1000, 32.778, (741, 497))
    # Middlebury's own formula, in millimetres: Z = baseline * f / (d + doffs).
    np.testing.assert_allclose(calibration.depth(np.array([40.0])) * 1000, 193.001 * 999.421 / (40 + 32.778), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("doffs=32.778\n", ""), "no doffs"),
        (("cam0=", "cam2="), "no cam0"),
        (("baseline=193.001\n", ""), "no baseline"),
        (("doffs=32.778", "doffs=many"), "doffs = 'many', expected 1 number"),
        (("baseline=193.001", "baseline=-1"), "baseline"),
        (("doffs=32.778", "doffs=nan"), "doffs"),
        (("0 0 1]\ncam1", "0 0]\ncam1"), "cam0 .* expected 9 numbers"),
        (("[999.421 0 294", "[999.421 3 294"), "camera matrix"),
        (("width=741", "width=0"), "width"),
    ],
)
def test_middlebury_file_errors_name_the_file_and_the_key(write, change, message):
    path = write(MIDDLEBURY.replace(*change, 1))
    with pytest.raises(InputError, match=message) as caught:
        Calibration.from_middlebury(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_unreadable_calibration(tmp_path):
    with pytest.raises(InputError, match=r"none\.txt: No such file"):
        Calibration.from_middlebury(tmp_path / "none.txt")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="not a text file"):
        Calibration.from_intrinsics(tmp_path / "image.png")


def test_intrinsics_file(write):
    path = write("754.6 0.0 489.3 0.0 755.1 265.5 0.0 0.0 1.0\n0.063\n")
    assert Calibration.from_intrinsics(path) == Calibration(754.6, 755.1, 489.3, 265.5, 0.063)
    for text in ("1 2 3\n0.1\n", "754.6 0 489.3 0 755.1 265.5 0 0 1\n", "754.6 0 489.3 0 755.1 265.5 0 0 1\nwide\n"):
        with pytest.raises(InputError, match=r"calib\.txt"):
            Calibration.from_intrinsics(write(text))


def test_focal():
    calibration = Calibration.from_focal(700, 0.5, (101, 51))
    assert (calibration.cx, calibration.cy, calibration.doffs) == (50, 25, 0)
    with pytest.raises(InputError, match="fx -1"):
        Calibration.from_focal(-1, 0.5, (101, 51))


def test_scaled_follows_a_resize():
    calibration = Calibration(500, 510, 63.3, 41.7, 0.2, 12, (128, 96))
    small = calibration.scaled(0.5, 0.25)
    assert small.size == (64, 24) and small.baseline == 0.2
    # A point in space lands on the resized pixel: half-pixel centres.
    x, y, z = 0.3, -0.2, 3.0
    for a, b, scale in [
        (calibration.fx * x / z + calibration.cx, small.fx * x / z + small.cx, 0.5),
        (calibration.fy * y / z + calibration.cy, small.fy * y / z + small.cy, 0.25),
    ]:
        assert (a + 0.5) * scale - 0.5 == pytest.approx(b)
    # A resized disparity gives the same depth.
    np.testing.assert_allclose(calibration.depth(np.array([30.0])), small.depth(np.array([15.0])), rtol=1e-6)
    back = small.scaled(2, 4)
    assert back.size == calibration.size and back.cx == pytest.approx(calibration.cx) and back.fy == calibration.fy


def test_fitted():
    calibration = Calibration(500, 510, 63, 41, 0.2, 12, (128, 96))
    assert calibration.fitted(128, 96) is calibration
    assert calibration.fitted(64, 48) == calibration.scaled(0.5, 0.5)
    with pytest.raises(InputError, match=r"128x96.*96x96"):
        calibration.fitted(96, 96)


def test_depth_without_a_match():
    calibration = Calibration(500, 500, 0, 0, 0.2, 2)
    depth = calibration.depth(np.array([[-2.0, -3.0, 0.0, np.inf, np.nan]]))
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, np.float32([[np.inf, np.inf, 50, 0, np.nan]]))


def test_points_project_back_onto_their_pixels():
    calibration = Calibration(50, 60, 3.5, 2.25, 0.2, 1.5)
    disparity = np.random.default_rng(0).uniform(1, 9, (5, 8)).astype(np.float32)
    points = calibration.points(calibration.depth(disparity)).astype(np.float64)
    y, x = np.mgrid[:5, :8]
    np.testing.assert_allclose(50 * points[..., 0] / points[..., 2] + 3.5, x, atol=1e-5)
    np.testing.assert_allclose(60 * points[..., 1] / points[..., 2] + 2.25, y, atol=1e-5)
    # The right camera, one baseline to the right with its principal point doffs further, sees it disparity to the left.
    np.testing.assert_allclose(50 * (points[..., 0] - 0.2) / points[..., 2] + 3.5 + 1.5, x - disparity, atol=1e-5)


def test_cloud_and_ply_round_trip(tmp_path):
    random = np.random.default_rng(1)
    disparity = random.uniform(0, 9, (6, 7)).astype(np.float32)
    disparity[0, :3] = 0, np.nan, np.inf
    image = random.integers(0, 256, (6, 7, 3), np.uint8)
    calibration = Calibration(50, 60, 3, 2, 0.2)
    valid = np.ones((6, 7), bool)
    valid[5] = False
    points, colors = point_cloud(disparity, image, calibration, z_far=5, valid=valid)
    depth = calibration.depth(disparity)
    keep = np.isfinite(depth) & (depth > 0) & (depth <= 5) & valid
    assert 0 < len(points) == keep.sum() < 42 - 9
    np.testing.assert_array_equal(colors, image[keep])

    path = tmp_path / "new" / "cloud.ply"
    write_ply(path, points, colors)
    back, back_colors = read_ply(path)
    np.testing.assert_array_equal(back, points)
    np.testing.assert_array_equal(back_colors, colors)
    assert [p.name for p in path.parent.iterdir()] == ["cloud.ply"]
    write_ply(path, points[:0], colors[:0])
    assert len(read_ply(path)[0]) == 0


def test_cloud_shapes():
    with pytest.raises(ValueError, match=r"\(4, 4\), \(4, 5, 3\)"):
        point_cloud(np.zeros((4, 4)), np.zeros((4, 5, 3), np.uint8), Calibration(1, 1, 0, 0, 1))
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        write_ply("never.ply", np.zeros((2, 3)), np.zeros((3, 3), np.uint8))


def read_ply(path):
    """A reader that trusts the header only."""
    header, body = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = int(lines[2].removeprefix("element vertex "))
    kinds = {"float": "<f4", "uchar": "u1"}
    dtype = [(line.split()[2], kinds[line.split()[1]]) for line in lines[3:]]
    data = np.frombuffer(body, dtype)
    assert len(data) == count
    return np.stack([data[k] for k in "xyz"], -1), np.stack([data[k] for k in ("red", "green", "blue")], -1)
