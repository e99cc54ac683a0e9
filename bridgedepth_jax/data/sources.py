"""A data set as a sequence of samples, whatever holds it: files as downloaded, packed shards, or the renderer."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bridgedepth_jax.data.pairs import Pair, Sample, find_pairs, fingerprint, read_sample
from bridgedepth_jax.data.procedural.textures import find_photos
from bridgedepth_jax.errors import InputError

Packing = Literal["raw", "tfds"]


@dataclasses.dataclass(frozen=True)
class SyntheticOptions:
    """The procedural set `synthetic`; None is the training crop or seed."""

    height: int | None = None
    width: int | None = None
    max_disparity: float = 192.0
    seed: int | None = None
    size: int = 100_000  # samples in an epoch
    photos: str | None = None  # a folder of photographs; None: those of scikit-image, where it is installed
    scenes: Literal["sparse", "crowded", "fine", "mixed", "hazy"] = "sparse"  # `SCENES` of data/procedural/config.py
    clean: bool = False  # matching pixels look alike: no noise, blur or other exposure in one of the views


class RawSource(Sequence[Sample]):
    """Samples read from files as they were downloaded."""

    def __init__(self, pairs: Sequence[Pair], root: str | Path, *, right_disparity: bool = False):
        self.pairs = tuple(pairs)
        self.fingerprint = fingerprint(self.pairs, root)
        self.right_disparity = right_disparity
        if right_disparity:
            without = next((pair for pair in self.pairs if pair.right_disparity is None), None)
            if without is not None:
                raise InputError(f"{without.dataset}: no right-view disparity for {without.left}, which flip 'h' needs")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return read_sample(self.pairs[index], right_disparity=self.right_disparity)


class SyntheticSource(Sequence[Sample]):
    """Rendered samples; the renderer is built where it is used, so a worker process receives only numbers."""

    def __init__(self, options: SyntheticOptions):
        self.options = options
        photos = [(path.name, path.stat().st_size) for path in find_photos(options.photos)]  # they are textures
        old = (("scenes", "sparse"), ("clean", False))  # newer options at their old values change nothing
        parts = [{key: value for key, value in dataclasses.asdict(options).items() if (key, value) not in old}, photos]
        self.fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        self._renderer = None

    def __len__(self) -> int:
        return self.options.size

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if self._renderer is None:
            from bridgedepth_jax.data.procedural import SyntheticConfig, SyntheticStereo

            given = {key: value for key, value in dataclasses.asdict(self.options).items() if value is not None}
            config, clean = SyntheticConfig.named(given.pop("scenes")), given.pop("clean")
            given["config"] = config.clean() if clean else config
            self._renderer = SyntheticStereo(given.pop("height"), given.pop("width"), **given)
        return self._renderer[index]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_renderer": None}


def open_source(
    name: str,
    root: str | Path,
    *,
    storage: Packing = "raw",
    right_disparity: bool = False,
    synthetic: SyntheticOptions | None = None,
) -> Sequence[Sample]:
    """The data set `name` under `root`: files as downloaded ("raw") or as packed by `bridgedepth data prepare` ("tfds").

    Sources have a `fingerprint`, the same for raw and packed. `synthetic` is rendered in both cases.
    Raises InputError where files are missing, or the right view's disparity where it is asked for.
    """
    if name == "synthetic":
        if right_disparity:
            raise InputError("synthetic has no right-view disparity, which flip 'h' needs")
        options = synthetic or SyntheticOptions()
        return SyntheticSource(dataclasses.replace(options, height=options.height or 384, width=options.width or 640))
    if storage == "raw":
        return RawSource(find_pairs(name, root), root, right_disparity=right_disparity)
    if storage == "tfds":
        from bridgedepth_jax.data.tfds import PackedSource

        return PackedSource(name, root, right_disparity=right_disparity)
    raise InputError(f"source {storage!r}, expected raw or tfds")
