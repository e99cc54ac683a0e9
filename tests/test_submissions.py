"""Submission trees, checked from the specification (and the servers' own instructions) with readers of this file alone."""

import re
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from miniature import HEIGHT, WIDTH, build

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.submissions import submit

RAMP = np.linspace(0.7, 90, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)


def predict(left, right):
    assert left.shape == right.shape == (HEIGHT, WIDTH, 3) and left.dtype == np.uint8
    time.sleep(0.002)  # no method takes no time
    return RAMP


def read_pfm(path):
    data = path.read_bytes()
    kind, size, scale, body = data.split(b"\n", 3)
    width, height = map(int, size.split())
    assert kind == b"Pf" and float(scale) < 0 and len(body) == 4 * width * height
    return np.frombuffer(body, "<f4").reshape(height, width)[::-1]


def read_png16(path):
    """A 16-bit grey PNG without a library: chunks, inflate, undo the row filters."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, position = {}, 8
    while position < len(data):
        (length,), kind = struct.unpack(">I", data[position : position + 4]), data[position + 4 : position + 8]
        chunks[kind] = chunks.get(kind, b"") + data[position + 8 : position + 8 + length]
        position += 12 + length
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour, interlaced) == (16, 0, 0)
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + 2 * width).astype(int)
    rows = np.zeros((height + 1, 2 * width + 2), int)
    for y in range(height):
        for x in range(2 * width):
            left, above, corner = rows[y + 1, x], rows[y, x + 2], rows[y, x]
            estimate = left + above - corner
            paeth = min((left, above, corner), key=lambda value: abs(estimate - value))
            rows[y + 1, x + 2] = (raw[y, 1 + x] + (0, left, above, (left + above) // 2, paeth)[raw[y, 0]]) % 256
    return (rows[1:, 2::2] * 256 + rows[1:, 3::2]).astype(np.uint16)


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("year, inside", [(2012, ""), (2015, "disp_0/")])
def test_kitti(tmp_path, year, inside):
    build(tmp_path / "data", f"kitti_{year}_test")
    done = submit(f"kitti_{year}", predict, tmp_path / "data", tmp_path / "out")
    names = ["000000_10.png", "000001_10.png"]
    assert tree(tmp_path / "out" / f"kitti_{year}_submission") == names
    for name in names:
        np.testing.assert_array_equal(read_png16(tmp_path / "out" / f"kitti_{year}_submission" / name), np.round(RAMP * 256))
    assert sorted(zipfile.ZipFile(done.archive).namelist()) == [inside + name for name in names]


def test_eth3d(tmp_path):
    build(tmp_path / "data", "eth3d", "eth3d_test")
    for scene in ("delivery_area_1l", "electro_1l"):  # the miniature has the same scenes in both halves
        (tmp_path / f"data/ETH3D/two_view_testing/{scene}").rename(tmp_path / f"data/ETH3D/two_view_testing/test_{scene}")
    done = submit("eth3d", predict, tmp_path / "data", tmp_path / "out")
    scenes = ["delivery_area_1l", "electro_1l", "test_delivery_area_1l", "test_electro_1l"]
    expected = sorted(f"low_res_two_view/{scene}.{kind}" for scene in scenes for kind in ("pfm", "txt"))
    assert [name for name in tree(tmp_path / "out") if not name.endswith(".zip")] == expected
    assert sorted(zipfile.ZipFile(done.archive).namelist()) == expected
    for scene in scenes:
        np.testing.assert_array_equal(read_pfm(tmp_path / f"out/low_res_two_view/{scene}.pfm"), np.minimum(RAMP, 64))
        assert re.fullmatch(r"runtime \d+\.?\d*\s*", (tmp_path / f"out/low_res_two_view/{scene}.txt").read_text())


@pytest.mark.parametrize("size", "FHQ")
def test_middlebury(tmp_path, size):
    build(tmp_path / "data", f"middlebury_{size}", f"middlebury_{size}_test")
    done = submit(
        f"middlebury_{size}", lambda left, right: 6 * predict(left, right), tmp_path / "data", tmp_path / "out", method="Ours"
    )
    folders = [f"{split}{size}/{scene}" for split in ("test", "training") for scene in ("Adirondack", "Motorcycle")]
    expected = sorted(f"{folder}/{name}" for folder in folders for name in ("disp0Ours.pfm", "timeOurs.txt"))
    assert [name for name in tree(tmp_path / "out") if not name.endswith(".zip")] == expected
    assert sorted(zipfile.ZipFile(done.archive).namelist()) == expected
    for folder in folders:
        np.testing.assert_array_equal(read_pfm(tmp_path / "out" / folder / "disp0Ours.pfm"), np.minimum(6 * RAMP, 400))
        assert float((tmp_path / "out" / folder / "timeOurs.txt").read_text()) > 0


def test_run_time_is_of_one_pair_without_compilation(tmp_path):
    build(tmp_path / "data", "middlebury_Q_test")
    calls = []

    def slow_at_first(left, right):
        calls.append(0)
        time.sleep(0.5 if len(calls) == 1 else 0.02)
        return RAMP

    done = submit("middlebury_Q", slow_at_first, tmp_path / "data", tmp_path / "out")
    assert len(calls) == 3 and len(done.seconds) == 2
    assert all(0.02 <= seconds < 0.3 for seconds in done.seconds)
    written = Path(tmp_path / "out/testQ/Adirondack/timeBridgeDepth.txt").read_text()
    assert float(written) == pytest.approx(done.seconds[0], abs=1e-3)
    assert done.missing == (str(tmp_path / "data/Middlebury/MiddEval3/trainingQ"),)


def test_refused(tmp_path):
    build(tmp_path / "data", "middlebury_Q_test", "kitti_2015_test")
    with pytest.raises(InputError, match="no file matches"):
        submit("eth3d", predict, tmp_path / "data", tmp_path / "out")
    with pytest.raises(InputError, match="method name 'a/b'"):
        submit("middlebury_Q", predict, tmp_path / "data", tmp_path / "out", method="a/b")
    with pytest.raises(InputError, match="not finite"):
        submit("kitti_2015", lambda left, right: RAMP * np.nan, tmp_path / "data", tmp_path / "out")
    with pytest.raises(InputError, match="all zero"):
        submit("kitti_2015", lambda left, right: RAMP * 0, tmp_path / "data", tmp_path / "zero")
    stranger = tmp_path / "out" / "kitti_2015_submission" / "000005_10.png"
    stranger.parent.mkdir(parents=True, exist_ok=True)
    stranger.write_bytes(b"")
    with pytest.raises(InputError, match=r"000005_10\.png is no part"):
        submit("kitti_2015", predict, tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out" / "kitti_2015.zip").exists()
