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
    """Downloads what `row` has under that name, at `revision` or the commit pinned before or that of the main branch.

    Raises InputError where the hub cannot be reached, and for a file other than the one fetched before under this name
    unless `accept_new`.
    """
    lock = cache_folder() / "published.json"
    pins = _read_pins(lock)
    pinned = pins.get(name, {})
    path, commit = download(row, revision or pinned.get("revision") or "main")
    digest = _digest(path, row)
    if pinned and digest != pinned["sha256"] and not accept_new:
        raise InputError(
            f"{name}: {row.file} has SHA-256 {digest}, expected {pinned['sha256']} as fetched before (pinned in {lock});"
            " --accept-new takes the new one"
        )
    pins[name] = {"repository": row.repository, "file": row.file, "revision": commit, "sha256": digest}
    with replacing(lock) as temporary:
        temporary.write_text(json.dumps(pins, indent=1) + "\n")
    return Fetched(path, {"name": name, "repository": row.repository, "revision": commit})


def _digest(path: Path, row: Published) -> str:
    """Of the file; of a folder, of the digests of its files."""

    def of(file: Path) -> str:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    if not row.files:
        return of(path)
    return hashlib.sha256("".join(f"{name} {of(path / name)}\n" for name in row.files).encode()).hexdigest()


def download(row: Published, revision: str) -> tuple[Path, str]:
    """The file or folder of `row` at a branch, tag or commit, and that commit."""
    if not row.files:
        return _download_file(row, row.file, revision)
    prefix = "" if row.file == "." else f"{row.file}/"
    path = Path()
    for name in row.files:  # the first one says which commit, for all
        path, revision = _download_file(row, prefix + name, revision)
    return path.parents[len(Path(row.files[-1]).parts) - 1], revision


def _download_file(row: Published, file: str, revision: str) -> tuple[Path, str]:
    page, command = f"https://huggingface.co/{row.repository}", "diffusers" if row.files else row.kind
    by_hand = f"download {row.file} from {page} by hand and give its path: bridgedepth convert {command} {row.file} OUT"
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise InputError(
            f"{file}: huggingface_hub is not installed, pip install 'bridgedepth-jax[hub]', or {by_hand}"
        ) from error
    cache = cache_folder() / "hub"
    try:
        path = Path(hub.hf_hub_download(row.repository, file, revision=revision, cache_dir=cache, local_files_only=True))
        if path.parents[len(Path(file).parts) - 1].name == revision:  # a commit, not a branch that may have moved
            return path, revision
    except OSError:
        pass  # not in the cache
    try:
        commit = hub.HfApi().model_info(row.repository, revision=revision).sha
        if commit is None:
            raise ValueError(f"the hub names no commit for {revision}")
        return Path(hub.hf_hub_download(row.repository, file, revision=commit, cache_dir=cache)), commit
    except Exception as error:  # of whichever HTTP library the hub uses
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{file}: cannot be fetched ({type(error).__name__}: {reason}); {by_hand}") from error


def _read_pins(lock: Path) -> dict[str, dict[str, str]]:
    try:
        pins = json.loads(lock.read_text())
        return {name: {"revision": str(pin["revision"]), "sha256": str(pin["sha256"]), **pin} for name, pin in pins.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{lock}: damaged ({error}), remove it to pin published files anew") from error
