"""The pages: their Python blocks run, their links lead somewhere, and the tests they name exist."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from notebook_serve import stop_all

from ..benchmarks import tables

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
ROOMS = sorted(path.parent for path in (ROOT / "notebook_serve").glob("*/__init__.py"))
#: rooms without a page: the model has a card
WITHOUT_PAGE = {"demo"}
READMES = sorted(
    path
    for folder in (ROOT / "notebook_serve", ROOT / "tests")
    for path in folder.rglob("README.md")
)
PAGES = [README, *READMES, ROOT / ".github" / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
#: most lines of the first page, and most characters of a line of prose
MOST_LINES, MOST_CHARACTERS = 250, 120
FENCED = re.compile(r"^```.*?^```\n?", re.DOTALL | re.MULTILINE)
#: pages whose Python blocks need a C++ compiler
UNRUN = {"tests/benchmarks/README.md"}


def name(path: Path) -> str:
    """Return the path of a page in the repository."""
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[str]:
    """Return the Python blocks of a page."""
    text = page.read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return FENCED.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


each_page = pytest.mark.parametrize("page", PAGES, ids=name)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page) and name(page) not in UNRUN], ids=name
)
def test_the_python_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block runs in the names that those before it left, as cells would."""
    # Another program may use port 8000 here.
    monkeypatch.setattr("notebook_serve.http.transport.sockets.USUAL_PORT", 0)
    # With HF_HUB_OFFLINE the client refuses every request, including to localhost.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    names: dict[str, Any] = {"__name__": "readme"}

    async def finish(awaitable: Awaitable[None]) -> None:
        await awaitable

    try:
        for block in blocks(page):
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            result = eval(compile(block, str(page), "exec", flags=flags), names)
            # Only a block with `await` gets an event loop: in a running loop, `load_test` may
            # change asyncio for the rest of the process. test_kernel.py runs real cells.
            if inspect.isawaitable(result):
                asyncio.run(finish(result))
    finally:
        stop_all()


def test_the_first_page_is_short() -> None:
    """The README has at most `MOST_LINES` lines; the reference is in the pages of the rooms."""
    assert len(README.read_text("utf-8").splitlines()) <= MOST_LINES


@each_page
def test_lines_are_short(page: Path) -> None:
    """A line of prose fits into an editor; tables and code blocks may be wider."""
    lines = prose(page).splitlines()
    assert [line for line in lines if len(line) > MOST_CHARACTERS and line[:1] != "|"] == []


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """Each link within the repository names a file or folder, and a heading of that page."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http:", "https:")):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@each_page
def test_named_tests_exist(page: Path) -> None:
    """Each test that a page names is defined, and each test file that it names exists."""
    text = prose(page)
    files = list((ROOT / "tests").rglob("*.py"))
    sources = "".join(path.read_text("utf-8") for path in files)
    for test in re.findall(r"`(test_\w+)`", text):
        assert f"def {test}(" in sources, test
    for named in re.findall(r"`([\w/]*test_\w+\.py)`", text):
        found = [path for path in files if f"/{name(path)}".endswith(f"/{named}")]
        assert found, named


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_each_room_lists_its_files(room: Path) -> None:
    """The page of a room names each Python file in it."""
    if room.name in WITHOUT_PAGE:
        return
    text = (room / "README.md").read_text("utf-8")
    files = [path.relative_to(room).as_posix() for path in room.rglob("*.py")]
    assert [
        file
        for file in files
        if Path(file).name != "__init__.py" and file not in text and Path(file).name not in text
    ] == []


def test_the_table_of_policies_has_the_real_defaults() -> None:
    """The table of policies shows each built-in policy as its `repr`."""
    from notebook_serve.queueing import policy_parser as parsing

    table = README.read_text("utf-8")
    for policy in parsing.BUILT_IN.values():
        assert f"`{policy()!r}`" in table


def test_the_two_commands_stand_alone() -> None:
    """The README has one command for the demo and one for the tests, a line each."""
    commands = re.findall(r"^python3 -m venv .*$", README.read_text("utf-8"), re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("notebook-serve demo")
    assert commands[1].endswith("pytest -q -n 2 --dist loadfile")


def test_rates_beside_other_servers_are_those_measured() -> None:
    """Each `N/s` in the README's comparison is a result of the benchmark beside the peers."""
    section = README.read_text("utf-8").partition("## Why not")[2].partition("\n## ")[0]
    result = tables.result("peers")
    measured = [row["throughput"] for row in result["closed"]]
    best = [
        rate for kind in result["best"].values() for at in kind.values() for rate in at.values()
    ]
    measured += [rate for _, rate in best]

    rates = {int(rate) for rate in re.findall(r"(\d+)/s", section)}

    assert len(rates) >= 8
    assert rates <= {round(rate) for rate in measured}


def test_each_failure_names_its_test() -> None:
    """Each row of the table of failures ends with the name of a test."""
    page = (ROOT / "notebook_serve" / "engine" / "README.md").read_text("utf-8")
    table = page.partition("## When things go wrong")[2]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 30
    assert [row for row in rows if not re.search(r"\| `test_\w+` \|$", row)] == []


def test_the_page_of_benchmarks_has_the_figures_that_were_measured() -> None:
    """Its tables equal those made from the results by ``python -m tests.benchmarks.tables``."""
    page = tables.PAGE.read_text("utf-8")

    assert tables.filled(page) == page
