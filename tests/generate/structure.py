"""Structure of the package, counted: ``python -m tests.generate.structure [--write]``.

Prints the import table, the sizes of rooms, files and classes, the rules of English that do not
hold, and the trace of one request. With ``--write`` the text goes between the marks of
``notebook_serve/README.md``.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..helpers.english import bad_docstrings, docstrings, pronouns, sources
from ..helpers.imports import GROUND, MAY_IMPORT, OWN, Package, room
from .request_trace import Counts, count, trace

PAGE = OWN.root / "README.md"
BEGIN, END = "<!-- structure -->\n", "<!-- /structure -->"
#: rows of the tables of files and classes
LONGEST, BIGGEST = 8, 6
#: what one request should take at most
GOALS = {"calls": 150, "files": 25, "back_up": 0, "back_up_in_room": 0}
#: the present figures, which a test holds; lower them until they are the goals
MOST = {"calls": 150, "files": 35, "back_up": 0, "back_up_in_room": 3}

Row = Sequence[object]


class ClassSize(NamedTuple):
    """Size of a class."""

    name: str
    module: str
    methods: int
    public: int
    lines: int


def table(head: Row, rows: Iterable[Row]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def line_count(path: Path) -> int:
    """Return the number of lines of a file."""
    return len(path.read_text("utf-8").splitlines())


def names(rooms: Iterable[str]) -> str:
    """Return names of rooms as code, or a dash for none."""
    return ", ".join(f"`{each}`" for each in rooms) or "-"


def may_import(own: str) -> str:
    """Return the cell of the import table for the rooms that a room may import."""
    if own in GROUND:
        return names(GROUND[: GROUND.index(own)])
    if MAY_IMPORT[own] == ("*",):
        return "all"
    return names(["ground", *MAY_IMPORT[own]])


def does_import(own: str, package: Package = OWN) -> list[str]:
    """Return the rooms that the files of a room import, in the order of the import table."""
    inside = [module for module in package.modules if room(module) == own]
    found = {room(other) for module in inside for other in package.imports(module)} - {own}
    order = [*GROUND, *MAY_IMPORT]
    return sorted(found, key=lambda name: order.index(name) if name in order else len(order))


def import_table() -> str:
    """Return the import table, one row a room."""
    rows = (
        (f"`{own}`", may_import(own), names(does_import(own))) for own in (*GROUND, *MAY_IMPORT)
    )
    return table(("room", "may import", "imports"), rows)


def room_sizes(package: Package = OWN) -> dict[str, tuple[int, int]]:
    """Return files and lines of each room; files at the top of the package count as one room."""
    sizes: dict[str, tuple[int, int]] = {}
    for module in package.modules:
        own = f"{room(module)}/" if "." in module else "(top)"
        files, lines = sizes.get(own, (0, 0))
        sizes[own] = files + 1, lines + line_count(package.path(module))
    return dict(sorted(sizes.items(), key=lambda item: -item[1][1]))


def longest_files(package: Package = OWN) -> list[tuple[str, int]]:
    """Return all files and their lines, the longest first."""
    paths = [package.path(module) for module in package.modules]
    sizes = [(path.relative_to(package.root).as_posix(), line_count(path)) for path in paths]
    return sorted(sizes, key=lambda item: (-item[1], item[0]))


def biggest_classes(package: Package = OWN) -> list[ClassSize]:
    """Return all classes, those with the most methods first."""
    found = [
        class_size(node, module)
        for module in package.modules
        for node in ast.walk(package.tree(module))
        if isinstance(node, ast.ClassDef)
    ]
    return sorted(found, key=lambda size: (-size.methods, -size.lines, size.name))


def class_size(node: ast.ClassDef, module: str) -> ClassSize:
    """Count the methods and lines of a class; properties and special methods are methods too."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    methods = {item.name for item in node.body if isinstance(item, functions)}
    public = {name for name in methods if not name.startswith("_")}
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    return ClassSize(node.name, module, len(methods), len(public), lines)


def other_counts(package: Package = OWN) -> list[tuple[str, int]]:
    """Return the counts that stand alone."""
    files = sources(package.root)
    python = [package.path(module) for module in package.modules]
    written = sum(len(list(docstrings(package.tree(module)))) for module in package.modules)
    return [
        ("files", len(package.modules)),
        ("lines", sum(map(line_count, python))),
        ("files at the top", sum("." not in module for module in package.modules)),
        ("circles of imports", len(package.circles())),
        ("docstrings", written),
        ("docstrings that start against the rule", sum(len(bad_docstrings(p)) for p in python)),
        ("pronouns of persons", sum(len(pronouns(path)) for path in files)),
    ]


def static_part() -> str:
    """Return all tables that are counted in the sources."""
    sizes = [(name, files, lines) for name, (files, lines) in room_sizes().items()]
    files = [(f"`{path}`", lines) for path, lines in longest_files()[:LONGEST]]
    classes = [
        (f"`{size.name}`", f"`{OWN.path(size.module).relative_to(OWN.root).as_posix()}`", *size[2:])
        for size in biggest_classes()[:BIGGEST]
    ]
    return "\n".join(
        (
            import_table(),
            f"`ground` is {names(GROUND)}.\n",
            table(("room", "files", "lines"), sizes),
            table(("longest files", "lines"), files),
            table(("biggest classes", "file", "methods", "public", "lines"), classes),
            table(("count", "total"), other_counts()),
        )
    )


def traced_part(counts: Counts) -> str:
    """Return the table of one request's trace."""
    rows = [
        (name.replace("_", " "), value, GOALS.get(name, ""))
        for name, value in counts._asdict().items()
    ]
    return "\n" + table(("one text request", "traced", "goal"), rows)


def filled(page: str, text: str) -> str:
    """Return a page with the text between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{PAGE} has no place for the structure: {BEGIN}{END}")
    return f"{before}{BEGIN}{text}{END}{after}"


def main() -> None:
    """Print the structure, or write it into the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.generate.structure", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write it into {PAGE.name}")
    options = parser.parse_args()
    text = static_part() + traced_part(count(trace()))
    if options.write:
        PAGE.write_text(filled(PAGE.read_text("utf-8"), text), "utf-8")
    else:
        print(text)  # noqa: T201


if __name__ == "__main__":
    main()
