"""Imports run one way between the rooms of the package, lazy and type-only imports included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import notebook_serve

PACKAGE = Path(notebook_serve.__file__).parent

#: files and rooms that every room may import; each imports only those before it
GROUND = ("_version", "records", "errors", "display", "extras", "validation", "progress", "clients")
#: the rooms, and files at the top, that each room may import besides the ground
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "traffic": (),
    "queueing": (),
    "simulation": ("queueing", "traffic"),
    "demo": (),
    "models": ("demo",),
    "testing": ("models",),
    "workers": ("models", "queueing"),
    "engine": ("workers", "models", "queueing"),
    "dashboard": ("engine", "queueing"),
    "http": ("dashboard", "engine", "models", "queueing"),
    "options": ("http", "workers", "models", "queueing"),
    "endpoint": ("options", "http", "dashboard", "engine", "models", "simulation", "queueing"),
    "server": (
        *("endpoint", "options", "http", "dashboard", "engine"),
        *("workers", "models", "simulation", "queueing"),
    ),
    "lab": ("server", "endpoint", "engine", "models", "simulation", "queueing", "traffic"),
    "cli": (
        *("lab", "server", "endpoint", "http", "demo"),
        *("models", "simulation", "queueing", "traffic"),
    ),
    "__init__": ("*",),
    "__main__": ("*",),
}
#: rooms that a simulation runs on a virtual clock, in one thread
CLOCKLESS = ("queueing", "simulation", "traffic")
FORBIDDEN = {"time", "threading", "asyncio", "concurrent", "torch", "transformers", "starlette"}
#: files at the top of the package, at most
MOST_AT_THE_TOP = 14


def modules() -> list[str]:
    """Return the dotted names of all files, below the package."""
    paths = PACKAGE.rglob("*.py")
    return sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths)


MODULES = modules()


def tree(module: str) -> ast.Module:
    """Parse a module."""
    return ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8"))


def imports(module: str) -> Iterator[str]:
    """Yield the modules of the package that a module imports, wherever the import stands."""
    parents = module.split(".")[:-1]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*parents[: len(parents) - node.level + 1], *(node.module or "").split(".")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("notebook_serve"):
            base = (node.module or "").split(".")[1:]
        else:
            continue
        base = [part for part in base if part]
        for alias in node.names:
            yield resolve([*base, alias.name]) or resolve(base) or "__init__"


def resolve(parts: list[str]) -> str | None:
    """Return the module of these names, if there is one."""
    names = (".".join(parts), ".".join([*parts, "__init__"]))
    return next((name for name in names if name in MODULES), None)


def room(module: str) -> str:
    """Return the room of a module, or the file's own name at the top of the package."""
    return module.split(".")[0]


def foreign(module: str) -> set[str]:
    """Return the other packages that a module imports."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found


def test_every_room_has_a_row() -> None:
    """The table names each room and each file at the top, and no others."""
    assert {room(module) for module in MODULES} == {*GROUND, *MAY_IMPORT}


def test_few_files_at_the_top() -> None:
    """A newcomer reads folder names first."""
    top = [module for module in MODULES if "." not in module]
    assert len(top) <= MOST_AT_THE_TOP, top


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    """A room imports the rooms of its row and the ground; the ground only what stands before."""
    own = room(module)
    below = GROUND[: GROUND.index(own)] if own in GROUND else GROUND
    allowed = {own, *below, *MAY_IMPORT.get(own, ())}
    if "*" not in allowed:
        assert [name for name in imports(module) if room(name) not in allowed] == []


@pytest.mark.parametrize("folder", ["http.transport", "http.telemetry"])
def test_transport_and_telemetry_know_no_route(folder: str) -> None:
    """Sockets, logs and spans import no file of ``http/`` itself."""
    inside = [module for module in MODULES if module.startswith(f"{folder}.")]
    found = {name for module in inside for name in imports(module)}
    assert [name for name in found if name.startswith("http.") and name.count(".") == 1] == []


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in CLOCKLESS])
def test_policies_and_simulation_have_no_clock(module: str) -> None:
    """They are given the time and run in one thread: no clock, thread, event loop or model."""
    assert foreign(module) & FORBIDDEN == set()


def test_no_circles() -> None:
    """No module imports itself by way of others."""
    edges = {module: set(imports(module)) - {"__init__"} for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, [*path, module])
            done.add(module)

    for module in MODULES:
        visit(module, [])
