"""Evaluation of a data set: independent of batch, devices, processes, order and interruptions; nothing left out silently."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.data.calibration import kitti_calibration
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.evaluation.protocol import MASKS, Protocol, default_protocol, pixel_masks
from bridgedepth_jax.evaluation.records import Record, ResultsFile, summarize
from bridgedepth_jax.evaluation.runner import Evaluator, Item
from bridgedepth_jax.system import Estimate

SIZES = ((48, 64), (61, 93), (64, 96), (40, 50))
PROTOCOL = Protocol("fake", (1.0, 2.5), 60.0)


def make_sample(index, broken=True):
    """Random images and ground truth; some images of a data set are unusable."""
    rng = np.random.default_rng(index)
    height, width = SIZES[index % len(SIZES)]
    sample = dict(
        left=rng.integers(0, 256, (height, width, 3), np.uint8),
        right=rng.integers(0, 256, (height, width, 3), np.uint8),
        disparity=rng.uniform(0.1, 90, (height, width)).astype(np.float32),
        valid=rng.random((height, width)) < 0.7,
        name=f"image{index}",
    )
    if index % 2:
        sample["nonocc"] = rng.random((height, width)) < 0.8
    if broken and index == 7:
        sample["valid"][:], sample["disparity"][:] = False, 0
    if broken and index == 9:
        sample["right"] = sample["right"][:-1]
    return sample


def read(index):
    if index == 11:
        raise InputError(f"image{index}.png: not a complete image file (3 bytes)")
    return make_sample(index)


def make_items(count=14):
    return [Item(f"image{index}", functools.partial(read, index)) for index in range(count)]


def predict(params, left, right):
    """A network-like function: every pixel depends on its neighbours and, at the borders, on the padding's content."""
    grey = left.astype(jnp.float32).mean(-1) * params["scale"].mean()
    smooth = (grey + jnp.roll(grey, 1, 1) + jnp.roll(grey, 1, 2)) / 3
    cells = smooth.reshape(left.shape[0], left.shape[1] // 8, 8, left.shape[2] // 8, 8)
    proposals = jnp.stack([cells.max((2, 4)), cells.min((2, 4))], -1) / 8
    return Estimate(smooth, proposals=proposals)


PARAMS = {"scale": np.full(4, 0.3, np.float32)}


def evaluate(items=None, done=(), on_record=None, params=PARAMS, **options):
    evaluator = Evaluator(predict, multiple=16, minimum=32, **options)
    return evaluator(params, make_items() if items is None else items, PROTOCOL, done=done, on_record=on_record)


@pytest.fixture(scope="module")
def reference():
    return evaluate(batch=1, devices=jax.devices()[:1])


def assert_same(records, reference):
    assert [r.name for r in records] == [r.name for r in reference]
    for ours, theirs in zip(records, reference, strict=True):
        assert ours.problem == theirs.problem
        ours, theirs = ours.values(), theirs.values()
        assert {m: set(row) for m, row in ours.items()} == {m: set(row) for m, row in theirs.items()}
        for mask, row in theirs.items():
            for metric, value in row.items():
                np.testing.assert_allclose(ours[mask][metric], value, rtol=1e-6, atol=1e-9, err_msg=f"{mask} {metric}")


@pytest.mark.parametrize("batch, devices, fused", [(8, 1, False), (8, 8, False), (8, 1, True), (4, 2, True), (3, 1, True)])
def test_batch_and_devices(reference, batch, devices, fused):
    assert_same(evaluate(batch=batch, devices=jax.devices()[:devices], fused=fused), reference)


def test_order_of_images(reference):
    assert_same(evaluate(items=make_items()[::-1], batch=4, devices=jax.devices()[:1]), reference)


def test_values_against_numpy(reference):
    record = next(r for r in reference if r.name == "image5")
    sample = make_sample(5)
    height, width = sample["disparity"].shape
    pad = ((-height % 16, 0), (0, -width % 16), (0, 0))
    out = jax.jit(predict)(PARAMS, np.pad(sample["left"], pad, "edge")[None], None)
    disparity = np.asarray(out.disparity)[0, -height:, :width]
    error, gt, valid, nonocc = np.abs(disparity - sample["disparity"]), sample["disparity"], sample["valid"], sample["nonocc"]
    known = valid | (gt > 0)
    masks = {"paper": valid & (gt < 60), "all/unlimited": known, "all/below": known & (gt < 60)}
    masks |= {"noc/unlimited": known & nonocc, "occ/below": known & ~nonocc & (gt < 60)}
    values = record.values()
    for name, mask in masks.items():
        np.testing.assert_allclose(values[name]["epe"], error[mask].mean(dtype=np.float64), rtol=1e-5)
        np.testing.assert_allclose(values[name]["bad-2.5"], (error[mask] > 2.5).mean() * 100, rtol=1e-6)
    assert values["paper"]["prop_epe"] > 0


def test_problems_are_named_and_counted(reference):
    summary = summarize(reference)
    assert summary["images"] == 11
    assert set(summary["problems"]) == {"image7", "image9", "image11"}
    assert summary["problems"]["image7"] == "no pixel with ground truth"
    assert "right 93x60" in summary["problems"]["image9"]
    assert "image11.png" in summary["problems"]["image11"]
    assert summary["protocols"]["paper"]["epe"]["count"] == 11


def test_a_prediction_that_is_not_finite_is_a_problem():
    records = evaluate(params={"scale": np.full(4, np.nan, np.float32)}, items=make_items(2), devices=jax.devices()[:1])
    assert all("prediction not finite" in record.problem for record in records)
    records = evaluate(params={"scale": np.full(4, 1e30, np.float32)}, items=make_items(2), devices=jax.devices()[:1])
    assert all("rmse is not finite" in record.problem for record in records)


def test_means(reference):
    table = summarize(reference)["protocols"]["paper"]
    good = [r for r in reference if not r.problem]
    for metric in ("epe", "d1", "a90", "prop_recall_8"):
        np.testing.assert_allclose(table[metric]["images"], np.mean([r.values()["paper"][metric] for r in good]), rtol=1e-12)
    total, count = np.sum([r.sums["paper"]["rmse"] for r in good], 0)
    np.testing.assert_allclose(table["rmse"]["pixels"], np.sqrt(total / count), rtol=1e-12)
    assert table["a90"]["pixels"] is None


@pytest.mark.parametrize("fused", [False, True])
def test_one_compilation_per_size(fused):
    evaluator = Evaluator(predict, multiple=16, minimum=32, batch=2, fused=fused, devices=jax.devices()[:1])
    evaluator(PARAMS, make_items(), PROTOCOL)
    evaluator(PARAMS, make_items(), PROTOCOL)
    assert {rows for rows, *_ in evaluator.steps} == {2 if fused else 1}
    assert len(evaluator.steps) == len({key[1:] for key in evaluator.steps}) == 2


def test_bucket_merges_sizes_and_says_what_it_takes():
    evaluator = Evaluator(predict, batch=2, devices=jax.devices()[:1], bucket=64, multiple=16)
    evaluator(PARAMS, make_items(), PROTOCOL)
    assert {key[1:] for key in evaluator.steps} == {(64, 64), (64, 128)}
    with pytest.raises(InputError, match="bucket 24"):
        Evaluator(predict, bucket=24, multiple=16)


def test_interrupted_and_continued(reference, tmp_path):
    path = tmp_path / "images-0.jsonl"
    states = {item.name: "as it was" for item in make_items()}
    file = ResultsFile(tmp_path, 0, "abc", states)

    class Stop(Exception):
        pass

    def keep(record):
        file.append(record)
        if len(path.read_text().splitlines()) == 5:
            raise Stop

    with pytest.raises(Stop):
        evaluate(batch=4, devices=jax.devices()[:1], on_record=keep)
    path.write_bytes(path.read_bytes()[:-20])  # killed while it wrote a line
    again = ResultsFile(tmp_path, 1, "abc", states)  # another number of processes: their files are read as well
    assert len(again.of("fake")) == 4
    new = []
    records = evaluate(batch=4, devices=jax.devices()[:1], done=again.of("fake"), on_record=new.append)
    assert len(new) == 7
    assert_same(records, reference)
    assert ResultsFile(tmp_path, 0, "another checkpoint", states).of("fake") == []
    first = again.of("fake")[0].name
    assert len(ResultsFile(tmp_path, 0, "abc", states | {first: "other pixels"}).of("fake")) == 3


def test_a_damaged_results_file_is_refused(tmp_path):
    path = tmp_path / "images-0.jsonl"
    ResultsFile(tmp_path, 0, "abc", {"a": ""}).append(Record("fake", "a", {"paper": {"epe": (1.0, 2)}}))
    path.write_text("what\n" + path.read_text())
    with pytest.raises(InputError, match="line 1"):
        ResultsFile(tmp_path, 0, "abc", {"a": ""})


def test_a_name_that_occurs_twice_is_refused():
    with pytest.raises(InputError, match="image0"):
        evaluate(items=[*make_items(1), *make_items(1)])


def test_raw_answers_of_a_matcher():
    def match(sample):
        raw = sample["disparity"] + 1
        raw[:, ::2] = np.nan
        return np.where(np.isnan(raw), np.float32(1), raw), raw

    records = Evaluator(match=match, devices=jax.devices()[:1])(None, make_items(3), PROTOCOL)
    values = records[0].values()
    assert values["raw/all/unlimited"]["epe"] == pytest.approx(1, rel=1e-5)
    assert 40 < values["raw/all/unlimited"]["density"] < 60
    assert values["all/unlimited"]["density"] == 100
    assert values["all/unlimited"]["epe"] > 5


def test_pixel_masks():
    gt = np.float32([[0, 5, 5, 500]])
    sample = dict(disparity=gt, valid=np.array([[False, True, False, True]]), nonocc=np.array([[False, True, False, True]]))

    def pixels(protocol, **changes):
        bits = pixel_masks({**sample, **changes}, protocol)
        return {name: ((bits >> i) & 1)[0].tolist() for i, name in enumerate(MASKS)}

    masks = pixels(Protocol("x", max_disp=100))
    assert masks["paper"] == masks["noc/below"] == [0, 1, 0, 0]
    assert masks["all/below"] == [0, 1, 1, 0]
    assert masks["all/unlimited"] == [0, 1, 1, 1]
    assert masks["occ/below"] == [0, 0, 1, 0]
    assert pixels(default_protocol("middlebury_Q"))["paper"] == [0, 1, 1, 1]  # all pixels, occluded ones too
    sample.pop("nonocc")
    assert pixels(Protocol("x"))["all/unlimited"] == [0, 1, 0, 1]
    with pytest.raises(InputError, match="max_disparity"):
        Protocol.from_row({"name": "x", "max_disparity": 3})


def test_kitti_calibration(tmp_path):
    path = tmp_path / "000046.txt"
    for left, right in (("P2", "P3"), ("P_rect_02", "P_rect_03")):
        path.write_text(
            f"calib_time: 09-Jan-2012 13:57:47\n{left}: 700 0 600 45 0 700 170 -0.3 0 0 1 0.005\n"
            f"{right}: 700 0 600 -333 0 700 170 2.2 0 0 1 0.003\n"
        )
        calibration = kitti_calibration(path)
        assert (calibration.fx, calibration.baseline, calibration.doffs) == pytest.approx((700, 0.54, 0))
    path.write_text("P2: 1 2 3\nP3: what\n")
    with pytest.raises(InputError, match=r"000046\.txt"):
        kitti_calibration(path)


PROCESS = """
import json, sys, os
sys.path[:0] = [{tests!r}, {root!r}]
import jax
jax.distributed.initialize(coordinator_address=sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
import test_evaluation_runner as t, dataclasses
mesh = jax.sharding.Mesh(jax.devices(), "x")
whole = t.PARAMS["scale"]
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
params = {{"scale": jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])}}
assert not params["scale"].is_fully_addressable
records = t.evaluate(batch=4, params=params)
json.dump([dataclasses.asdict(r) for r in records], open(sys.argv[3], "w"))
"""


def test_two_processes(reference, tmp_path):
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    here = Path(__file__).parent
    code = PROCESS.format(tests=str(here), root=str(here.parent))
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    outs = [tmp_path / f"{i}.json" for i in range(2)]
    processes = [
        subprocess.Popen([sys.executable, "-c", code, address, str(i), str(out)], env=environment) for i, out in enumerate(outs)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    first, second = (json.loads(out.read_text()) for out in outs)
    assert first == second
    as_records = [Record(**{**entry, "sums": {m: dict(row) for m, row in entry["sums"].items()}}) for entry in first]
    assert_same(as_records, reference)
