"""BridgeDepth learning from pairs made of photographs: the zero loss, what a batch holds for it, and who may ask for it."""

import csv
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_losses import make

from bridgedepth_jax.data.augment import EXTRAS, AugmentConfig, augment
from bridgedepth_jax.data.formats import write_kitti_png
from bridgedepth_jax.data.pipeline import DataConfig, TrainDataset, batch_shapes
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.system import Rows, find_system
from bridgedepth_jax.systems.bridgedepth import losses as L
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig
from bridgedepth_jax.systems.zerostereo import losses as zerostereo
from bridgedepth_jax.training.configfile import read_config
from bridgedepth_jax.training.experiment import Experiment

PLAIN = L.LossConfig.of(ModelConfig(), L.StereoTask())


def zero(**fields):
    return L.LossConfig.of(ModelConfig(), L.StereoTask(loss="zero", zero=L.ZeroConfig(**fields)))


def batch_of(disparity, valid, seed=0):
    rng = np.random.default_rng(seed)
    views = {side: jnp.asarray(rng.integers(0, 256, (*valid.shape, 3)), jnp.uint8) for side in ("left_clean", "right_clean")}
    masks = {name: jnp.asarray(rng.random(valid.shape) < 0.8) for name in ("nonocc", "inpaint")}
    confidence = jnp.asarray(rng.random(valid.shape), jnp.float32)
    return {"disparity": disparity, "valid": valid, "confidence": confidence, **views, **masks}


def run(tree, batch, config, counts=None):
    @jax.jit
    def values(tree, batch, counts):
        output, trust = types.SimpleNamespace(**tree), L.trust_of(batch, config)
        label = (batch["disparity"], batch["valid"])
        named = lambda disparities: types.SimpleNamespace(**(tree | {"disparities": disparities}))
        loss = lambda disparities: L.losses(named(disparities), *label, config, counts, trust)
        gradient = jax.grad(lambda disparities: L.total(loss(disparities), config))(output.disparities)
        return loss(output.disparities), gradient

    return values(tree, batch, counts)


def single(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype.kind == "f" else leaf, tree)


def test_full_trust_without_images_is_the_loss_of_labels_to_the_bit():
    output, disparity, valid = make()
    tree, disparity = single(vars(output)), disparity.astype(jnp.float32)
    batch = batch_of(disparity, valid) | {"confidence": jnp.ones(valid.shape)}
    plain, gradient = run(tree, batch, PLAIN)
    found, of_zero = run(tree, batch, zero(mu=0.0))
    assert found.keys() == plain.keys()
    for name, value in plain.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    np.testing.assert_array_equal(of_zero, gradient)


def test_terms_of_the_outputs_are_zerostereos():
    """Each refined disparity by the functions of the published numbers; candidates and seeds by their definition."""
    with jax.enable_x64(True):
        output, disparity, valid = make()
        batch = batch_of(disparity, valid)
        config = zero(mu=0.3, coarse_photometric=True)
        values, _ = run(vars(output), batch, config)
        gt = np.where(valid, disparity, 0)
        labelled = (gt > 0) & (gt < 192)
        seen = zerostereo.matched(jnp.asarray(gt), batch["nonocc"], batch["inpaint"])
        images = [batch[side].astype(jnp.float64) for side in ("left_clean", "right_clean")]
        trust = batch["confidence"].astype(jnp.float64)
        terms = jax.jit(zerostereo.terms)(output.disparities, jnp.asarray(gt), trust, *images, jnp.asarray(labelled), seen)
        names = ["_0_aux", "_1_aux", "_2_aux", "_3_aux", ""]
        np.testing.assert_allclose([values[f"loss_disp{name}"] for name in names], terms.loss(0.3), rtol=1e-12)
        np.testing.assert_allclose(values["photometric"], terms.photometric[-1], rtol=1e-12)
        maps = jax.jit(jax.vmap(jax.vmap(zerostereo.photometric_map, (None, None, 0)), (None, None, 0)))
        unlike = np.asarray(maps(*images, jnp.moveaxis(output.coarse_disparities, -1, 1)))  # L N B H W
        share = np.exp(output.logits) / np.exp(output.logits).sum(-1, keepdims=True)
        wrong = (share * np.abs(output.coarse_disparities - gt[None, ..., None])).sum(-1)
        picture = (np.moveaxis(share, -1, 1) * unlike).sum(1)
        mean = lambda value, mask: (value * mask).sum((1, 2, 3)) / mask.sum()
        expected = mean(np.asarray(trust) * wrong, labelled) + 0.3 * mean((1 - np.asarray(trust)) * picture, np.asarray(seen))
        np.testing.assert_allclose([values[f"loss_coarse_disp{name}"] for name in names], expected, rtol=1e-12)
        total = 0.0
        for b, y, x in zip(*np.nonzero(labelled), strict=True):
            error = np.abs(8 * output.proposals[b, y // 8, x // 8] - gt[b, y, x]).min()
            total += float(trust[b, y, x]) * (0.5 * error**2 if error < 1 else error - 0.5)
        np.testing.assert_allclose(values["loss_prop"], total / (labelled.sum() + 1e-6), rtol=1e-12)
        histogram = np.zeros((*output.prob.shape[:3], 40))
        held = np.zeros(output.prob.shape[:3], bool)
        for b, y, x in zip(*np.nonzero((gt > 0) & (gt < 320) & (np.arange(gt.shape[2]) - gt >= 0)), strict=True):
            low, part = int(gt[b, y, x] // 8), gt[b, y, x] / 8 - gt[b, y, x] // 8
            held[b, y // 8, x // 8] = True
            histogram[b, y // 8, x // 8, low] += (1 - part) * float(trust[b, y, x])
            histogram[b, y // 8, x // 8, min(low + 1, 39)] += part * float(trust[b, y, x])
        label = histogram / np.maximum(histogram.sum(-1, keepdims=True), 1e-3)
        entropy = -(label * np.log(np.maximum(output.prob, 1e-6))).sum()
        np.testing.assert_allclose(values["init"], entropy / (held.sum() + 1e-6), rtol=1e-12)


def test_parts_of_a_batch_add_up_and_its_scale_is_grey_levels():
    with jax.enable_x64(True):
        output, disparity, valid = make(batch=4)
        batch, config = batch_of(disparity, valid), zero(mu=0.2)
        whole, gradient = run(vars(output), batch, config)
        counts = jax.jit(lambda b: L.count(b["disparity"], b["valid"], config, L.trust_of(b, config).seen))(batch)
        assert 0 < counts.matched < valid.size
        parts = []
        for part in (slice(0, 1), slice(1, 4)):
            first = {name: getattr(output, name)[part] for name in ("proposals", "prob")}
            second = {name: getattr(output, name)[:, part] for name in ("disparities", "coarse_disparities", "logits", "mono")}
            first["disparity"] = output.disparities[-1][part]
            parts.append(run(first | second, {name: value[part] for name, value in batch.items()}, config, counts))
        for name, value in whole.items():
            np.testing.assert_allclose(parts[0][0][name] + parts[1][0][name], value, rtol=1e-11, err_msg=name)
        np.testing.assert_allclose(np.concatenate([part[1] for part in parts], 1), gradient, rtol=1e-9, atol=1e-12)
        only_l1 = [run(vars(output), batch, zero(beta=0.0, scale=scale))[0]["photometric"] for scale in (255.0, 1.0)]
        np.testing.assert_allclose(only_l1[0], 255 * only_l1[1], rtol=1e-9)


def test_an_untrusted_label_pulls_nothing():
    """Confidence 0 and no photometric term: the gradient of a refined disparity is 0 there, and unchanged elsewhere."""
    output, disparity, valid = make()
    tree, disparity = single(vars(output)), disparity.astype(jnp.float32)
    trust = jnp.ones(valid.shape).at[:, :, 16:].set(0)
    _, plain = run(tree, batch_of(disparity, valid), PLAIN)
    _, found = run(tree, batch_of(disparity, valid) | {"confidence": trust}, zero(mu=0.0))
    assert not np.asarray(found)[..., 16:].any() and np.asarray(plain)[..., 16:].any()
    np.testing.assert_array_equal(found[..., :16], plain[..., :16])


def photograph(height=60, width=100, seed=0):
    """A sample whose extra maps say where they are: confidence x / W, masks of a half plane each."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return {
        "left": rng.integers(0, 256, (height, width, 3)).astype(np.uint8),
        "right": rng.integers(0, 256, (height, width, 3)).astype(np.uint8),
        "disparity": 1 + x / 10,
        "valid": np.ones((height, width), bool),
        "confidence": x / width,
        "nonocc": x > 40,
        "inpaint": y > 30,
        "name": "photograph",
    }


@pytest.mark.parametrize("flip", ["", "v"])
def test_extras_follow_the_geometry(flip):
    """Disparity says which column a pixel comes from; confidence and masks must say the same."""
    config = AugmentConfig(y_jitter=True, dense_resize_probability=1.0, flip=flip, asymmetric_probability=1.0)
    jittered = 0
    for seed in range(12):
        sample = photograph(seed=seed)
        made = augment(sample, "dense", (32, 48), config, np.random.default_rng(seed), tuple(EXTRAS))
        plain = augment(sample, "dense", (32, 48), config, np.random.default_rng(seed))
        assert made.keys() == plain.keys() | EXTRAS.keys()
        for name, value in plain.items():
            np.testing.assert_array_equal(made[name], value)  # asking for more changes nothing
        for name, kind in EXTRAS.items():
            assert made[name].dtype == kind and made[name].shape[:2] == (32, 48)
        slope = np.diff(made["confidence"][5]).mean() * 100  # columns of the sample in one of the crop
        column = made["confidence"] * 100
        np.testing.assert_allclose(made["disparity"] * slope, 1 + column / 10, atol=0.02)
        np.testing.assert_array_equal(made["nonocc"][np.abs(column - 40.5) > 1], (column > 40.5)[np.abs(column - 40.5) > 1])
        assert (made["left_clean"] != made["left"]).any()
        still = AugmentConfig(
            dense_resize_probability=1.0, flip=flip, asymmetric_probability=0.0, eraser_probability=0.0, y_jitter=True
        )
        rows = [
            augment(sample, "dense", (32, 48), c, np.random.default_rng(seed), ("right_clean", "inpaint"))
            for c in (config, still)
        ]
        jittered += not np.array_equal(rows[0]["right"], rows[0]["right_clean"])
    assert jittered


def test_clean_views_are_the_pixels_of_the_crop_without_colour_and_jitter():
    sample = photograph()
    sample["disparity"] = np.arange(6000, dtype=np.float32).reshape(60, 100) / 100  # says its row
    config = AugmentConfig(y_jitter=True, spatial_scale=(0.0, 0.0), stretch_probability=0.0)
    for seed in range(6):
        made = augment(sample, "dense", (32, 48), config, np.random.default_rng(seed), tuple(EXTRAS))
        x = round(float(made["confidence"][0, 0]) * 100)
        y = next(y for y in range(29) if np.array_equal(sample["left"][y : y + 32, x : x + 48], made["left_clean"]))
        window = np.s_[y : y + 32, x : x + 48]
        for name in ("disparity", *EXTRAS):
            np.testing.assert_array_equal(made[name], sample[name.removesuffix("_clean")][window], err_msg=name)


def write_set(folder, columns, number=2):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(number):
        sample = photograph(80, 128, i)
        for name in ("left", "right"):
            cv2.imwrite(str(folder / f"{name}{i}.png"), sample[name])
        write_kitti_png(folder / f"disparity{i}.png", sample["disparity"])
        cv2.imwrite(str(folder / f"confidence{i}.png"), rng.integers(0, 65536, (80, 128)).astype(np.uint16))
        for name in ("nonocc", "inpaint"):
            cv2.imwrite(str(folder / f"{name}{i}.png"), sample[name].astype(np.uint8) * 255)
        rows.append({name: f"{name}{i}.png" for name in columns} | {"format": "kitti", "kind": "dense"})
    with open(folder / "pairs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


WHOLE = ("left", "right", "disparity", "nonocc", "confidence", "inpaint")


def data(folder, extras=tuple(EXTRAS), **fields):
    return DataConfig(str(folder), (("custom:pairs.csv", 1),), (32, 64), batch_size=2, extras=extras, **fields)


def test_batches_hold_what_is_asked_for(tmp_path):
    write_set(tmp_path, WHOLE)
    config = data(tmp_path)
    batch = TrainDataset(config).batch(0)
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        name: (shape, np.dtype(kind)) for name, (shape, kind) in batch_shapes(config).items()
    }
    assert TrainDataset(config).batch(0).keys() - TrainDataset(data(tmp_path, ())).batch(0).keys() == EXTRAS.keys()
    with pytest.raises(InputError, match="flip 'h'"):
        data(tmp_path, augment=AugmentConfig(flip="h"))


@pytest.mark.parametrize("name", ["nonocc", "confidence", "inpaint"])
def test_rows_without_masks_are_refused(tmp_path, name):
    write_set(tmp_path, [column for column in WHOLE if column != name])
    with pytest.raises(InputError, match=rf"custom:pairs\.csv: .*left0\.png has no {name}, which the loss asks for"):
        TrainDataset(data(tmp_path))
    TrainDataset(data(tmp_path, ())).batch(0)


def test_rendered_pairs_are_refused():
    config = DataConfig(train=(("synthetic", 1),), crop=(32, 64), batch_size=1, extras=tuple(EXTRAS))
    with pytest.raises(InputError, match=r"a pair without (confidence|inpaint), which the loss asks for"):
        TrainDataset(config).batch(0)


def test_the_config_trains_on_synthesised_sets(tmp_path):
    write_set(tmp_path, WHOLE)
    config = read_config("configs/zerostereo/train.py").to_dict()
    experiment = Experiment.from_dict(config)
    assert experiment.task.loss == "zero" and experiment.data.extras == L.TRUSTED
    assert Experiment.from_dict(experiment.to_dict()) == experiment
    labels = Experiment.from_dict(config | {"task": config["task"] | {"loss": "labels"}})
    assert labels.data.extras == ()
    with pytest.raises(InputError, match=r"task\.zero: mu -1"):
        L.ZeroConfig(mu=-1.0)


def step_of_the_tiny_network(folder):
    """The objective as the loop calls it, on a batch of the set in `folder`: (step(weights, batch), weights' shapes, batch)."""
    write_set(folder, WHOLE)
    batch = {name: jnp.asarray(value) for name, value in TrainDataset(data(folder)).batch(0).items()}
    system, config = find_system("bridgedepth"), tiny.MODEL
    outputs = config.nmp.infer_layers + config.nmp.refine_layers
    task = L.StereoTask(train_mono=True, loss_weights=(1.0,) * outputs, loss="zero", max_disp=64)
    objective = system.objective(config, task, {})
    rows = Rows(jnp.arange(2), 2, jnp.int32(0), {"drop_path": jax.random.key(0)}, lambda name, value: value, ())

    def step(weights, batch):
        loss = lambda weights: objective.loss(weights, {}, batch, objective.count(batch), rows)
        (value, result), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
        return value, result.metrics, sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))

    return step, jax.eval_shape(lambda key: system.init(config, key), jax.random.key(0)), batch


def test_the_objective_takes_what_the_data_gives(tmp_path):
    """Traced, not run."""
    step, weights, batch = step_of_the_tiny_network(tmp_path)
    value, metrics, size = jax.eval_shape(step, weights, batch)
    assert value.shape == size.shape == metrics["photometric"].shape == ()
    batch.pop("confidence")
    with pytest.raises(KeyError, match="confidence"):
        jax.eval_shape(step, weights, batch)


@pytest.mark.slow
def test_a_step_learns_from_images_where_nothing_is_trusted(tmp_path):
    step, shapes, batch = step_of_the_tiny_network(tmp_path)
    rng, step = np.random.default_rng(0), jax.jit(step)
    weights = jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.standard_normal(leaf.shape), leaf.dtype), shapes)
    value, metrics, size = step(weights, batch)
    assert np.isfinite(value) and np.isfinite(size) and metrics["photometric"] > 0
    value, metrics, size = step(weights, batch | {"confidence": jnp.zeros_like(batch["confidence"])})
    assert metrics["loss_prop"] == 0 and metrics["loss_disp"] > 0 and size > 0
