"""Dashboard in JupyterLab, in a notebook that is opened again without its kernel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from ..generate.course import METADATA
from ..helpers.blocking_model import eventually
from ..helpers.browser import a_browser  # noqa: F401 (a fixture)
from ..system.test_jupyterlab import LIMIT, TOKEN, WINDOW, Lab, Notebook, lab  # noqa: F401 (a fixture)

pytestmark = pytest.mark.timeout(300)

CELLS = {
    "serve": """\
from notebook_serve import Greedy, serve

server = serve(lambda texts: texts, port=0, name="<mine>", policy=Greedy(8))""",
    "the-dashboard": "server.dashboard()",
    "ask": "server.predict(['x'] * 20)[0]",
    "stop": "server.stop()",
}
STATIC = ".notebook-serve-static"
#: message of JupyterLab in place of a widget without a kernel
ERROR = "Error displaying widget"

Open = Callable[[], Notebook]


@pytest.fixture(name="reopen")
def reopening(browser: Browser, lab: Lab) -> Iterator[Open]:  # noqa: F811
    """Return a function that opens ``kept.ipynb`` in a new page."""
    code: dict[str, Any] = {
        "cell_type": "code",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    cells = [{**code, "id": name, "source": source} for name, source in CELLS.items()]
    notebook = {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    (lab.folder / "kept.ipynb").write_text(json.dumps(notebook), "utf-8")
    context = browser.new_context(viewport=WINDOW)
    context.set_default_timeout(LIMIT)

    def reopen() -> Notebook:
        for page in context.pages:
            page.close()
        page = context.new_page()
        page.goto(f"{lab.url}/lab/tree/kept.ipynb?reset&token={TOKEN}")
        return Notebook(page)

    yield reopen
    context.close()
    lab.stop_kernels()


def seen(page: Page) -> list[bool]:
    """Return the visibility of the offline copy, the widget and JupyterLab's error."""
    places = (STATIC, ".notebook-serve-live", f"text={ERROR}")
    return [page.locator(place).first.is_visible() for place in places]


def test_a_notebook_without_its_kernel_shows_the_static_dashboard(
    reopen: Open,
    lab: Lab,  # noqa: F811
    tmp_path: Path,
) -> None:
    """With its kernel only the widget is visible, without it only the offline copy."""
    notebook = reopen()
    notebook.menu("Run", "Run All Cells")
    notebook.ran()
    notebook.select("the-dashboard")
    expect(notebook.dashboard).to_be_visible()
    assert seen(notebook.page) == [False, True, False]
    assert notebook.complaints() == []
    notebook.menu("File", "Save Notebook")
    path = lab.folder / "kept.ipynb"
    eventually(lambda: "notebook-serve-static" in path.read_text("utf-8"), "it is saved")
    lab.stop_kernels()

    notebook = reopen()
    static = notebook.page.locator(STATIC)
    expect(notebook.page.get_by_text(ERROR)).to_have_count(1)
    expect(static).to_be_visible()
    (tmp_path / "static.png").write_bytes(notebook.page.screenshot())
    assert seen(notebook.page) == [True, False, False]
    expect(static).to_contain_text("<mine> ready · policy Greedy(max_batch_size=8)")
    expect(static).to_contain_text("as of 20")
    expect(static.locator("img")).to_have_count(4)

    notebook.run("serve")
    notebook.run("the-dashboard")
    expect(notebook.dashboard).to_be_visible()
    expect(static).to_be_hidden()
    notebook.run("stop")
