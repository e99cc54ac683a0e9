"""The TFDS builder of every registered data set: config = its name, one split "train", a record = the files of a pair."""

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import tensorflow_datasets as tfds

from bridgedepth_jax.data.formats import read_bytes
from bridgedepth_jax.data.pairs import Pair, find_pairs, fingerprint

SPLIT = "train"
VERSION = "1.0.0"
# Roles of `Pair.files` that have a field of their own, beside the images.
_FILES = ("disparity", "valid", "nonocc", "right_disparity", "confidence", "inpaint")


class Stereo(tfds.core.GeneratorBasedBuilder):
    """`Stereo(set_name, root, data_dir=OUT).download_and_prepare()` writes a set; so does `packing.pack`, which resumes.

    left, right: images, stored as their original bytes. disparity, valid, nonocc, right_disparity, beside: the bytes of those
    files, empty where the set has none (right_disparity: only if asked for; the 'h' flip alone needs it). pair: JSON of
    names, kind, format and paths under the data directory.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, set_name: str, root: str | Path, *, right_disparity: bool = False, **kwargs: Any):
        self.root = Path(root)
        self.right_disparity = right_disparity
        self.pairs = find_pairs(set_name, root)
        self.fingerprint = fingerprint(self.pairs, root)
        kwargs.setdefault("file_format", "array_record")
        super().__init__(config=tfds.core.BuilderConfig(name=slug(set_name)), **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        image, content = tfds.features.Image(shape=(None, None, 3)), tfds.features.Text()
        fields = {"left": image, "right": image, "pair": content, "beside": content} | dict.fromkeys(_FILES, content)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(fields),
            metadata=tfds.core.MetadataDict(fingerprint=self.fingerprint),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {SPLIT: ((number, self.example(pair)) for number, pair in enumerate(self.pairs))}

    def _generate_examples(self) -> Iterator:
        raise NotImplementedError  # `_split_generators` gives the examples

    def example(self, pair: Pair) -> dict[str, bytes | str]:
        """The fields of a pair's record: the bytes of its files, and JSON of what it is. InputError: a file cannot be read."""
        files = pair.files(right_disparity=self.right_disparity)
        paths = {role: self._shown(path) for role, path in files.items()}
        contents = {role: read_bytes(path) for role, path in files.items()}
        return {
            "pair": json.dumps(dict(dataset=pair.dataset, name=pair.name, kind=pair.kind, format=pair.format, files=paths)),
            "left": contents["left"],
            "right": contents["right"],
            "beside": next((data for role, data in contents.items() if role.startswith("beside/")), b""),
            **{role: contents.get(role, b"") for role in _FILES},
        }

    def serialized(self, example: dict[str, bytes | str]) -> bytes:
        """An example as the bytes of a record."""
        features: Any = self.info.features
        return features.serialize_example(features.encode_example(example))

    def _shown(self, path: Path) -> str:
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()


def pair_of(record: dict[str, bytes]) -> tuple[Pair, dict[str, bytes]]:
    """The pair of a record, with paths relative to the data directory it came from, and the content of its files by role."""
    described: dict[str, Any] = json.loads(record["pair"])
    roles: dict[str, str] = described.pop("files")
    paths: dict[str, Any] = {role: Path(PurePosixPath(path)) for role, path in roles.items() if not role.startswith("beside/")}
    contents = {role: record["beside" if role.startswith("beside/") else role] for role in roles}
    return Pair(**described, **paths), contents


def packed_fingerprint(builder: Any) -> str:
    """Of the files that a packed set was made from."""
    return builder.info.metadata["fingerprint"]


def slug(set_name: str) -> str:
    """The name of a set as a folder: only "custom:FILE.csv" changes."""
    return re.sub(r"\W+", "_", set_name)


def folder(root: str, set_name: str) -> str:
    """Where a packed set lies: ROOT/stereo/NAME/VERSION."""
    return f"{str(root).rstrip('/')}/{Stereo.name}/{slug(set_name)}/{VERSION}"
