"""Checkpoints of a run: any mesh, damage, a disk that refuses."""

import logging
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.sharding import make_mesh, tree_shardings
from bridgedepth_jax.store.run_state import Checkpoints, describe
from bridgedepth_jax.system import Group
from bridgedepth_jax.training import optimizer
from bridgedepth_jax.training.config import SolverConfig
from bridgedepth_jax.training.step import make_state


def make(step=0, seed=0, width=256):
    rng = np.random.default_rng(seed)
    params = {"align_0": {"kernel": rng.standard_normal((width, 128), np.float32), "bias": rng.standard_normal(8, np.float32)}}
    state = make_state(
        jax.tree.map(jnp.asarray, params), SolverConfig(), seed, optimizer.make_optimizer((Group("all", "", 0.0),))
    )
    return state.replace(step=jnp.int32(step))


def on(state, mesh):
    return jax.device_put(state, tree_shardings(state, mesh))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def mesh():
    return make_mesh(1, jax.devices()[:1])


def test_each_mesh_reads_what_another_wrote_and_all_agree_on_the_checksums(tmp_path):
    state = make(3)
    meshes = [make_mesh(fsdp, jax.devices()[:n]) for n, fsdp in ((1, 1), (8, 4), (2, 2))]
    sums = [describe(on(state, mesh)) for mesh in meshes]
    assert sums[0] == sums[1] == sums[2]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(on(state, meshes[1]), {"config": {"a": [1, 2.5]}})
    checkpoints.wait()
    for mesh in meshes:
        restored, description = checkpoints.restore(lambda _: state, mesh)
        equal(restored, state)
        assert restored.params["align_0"]["kernel"].sharding.mesh == mesh
        assert description["step"] == 3 and description["config"] == {"a": [1, 2.5]}


def test_a_state_is_saved_as_it_was_although_its_buffers_are_reused_at_once(tmp_path, mesh):
    checkpoints = Checkpoints(tmp_path)
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    state = on(make(1, width=4096), mesh)
    expected = jax.tree.map(np.array, state)
    checkpoints.save(state, {})
    for _ in range(20):
        state = step(state)
    checkpoints.wait()
    equal(checkpoints.restore(lambda _: make(width=4096), mesh)[0], expected)


def test_keeps_the_latest_and_the_milestones(tmp_path, mesh):
    checkpoints = Checkpoints(tmp_path, keep=2, milestone_every=4)
    for step in range(1, 8):
        checkpoints.save(on(make(step), mesh), {})
    checkpoints.wait()
    assert checkpoints.steps() == [4, 6, 7]


def flip(folder):
    """64 bytes in the middle of the largest file of the state."""
    file = max((f for f in (folder / "state").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(b ^ 0xFF for b in data[middle : middle + 64])
    file.write_bytes(data)


def truncate(folder):
    file = max((f for f in (folder / "state").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def edit(folder):
    file = next(f for f in (folder / "description").rglob("*") if f.is_file() and b'"seed"' in f.read_bytes())
    file.write_bytes(file.read_bytes().replace(b'"seed"', b'"sped"'))


DAMAGE = {
    "flipped bytes": flip,
    "truncated": truncate,
    "description edited": edit,
    "description gone": lambda folder: shutil.rmtree(folder / "description"),
    "state gone": lambda folder: shutil.rmtree(folder / "state"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_reported_and_the_checkpoint_before_is_used(tmp_path, mesh, caplog, damage):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(on(make(step, seed=step), mesh), {"seed": 1})
    checkpoints.wait()
    checkpoints.close()
    damage(tmp_path / "2")
    checkpoints = Checkpoints(tmp_path)
    with caplog.at_level(logging.WARNING):
        restored, _ = checkpoints.restore(lambda _: make(), mesh)
    equal(restored, make(1, seed=1))
    assert f"checkpoint {tmp_path / '2'} is damaged" in caplog.text and "continuing from step 1" in caplog.text
    checkpoints.save(on(make(2, seed=2), mesh), {})  # the place is free again
    checkpoints.wait()
    equal(checkpoints.restore(lambda _: make(), mesh)[0], make(2, seed=2))
    checkpoints.close()
    for step in (1, 2):
        damage(tmp_path / str(step)) if step == 1 or damage is not edit else flip(tmp_path / "2")
    with pytest.raises(InputError, match=r"all checkpoints are damaged \(steps \[2, 1\]\)"):
        Checkpoints(tmp_path).restore(lambda _: make(), mesh)


def test_another_model_is_no_damage(tmp_path, mesh):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(on(make(1), mesh), {})
    checkpoints.wait()
    with pytest.raises(InputError, match=r"holds another model: .*align_0/kernel"):
        checkpoints.restore(lambda _: make(width=64), mesh)


def test_a_full_disk_is_one_clear_error_and_the_last_good_checkpoint_stays(tmp_path, mesh):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(on(make(1), mesh), {})
    checkpoints.wait()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, before[1]))  # every larger write fails from here on
    try:
        with pytest.raises(InputError, match=r"could not be written.*the last good one is step 1"):
            checkpoints.save(on(make(2), mesh), {})
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    restored, _ = Checkpoints(tmp_path).restore(lambda _: make(), mesh)
    equal(restored, make(1))


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used"):
        Checkpoints(tmp_path / "file" / "checkpoints")
