"""Floors: imports go downwards only, without circles, and no shared floor names a system."""

import ast
import subprocess
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bridgedepth_jax"
# From the bottom up; a module may import its own floor and those before it. Longest prefix wins.
FLOORS = (
    ("errors", "build", "processes", "sharding", "programs", "topologies", "configs.__init__"),  # the last: the configs' index
    ("files", "ops", "geometry"),
    ("visualize", "layers"),
    ("networks",),
    ("system",),
    ("store",),
    ("data",),
    ("evaluation",),
    ("training.config", "training.schedule", "training.optimizer"),
    ("convert",),
    ("training", "parity", "export", "networks.diffusion.parity"),
    ("inference",),
    ("systems",),
    ("configs", "commands"),
)
SHARED = ("training", "evaluation", "store", "data", "networks", "ops", "inference", "export")  # which no system is named in
# Where a system's own rules know its config, and commands and configs speak of one on purpose, arrows may point up.
KNOWS_SYSTEMS = ("convert", "configs", "commands", "systems", "__init__")


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found[".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")] = path
    for name in ("configs", "convert"):  # links, which rglob does not follow
        for path in sorted((PACKAGE.parent / name).rglob("*.py")):
            found[".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path, *, lazy: bool) -> set[str]:
    """Modules of this package that a file imports, inside functions too if `lazy`."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else _at_import(tree)
    found = set()
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names = [part if part.removeprefix("bridgedepth_jax.") in ALL else node.module for part in parts.values()]
        found |= {name.removeprefix("bridgedepth_jax.") for name in names if name.startswith("bridgedepth_jax.")}
    return found


def _at_import(tree: ast.AST):
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not _typing_only(node):
            yield node
            yield from _at_import(node)


def _typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def floor(module: str) -> int:
    module = "configs.__init__" if module == "configs" else module
    best = max(
        ((len(prefix), i) for i, row in enumerate(FLOORS) for prefix in row if f"{module}.".startswith(f"{prefix}.")),
        default=None,
    )
    assert best is not None, f"{module} is on no floor: add it to FLOORS"
    return best[1]


ALL = modules()


@pytest.mark.parametrize("module", [name for name in ALL if name.split(".")[0] in SHARED])
def test_no_shared_floor_names_a_system(module):
    assert not [name for name in imports(ALL[module], lazy=True) if name.startswith("systems")]
    assert "bridgedepth_jax.systems" not in ALL[module].read_text()


@pytest.mark.parametrize("module", [name for name in ALL if name.split(".")[0] not in KNOWS_SYSTEMS])
def test_imports_go_downwards_only(module):
    above = {name for name in imports(ALL[module], lazy=False) if name in ALL and floor(name) > floor(module)}
    assert not above, f"{module} imports {above} of a floor above"


def test_no_circles():
    graph = {
        name: {other for other in imports(path, lazy=False) if other in ALL and other != name} for name, path in ALL.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_two_things_of_the_shared_floors_share_a_name():
    """Public classes and type aliases; a system may narrow one of the door's (`losses.Counts` of `system.Counts`)."""
    where: dict[str, list[str]] = {}
    for module, path in ALL.items():
        if module.split(".")[0] != "systems":
            for name in _types(ast.parse(path.read_text())):
                where.setdefault(name, []).append(module)
    assert not {name: modules for name, modules in where.items() if len(modules) > 1}


def _types(tree: ast.Module) -> set[str]:
    found = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name) and not target.id.isupper()}
    return {name for name in found if name[:1].isupper() and len(name) > 1}


def test_shell_scripts_have_no_known_faults():
    scripts = [*sorted((PACKAGE.parent / "scripts" / "launch").glob("*.sh")), PACKAGE.parent / ".ci" / "run"]
    assert len(scripts) == 3
    checked = subprocess.run(["shellcheck", "--exclude=SC1091", *scripts], capture_output=True, text=True)  # what a venv makes
    assert checked.returncode == 0, checked.stdout
