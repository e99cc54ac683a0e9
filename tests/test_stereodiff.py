"""StereoDiff's host parts: golden numbers, and properties with slow loops as oracles (spec `video.md`)."""

import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation import video as measures
from bridgedepth_jax.networks.video.config import VideoScheduleConfig
from bridgedepth_jax.networks.video.schedule import sigmas_of
from bridgedepth_jax.systems.stereodiff import fusion, parity, preprocess, windows

TESTS = Path(__file__).parent
GOLDEN = TESTS / "reference" / "video"
HOST = ("geometry", "closed", "preprocess", "scheduler", "windows", "metrics", "sample")


@pytest.mark.parametrize("kind", HOST)
def test_golden(kind):
    """Also `scripts/parity.py --system stereodiff`; the networks' are in test_stereodiff_networks.py."""
    with jax.enable_x64(True):
        rows = list(parity.compare(TESTS, GOLDEN, kinds=[kind], float64=True))
    assert rows
    assert not [row for row in rows if not row.ok]


@pytest.mark.parametrize(("frames", "reach"), [(1, 2), (2, 2), (3, 2), (7, 2), (9, 3), (4, 9)])
def test_pairs_are_all_near_ones_in_both_directions(frames, reach):
    edges = [tuple(edge) for edge in fusion.pairs_of(frames, reach).tolist()]
    expected = {(i, j) for i, j in itertools.product(range(frames), repeat=2) if 0 < abs(i - j) <= reach} or {(0, 0)}
    assert len(edges) == len(set(edges)) == fusion.decodings(frames, reach)
    assert set(edges) == expected
    if frames > reach:
        assert frames == 1 or len(edges) == 2 * (reach * frames - reach * (reach + 1) // 2)


def rotation(rng) -> np.ndarray:
    q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return q * np.sign(np.linalg.det(q))


def test_registration_finds_a_similarity_whatever_the_weights_of_outliers_that_are_zero():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((40, 3)), rng.uniform(0.5, 2, 40)
    true = fusion.Similarity(1.7, rotation(rng), rng.standard_normal(3))
    y = true.apply(x)
    y[:5] += 100
    weight[:5] = 0
    found = fusion.register(x, y, weight)
    np.testing.assert_allclose(found.scale, true.scale, atol=1e-12)
    np.testing.assert_allclose(found.rotation, true.rotation, atol=1e-12)
    np.testing.assert_allclose(found.translation, true.translation, atol=1e-12)


def scene(frames: int = 5, size: tuple[int, int] = (12, 16), focal: float = 20.0):
    """Perfect pairs of a video: known depths seen from `frames` places, each pair at its own scale."""
    rng = np.random.default_rng(3)
    height, width = size
    x, y = np.meshgrid(np.arange(width) - width / 2, np.arange(height) - height / 2)
    depth = rng.uniform(2, 5, (frames, height, width))
    local = np.stack([x / focal, y / focal, np.ones_like(x)], -1) * depth[..., None]
    poses = [np.eye(4) for _ in range(frames)]
    for k, pose in enumerate(poses):
        angle = 0.05 * k
        pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        pose[:3, 3] = 0.1 * k, 0.02 * k, 0
    edges = fusion.pairs_of(frames)
    points_i, points_j = [], []
    for i, j in edges:
        there = local[j] @ poses[j][:3, :3].T + poses[j][:3, 3]
        scale = rng.uniform(0.3, 3)
        points_i.append(local[i] * scale)
        points_j.append((there - poses[i][:3, 3]) @ poses[i][:3, :3] * scale)
    confidence = [rng.uniform(1, 5, (2, height, width)) for _ in edges]
    maps = points_i, points_j, [c[0] for c in confidence], [c[1] for c in confidence]
    return edges, maps, depth, poses


@pytest.mark.parametrize("pose", ["procrustes", "pnp"])
def test_fusion_of_perfect_pairs_is_the_video_at_one_scale(pose):
    edges, maps, depth, poses = scene()
    found = fusion.fuse(edges, *maps, pose=pose)
    scale = found.depth / depth
    np.testing.assert_allclose(scale, scale[0, 0, 0], rtol=1e-4 if pose == "pnp" else 1e-9)
    relative = [np.linalg.inv(found.pose[0]) @ p for p in found.pose]
    expected = [np.linalg.inv(poses[0]) @ p for p in poses]
    for ours, true in zip(relative, expected, strict=True):
        np.testing.assert_allclose(ours[:3, :3], true[:3, :3], atol=1e-4)
        np.testing.assert_allclose(ours[:3, 3], true[:3, 3] * scale[0, 0, 0], atol=1e-3)
    np.testing.assert_allclose(np.exp(np.mean(np.log(found.edge_scales * found.scale_factor))), fusion.MEAN_SCALE)
    assert found.hidden == 0


def test_one_frame_is_its_own_pair():
    _, maps, *_ = scene()
    found = fusion.fuse(fusion.pairs_of(1), *[[part[0]] for part in maps])
    np.testing.assert_allclose(found.depth[0] / maps[0][0][..., 2], fusion.MEAN_SCALE)


def test_a_depth_that_is_not_positive_becomes_one_and_is_counted():
    edges, maps, *_ = scene()
    for number, (i, j) in enumerate(edges):
        for points, frame in ((maps[0][number], i), (maps[1][number], j)):
            if frame == 2:
                points[0, :3] -= [0, 0, 100 * np.abs(points).max()]
    found = fusion.fuse(edges, *maps)
    assert found.hidden >= 3
    assert np.all(found.depth[2][0, :3] == fusion.HIDDEN_DEPTH)


def test_pairs_that_leave_a_frame_alone_are_refused():
    edges, maps, *_ = scene()
    keep = [e for e, pair in enumerate(edges) if 4 not in pair or pair.tolist() == [4, 4]]
    apart = np.concatenate([edges[keep], [[4, 4]]])
    parts = [[part[e] for e in keep] + [part[0]] for part in maps]
    with pytest.raises(InputError, match="frames 0 and 4 are connected by no pair"):
        fusion.fuse(apart, *parts)


@pytest.mark.parametrize("bad", [0.0, np.nan, -1.0])
def test_confidences_that_are_not_positive_are_refused(bad):
    _, maps, *_ = scene()
    maps[2][3][:] = bad
    with pytest.raises(InputError, match="pair 3: mean confidences"):
        fusion.scores_of(maps[2], maps[3])


def test_the_tree_is_the_best_of_all_trees():
    """Against all spanning trees of a small graph."""
    rng = np.random.default_rng(5)
    edges = fusion.pairs_of(5)
    scores = rng.uniform(1, 2, len(edges))
    best = -np.inf
    undirected = {
        tuple(sorted(e)): max(s for f, s in zip(edges.tolist(), scores, strict=True) if sorted(f) == sorted(e))
        for e in edges.tolist()
    }
    for tree in itertools.combinations(undirected, 4):
        reached, grown = {0}, True
        while grown:
            more = {v for e in tree if set(e) & reached for v in e} - reached
            reached, grown = reached | more, bool(more)
        if len(reached) == 5:
            best = max(best, sum(undirected[e] for e in tree))
    found = fusion.spanning_tree(edges, scores)
    np.testing.assert_allclose(sum(scores[found]), best)
    assert list(scores[found]) == sorted(scores[found], reverse=True)


def test_equal_confidences_are_told():
    assert fusion.equal_confidences(np.ones(8))
    assert not fusion.equal_confidences(np.array([1.0, 1.0, 1.1]))


@pytest.mark.parametrize("size", [(640, 480), (97, 411), (500, 500), (33, 30), (1, 400)])
@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_prepared_frames_have_the_network_size(size, fit):
    width, height = size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    if min(preprocess.network_size(width, height, 64, fit)) == 0:
        return
    found = preprocess.prepare(image, 64, fit)
    assert found.shape[:2] == preprocess.network_size(width, height, 64, fit)[::-1]
    assert found.shape[0] % 16 == found.shape[1] % 16 == 0


@pytest.mark.parametrize(("total", "window", "overlap"), [(23, 10, 4), (10, 10, 4), (11, 10, 0), (110, 16, 4), (500, 110, 25)])
def test_windows_cover_every_frame_and_share_what_they_should(total, window, overlap):
    spans = windows.spans_of(total, window, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == total
    assert all(stop - start <= window for start, stop in spans)
    assert all(one[1] - two[0] == overlap for one, two in itertools.pairwise(spans))
    assert all(stop - start > overlap for start, stop in spans)


def test_blending_windows_of_one_video_gives_the_video():
    video = np.random.default_rng(0).standard_normal((23, 3))
    spans = windows.spans_of(23, 10, 4)
    whole = video[slice(*spans[0])]
    for start, stop in spans[1:]:
        whole = windows.blend(whole, video[start:stop], 4)
    np.testing.assert_allclose(whole, video)


def test_a_frame_keeps_its_noise_between_windows_in_the_overlap():
    first = np.random.default_rng(0).standard_normal((10, 2))
    spans = windows.spans_of(23, 10, 4)
    noises = windows.noise_of(first, spans, 4)
    for before, after in itertools.pairwise(noises):
        np.testing.assert_array_equal(before[-4:], after[:4])


@pytest.mark.parametrize(("window", "overlap"), [(4, 4), (4, 9), (4, -1)])
def test_windows_not_above_their_overlap_are_refused(window, overlap):
    with pytest.raises(InputError, match="expected more frames than shared ones"):
        windows.spans_of(20, window, overlap)


def test_one_step_ends_clean():
    """t = 2 to 1 of four steps, as the options' defaults take it (spec section 3)."""
    np.testing.assert_allclose(sigmas_of(VideoScheduleConfig(), 4), [700, 70.5408, 2.26912, 0.002, 0], rtol=1e-5)


@pytest.mark.parametrize("space", ["disparity", "depth"])
@pytest.mark.parametrize("per_frame", [False, True])
def test_the_fit_undoes_a_scale_and_a_shift(space, per_frame):
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 5, (6, 4, 5))
    truth[2] = 0  # a frame without ground truth
    truth[0, 0, 0] = 500
    valid = measures.valid_truth(truth, 10.0)
    wanted = 1 / (truth + 1e-8) if space == "disparity" else truth
    prediction = np.where(valid, (wanted - 0.1) / 0.4, 1.0)
    found = measures.fit(prediction, truth, valid, space, per_frame=per_frame)
    known = [0] if not per_frame else [0, 1, 3, 4, 5]
    np.testing.assert_allclose(found.scale[known], 0.4)
    np.testing.assert_allclose(found.shift[known], 0.1)
    if per_frame:
        assert np.isnan(found.scale[2])
    errors = measures.frame_errors(measures.to_depth(prediction, found, space, 10.0), truth, valid)
    assert errors.frames.tolist() == [0, 1, 3, 4, 5]
    assert errors.means()["absrel"] < 1e-7
    assert errors.means()["delta1"] == 1


def test_a_video_without_valid_ground_truth_has_no_mean():
    truth = np.zeros((3, 2, 2))
    errors = measures.frame_errors(truth + 1, truth, measures.valid_truth(truth, 10.0))
    with pytest.raises(ValueError, match="no frame has a pixel"):
        errors.means()


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 39, 40, 110])
def test_bands_split_a_sequence_without_a_rest(frames):
    errors = np.random.default_rng(frames).uniform(0, 1, frames)
    spectrum = measures.spectrum_of(errors)
    np.testing.assert_allclose(spectrum.energy.sum(), np.sum(errors**2))
    np.testing.assert_allclose(spectrum.amplitude[0], errors.mean())
    assert spectrum.band.max() <= 10
    assert np.all(np.diff(spectrum.band) >= 0)


def test_a_window_period_of_85_frames_lies_in_bands_three_and_four():
    """Why the bands are logarithmic (spec section 5)."""
    assert set(measures.bands_of(438)[4:8].tolist()) <= {3, 4}


def test_flicker_is_the_loop_and_zero_for_a_steady_video():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 2, (7, 3, 4))
    depth[3, 0, 0] = np.nan
    depth[1, 2, 2] = -1
    meter = measures.Flicker()
    for frame in depth:
        meter.add(frame)
    apart = []
    for t in range(1, 6):
        for y, x in itertools.product(range(3), range(4)):
            d = depth[t - 1 : t + 2, y, x]
            if np.all(d > 0):
                apart.append(abs(np.log(d[1]) - (np.log(d[0]) + np.log(d[2])) / 2))
    found = meter.value()
    assert found is not None
    np.testing.assert_allclose(found, np.mean(apart))
    steady = measures.Flicker()
    assert steady.value() is None
    for _ in range(4):
        steady.add(depth[0])
    assert steady.value() == 0
