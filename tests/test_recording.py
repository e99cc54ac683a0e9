"""A recording for the Rerun viewer: what it holds, read back by Rerun; of a video one file; and what is said without Rerun."""

import collections
import sys

import numpy as np
import pytest
from rerun.chunk import RrdReader

from bridgedepth_jax import InputError
from bridgedepth_jax.geometry import Calibration
from bridgedepth_jax.inference import outputs, recording, run
from bridgedepth_jax.inference.stereo import Prediction

HEIGHT, WIDTH, FRAMES = 6, 8, 3


def results(camera: Calibration | None):
    random = np.random.default_rng(0)
    for i in range(FRAMES):
        left = random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        disparity = np.full((HEIGHT, WIDTH), 2.0 + i, np.float32)
        disparity[0] = 0  # infinitely far: no point
        yield outputs.PredictedPair(f"f_{i:06d}", left, Prediction(disparity, np.ones_like(disparity)), camera)


def read(path) -> dict[str, list]:
    """Entity -> its rows, as Arrow tables."""
    found = collections.defaultdict(list)
    for chunk in RrdReader(path).stream().to_chunks():
        found[chunk.entity_path].append(chunk)
    return found


def values(chunks: list, column: str) -> list:
    rows = []
    for chunk in chunks:
        batch = chunk.to_record_batch()
        names = [name for name in batch.schema.names if name.endswith(column)]
        rows += [row for name in names for row in batch.column(name).to_pylist()]
    return rows


def test_a_video_is_one_recording(tmp_path, capsys):
    camera = Calibration.from_focal(100, 0.1, (WIDTH, HEIGHT))
    run.write_video(tmp_path, results(camera), ["recording", "disparity"], "f", 10)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [*(f"f_{i:06d}_disparity.pfm" for i in range(FRAMES)), "f_recording.rrd"]
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "f_recording.rrd")
    found = read(tmp_path / "f_recording.rrd")
    assert {"/image", "/disparity", "/world", "/world/camera", "/world/camera/image", "/world/points"} <= set(found)
    assert sorted(values(found["/image"], "frame")) == list(range(FRAMES))
    positions = values(found["/world/points"], "Points3D:positions")
    assert [len(row) for row in positions] == [(HEIGHT - 1) * WIDTH] * FRAMES
    np.testing.assert_allclose([row[0][2] for row in positions], [100 * 0.1 / (2 + i) for i in range(FRAMES)], rtol=1e-6)


def test_a_pair_without_a_camera(tmp_path):
    (path,) = outputs.save(tmp_path, next(results(None)), ["recording"])
    found = read(path)
    assert {"/image", "/disparity"} <= set(found) and not {"/world/camera", "/world/points"} & set(found)


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="in between"), recording.recorder(tmp_path / "a.rrd"):
        raise RuntimeError("in between")
    assert not list(tmp_path.iterdir())


def test_without_rerun(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(InputError, match=r"rerun is not installed: pip install 'bridgedepth-jax\[rerun\]'"):
        recording.require()
