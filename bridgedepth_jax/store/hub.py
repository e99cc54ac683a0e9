"""Files of the Hugging Face hub by name: fetched once, the same ever after.

The cache is `$BRIDGEDEPTH_CACHE`, by default ~/.cache/bridgedepth_jax. Its `published.json` pins, at the first fetch of
a name, the commit of the repository and the SHA-256 of the file; another file under that name is refused later.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from bridgedepth_jax.errors import InputError
from bridgedepth_jax.files import cache_folder, replacing
from bridgedepth_jax.system import Published


class Fetched(NamedTuple):
    """A file on this machine and where it came from: repository, revision (commit)."""

    path: Path
    origin: dict[str, str]


def fetch(name: str, row: Published, *, revision: str | None = None, accept_new: bool = False) -> Fetched:
    """Downloads the file `row` that has that name, at `revision` or the commit pinned before or that of the main branch.

    Raises InputError where the hub cannot be reached, and for a file other than the one fetched before under this name
    unless `accept_new`.
    """
    lock = cache_folder() / "published.json"
    pins = _read_pins(lock)
    pinned = pins.get(name, {})
    path, commit = download(row, revision or pinned.get("revision") or "main")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
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
