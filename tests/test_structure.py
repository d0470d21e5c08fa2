"""Counts of the structure: on small source trees, on the page, and for one request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .generate import structure
from .generate.request_trace import Call, Counts, count
from .generate.structure import BEGIN, END, MOST, PAGE, ClassSize
from .helpers.imports import OWN, Package, rooms_below

SMALL = {
    "__init__.py": "from .engine.core import Engine\n",
    "errors.py": '"""Errors."""\nclass ServeError(Exception):\n    """An error."""\n',
    "engine/__init__.py": "",
    "engine/core.py": """\
import asyncio
from ..errors import ServeError
from . import parts
class Engine:
    def start(self):
        def helper(): ...
        self._run()
    def _run(self):
        from ..queueing.jobs import Job
    @property
    def state(self): ...
    @state.setter
    def state(self, value): ...
""",
    "engine/parts.py": "from small.queueing import jobs\nclass Part:\n    x = 1\n",
    "queueing/__init__.py": "",
    "queueing/jobs.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import queue\n",
}


def package(folder: Path, files: dict[str, str]) -> Package:
    """Write a package named ``small`` with these files."""
    for name, text in files.items():
        path = folder / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return Package(folder / "small")


@pytest.fixture
def small(tmp_path: Path) -> Package:
    """A package of two rooms."""
    return package(tmp_path, SMALL)


def test_imports_are_found_in_every_form(small: Package) -> None:
    """Relative, absolute and lazy imports count, and type-only imports of other packages."""
    assert set(small.imports("engine.core")) == {"errors", "engine.parts", "queueing.jobs"}
    assert list(small.imports("engine.parts")) == ["queueing.jobs"]
    assert list(small.imports("__init__")) == ["engine.core"]
    assert small.foreign("engine.core") == {"asyncio"}
    assert small.foreign("queueing.jobs") == {"typing", "queue"}
    assert small.reachable["engine.core"] == {"errors", "engine.parts", "queueing.jobs"}


def test_a_circle_is_named_once(small: Package, tmp_path: Path) -> None:
    """Three modules that import each other are one circle; a module beside them is in none."""
    assert small.circles() == []

    files = {"a.py": "from . import b", "b.py": "from . import c", "d.py": "from . import a"}
    circular = package(tmp_path / "circular", {**files, "c.py": "def f():\n    from .a import x"})

    assert circular.circles() == [["a", "b", "c"]]


def test_sizes_of_rooms_and_files(small: Package) -> None:
    """Files at the top count as one room; the biggest room and the longest file come first."""
    assert structure.room_sizes(small) == {"engine/": (3, 16), "(top)": (2, 4), "queueing/": (2, 3)}
    assert structure.longest_files(small)[:2] == [("engine/core.py", 13), ("engine/parts.py", 3)]
    assert dict(structure.other_counts(small)) == {
        "files": 7,
        "lines": 23,
        "files at the top": 2,
        "circles of imports": 0,
        "docstrings": 2,
        "docstrings that start against the rule": 0,
        "pronouns of persons": 0,
    }


def test_methods_are_counted_by_name(small: Package) -> None:
    """A property with a setter is one method, and a function inside a method is none."""
    first = structure.biggest_classes(small)[0]

    assert first == ClassSize("Engine", "engine.core", methods=3, public=2, lines=10)


def test_rooms_are_listed_in_the_order_of_the_table(small: Package) -> None:
    """The ground comes first, and a room does not list itself."""
    assert structure.does_import("engine", small) == ["errors", "queueing"]
    assert structure.does_import("queueing", small) == []


def test_what_is_below_a_room() -> None:
    """The rooms of its row, the rooms of their rows, and the ground."""
    table = {"low": (), "middle": ("low",), "high": ("middle",), "top": ("*",)}

    assert rooms_below("high", table, ("errors",)) == {"errors", "low", "middle"}
    assert rooms_below("low", table, ("errors", "display")) == {"errors", "display"}
    assert rooms_below("top", table, ("errors",)) == {"errors", "low", "middle", "high"}
    assert rooms_below("display", table, ("errors", "display")) == {"errors"}


def called(module: str, caller: str | None, thread: str = "http") -> Call:
    """A call of a function in one file by a function in another."""
    return Call(thread, module, "f", 1, caller, "g")


def test_a_trace_is_counted() -> None:
    """Files, threads and their changes; a call up counts once, however often it is made."""
    up = called("engine.engine", "models.bisection", "worker")
    down = called("queueing.jobs", "engine.engine")
    from_outside = called("engine.engine", None)
    beside = called("simulation.simulator", "engine.engine")

    assert count([down, from_outside, up, up, down, beside]) == Counts(
        calls=6,
        files=3,
        changes_of_file=3,
        threads=2,
        changes_of_thread=2,
        back_up=1,
        back_up_in_room=0,
    )


def test_a_call_up_inside_a_room_goes_against_an_import() -> None:
    """The called file imports the calling one, directly or through another."""
    imported = next(name for name in sorted(OWN.reachable["http.app"]) if name.startswith("http."))

    assert count([called("http.app", imported)]).back_up_in_room == 1
    assert count([called(imported, "http.app")]).back_up_in_room == 0
    assert count([called("http.app", "http.app")]).back_up_in_room == 0


def test_text_goes_between_the_marks() -> None:
    """The rest of the page stays; a page without the marks is an error."""
    assert structure.filled(f"a\n{BEGIN}old\n{END}b\n", "new\n") == f"a\n{BEGIN}new\n{END}b\n"
    with pytest.raises(SystemExit, match="no place for the structure"):
        structure.filled("a page\n", "new\n")


def test_the_page_has_the_present_figures() -> None:
    """`python -m tests.generate.structure --write` mends it."""
    page = PAGE.read_text("utf-8")

    up_to_date = page.partition(BEGIN)[2].startswith(structure.static_part())
    assert up_to_date, "run: python -m tests.generate.structure --write"


def test_one_request_takes_few_calls_and_none_goes_back_up() -> None:
    """`python -m tests.generate.request_trace --calls` lists the calls of a request."""
    # In a fresh process: the path depends on the packages that are loaded, such as torch.
    command = [sys.executable, "-m", "tests.generate.request_trace"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    traced = Counts(**json.loads(done.stdout))

    assert traced.calls > 50
    assert {
        name: getattr(traced, name) for name, most in MOST.items() if getattr(traced, name) > most
    } == {}
