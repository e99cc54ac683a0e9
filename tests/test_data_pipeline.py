"""The training stream is a function of (config, seed, step) alone; broken files are named or replaced."""

import collections
import dataclasses
import itertools
import logging

import cv2
import jax
import miniature
import numpy as np
import pytest

from bridgedepth_jax.data import (
    AugmentConfig,
    DataConfig,
    SyntheticOptions,
    find_pairs,
    make_eval_dataset,
    make_train_dataset,
    prefetch_to_device,
    read_sample,
)
from bridgedepth_jax.data.sources import SyntheticSource
from bridgedepth_jax.data.table import DATASETS
from bridgedepth_jax.errors import InputError

MIXTURE = (("things", 3), ("kitti_2015_train", 1), ("vkitti2", -1), ("middlebury_2014", 2))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return miniature.build(tmp_path_factory.mktemp("data"))


def config(root, **changes) -> DataConfig:
    return dataclasses.replace(DataConfig(str(root), MIXTURE, (32, 64), 4, threads=0), **changes)


def take(dataset, count, start=0, **options):
    return list(itertools.islice(dataset.iterate(start, **options), count))


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for key in first:
        assert first[key].dtype == second[key].dtype
        np.testing.assert_array_equal(first[key], second[key])


def test_every_set_is_found_augmented_and_batched(tree):
    for name in DATASETS:
        dataset = make_train_dataset(config(tree, train=((name, 2),)))
        assert dataset.epoch_length == 2 * miniature.PAIRS[name]
        batch = dataset.batch(0)
        assert batch["left"].shape == batch["right"].shape == (4, 32, 64, 3)
        assert batch["disparity"].shape == batch["valid"].shape == (4, 32, 64)
        assert [batch[key].dtype for key in ("left", "right", "disparity", "valid")] == [np.uint8, np.uint8, np.float32, bool]
        assert np.isfinite(batch["disparity"]).all()
        if not name.endswith("_test"):
            assert batch["valid"].any()


def test_hosts_and_threads_change_nothing(tree):
    dataset = make_train_dataset(config(tree))
    whole = [dataset.batch(step) for step in range(9)]  # past the end of an epoch
    assert not np.array_equal(whole[0]["left"], whole[1]["left"])
    for hosts, threads in ((1, 0), (1, 2), (2, 1), (4, 0)):
        parts = [take(dataset, 9, host=host, hosts=hosts, threads=threads) for host in range(hosts)]
        for step, batch in enumerate(whole):
            joined = {key: np.concatenate([part[step][key] for part in parts]) for key in batch}
            assert_equal(batch, joined)


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(tree, workers):
    dataset = make_train_dataset(config(tree))
    for step, batch in enumerate(take(dataset, 3, start=7, workers=workers, threads=1), 7):
        assert_equal(batch, dataset.batch(step))
    for step, batch in enumerate(take(dataset, 2, host=1, hosts=2, workers=workers)):
        assert_equal(batch, dataset.batch(step, host=1, hosts=2))


def test_rendered_samples_mix_with_files(tree):
    dataset = make_train_dataset(config(tree, train=(("synthetic", 1), ("things", 3)), synthetic=SyntheticOptions(size=3)))
    assert dataset.epoch_length == 9
    for step, batch in enumerate(take(dataset, 3, workers=1)):
        assert_equal(batch, dataset.batch(step))
        assert batch["left"].shape == (4, 32, 64, 3) and batch["valid"].any()
    sample = make_eval_dataset("synthetic", tree, synthetic=SyntheticOptions(40, 72, 24, seed=1))[5]
    assert sample["left"].shape == (40, 72, 3) and sample["disparity"].max() <= 24


def test_step_1000_directly_equals_iterating(tree):
    dataset = make_train_dataset(config(tree, train=(("things", 500),), batch_size=2, crop=(8, 8)))
    reached = collections.deque(take(dataset, 1001), maxlen=1).pop()
    assert_equal(reached, take(dataset, 1, start=1000)[0])
    assert_equal(reached, make_train_dataset(dataset.config).batch(1000))


def test_an_epoch_takes_every_set_as_often_as_its_multiplier_says(tree, monkeypatch):
    plain = config(tree, augment=AugmentConfig(enabled=False), crop=(miniature.HEIGHT, miniature.WIDTH))
    dataset = make_train_dataset(plain)
    want = {"things": 2 * 3, "kitti_2015_train": 2, "vkitti2": 10, "middlebury_2014": 6 * 2}
    assert dataset.epoch_length == sum(want.values())
    names, sample = [], dataset._sample
    monkeypatch.setattr(dataset, "_sample", lambda index: names.append(sample(index)["name"]) or sample(index))
    orders = []
    for epoch in range(2):
        names.clear()
        for position in range(epoch * dataset.epoch_length, (epoch + 1) * dataset.epoch_length):
            dataset.element(position)
        counts = collections.Counter(names)
        for name, times in want.items():
            pairs = find_pairs(name, tree)
            assert [counts.pop(pair.name) for pair in pairs] == [times // len(pairs)] * len(pairs)
        assert not counts
        orders.append(list(names))
    assert orders[0] != orders[1]


def test_a_repeated_sample_is_augmented_anew(tree):
    dataset = make_train_dataset(config(tree, train=(("things", 4),), batch_size=8))
    pictures = {image.tobytes() for step in range(2) for image in dataset.batch(step)["left"]}
    assert len(pictures) == 16


def test_the_seed_changes_order_and_augmentation(tree):
    one, two = (make_train_dataset(config(tree, seed=seed)) for seed in (1, 2))
    assert not np.array_equal(one.batch(0)["left"], two.batch(0)["left"])
    assert one.fingerprint != two.fingerprint


def test_photographs_are_part_of_the_rendered_data(tmp_path):
    """Without them, or with others, the same number is another picture."""
    prints = []
    for count in (1, 2):
        cv2.imwrite(str(tmp_path / f"{count}.png"), np.zeros((40, 40, 3), np.uint8))
        prints.append(SyntheticSource(SyntheticOptions(64, 96, photos=str(tmp_path))).fingerprint)
    prints.append(SyntheticSource(SyntheticOptions(64, 96)).fingerprint)
    assert len(set(prints)) == 3
    assert prints[2] == SyntheticSource(SyntheticOptions(64, 96)).fingerprint


def test_fingerprint_is_of_the_content_not_the_speed(tree, tmp_path):
    base = make_train_dataset(config(tree)).fingerprint
    assert base == make_train_dataset(config(tree, workers=2, threads=5, prefetch=9)).fingerprint
    assert base == make_train_dataset(config(miniature.build(tmp_path), workers=2)).fingerprint
    for change in (
        dict(batch_size=8),
        dict(crop=(40, 64)),
        dict(train=MIXTURE[:2]),
        dict(augment=AugmentConfig(y_jitter=True)),
    ):
        assert base != make_train_dataset(config(tree, **change)).fingerprint


def _broken(root):
    miniature.build(root, "things", "kitti_2015_train")
    pair = find_pairs("things", root)[0]
    pair.right.write_bytes(pair.right.read_bytes()[:100])
    return pair


@pytest.mark.parametrize("options", [dict(threads=0), dict(threads=2), dict(workers=1)])
def test_a_broken_file_is_named(tmp_path, options, capfd):
    pair = _broken(tmp_path)
    dataset = make_train_dataset(config(tmp_path, train=(("things", 2), ("kitti_2015_train", 1))))
    with pytest.raises(InputError, match=str(pair.right)):
        take(dataset, 2, **options)


@pytest.mark.parametrize("options", [dict(threads=0), dict(workers=1)])
def test_a_broken_file_is_replaced_by_the_next_and_counted(tmp_path, options, capfd, caplog):
    pair = _broken(tmp_path)
    dataset = make_train_dataset(
        config(tmp_path, train=(("things", 2), ("kitti_2015_train", 1)), skip_broken=True, batch_size=6)
    )
    caplog.set_level(logging.WARNING)
    batches = dataset.iterate(**options)
    first = next(batches)  # one epoch: the broken pair comes twice
    assert batches.skipped == 2
    next(batches)
    assert batches.skipped == 4
    assert_equal(first, dataset.batch(0))
    assert "replaced so far: 4" in caplog.text
    if "workers" not in options:
        assert str(pair.right) in caplog.text


def test_nothing_but_broken_files_ends(tmp_path, capfd):
    miniature.build(tmp_path, "things")
    for pair in find_pairs("things", tmp_path):
        pair.left.write_bytes(b"")
    dataset = make_train_dataset(config(tmp_path, train=(("things", 1),), skip_broken=True))
    with pytest.raises(InputError, match="in a row"):
        dataset.batch(0)


def test_right_views_are_read_for_the_flip_that_needs_them(tree):
    flip = AugmentConfig(flip="h")
    batch = make_train_dataset(config(tree, train=(("sceneflow", 1),), augment=flip)).batch(0)
    assert batch["valid"].any()
    with pytest.raises(InputError, match=r"kitti.*right-view"):
        make_train_dataset(config(tree, train=(("kitti_2015_train", 1),), augment=flip))


def test_evaluation_reads_samples_as_they_are(tree):
    samples, pairs = make_eval_dataset("eth3d", tree), find_pairs("eth3d", tree)
    assert len(samples) == len(pairs) == 2
    for sample, pair in zip(samples, pairs, strict=True):
        want = read_sample(pair)
        assert sample.keys() == want.keys() and sample["name"] == pair.name
        np.testing.assert_array_equal(sample["left"], want["left"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(train=()), "empty"),
        (dict(batch_size=0), "batch_size"),
        (dict(train=(("thing", 1),)), "thing"),
        (dict(source="tf"), "raw or tfds"),
    ],
)
def test_impossible_configs_are_refused(tree, changes, words):
    with pytest.raises(InputError, match=words):
        make_train_dataset(config(tree, **changes))


def test_a_batch_that_hosts_cannot_share_is_refused(tree):
    with pytest.raises(InputError, match="batch_size 4"):
        make_train_dataset(config(tree)).iterate(hosts=3)


def test_prefetch_keeps_the_order_and_stays_ahead():
    put, got = [], []
    for batch in prefetch_to_device(iter(range(5)), lambda n: put.append(n) or jax.device_put(n), depth=2):
        got.append(int(batch))
        assert len(put) == min(len(got) + 1, 5)
    assert got == [0, 1, 2, 3, 4]
