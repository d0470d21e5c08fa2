"""The README's Python blocks run, one after the other, as a reader would paste them."""

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

README = Path(__file__).parents[2] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_the_python_blocks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block runs in the names that those before it left, as cells would."""
    # whatever else uses 8000 here
    monkeypatch.setattr("notebook_serve.http.transport.sockets.USUAL_PORT", 0)
    # Where the hub is said to be offline its client asks nobody, not even this machine.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    names: dict[str, Any] = {"__name__": "readme"}

    async def finish(awaitable: Awaitable[None]) -> None:
        await awaitable

    assert len(blocks()) >= 5
    try:
        for block in blocks():
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            made = eval(compile(block, str(README), "exec", flags=flags), names)
            # A loop only for what awaits: in one that runs, `load_test` has nest_asyncio change
            # asyncio for the rest of the process. Real cells are in test_notebook.
            if inspect.isawaitable(made):
                asyncio.run(finish(made))
        assert names["app"].routes
    finally:
        stop_all()


def test_the_policies_it_names_are_as_it_says() -> None:
    """The table of policies shows each with its real defaults."""
    from notebook_serve.queueing import policy_parser as parsing

    table = README.read_text("utf-8")
    for policy in parsing.BUILT_IN.values():
        assert f"`{policy()!r}`" in table


def test_its_two_commands_stand_alone() -> None:
    """There is one command for the demo and one for the tests, a line each."""
    commands = re.findall(r"^python3 -m venv .*$", README.read_text("utf-8"), re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("notebook-serve demo")
    assert commands[1].endswith("pytest -q -n 2 --dist loadfile")


def test_each_row_of_what_goes_wrong_is_a_test() -> None:
    """The table of what happens when things go wrong names tests that there are."""
    rows = re.findall(r"^\|.*\| `(test_\w+)` \|$", README.read_text("utf-8"), re.MULTILINE)
    sources = "".join(path.read_text("utf-8") for path in README.parent.glob("tests/**/test_*.py"))
    assert len(rows) > 20
    for name in rows:
        assert f"def {name}(" in sources, name


def test_the_page_of_benchmarks_has_the_figures_that_were_measured() -> None:
    """Its tables are those that the results make; `python -m tests.benchmarks.tables` mends it."""
    page = tables.PAGE.read_text("utf-8")

    assert tables.filled(page) == page
