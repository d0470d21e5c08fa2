"""The course: every notebook runs from top to bottom, and its file is as a reader should find it.

``python -m tests.generate.course`` makes the outputs anew.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from ..generate.course import COURSE, FOLDER, METADATA, shown
from ..helpers.browser import a_browser  # noqa: F401 (a fixture)
from .test_jupyterlab import Open, lab, opening  # noqa: F401 (two are fixtures)

FILES = sorted(FOLDER.glob("*.ipynb"))
#: modules of the package that have a public face
PUBLIC = {f"notebook_serve{name}" for name in ("", ".demo", ".testing", ".traffic")}
#: places on the machine that made the outputs, and objects in its memory
PRIVATE = re.compile(
    r"(?<![\w.:/])/(?:home|tmp|work|root|usr|opt|var|mnt|private|Users)/\S*"
    r"|[A-Z]:\\Users|<[^<>]* object at|\bat 0x[0-9a-f]+"
)

each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@lru_cache
def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def code(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path: Path) -> str:
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def parsed(path: Path) -> list[ast.AST]:
    """Every node of the code of a notebook."""
    plain = TransformerManager().transform_cell  # type: ignore[no-untyped-call]  # magics as calls
    return [node for cell in code(path) for node in ast.walk(ast.parse(plain(cell.source)))]


def texts(output: Any) -> Iterator[str]:
    """What an output says, as text and as HTML; of a figure what its vector form says."""
    if "text" in output:
        yield output.text
    for kind, value in output.get("data", {}).items():
        if kind.startswith("text/") or kind.endswith("+xml"):
            yield value


# -- executed -----------------------------------------------------------------------------


class Executions:
    """Notebooks that run in a process of their own, and tell as they end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._ended: dict[str, dict[str, Any]] = {}

    def wait(self, name: str) -> dict[str, Any]:
        """What became of one notebook."""
        assert self._process.stdout is not None
        while name not in self._ended:
            line = self._process.stdout.readline()
            assert line, f"the process that runs the notebooks ended before {name} did"
            told = json.loads(line)
            self._ended[told["name"]] = told
        return self._ended[name]


@pytest.fixture(scope="session")
def executions(request: pytest.FixtureRequest) -> Iterator[Executions]:
    """All notebooks that this session asks for, two at a time, in a process of their own."""
    asked = [item for item in request.session.items if "executions" in item.fixturenames]  # type: ignore[attr-defined]
    names = [item.callspec.params["path"].stem for item in asked]  # type: ignore[attr-defined]
    command = [sys.executable, "-m", "tests.generate.course", "--fast", *names]
    with subprocess.Popen(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True) as process:
        yield Executions(process)
        if process.poll() is None:  # a test was given up
            for left in [*psutil.Process(process.pid).children(recursive=True), process]:
                left.kill()


@each
@pytest.mark.timeout(300)
def test_a_notebook_runs_from_top_to_bottom(path: Path, executions: Executions) -> None:
    """Offline, in a fresh kernel, without a complaint, and nothing is left running."""
    assert executions.wait(path.stem)["error"] == ""


@each
@pytest.mark.timeout(300)
def test_all_its_cells_run_in_jupyterlab(path: Path, open_notebook: Open) -> None:
    """By *Run All Cells*, in a browser: each has its number, and none shows anything in red."""
    notebook = open_notebook(path.name)
    notebook.menu("Run", "Run All Cells")
    notebook.ran(limit=240_000)

    cells = [cell for cell in notebook.cells() if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert notebook.complaints() == []


# -- as they are committed ----------------------------------------------------------------


def test_the_course_is_complete() -> None:
    """The notebooks are those that the course names."""
    assert tuple(path.stem for path in FILES) == COURSE


@each
def test_the_file_is_plain(path: Path) -> None:
    """Of the newest format, with a kernel that every Jupyter has and no other metadata."""
    notebook = read(path)
    nbformat.validate(notebook)

    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata == METADATA
    assert not any(cell.metadata for cell in notebook.cells)


@each
def test_every_cell_was_run_in_order(path: Path) -> None:
    """The outputs are those of one run of the whole, in which nothing failed or complained."""
    assert [cell.execution_count for cell in code(path)] == list(range(1, len(code(path)) + 1))

    for output in shown(read(path)):
        assert output.output_type != "error", output.evalue
        assert output.get("name") != "stderr", output.text


@each
def test_nothing_tells_of_the_machine(path: Path) -> None:
    """Neither its paths nor addresses in its memory are in what a reader sees."""
    said = [text for output in shown(read(path)) for text in texts(output)]
    sources = [cell.source for cell in read(path).cells]

    assert [found.group() for text in said + sources for found in PRIVATE.finditer(text)] == []


@each
def test_what_it_says_is_held(path: Path) -> None:
    """A notebook asserts that what its prose says was so when it ran."""
    assert any(isinstance(node, ast.Assert) for node in parsed(path))


def test_the_first_cells_show_what_it_is_about() -> None:
    """The quickstart has a card, the dashboard and a changed policy in its first five cells."""
    first = "\n".join(cell.source for cell in read(FILES[0]).cells[:5])

    assert re.search(r"^server = serve\(", first, re.MULTILINE)
    assert re.search(r"^server\.dashboard\(\)", first, re.MULTILINE)
    assert re.search(r"^server\.policy = ", first, re.MULTILINE)


@each
def test_it_says_why_torch_has_one_thread(path: Path) -> None:
    """A notebook that sets the number of torch's threads says what that costs and gains."""
    calls = [node.attr for node in parsed(path) if isinstance(node, ast.Attribute)]
    if "set_num_threads" in calls:
        assert {"idle", "busy", "thread"} <= set(re.findall(r"\w+", prose(path)))


@each
def test_it_draws_and_each_figure_shows_once(path: Path) -> None:
    """A report's figure is the value of its cell; drawn before, a cell would show it elsewhere."""
    drawn = 0
    for cell in code(path):
        nodes = ast.parse(TransformerManager().transform_cell(cell.source)).body  # type: ignore[no-untyped-call]
        own = [node for each in nodes for node in ast.walk(each) if is_a_reports_figure(node)]
        drawn += "subplots(" in cell.source or len(own)

        assert len(own) <= 1, cell.id
        assert not own or (isinstance(nodes[-1], ast.Expr) and nodes[-1].value is own[0]), cell.id
    assert drawn


def is_a_reports_figure(node: ast.AST) -> bool:
    """Return True for ``report.plot()`` and the like, that draws on axes of its own."""
    own = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args
    return own and node.func.attr in ("plot", "timeline")  # type: ignore[attr-defined]


@each
def test_it_ends_with_exercises(path: Path) -> None:
    """The last section is for the reader to do, three or more, each with a hint to unfold."""
    sections = re.split(r"^## +", prose(path), flags=re.MULTILINE)
    title, _, exercises = sections[-1].partition("\n")

    assert title.strip() == "Exercises"
    assert exercises.count("<details>") == exercises.count("</details>") >= 3


@each
def test_its_links_lead_somewhere(path: Path) -> None:
    """To the notebook before and the one after, and to files that exist."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    files = {target.partition("#")[0] for target in targets if "://" not in target} - {""}
    place = FILES.index(path)
    neighbours = {FILES[n].name for n in (place - 1, place + 1) if 0 <= n < len(FILES)}

    assert neighbours <= files
    assert [name for name in files if not (FOLDER / name).exists()] == []


@each
def test_its_cells_have_names(path: Path) -> None:
    """Each id is unique and reads as words, so that a change of a notebook can be read."""
    names = [cell.id for cell in read(path).cells]

    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", name)] == []


@each
def test_it_uses_the_public_interface_only(path: Path) -> None:
    """What it imports from the package is exported, and what it reaches for has a public name."""
    for node in parsed(path):
        if isinstance(node, ast.Import):
            used = {alias.name for alias in node.names if alias.name.startswith("notebook_serve")}
            assert used <= PUBLIC
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("notebook_serve"):
            assert node.module in PUBLIC
            module = importlib.import_module(node.module)
            public = getattr(module, "__all__", [name for name in dir(module) if name[0] != "_"])
            submodules = {name.rpartition(".")[2] for name in PUBLIC}
            assert {alias.name for alias in node.names} <= {*public, *submodules}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) != "self":
            assert not re.match(r"_[a-z]", node.attr), ast.unparse(node)
