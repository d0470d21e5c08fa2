"""Static files of the dashboard: what is shipped, and the script that the browser loads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from notebook_serve import Server
from notebook_serve.dashboard.assets import HIDE_LOADERS, build_script, read_static

from ..helpers.browser import Visit, a_browser, visiting  # noqa: F401 (fixtures)

Make = Callable[..., Server]

#: what the classic notebook defines: a module loader that libraries register with
LOADER = """
window.registered = [];
window.define = (...parts) => window.registered.push(parts);
window.define.amd = {};
"""


def echo(inputs: list[str]) -> list[str]:
    return inputs


def test_the_script_has_the_chart_library_first() -> None:
    """Each file uses names of those before it."""
    script = build_script()
    files = ("chart.umd.min.js", "charts.js", "dashboard.js")
    places = [script.index(read_static(name)) for name in files]

    assert script.startswith(HIDE_LOADERS)
    assert places == sorted(places)
    assert len(script) == len(HIDE_LOADERS) + sum(len(read_static(name)) + 1 for name in files) - 1


def test_the_files_load_nothing_from_elsewhere() -> None:
    """No file names another server or a source map."""
    for name in ("charts.js", "dashboard.js", "page.js", "tryit.js", "dashboard.css", "page.css"):
        text = read_static(name)
        assert "http" not in text.replace("http://www.w3.org/", "").replace("httpx", ""), name
    assert "sourceMappingURL" not in build_script()


def test_the_licence_of_the_chart_library_is_shipped() -> None:
    """Its terms require the notice beside every copy."""
    assert "MIT" in read_static("LICENSE-chart.js.md")


def test_an_unknown_file() -> None:
    """A wrong name is an error, not an empty text."""
    with pytest.raises(FileNotFoundError):
        read_static("nonsense.js")


def test_it_works_beside_a_module_loader(make: Make, visit: Visit) -> None:
    """The chart library must not register with a loader of the host page: charts would be lost."""
    server = make(echo)
    server.predict("x")

    def define(page: Page) -> None:
        page.add_init_script(LOADER)

    page = visit(server.url, define)
    expect(page.locator("canvas").first).to_be_visible()

    assert page.evaluate("Object.keys(Chart.instances).length") == 6
    assert page.evaluate("window.registered") == []
