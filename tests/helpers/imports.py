"""Import table of the package: the rooms, and the rooms that each may import."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import notebook_serve

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
        *("workers", "models", "simulation", "queueing", "traffic"),
    ),
    "__init__": ("*",),
    "__main__": ("cli",),
}


def room(module: str) -> str:
    """Return the room of a module, or the file's own name at the top of the package."""
    return module.split(".")[0]


def rooms_below(
    own: str, may_import: Mapping[str, Sequence[str]] = MAY_IMPORT, ground: Sequence[str] = GROUND
) -> set[str]:
    """Return the rooms that a room may import, directly or through other rooms."""
    if own in ground:
        return set(ground[: ground.index(own)])
    if "*" in may_import[own]:
        return {*ground, *may_import} - {own}
    found = {*ground, *may_import[own]}
    for other in may_import[own]:
        found |= rooms_below(other, may_import, ground)
    return found


@dataclass(frozen=True)
class Package:
    """The Python files of a package. Modules are named by their dotted path below it."""

    root: Path

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """All modules, in alphabetical order."""
        paths = self.root.rglob("*.py")
        return tuple(
            sorted(".".join(path.relative_to(self.root).with_suffix("").parts) for path in paths)
        )

    def path(self, module: str) -> Path:
        """Return the file of a module."""
        return self.root.joinpath(*module.split(".")).with_suffix(".py")

    def module_of(self, path: str) -> str | None:
        """Return the module of a file, or None for a file outside the package."""
        try:
            below = Path(path).relative_to(self.root)
        except ValueError:
            return None
        return ".".join(below.with_suffix("").parts)

    def tree(self, module: str) -> ast.Module:
        """Parse a module, once."""
        return _parse(self.path(module))

    def imports(self, module: str) -> Iterator[str]:
        """Yield the modules that a module imports, including lazy and type-only imports."""
        parents = module.split(".")[:-1]
        for node in ast.walk(self.tree(module)):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*parents[: len(parents) - node.level + 1], *(node.module or "").split(".")]
            elif isinstance(node, ast.ImportFrom) and self._is_own(node.module or ""):
                base = (node.module or "").split(".")[1:]
            else:
                continue
            base = [part for part in base if part]
            for alias in node.names:
                yield self._resolve([*base, alias.name]) or self._resolve(base) or "__init__"

    def foreign(self, module: str) -> set[str]:
        """Return the other packages that a module imports."""
        found = set()
        for node in ast.walk(self.tree(module)):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").split(".")[0])
        return found

    @cached_property
    def edges(self) -> dict[str, set[str]]:
        """Imports of each module, without those of the package itself."""
        return {module: set(self.imports(module)) - {"__init__"} for module in self.modules}

    @cached_property
    def reachable(self) -> dict[str, set[str]]:
        """Modules that each module imports, directly or through other modules."""
        found: dict[str, set[str]] = {}
        for module in self.modules:
            seen: set[str] = set()
            left = [*self.edges[module]]
            while left:
                other = left.pop()
                if other not in seen:
                    seen.add(other)
                    left += self.edges[other]
            found[module] = seen
        return found

    def circles(self) -> list[list[str]]:
        """Return the groups of modules that import each other, directly or through others."""
        found = {
            tuple(sorted({module, *(o for o in below if module in self.reachable[o])}))
            for module, below in self.reachable.items()
            if module in below
        }
        return sorted(map(list, found))

    def _is_own(self, name: str) -> bool:
        return name.split(".")[0] == self.root.name

    def _resolve(self, parts: list[str]) -> str | None:
        """Return the module of these names, if there is one."""
        names = (".".join(parts), ".".join([*parts, "__init__"]))
        return next((name for name in names if name in self.modules), None)


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


OWN = Package(Path(notebook_serve.__file__).parent)
