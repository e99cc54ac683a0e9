"""Reading packed sets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from bridgedepth_jax.data.pairs import Sample, decode_sample
from bridgedepth_jax.data.tfds.builder import SPLIT, folder, packed_fingerprint, pair_of
from bridgedepth_jax.errors import InputError


class PackedSource(Sequence[Sample]):
    """The samples of a packed set, the same as those of its files. `root`: a local folder, or a bucket that TFDS can open."""

    def __init__(self, name: str, root: str | Path, *, right_disparity: bool = False):
        self.name, self.folder, self.right_disparity = name, folder(str(root), name), right_disparity
        try:
            builder: Any = tfds.builder_from_directory(self.folder)
        except (OSError, ValueError, KeyError, tfds.core.DatasetNotFoundError) as error:
            how = f"bridgedepth data prepare {name} --root RAW --out {root}"
            raise InputError(f"{self.folder}: no packed set {name} here; write it with {how}") from error
        try:
            self._records = builder.as_data_source(split=SPLIT, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.folder}: cannot be opened ({error})") from error
        self.fingerprint: str = packed_fingerprint(builder)
        if right_disparity and len(self) and not self._record(0)["right_disparity"]:
            raise InputError(f"{name}: no right-view disparity in {self.folder}, which flip 'h' needs")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        pair, files = pair_of(self._record(index))
        if not self.right_disparity:
            files.pop("right_disparity", None)
        return decode_sample(pair, files)

    def _record(self, index: int) -> dict[str, bytes]:
        try:
            example = tf_example_pb2.Example.FromString(self._records[index])  # type: ignore[attr-defined]
            features = example.features.feature
            return {name: features[name].bytes_list.value[0] for name in features}
        except (OSError, ValueError, RuntimeError, IndexError, DecodeError) as error:
            raise InputError(f"{self.folder}: record {index} cannot be read ({error})") from error
