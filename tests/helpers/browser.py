"""A Chromium without a window, and pages in it that must have nothing to complain of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from .external_programs import program

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

#: ``visit(url, prepare=..., **options)`` opens a page in a browser's context that has `options`;
#: `prepare` gets it before it is loaded
Visit = Callable[..., Page]


# The browser's event loop lives in this thread, and ends with the module's last test: until then
# nothing here may start another.
@pytest.fixture(scope="module", name="browser")
def a_browser() -> Iterator[Browser]:
    """A Chromium; skips the test where none is installed, and fails it on the project's checks."""
    found = program(*NAMES, package="Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(name="visit")
def visiting(browser: Browser) -> Iterator[Visit]:
    """Opens pages; in the end none may have had an error, or asked anybody but its own server."""
    pages: list[Page] = []
    troubles: list[str] = []

    def visit(url: str, prepare: Callable[[Page], Any] = lambda page: None, **options: Any) -> Page:
        page = browser.new_context(**options).new_page()
        home = urlsplit(url)
        own = (f"{home.scheme}://{home.netloc}/", "data:")
        page.on("console", lambda message: troubles.extend(_trouble(message)))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda asked: troubles.extend(_elsewhere(asked.url, own)))
        pages.append(page)
        prepare(page)
        page.goto(url)
        return page

    yield visit
    for page in pages:
        page.context.close()
    assert not troubles, troubles


def _trouble(message: ConsoleMessage) -> list[str]:
    # The browser reports every refusal, such as that of a policy or of an input.
    path = urlsplit(message.location["url"]).path
    expected = path.endswith(("/", "/control"))
    refused = message.text.startswith("Failed to load resource")
    if message.type not in ("error", "warning") or (expected and refused):
        return []
    return [message.text]


def _elsewhere(url: str, own: tuple[str, ...]) -> list[str]:
    return [] if url.startswith(own) else [f"asked {url}"]
