"""A headless Chromium, and pages in it that must log no error."""

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

#: ``visit(url, prepare=..., **options)`` opens a page in a browser context with `options`;
#: `prepare` is called with the page before it is loaded
Visit = Callable[..., Page]


# The browser's event loop runs in this thread until the module's last test has ended. No test may
# start another loop here before.
@pytest.fixture(scope="module", name="browser")
def a_browser() -> Iterator[Browser]:
    """Start a Chromium. If none is installed, skip the test, or fail it in the project's checks."""
    found = program(*NAMES, package="Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(name="visit")
def visiting(browser: Browser) -> Iterator[Visit]:
    """Return a function that opens pages; fail if one logs an error or requests another host."""
    pages: list[Page] = []
    troubles: list[str] = []

    def visit(url: str, prepare: Callable[[Page], Any] = lambda page: None, **options: Any) -> Page:
        page = browser.new_context(**options).new_page()
        home = urlsplit(url)
        own = (f"{home.scheme}://{home.netloc}/", "data:")
        page.on("console", lambda message: troubles.extend(_trouble(message)))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: troubles.extend(_elsewhere(request.url, own)))
        pages.append(page)
        prepare(page)
        page.goto(url)
        return page

    yield visit
    for page in pages:
        page.context.close()
    assert not troubles, troubles


def _trouble(message: ConsoleMessage) -> list[str]:
    # The browser logs every rejected request, such as one with an invalid policy or input.
    path = urlsplit(message.location["url"]).path
    expected = path.endswith(("/", "/control"))
    rejected = message.text.startswith("Failed to load resource")
    if message.type not in ("error", "warning") or (expected and rejected):
        return []
    return [message.text]


def _elsewhere(url: str, own: tuple[str, ...]) -> list[str]:
    return [] if url.startswith(own) else [f"requested {url}"]
