"""Images in tiles: a matcher that is exact within its range tells what the machinery around it does."""

import itertools
import time

import jax
import numpy as np
import pytest
import tiny

from bridgedepth_jax import InputError, Predictor
from bridgedepth_jax.inference import cost
from bridgedepth_jax.inference.tiles import OVERLAP, RAMP, cut, match_tiled, plan

HEIGHT, WIDTH, REACH = 300, 900, 120.0


def scene(near: float, far: float):
    """Pairs whose pixels hold where they are: channel 0 the column, channel 1 the true disparity; (H, W, 3) float32."""
    x, y = np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32))
    disparity = far + (near - far) * (0.5 + 0.5 * np.sin(x / 150) * np.cos(y / 90))
    left = np.stack([x, disparity, np.ones_like(x)], -1)
    right = np.stack([x, 0 * x, np.ones_like(x)], -1)
    return left.astype(np.float32), right.astype(np.float32), disparity.astype(np.float32)


class Matcher:
    """Exact where the match is in what it sees and within its range; wrong by far elsewhere."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, left, right):
        self.shapes.append(left.shape)
        scale = WIDTH / left.shape[2] if left.shape[2] > SIZE[1] else 1.0
        wanted = left[..., 0] - left[..., 1]  # the column of the match
        begin = right[:, :, -1:, 0] - (left.shape[2] - 1) * scale  # of the right part, by its end: its beginning may be padded
        disparity = np.arange(left.shape[2]) - (wanted - begin) / scale
        outside = (disparity > np.arange(left.shape[2])) | (disparity > REACH) | (disparity < 0)
        disparity = np.where(outside, REACH / 2, disparity).astype(np.float32)
        return disparity, np.where(outside, 0.1, 0.9).astype(np.float32)


SIZE = (160, 360)


@pytest.mark.parametrize(("near", "far"), [(100, 5), (180, 90), (60, 0)])
def test_tiles_give_the_disparities_of_the_whole(near, far):
    left, right, truth = scene(near, far)
    matcher = Matcher()
    disparity, confidence = match_tiled(left, right, matcher, SIZE, REACH)
    visible = np.arange(WIDTH)[None] - truth >= 3  # of the coarse pass, too, which answers where a tile begins to know
    assert {shape[1:3] for shape in matcher.shapes[1:]} == {SIZE}  # one compilation
    error = np.abs(disparity - truth)[visible]
    assert error.max() < 0.03, error.max()  # so no seam is higher
    assert (confidence[visible] > 0.5).mean() > 0.98


def test_tiles_that_disagree_have_no_seam():
    left, right, truth = scene(60, 20)
    matcher, number = Matcher(), itertools.count()

    def biased(left, right):
        disparity, confidence = matcher(left, right)
        return disparity + (next(number) % 3 - 1 if left.shape[1:3] == SIZE else 0), confidence

    error = match_tiled(left, right, biased, SIZE, REACH)[0] - truth
    visible = np.arange(WIDTH)[None] - truth >= 3
    assert error[visible].max() > 0.9 and error[visible].min() < -0.9  # whole tiles are wrong
    across = np.abs(np.diff(error, axis=1))[visible[:, 1:] & visible[:, :-1]]
    down = np.abs(np.diff(error, axis=0))[visible[1:] & visible[:-1]]
    assert max(across.max(), down.max()) < 0.05  # 2 px over the 110 rows and 180 columns that tiles share


def test_what_a_tile_guesses_outside_the_right_image_is_not_taken():
    left, right, truth = scene(100, 80)
    matcher = Matcher()

    def coarse_is_right(left, right):
        disparity, confidence = matcher(left, right)
        if left.shape[1:3] != SIZE:
            return left[..., 1] * left.shape[2] / WIDTH, confidence
        return np.where(left[..., 0] < left[..., 1], 110, disparity), confidence

    error = np.abs(match_tiled(left, right, coarse_is_right, SIZE, REACH)[0] - truth)
    outside = np.arange(WIDTH)[None] < truth
    assert outside.mean() > 0.08 and error[outside].max() < 0.1, error[outside].max()


def test_what_one_tile_alone_knows_has_no_seam_where_it_ends():
    left, right, truth = scene(100, 100)
    truth = truth.copy()
    truth[80:140, 400:460] = truth[140:250, 400:408] = 40  # much of the tiles of rows 70 to 230, too little of those below
    left[..., 1] = truth
    matcher = Matcher()

    def coarse_is_wrong(left, right):
        disparity, confidence = matcher(left, right)
        return disparity + (0 if left.shape[1:3] == SIZE else 3 * disparity.shape[1] / WIDTH), confidence

    error = match_tiled(left, right, coarse_is_wrong, SIZE, REACH)[0] - truth
    strip = error[142:248, 403:405]
    assert np.abs(strip[:5]).max() < 0.1 and strip[-5:].min() > 0.9  # known by a tile, and by the coarse pass alone
    assert np.abs(np.diff(strip, axis=0)).max() < 0.1


def test_the_coarse_answer_stays_where_no_tile_can_know():
    left, right, truth = scene(200, 5)
    disparity, _ = match_tiled(left, right, Matcher(), SIZE, REACH)
    visible = np.arange(WIDTH)[None] - truth >= 4  # of the coarse pass, too
    assert truth.max() > REACH + 60 and np.abs(disparity - truth)[visible].max() < 1


def test_tiles_cover_and_overlap():
    coarse = np.full((HEIGHT, WIDTH), 50, np.float32)
    planned = plan(HEIGHT, WIDTH, SIZE, 120.0)
    tiles = list(cut(coarse, SIZE, planned.overlap))
    assert planned.overlap == 120 + RAMP and planned.count == len(tiles) and planned.coarse == (HEIGHT // 2, WIDTH // 2)
    seen = np.zeros((HEIGHT, WIDTH), int)
    for tile in tiles:
        seen[tile.y : tile.y + SIZE[0], tile.x : tile.x + SIZE[1]] += 1
        assert tile.shift == 42
    assert seen.min() == 1 and tiles[-1][:2] == (HEIGHT - SIZE[0], WIDTH - SIZE[1])
    rows, columns = sorted({tile.y for tile in tiles}), sorted({tile.x for tile in tiles})
    assert max(np.diff(rows)) <= SIZE[0] - OVERLAP and max(np.diff(columns)) <= SIZE[1] - 120 - RAMP


def test_a_predictor_in_tiles(monkeypatch):
    predictor = Predictor(tiny.MODEL, tiny.model_params(), check_order=False)
    left, right = tiny.images(96, 400)
    asked = []
    run = predictor._run

    class Counted:
        rows = staticmethod(run.rows)

        def __call__(self, *images):
            asked.append(images[0].shape)
            return run(*images)

    monkeypatch.setattr(predictor, "_run", Counted())
    whole = predictor(left, right, tiles=(96, 400))  # as large as the image: one call
    assert asked == [(1, 96, 400, 3)]
    np.testing.assert_array_equal(whole.disparity, predictor(left, right).disparity)
    asked.clear()
    parts = predictor(left, right, tiles=(96, 256), check_consistency=True)
    assert set(asked) == {(1, 48, 200, 3), (1, 96, 256, 3)}  # the coarse pass, and tiles
    assert parts.disparity.shape == parts.confidence.shape == parts.occluded.shape == (96, 400)
    assert np.isfinite(parts.disparity).all()
    with pytest.raises(InputError, match=r"tiles of 96x100, expected at least 146 columns"):
        predictor(left, right, tiles=(96, 100))


def test_the_cost_is_that_of_the_program():
    predictor = Predictor(tiny.MODEL, tiny.model_params())
    small, large = predictor.cost(64, 96), predictor.cost(128, 192)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(predictor._run.params()))
    images = 2 * 4 * 3 * 128 * 192
    assert large.memory > weights + images and 2 < (large.memory - weights) / (small.memory - weights) < 8
    assert large.work > 3 * small.work > 0
    assert str(large).endswith(" GiB")


def test_the_time_is_that_of_the_operations_and_grows_faster_than_the_memory(monkeypatch):
    monkeypatch.setattr(cost, "rate", lambda: 168e9)
    measured = {  # of the default model on two cores: GiB, operations, seconds
        "480x640": (0.366, 57e9, 0.435),
        "768x1024": (1.084, 157e9, 1.39),
        "960x1280": (1.916, 261e9, 2.47),
        "1440x1920": (4.103, 577e9, 7.2),
        "2000x3000": (10.815, 1226e9, 26.2),
    }
    for name, (memory, operations, seconds) in measured.items():
        assert cost.Cost.of(memory * 2**30, operations).seconds() == pytest.approx(seconds, rel=0.1), name


def test_the_rate_is_of_one_thread():
    whole, mine = time.process_time(), time.thread_time()
    assert cost.rate(0.2) > 1e7
    whole, mine = time.process_time() - whole, time.thread_time() - mine
    assert whole < 1.2 * mine, "others worked, too: threads that share a product wait for each other where cores are busy"


def test_a_scale_that_fits():
    assert cost.auto_scale(640, 480, 60.0, 256.0, 32) == 1
    assert cost.auto_scale(640, 480, None, None, 32) == 1
    scale = cost.auto_scale(4000, 3000, 339.0, 256.0, 32)
    assert 339 * scale <= 0.9 * 256 and 4000 * 3000 * scale**2 <= cost.AUTO
    assert cost.auto_scale(640, 480, 500.0, 256.0, 32) == pytest.approx(0.45)
    assert cost.auto_scale(40, 400, 5000.0, 256.0, 32) * 40 >= 32  # not below what the network takes


def test_what_is_free_here():
    free = cost.available(jax.devices()[0])
    assert free is not None and 2**26 < free < 2**45
