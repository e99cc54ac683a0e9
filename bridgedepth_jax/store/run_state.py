"""Checkpoints of a training run: written in the background, committed by a rename, verified leaf by leaf on restore.

    WORKDIR/checkpoints/STEP/state        the training state (Orbax), any mesh can read it
    WORKDIR/checkpoints/STEP/description  JSON: step, config, data fingerprint, checksum of each leaf

Orbax restores some damaged data silently, so every leaf carries a checksum, computed on the devices that hold it.
"""

import dataclasses
import gc
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import Array, lax

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.sharding import tree_shardings

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run. All processes of a run call every method together."""

    def __init__(self, folder: str | os.PathLike, *, keep: int = 2, milestone_every: int | None = None) -> None:
        self.folder = Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=milestone_every,
            cleanup_tmp_directories=True,  # left by a kill in the middle of a save
            enable_async_checkpointing=True,
        )
        try:
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=options,
                item_handlers={"state": ocp.StandardCheckpointHandler(), "description": ocp.JsonCheckpointHandler()},
            )
        except OSError as error:
            raise InputError(f"checkpoint folder {self.folder} cannot be used: {error.strerror or error}") from error

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, state: Any, description: dict[str, Any]) -> None:
        """Starts writing; returns once the state is copied, so that its buffers may be reused. InputError as `wait`."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self.wait()
        tree = _filled(state)
        description = {**description, "step": step, "leaves": describe(tree)}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(tree),
            description=ocp.args.JsonSave(description | {"sha256": _digest(description)}),
        )
        self._write(lambda: self._manager.save(step, args=items, force=True))

    def wait(self) -> None:
        """Until the last save is committed. InputError if it could not be written; earlier ones are intact then."""
        self._write(self._manager.wait_until_finished)
        self._write(self._manager.check_for_errors)

    def restore(self, like: Callable[[dict[str, Any]], Any], mesh: jax.sharding.Mesh) -> tuple[Any, dict[str, Any]] | None:
        """(state, description) of the newest intact checkpoint, None if there is no checkpoint at all.

        `like` gives the shapes and dtypes of the state that go with a description, or raises InputError; arrays come with
        the shardings of `mesh`. A damaged checkpoint is reported, removed if an older one is intact, and the one before it
        used. InputError if all are damaged, or the newest intact one holds another model.
        """
        damaged = []
        for step in reversed(self.steps()):
            if damaged:
                _collect_abandoned_work()
            try:
                result = self._restore(step, like, mesh)
            except InputError:
                raise
            except Exception as error:  # damage shows as nearly any exception, bare `Exception` included
                reason = " ".join(str(error).split())[:300]
                log.warning("checkpoint %s is damaged (%s: %s)", self.folder / str(step), type(error).__name__, reason)
                damaged.append(step)
                continue
            for bad in damaged:
                log.warning("continuing from step %d instead; the damaged checkpoint of step %d is removed", step, bad)
                self._manager.delete(bad)
            return result
        if damaged:
            _collect_abandoned_work()
            raise InputError(f"checkpoint folder {self.folder}: all checkpoints are damaged (steps {damaged})")
        return None

    def description(self, step: int) -> dict[str, Any]:
        """What was saved beside the state of `step`. Any exception if it is damaged."""
        value = self._manager.restore(step, args=ocp.args.Composite(description=ocp.args.JsonRestore()))["description"]
        if value.pop("sha256", None) != _digest(value):
            raise ValueError("the SHA-256 of its description differs")
        return value

    def close(self) -> None:
        self._manager.close()

    def _restore(self, step: int, like_of: Callable, mesh: jax.sharding.Mesh) -> tuple[Any, dict[str, Any]]:
        description = self.description(step)
        empty = like_of(description)
        like = _filled(empty)
        stored, wanted = description["leaves"], _shapes(like)
        mine = {name: {key: leaf[key] for key in ("shape", "dtype")} for name, leaf in stored.items()}
        if mine != wanted:
            different = sorted(name for name in mine.keys() | wanted.keys() if mine.get(name) != wanted.get(name))
            raise InputError(
                f"checkpoint {self.folder / str(step)} holds another model: {different[0]} differs from the config"
            )
        like = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            like,
            tree_shardings(like, mesh),
        )
        tree = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))["state"]
        for name, leaf in describe(tree).items():
            if leaf != stored[name]:
                raise ValueError(f"{name} has checksum {leaf['checksum']}, expected {stored[name]['checksum']}")
        return dataclasses.replace(empty, **tree), description

    def _write(self, action: Callable[[], Any]) -> None:
        try:
            action()
            return
        except Exception as error:  # a full disk comes as OSError, ValueError of tensorstore or XlaRuntimeError
            reason = " ".join(str(error).split())[:300]
        _collect_abandoned_work()
        good = [step for step in self.steps() if (self.folder / str(step)).is_dir()]
        kept = f"the last good one is step {good[-1]}" if good else "there is none yet"
        raise InputError(f"checkpoint folder {self.folder}: a checkpoint could not be written ({reason}); {kept}")


def _collect_abandoned_work() -> None:
    """Ends, without a word, the reads and writes that Orbax leaves suspended when one beside them fails.

    Otherwise each prints a traceback whenever the garbage collector comes by.
    """
    hook = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook


def _filled(state: Any) -> dict[str, Any]:
    """The fields of a state that hold anything: what is empty is not stored, so fields can be added to the state."""
    return {name: value for name, value in vars(state).items() if jax.tree.leaves(value)}


def _digest(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def describe(tree: Any) -> dict[str, dict[str, Any]]:
    """Shape, dtype and 64-bit checksum of each leaf. The checksum does not depend on how the leaf is distributed."""
    shapes = _shapes(tree)
    sums = jax.device_get(_checksums(jax.tree.leaves(tree)))
    return {
        name: {**leaf, "checksum": "".join(f"{int(word):08x}" for word in words)}
        for (name, leaf), words in zip(shapes.items(), sums, strict=True)
    }


def _shapes(tree: Any) -> dict[str, dict[str, Any]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@jax.jit
def _checksums(leaves: list[Array]) -> list[Array]:
    return [jnp.stack([_checksum(leaf, seed) for seed in (0x9E3779B1, 0x85EBCA77)]) for leaf in leaves]


def _checksum(leaf: Array, seed: int) -> Array:
    """Sum modulo 2^32 of the mixed (bits, position) of each element: the order of summation cannot change it."""
    bits = lax.bitcast_convert_type(leaf, {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)).astype(jnp.uint32)
    position = jnp.full(bits.shape, seed, jnp.uint32)
    for axis in range(bits.ndim):
        position = position * np.uint32(0x01000193) + lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    mixed = (bits ^ position * np.uint32(seed)) * np.uint32(0xC2B2AE3D)
    mixed = (mixed ^ mixed >> np.uint32(15)) * np.uint32(0x27D4EB2F)
    return jnp.sum(mixed ^ mixed >> np.uint32(13), dtype=jnp.uint32)
