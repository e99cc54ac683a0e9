"""Published weights by name: fetched once from the Hugging Face hub, converted once into the cache.

The cache is `$BRIDGEDEPTH_CACHE`, by default ~/.cache/bridgedepth_jax. Its `published.json` pins, at the first fetch of
a name, the commit of the repository and the SHA-256 of the file; another file under that name is refused later.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

from bridgedepth_jax.convert.conversion import convert_file, sha256_of
from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import replacing
from bridgedepth_jax.store.checkpoint import save_checkpoint
from bridgedepth_jax.systems.bridgedepth.config import VARIANTS


class Published(NamedTuple):
    """A file in a model repository of the Hugging Face hub."""

    kind: str
    repository: str
    file: str


class Fetched(NamedTuple):
    """A file on this machine and where it came from: repository, revision (commit)."""

    path: Path
    origin: dict[str, str]


_DEPTH_ANYTHING = {"vits": "Small", "vitb": "Base", "vitl": "Large", "vitg": "Giant"}
PUBLISHED = {
    **{name: Published("bridgedepth", "aeolusguan/BridgeDepth", f"bridge_{name}.pth") for name in VARIANTS},
    **{
        f"depth_anything_v2_{vit}": Published(
            "depth-anything", f"depth-anything/Depth-Anything-V2-{size}", f"depth_anything_v2_{vit}.pth"
        )
        for vit, size in _DEPTH_ANYTHING.items()
    },
}


def cache_folder() -> Path:
    """Where fetched and converted weights are kept."""
    return Path(os.environ.get("BRIDGEDEPTH_CACHE") or Path.home() / ".cache" / "bridgedepth_jax")


def resolve(name_or_path: str | os.PathLike) -> Path:
    """The checkpoint folder of a path, or of a published name: fetched and converted into the cache unless it is there.

    A folder of that name goes before a published name. Raises InputError for what is neither, and without a network.
    """
    path, name = Path(name_or_path), os.fspath(name_or_path)
    if path.exists():
        return path
    if name not in PUBLISHED:
        raise InputError(f"{name}: neither a checkpoint folder nor a published name, expected one of {', '.join(PUBLISHED)}")
    folder = cache_folder() / "checkpoints" / name
    if not folder.exists():
        file, origin = fetch(name)
        save_checkpoint(folder, convert_file(PUBLISHED[name].kind, file, origin=origin))
    return folder


def fetch(name: str, *, revision: str | None = None, accept_new: bool = False) -> Fetched:
    """Downloads a published file, at `revision` or the commit pinned before or that of the main branch.

    Raises InputError where the hub cannot be reached, and for a file other than the one fetched before under this name
    unless `accept_new`.
    """
    row, lock = PUBLISHED[name], cache_folder() / "published.json"
    pins = _read_pins(lock)
    pinned = pins.get(name, {})
    path, commit = download(row, revision or pinned.get("revision") or "main")
    digest = sha256_of(path)
    if pinned and digest != pinned["sha256"] and not accept_new:
        raise InputError(
            f"{name}: {row.file} has SHA-256 {digest}, expected {pinned['sha256']} as fetched before (pinned in {lock});"
            " --accept-new takes the new one"
        )
    pins[name] = {"repository": row.repository, "file": row.file, "revision": commit, "sha256": digest}
    with replacing(lock) as temporary:
        temporary.write_text(json.dumps(pins, indent=1) + "\n")
    return Fetched(path, {"name": name, "repository": row.repository, "revision": commit})


def download(row: Published, revision: str) -> tuple[Path, str]:
    """The file of `row` at a branch, tag or commit, and that commit."""
    page = f"https://huggingface.co/{row.repository}"
    by_hand = f"download {row.file} from {page} by hand and give its path: bridgedepth convert {row.kind} {row.file} OUT"
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise InputError(
            f"{row.file}: huggingface_hub is not installed, pip install 'bridgedepth-jax[hub]', or {by_hand}"
        ) from error
    cache = cache_folder() / "hub"
    try:
        path = Path(hub.hf_hub_download(row.repository, row.file, revision=revision, cache_dir=cache, local_files_only=True))
        if path.parent.name == revision:  # a commit, not a branch that may have moved
            return path, revision
    except OSError:
        pass  # not in the cache
    try:
        commit = hub.HfApi().model_info(row.repository, revision=revision).sha
        if commit is None:
            raise ValueError(f"the hub names no commit for {revision}")
        return Path(hub.hf_hub_download(row.repository, row.file, revision=commit, cache_dir=cache)), commit
    except Exception as error:  # of whichever HTTP library the hub uses
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{row.file}: cannot be fetched ({type(error).__name__}: {reason}); {by_hand}") from error


def _read_pins(lock: Path) -> dict[str, dict[str, str]]:
    try:
        pins = json.loads(lock.read_text())
        return {name: {"revision": str(pin["revision"]), "sha256": str(pin["sha256"]), **pin} for name, pin in pins.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{lock}: damaged ({error}), remove it to pin published files anew") from error
