"""What training and its validation read: batches on the devices in order, and packed sets as good as raw ones."""

import dataclasses
import itertools

import jax
import miniature
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bridgedepth_jax.data import DataConfig, make_train_dataset
from bridgedepth_jax.data.tfds import pack
from bridgedepth_jax.training.experiment import Experiment
from bridgedepth_jax.training.feed import batches
from bridgedepth_jax.training.validation import evaluation_set


def test_batches_are_spread_over_the_devices_in_order(tmp_path):
    miniature.build(tmp_path, "things")
    dataset = make_train_dataset(DataConfig(str(tmp_path), (("things", 8),), (32, 64), 8, threads=0))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    for step, (batch, host) in enumerate(itertools.islice(batches(dataset, 3, rows), 3), 3):
        want = dataset.batch(step)
        assert len(batch["left"].sharding.device_set) == 8
        for name, value in want.items():
            np.testing.assert_array_equal(batch[name], value)
            np.testing.assert_array_equal(host[name], value)


def test_validation_reads_packed_sets_where_training_does(tmp_path):
    miniature.build(tmp_path / "raw", "eth3d")
    pack("eth3d", tmp_path / "raw", tmp_path / "packed")
    raw = Experiment(data=DataConfig(root=str(tmp_path / "raw")))
    packed = Experiment(data=DataConfig(root=str(tmp_path / "packed"), source="tfds"))
    protocol, files = evaluation_set("eth3d", raw)
    same_protocol, records = evaluation_set("eth3d", packed)
    assert protocol == same_protocol and len(files) == len(records) == 2
    for file, record in zip(files, records, strict=True):
        one, two = file.read(), record.read()
        assert one["name"] == two["name"]
        np.testing.assert_array_equal(one["disparity"], two["disparity"])
    limited = dataclasses.replace(packed, eval=dataclasses.replace(packed.eval, limit=1))
    assert len(evaluation_set("eth3d", limited)[1]) == 1
