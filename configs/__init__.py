"""Experiments. Each file has `get_config()`; its docstring says how to run it and what to expect.

Named by the system's folder and the file, `bridgedepth/sf`.
"""

from pathlib import Path

from bridgedepth_jax.errors import InputError, unknown

FOLDER = Path(__file__).parent
UNNAMED = "bridgedepth"  # the system of names without one: configs/sf.py was here before there were several


def names() -> list[str]:
    """All that come with the package."""
    files = (path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.py") if not path.stem.startswith("_"))
    return sorted(file.as_posix() for file in files)


def find(name: str) -> Path:
    """The file of a config: of its name (also `sf`, `configs/bridgedepth/sf.py`), or any other file. InputError: neither."""
    path, folder = Path(name), FOLDER.resolve()
    if path.is_file():
        return path
    if path.resolve().is_relative_to(folder):
        short = path.resolve().relative_to(folder).as_posix()
    elif path.suffix == ".py" and path.parts[0] != "configs":
        raise InputError(f"--config {name}: no such file")
    else:
        short = name.removeprefix("configs/")
    short, known = short.removesuffix(".py"), names()
    for full in (short, f"{UNNAMED}/{short}"):
        if full in known:
            return FOLDER / f"{full}.py"
    raise unknown("--config", short, known)
