"""The dashboard in a notebook that is opened again, when its kernel is gone, in JupyterLab."""

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
STILL = ".notebook-serve-picture"
#: what JupyterLab says in place of a widget whose kernel is gone
ERROR = "Error displaying widget"

Open = Callable[[], Notebook]


@pytest.fixture(name="reopen")
def reopening(browser: Browser, lab: Lab) -> Iterator[Open]:  # noqa: F811
    """Opens ``kept.ipynb`` in a page of its own, as often as it is called."""
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
    """Whether the picture that stands still is seen, the live one, and JupyterLab's error."""
    places = (STILL, ".notebook-serve-live", f"text={ERROR}")
    return [page.locator(place).first.is_visible() for place in places]


def test_a_notebook_without_its_kernel_shows_a_picture(
    reopen: Open,
    lab: Lab,  # noqa: F811
    tmp_path: Path,
) -> None:
    """While the widget lives it alone is seen; in a new kernel a picture, and no error."""
    notebook = reopen()
    notebook.menu("Run", "Run All Cells")
    notebook.ran()
    notebook.select("the-dashboard")
    expect(notebook.dashboard).to_be_visible()
    assert seen(notebook.page) == [False, True, False]
    assert notebook.complaints() == []
    notebook.menu("File", "Save Notebook")
    path = lab.folder / "kept.ipynb"
    eventually(lambda: "notebook-serve-picture" in path.read_text("utf-8"), "it is saved")
    lab.stop_kernels()

    notebook = reopen()
    still = notebook.page.locator(STILL)
    expect(notebook.page.get_by_text(ERROR)).to_have_count(1)
    expect(still).to_be_visible()
    (tmp_path / "still.png").write_bytes(notebook.page.screenshot())
    assert seen(notebook.page) == [True, False, False]
    expect(still).to_contain_text("<mine> ready · policy Greedy(max_batch_size=8)")
    expect(still).to_contain_text("as of 20")
    expect(still.locator("img")).to_have_count(4)

    notebook.run("serve")
    notebook.run("the-dashboard")
    expect(notebook.dashboard).to_be_visible()
    expect(still).to_be_hidden()
    notebook.run("stop")
