"""Mirror of the package: each module has a test file of its name, or the page names another."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from .helpers.imports import OWN, Package

TESTS = Path(__file__).parent
PAGE = TESTS / "README.md"
HEADING = "Modules without a test file of their name"


def has_code(package: Package, module: str) -> bool:
    """Return True for a module with more than a docstring and imports."""
    plain = (ast.Import, ast.ImportFrom)
    statements = [node for node in package.tree(module).body if not isinstance(node, plain)]
    return len(statements) > (ast.get_docstring(package.tree(module)) is not None)


def file_of(module: str) -> str:
    """Return the test file of a module's name: ``http.app`` has ``http/test_app.py``."""
    *rooms, name = module.removesuffix(".__init__").split(".")
    return "/".join([*rooms, f"test_{name.strip('_')}.py"])


def rows(page: str) -> dict[str, list[str]]:
    """Return the test files that the page names, by module."""
    section = re.search(rf"^#+ {HEADING}$(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    found: dict[str, list[str]] = {}
    for module, tested in re.findall(
        r"^\|\s*`([^`|]+)`\s*\|([^|]*)\|", section[1] if section else "", re.MULTILINE
    ):
        files = [name.removeprefix("tests/") for name in re.findall(r"`([^`]+\.py)[^`]*`", tested)]
        found[module.removeprefix("notebook_serve/")] = files
    return found


def faults(package: Package, tests: Path, table: dict[str, list[str]]) -> list[str]:
    """Return the modules without tests, and the rows that are wrong or not needed."""
    modules = {
        package.path(module).relative_to(package.root).as_posix(): (tests / file_of(module))
        for module in package.modules
        if has_code(package, module)
    }
    found = [
        f"{module}: no tests/{file.relative_to(tests).as_posix()}, and no row in tests/README.md"
        for module, file in modules.items()
        if not file.exists() and module not in table
    ]
    for module, files in table.items():
        if module not in modules:
            found.append(f"{module}: a row for a module that is not there or has no code")
        elif modules[module].exists():
            found.append(f"{module}: a row, and a test file of its name")
        elif not files:
            found.append(f"{module}: a row without a test file")
        found += [f"{module}: no tests/{name}" for name in files if not (tests / name).exists()]
    return found


def test_each_module_is_tested_where_its_name_or_the_page_says() -> None:
    """The name of a file, or the page, leads from each module to its tests."""
    page = PAGE.read_text("utf-8") if PAGE.exists() else ""
    if found := faults(OWN, TESTS, rows(page)):
        pytest.fail("\n".join(found), pytrace=False)


@pytest.fixture
def small(tmp_path: Path) -> tuple[Package, Path]:
    """A package with five modules, and the tests of two of them."""
    for name, text in {
        "small/__init__.py": "'''A package.'''\nfrom .http import app\n",
        "small/__main__.py": "print('main')\n",
        "small/http/__init__.py": "'''A room.'''\n",
        "small/http/app.py": "x = 1\n",
        "small/http/headers.py": "x = 1\n",
        "small/http/transport/sockets.py": "x = 1\n",
        "tests/http/test_app.py": "",
        "tests/http/transport/test_sockets.py": "",
        "tests/test_command_line.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return Package(tmp_path / "small"), tmp_path / "tests"


def test_rows_name_the_other_tests(small: tuple[Package, Path]) -> None:
    """A module without a test file of its name needs a row; a room's docstring needs none."""
    needed = {"__main__.py": ["test_command_line.py"], "http/headers.py": ["http/test_app.py"]}

    assert faults(*small, needed) == []
    assert [fault.partition(":")[0] for fault in faults(*small, {})] == [*needed]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"http/gone.py": ["http/test_app.py"]}, "http/gone.py: a row for a module that is not"),
        ({"http/app.py": ["http/test_app.py"]}, "http/app.py: a row, and a test file of its name"),
        ({"http/headers.py": []}, "http/headers.py: a row without a test file"),
        ({"http/headers.py": ["test_gone.py"]}, "http/headers.py: no tests/test_gone.py"),
    ],
)
def test_a_wrong_row_is_found(
    small: tuple[Package, Path], row: dict[str, list[str]], fault: str
) -> None:
    """A row that is not true any more has to go."""
    assert any(found.startswith(fault) for found in faults(*small, row))


def test_the_table_is_read_from_its_section() -> None:
    """Paths may begin with the folder, and tests may be named behind a file."""
    page = f"""\
| `http/other.py` | `test_other.py` |

## {HEADING}

| module | tested in |
|---|---|
| `http/headers.py` | `http/test_app.py`, `tests/test_server.py::test_headers` |
| `notebook_serve/__main__.py` | by `test_command_line.py` |

## Another

| `http/more.py` | `test_more.py` |
"""
    assert rows(page) == {
        "http/headers.py": ["http/test_app.py", "test_server.py"],
        "__main__.py": ["test_command_line.py"],
    }
