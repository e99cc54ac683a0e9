"""Readers and writers against what the original reads (tests/reference/readers), and damage."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from imagecodecs import png_encode

from bridgedepth_jax.data import (
    formats,
    read_disparity,
    read_image,
    read_pfm,
    write_eth3d_submission,
    write_kitti_png,
    write_kitti_submission,
    write_middlebury_submission,
    write_pfm,
    write_png,
)
from bridgedepth_jax.data.formats import FORMATS
from bridgedepth_jax.errors import InputError

READERS = Path(__file__).parent / "reference" / "readers"
FILES = {
    "little.pfm": "pfm",
    "big.pfm": "pfm",
    "kitti.png": "kitti",
    "middlebury/disp0GT.pfm": "middlebury",
    "middlebury/disp0.pfm": "middlebury",
    "middlebury/disp1.png": "middlebury",
    "vkitti_depth.png": "vkitti2",
    "sintel.png": "sintel",
    "falling/000000.left.depth.png": "falling_things",
    "tartan_left_depth.npy": "tartan_air",
    "booster_disp.npy": "booster",
    "crestereo.disp.png": "crestereo",
    "instereo2k_disp.png": "in_stereo2k",
}


def test_every_reference_file_and_every_format_is_checked():
    with np.load(READERS / "expected.npz") as expected:
        assert {key.replace("|", "/") for key in expected.files if not key.endswith(":valid")} == set(FILES)
    assert set(FILES.values()) == set(FORMATS) - {"npy"}  # which is no data set's


def test_an_array_of_disparities(tmp_path):
    np.save(tmp_path / "disparity.npy", np.array([[1.5, 0, np.nan], [np.inf, -2, 3]], np.float32))
    disparity, valid = read_disparity(tmp_path / "disparity.npy", "npy")
    np.testing.assert_array_equal(disparity, [[1.5, 0, 0], [0, 0, 3]])
    np.testing.assert_array_equal(valid, disparity > 0)


@pytest.mark.parametrize("file", FILES)
def test_reader_equals_the_original(file):
    with np.load(READERS / "expected.npz") as expected:
        key = file.replace("/", "|")
        want = expected[key]
        want_valid = expected.get(key + ":valid", want < 512)
    disparity, valid = read_disparity(READERS / file, FILES[file])
    known = np.isfinite(want)
    assert disparity.dtype == np.float32 and valid.dtype == bool
    np.testing.assert_array_equal(disparity[known], want[known])
    # The one exception: infinity becomes 0 and invalid, also where Middlebury's mask says otherwise.
    assert not disparity[~known].any()
    np.testing.assert_array_equal(valid, want_valid & known)


def test_kitti_writer_gives_the_originals_pixels(tmp_path):
    write_kitti_png(tmp_path / "a.png", np.load(READERS / "written_kitti_input.npy"))
    written, want = (
        cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (tmp_path / "a.png", READERS / "written_kitti.png")
    )
    assert written.dtype == want.dtype == np.uint16
    np.testing.assert_array_equal(written, want)


def test_kitti_writer_saturates_instead_of_wrapping(tmp_path):
    write_kitti_png(tmp_path / "a.png", np.array([[np.nan, np.inf, -3.0, 300.0]], np.float32))
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED), [[0, 0, 0, 65535]])


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3)])
def test_pfm_round_trip_is_exact(tmp_path, shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values.flat[0], values.flat[1] = np.inf, np.nan
    write_pfm(tmp_path / "a.pfm", values)
    np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm"), values)


def test_pfm_whose_first_value_looks_like_a_newline(tmp_path):
    values = np.frombuffer(b"\n\n\n\n" * 4, "<f4").reshape(2, 2)
    write_pfm(tmp_path / "a.pfm", values)
    np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm"), values)


def test_images_give_three_channels(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    write_png(tmp_path / "rgb.png", rgb)
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), rgb)
    cv2.imwrite(str(tmp_path / "rgba.png"), np.dstack([rgb[..., ::-1], rgb[..., 0]]))
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), rgb)
    write_png(tmp_path / "grey.png", rgb[..., 0])
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(rgb[..., :1], 3, -1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_both_png_decoders_agree(tmp_path, monkeypatch, channels, dtype):
    assert formats.png_decode is not None  # of the extra `fast`
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (9, 14, channels), dtype)
    (tmp_path / "a.png").write_bytes(png_encode(pixels))
    fast = read_image(tmp_path / "a.png")
    monkeypatch.setattr(formats, "png_decode", None)
    np.testing.assert_array_equal(fast, read_image(tmp_path / "a.png"))
    assert fast.shape == (9, 14, 3) and fast.dtype == np.uint8 and fast.flags.c_contiguous


@pytest.mark.parametrize("fast", [True, False])
def test_damaged_png_is_named(tmp_path, monkeypatch, capfd, fast):
    if not fast:
        monkeypatch.setattr(formats, "png_decode", None)
    write_png(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
    data = bytearray((tmp_path / "a.png").read_bytes())
    flipped = bytes(data[:500]) + bytes([data[500] ^ 255]) + bytes(data[501:])
    for damaged in (bytes(data[: len(data) // 2]), flipped, bytes(data[:40]), b""):
        (tmp_path / "a.png").write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.png"):
            read_image(tmp_path / "a.png")


def test_zero_depth_is_unknown_not_infinite(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0.0, -1.0, 2.0, np.nan, np.inf]], np.float32))
    disparity, valid = read_disparity(tmp_path / "a.npy", "tartan_air")
    np.testing.assert_array_equal(disparity, [[0, 0, 40, 0, 0]])
    np.testing.assert_array_equal(valid, [[False, False, True, False, False]])


def test_submissions(tmp_path):
    disparity = np.array([[1.5, 70.0, 500.0]], np.float32)
    path = write_eth3d_submission(tmp_path, "forest", disparity, 0.25)
    assert path == tmp_path / "low_res_two_view" / "forest.pfm"
    np.testing.assert_array_equal(read_pfm(path), [[1.5, 64, 64]])
    assert path.with_suffix(".txt").read_text() == "runtime 0.2500\n"
    path = write_middlebury_submission(tmp_path, "testQ", "Plants", "Ours", disparity, 0.25)
    assert path == tmp_path / "testQ" / "Plants" / "disp0Ours.pfm"
    np.testing.assert_array_equal(read_pfm(path), [[1.5, 70, 400]])
    assert float((path.parent / "timeOurs.txt").read_text()) == 0.25
    path = write_kitti_submission(tmp_path, "kitti_2015", "000001_10.png", disparity)
    assert path == tmp_path / "kitti_2015_submission" / "000001_10.png" and path.is_file()


@pytest.mark.parametrize("file", [*FILES, "written_kitti.png"])
def test_truncated_file_is_named(tmp_path, file, capfd):
    format = FILES.get(file, "kitti")
    path = tmp_path / Path(file).name
    for other in (READERS / file).parent.iterdir():
        if other.is_file():
            (tmp_path / other.name).write_bytes(other.read_bytes())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=path.name):
        read_disparity(path, format)
    with pytest.raises(InputError, match="absent"):
        read_disparity(tmp_path / "absent", format)


@pytest.mark.parametrize(
    ("file", "format", "words"),
    [
        ("kitti.png", "middlebury", "uint8"),
        ("middlebury/disp1.png", "kitti", "uint16"),
        ("kitti.png", "pfm", "not a PFM"),
        ("kitti.png", "kity", "in_stereo2k"),
        ("kitti.png", "sintel", "RGB"),
        ("sintel.png", "tartan_air", "NPY"),
    ],
)
def test_wrong_format_says_what_was_expected(file, format, words):
    with pytest.raises(InputError, match=words):
        read_disparity(READERS / file, format)


@pytest.mark.parametrize(
    ("format", "dtype", "scale"), [("png", np.uint8, 1), ("png:4", np.uint8, 4), ("png:256", np.uint16, 256)]
)
def test_png_of_any_scale(tmp_path, format, dtype, scale):
    values = np.array([[0, 1, 7], [200, 255, 3]], dtype)
    write_png(tmp_path / "d.png", values)
    disparity, valid = read_disparity(tmp_path / "d.png", format)
    np.testing.assert_array_equal(disparity, values / np.float32(scale))
    np.testing.assert_array_equal(valid, values > 0)
    for wrong in ("png:0", "png:-1", "png:", "png:x", "pngs"):
        with pytest.raises(InputError, match=r"unknown disparity format .*png:SCALE such as png:16"):
            read_disparity(tmp_path / "d.png", wrong)
    write_png(tmp_path / "colour.png", np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(InputError, match="expected one channel of uint8 or uint16"):
        read_disparity(tmp_path / "colour.png", format)


def test_middlebury_does_without_its_mask(tmp_path):
    """With it, valid is what both cameras see; without, all that has a disparity: what "all" means in both cases."""
    whole, seen = read_disparity(READERS / "middlebury" / "disp0GT.pfm", "middlebury")
    (tmp_path / "disp0GT.pfm").write_bytes((READERS / "middlebury" / "disp0GT.pfm").read_bytes())
    disparity, valid = read_disparity(tmp_path / "disp0GT.pfm", "middlebury")
    np.testing.assert_array_equal(disparity, whole)
    np.testing.assert_array_equal(valid, disparity > 0)
    assert (valid & ~seen).any() and not (seen & ~valid).any()


def test_files_that_must_lie_beside(tmp_path):
    for file, format, beside in (("falling/000000.left.depth.png", "falling_things", "_camera_settings.json"),):
        path = tmp_path / Path(file).name
        path.write_bytes((READERS / file).read_bytes())
        with pytest.raises(InputError, match=beside):
            read_disparity(path, format)
