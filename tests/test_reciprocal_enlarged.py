"""Labels from enlarged images: in pixels of the images as they are, of both views, only where held-out pairs ask for them."""

import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_reciprocal_adapt import HEIGHT, SHIFT, WIDTH, make_pairs, run

from bridgedepth_jax.data.pairs import find_pairs, read_sample
from bridgedepth_jax.store.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bridgedepth_jax.systems.reciprocal import adapt, enlarged

TRUTH = np.full((HEIGHT, WIDTH), SHIFT, np.float32)


def held_out(tmp_path, count=2):
    pairs = find_pairs(f"custom:{make_pairs(tmp_path / 'pairs', count)}", ".")
    samples = [read_sample(pair) for pair in pairs]
    return pairs, [adapt.HeldOut(s["name"], s["left"], s["right"], None, None) for s in samples]


def test_disparities_of_enlarged_images_are_in_pixels_of_the_images_as_they_are():
    sizes = []

    def stereo(weights, left, right):
        sizes.append(left.shape[1:3])
        left_edge = jnp.arange(left.shape[2]) < left.shape[2] // 4  # mirrored back it is at the right of the right view
        return jnp.broadcast_to(jnp.where(left_edge, 2.0, 1.0) * weights * left.shape[2], left.shape[:3])

    teacher = enlarged.Enlarged(stereo, 1 / 32, 16)
    left = np.zeros((32, 64, 3), np.uint8)
    disparity, other = teacher(left, left, (1, 1.4, 2))
    assert set(sizes) == {(32, 64), (48, 96), (64, 128)}
    assert disparity.shape == other.shape == (32, 64)
    np.testing.assert_allclose(disparity[:, 24:], 2, rtol=1e-6)
    np.testing.assert_allclose(disparity[:, :12], 4, rtol=1e-6)
    np.testing.assert_allclose(other, disparity[:, ::-1], rtol=1e-6)


def test_a_scale_that_fails_has_no_say():
    teacher = enlarged.Enlarged(
        lambda weights, left, right: jnp.full(left.shape[:3], 90.0 if left.shape[1] > 64 else 8.0), 0, 16
    )
    disparity, _ = teacher(np.zeros((32, 64, 3), np.uint8), np.zeros((32, 64, 3), np.uint8), (1, 2, 3))
    np.testing.assert_allclose(disparity, 8)  # of 8, 4 and 30 pixels


def test_large_images_are_not_enlarged_beyond_what_fits():
    assert enlarged.candidates((96, 192)) == list(enlarged.SCALES)
    assert enlarged.candidates((320, 1024)) == [enlarged.SCALES[0]]
    assert enlarged.candidates((2000, 3000)) == []


STRAYED = np.where(np.arange(HEIGHT)[:, None] < 3, TRUTH + 20, TRUTH)


@pytest.mark.parametrize(
    ("left", "right", "chosen"),
    [
        (TRUTH, TRUTH, True),
        (TRUTH, TRUTH + 1.05, False),  # left and right are hardly nearer than the 1.1 px before
        (TRUTH, STRAYED, False),  # they are nearer, but more pixels are occluded
        (TRUTH - 2, TRUTH - 2, False),  # they agree on what is wrong
    ],
)
def test_scales_are_chosen_where_error_and_agreement_are_better(left, right, chosen, tmp_path):
    judge = adapt.Judge.__new__(adapt.Judge)
    judge.pairs = held_out(tmp_path)[1]
    judge._measure = jax.jit(adapt._measure)
    judge.before = judge.measure([(TRUTH[None] - 1, TRUTH[None] + 0.1)] * 2)
    teacher = lambda *_: (left, right)
    judge.labels = None
    scales, labels = adapt.choose_scales(judge, teacher, (HEIGHT, WIDTH))
    assert scales == (enlarged.SCALES[0] if chosen else ())
    assert np.array_equal(labels, np.stack([left] * 2) if chosen else np.zeros((0, HEIGHT, WIDTH)))
    judge.labels = np.stack([left] * 2)
    values = judge.compare(judge.measure([(left[None] + 0.5, right[None])] * 2))
    assert values["label_before"] == pytest.approx(np.abs(TRUTH - 1 - left).mean(), rel=1e-5)
    assert values["label_after"] == pytest.approx(0.5) and values["label_ratio"] == 0.5 / values["label_before"]


@pytest.mark.parametrize(("labelled", "kept"), [(True, [0, 1]), (False, [0, 2])])
def test_the_best_weights_are_those_nearest_to_the_labels(labelled, kept, tmp_path, monkeypatch):
    looks = iter([(0.9, 0.9), (0.95, 0.8), (0.85, 0.85)])
    rest = dict(photometric_before=1.0, photometric_after=1.0, occluded_before=0.1, occluded_after=0.1, label_after=1.0)

    def compare(_):
        ratio, label = next(looks)
        return {**rest, "ratio": ratio} | ({"label_ratio": label} if labelled else {})

    saved = []
    monkeypatch.setattr(adapt, "save_checkpoint", lambda _, checkpoint: saved.append(int(checkpoint.params["w"])))
    judge = SimpleNamespace(look=lambda weights: weights, compare=compare)
    watch = adapt._Watch(judge, tmp_path, adapt.AdaptConfig(), "bridgedepth", None)
    for look in range(3):
        watch({"w": np.float32(look)})
    assert saved == kept


def test_labels_are_of_both_views_and_are_not_made_twice(tmp_path):
    pairs, held = held_out(tmp_path)
    ramp = TRUTH + np.linspace(0, 1, WIDTH, dtype=np.float32)
    other = ramp.copy()
    other[:10] += 20
    calls = []

    def teacher(left, right, scales):
        calls.append(scales)
        return ramp, other

    folder = tmp_path / "labels"
    listed = enlarged.write_labels(folder, pairs, (HEIGHT, WIDTH), (1, 2), teacher)
    given, mirrored = (read_sample(pair) for pair in find_pairs(f"custom:{listed}", ".")[:2])
    assert np.array_equal(given["left"], held[0].left) and np.array_equal(given["disparity"], ramp)
    assert np.array_equal(mirrored["left"], held[0].right[:, ::-1]) and np.array_equal(mirrored["right"], held[0].left[:, ::-1])
    assert np.array_equal(mirrored["disparity"], other[:, ::-1])
    assert given["valid"].all() and mirrored["valid"].all()
    assert len(calls) == 2
    (folder / "pairs.csv").unlink()
    shutil.rmtree(folder / "00001")  # broken off before the second pair
    enlarged.write_labels(folder, pairs, (HEIGHT, WIDTH), (1, 2), teacher)
    assert len(calls) == 3 and len(find_pairs(f"custom:{listed}", ".")) == 4


@pytest.mark.slow
def test_a_network_learns_from_its_labels(tmp_path, monkeypatch):
    start, workdir = tmp_path / "start", tmp_path / "run"
    save_checkpoint(start, Checkpoint("bridgedepth", tiny.model_params(), tiny.MODEL, {"source": "a test"}))
    pairs = make_pairs(tmp_path / "pairs", 6, truth=True)
    monkeypatch.setattr(adapt, "choose_scales", lambda judge, *_: ((1, 4 / 3, 2), np.stack([TRUTH] * len(judge.pairs))))
    monkeypatch.setattr(enlarged.Enlarged, "__call__", lambda *_: (TRUTH, TRUTH))
    run(pairs, start, workdir, "--steps", "30", "--every", "15", "--batch", "2", "--rate", "1e-3")
    result = json.loads((workdir / "adapt.json").read_text())
    assert result["enlarged"] == [1, 4 / 3, 2] and not result["refused"]
    assert result["values"]["epe_after"] < 0.5 * result["values"]["epe_before"]
    assert result["values"]["label_after"] < 0.5 * result["values"]["label_before"]
    assert "adapted" in load_checkpoint(workdir / "export").provenance
    # Broken off after its labels were made: they stay, and other pairs have none of them.
    chosen = workdir / "labels" / "scales.json"
    before = chosen.stat().st_mtime_ns, (workdir / "labels" / "00000").stat().st_mtime_ns
    monkeypatch.setattr(adapt, "choose_scales", lambda *_: pytest.fail("chosen twice"))
    run(pairs, start, workdir, "--steps", "30", "--every", "15", "--batch", "2", "--rate", "1e-3")
    with pytest.raises(SystemExit, match="2"):  # what ended is not what is asked for now
        run(pairs, start, workdir, "--steps", "31", "--every", "15", "--batch", "2", "--rate", "1e-3")
    assert before == (chosen.stat().st_mtime_ns, (workdir / "labels" / "00000").stat().st_mtime_ns)
