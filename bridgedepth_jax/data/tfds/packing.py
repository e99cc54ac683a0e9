"""Writing packed sets, shard by shard: an interrupted run goes on with the first shard that is not whole.

Shards are written into a hidden folder, each under a temporary name until it is complete; only when all are there does the
folder get TFDS' metadata and its real name. So what carries the name of a packed set is a whole one.
"""

import itertools
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python import array_record_module  # type: ignore[attr-defined]
from etils import epath
from tensorflow_datasets.core.splits import SplitDict

from bridgedepth_jax.data.pairs import Pair, decode_sample
from bridgedepth_jax.data.tfds.builder import SPLIT, Stereo, folder, packed_fingerprint, pair_of
from bridgedepth_jax.data.tfds.packed import PackedSource
from bridgedepth_jax.errors import InputError

SHARD_BYTES = 256 * 2**20
WRITER_OPTIONS = "group_size:1,uncompressed"  # images are compressed already; single records, for random access


def pack(
    name: str,
    root: str | Path,
    out: str | Path,
    shards: int | None = None,
    *,
    right_disparity: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Packs the data set `name` under `root` into out/stereo/<name>/1.0.0 and returns that folder.

    Every sample is decoded once on the way, so a broken file is an InputError here and not during training. Packing a set that
    is whole already does nothing. shards: default one per 256 MiB. right_disparity: also the right view's, for the 'h' flip.
    progress: called with (shards done, shards).
    """
    if shards is not None and shards < 1:
        raise InputError(f"shards {shards}, expected at least 1")
    final = Path(folder(str(out), name))
    builder = Stereo(name, root, right_disparity=right_disparity, data_dir=str(out))
    if final.exists():
        if packed_fingerprint(tfds.builder_from_directory(str(final))) != builder.fingerprint:
            raise InputError(f"{final}: packed from other files than those under {root} now; remove it to pack these")
        if right_disparity:
            PackedSource(name, out, right_disparity=True)
        return final
    work = final.with_name(f".{final.name}.part")
    count = _plan(work, builder, shards)
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(work), dataset_name=builder.name, split=SPLIT, filetype_suffix="array_record"
    )
    paths = [Path(path) for path in template.sharded_filepaths(count)]
    bounds = [len(builder.pairs) * number // count for number in range(count + 1)]
    for number, path in enumerate(paths):
        if not path.exists():
            _write_shard(path, builder, builder.pairs[bounds[number] : bounds[number + 1]])
        progress(number + 1, count)
    split = tfds.core.SplitInfo(
        name=SPLIT,
        shard_lengths=[end - start for start, end in itertools.pairwise(bounds)],
        num_bytes=sum(path.stat().st_size for path in paths),
        filename_template=template,
    )
    builder.info.set_splits(SplitDict([split]))
    builder.info.write_to_directory(work)
    (work / "plan.json").unlink()
    work.rename(final)
    return final


def _plan(work: Path, builder: Stereo, shards: int | None) -> int:
    """Number of shards: that of an earlier run with the same files and wishes, whose shards then stay, or a new one."""
    pairs = builder.pairs
    plan_file, content = work / "plan.json", {"fingerprint": builder.fingerprint, "right_disparity": builder.right_disparity}
    if plan_file.exists():
        plan = json.loads(plan_file.read_text())
        count = plan.pop("shards")
        if plan == content and shards in (None, count):
            return count
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    some = pairs[:: max(len(pairs) // 16, 1)]
    size = sum(path.stat().st_size for pair in some for path in pair.files().values()) / len(some) * len(pairs)
    count = min(shards or max(math.ceil(size / SHARD_BYTES), 1), len(pairs))
    temporary = plan_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(content | {"shards": count}))
    temporary.replace(plan_file)
    return count


def _write_shard(path: Path, builder: Stereo, pairs: tuple[Pair, ...]) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    writer = array_record_module.ArrayRecordWriter(os.fspath(temporary), WRITER_OPTIONS)
    try:
        for pair in pairs:
            example = builder.example(pair)
            decode_sample(pair, pair_of(example)[1])  # type: ignore[arg-type]
            writer.write(builder.serialized(example))
    finally:
        writer.close()
    temporary.replace(path)
