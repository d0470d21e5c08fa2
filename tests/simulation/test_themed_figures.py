"""Figures appear once in a real kernel, and follow the theme in a real browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from playwright.sync_api import Browser

from notebook_serve.queueing.cost_model import CostModel
from notebook_serve.queueing.policies import Greedy
from notebook_serve.simulation.report import Report
from notebook_serve.simulation.simulator import simulate
from notebook_serve.simulation.themed_figures import DARK, png, subplots, svg
from notebook_serve.traffic import Poisson

from ..helpers.browser import a_browser  # noqa: F401 (a fixture)
from ..helpers.kernels import Notebook
from ..system.test_kernel import only  # noqa: F401 (a fixture)
from ..system.test_kernel import pytestmark as in_a_kernel

mpl.use("Agg")


@pytest.fixture(autouse=True)
def no_figure_left() -> Iterator[None]:
    """Close the figures of a test."""
    yield
    plt.close("all")


def report() -> Report:
    """Return the report of a short run."""
    return simulate(Greedy(4), Poisson(60.0), CostModel(0.02), duration=2.0)


def drawn(method: str = "plot") -> Any:
    """Return a plot of a report."""
    return getattr(report(), method)().figure


# -- in a cell ----------------------------------------------------------------------------

SETUP = """
import matplotlib.pyplot as plt
from notebook_serve import CostModel, Greedy, NoBatching, compare, simulate
from notebook_serve.traffic import Poisson
cost = CostModel(0.02)
report = simulate(Greedy(4), Poisson(60.0), cost, duration=2.0)
comparison = compare([NoBatching(), Greedy(4)], cost=cost, rates=[20, 40], duration=2.0)
"""


def shown(notebook: Notebook, cell: str) -> list[tuple[str, dict[str, str]]]:
    """Return the type and content of each output of a cell."""
    outputs: list[tuple[str, dict[str, str]]] = []

    def hear(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] in ("execute_result", "display_data", "stream"):
            outputs.append((message["msg_type"], content.get("data") or {"text": content["text"]}))

    reply = notebook._client.execute_interactive(SETUP + cell, output_hook=hear, timeout=120)
    assert reply["content"]["status"] == "ok", reply["content"].get("traceback")
    return outputs


CELLS = {
    "report.plot()": "execute_result",
    "report.timeline()": "execute_result",
    "comparison.plot()": "execute_result",
    "report.plot();": "display_data",
    "comparison.plot();": "display_data",
    "ax = report.timeline()\nax.set_xlim(0, 1)\nassert True": "display_data",
    "comparison.plot()\nplt.show()": "display_data",
    "display(report.plot())": "display_data",
    "report.plot().set_xlim(0, 1);": "display_data",
    "figure, ax = plt.subplots()\nreport.plot(ax);": "display_data",
}


@in_a_kernel[0]
@in_a_kernel[1]
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("cell", "kind"), CELLS.items())
def test_a_figure_shows_once(only: Notebook, cell: str, kind: str) -> None:  # noqa: F811
    """A figure appears once, as the value of a cell or at its end, without text."""
    (output,) = shown(only, cell)

    assert output[0] == kind
    assert base64.b64decode(output[1]["image/png"]).startswith(b"\x89PNG")
    assert output[1]["text/plain"].endswith("Axes>")


@in_a_kernel[0]
@in_a_kernel[1]
@pytest.mark.timeout(300)
def test_each_figure_of_a_cell_shows(only: Notebook) -> None:  # noqa: F811
    """Figures of a loop appear too, as pyplot's do, and the value of the cell at its place."""
    outputs = shown(only, "for _ in range(2):\n    report.plot()\nprint('done')\ncomparison.plot()")
    pictures = [data for _, data in outputs if "image/png" in data]

    assert len(pictures) == 3
    assert all("image/svg+xml" in picture for picture in pictures)
    assert [kind for kind, _ in outputs].count("execute_result") == 1


# -- as a picture -------------------------------------------------------------------------


def test_a_picture_has_each_form() -> None:
    """A figure has an SVG, a PNG and a text form."""
    ax: Any = report().plot()
    bundle = ax._repr_mimebundle_(include=None, exclude=None)

    assert set(bundle) == {"text/plain", "image/svg+xml", "image/png"}
    assert bundle["image/svg+xml"].startswith('<svg id="figure-')
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).size > (400, 200)
    assert not plt.get_fignums()


def test_the_ground_of_the_png_is_white() -> None:
    """The PNG has its own background, so it is readable on dark pages without a kernel."""
    picture = Image.open(io.BytesIO(base64.b64decode(png(drawn()))))

    assert picture.convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255)


def test_the_same_figure_is_the_same_text() -> None:
    """Running a notebook again does not change its figures."""
    assert svg(drawn()) == svg(drawn())


def test_a_figure_of_pyplot_is_kept_as_a_file(tmp_path: Any) -> None:
    """In a script it is pyplot's current figure, and can be saved."""
    ax: Any = report().plot()
    ax.figure.savefig(tmp_path / "run.png")

    assert plt.gcf() is ax.figure
    assert (tmp_path / "run.png").stat().st_size > 1000


def test_a_figure_in_a_style_of_the_users_own_keeps_it() -> None:
    """With a style of the user, black and white may have another meaning, so they stay."""
    with plt.style.context("dark_background"):
        text = svg(drawn())

    assert "@media" not in text
    assert "@media" in svg(drawn())


def test_a_window_is_not_shown_a_second_time() -> None:
    """An interactive backend shows the figure already, so a cell shows no image."""
    figure = drawn()
    figure.canvas.__class__ = type("Window", (type(figure.canvas),), {})

    assert set(figure._repr_mimebundle_()) == {"text/plain"}
    assert plt.get_fignums() == [figure.number]


# -- in a page ----------------------------------------------------------------------------


@pytest.mark.parametrize(("theme", "ground"), [("light", (255,) * 3), ("dark", (17,) * 3)])
def test_a_figure_follows_the_theme(browser: Browser, theme: str, ground: tuple[int, ...]) -> None:
    """The SVG follows the colour scheme of a page with an image, as in JupyterLab."""
    figure, ax = subplots(1, 1, 3, 2)
    ax.fill_between([0, 1], [1, 1], color="black")
    source = f"data:image/svg+xml,{quote(svg(figure))}"
    page = browser.new_page(color_scheme="light")
    page.set_content(f'<body style="color-scheme: {theme}; margin: 0"><img src="{source}">')
    page.wait_for_function("document.images[0].complete && document.images[0].width > 0")
    picture = Image.open(io.BytesIO(page.locator("img").screenshot())).convert("RGB")
    page.close()
    middle: Any = picture.getpixel((picture.width // 2, picture.height // 2))

    assert DARK == "#111111"
    assert picture.getpixel((2, 2)) == ground
    assert (sum(middle) > 600) == (theme == "dark")


def test_two_figures_in_one_page_keep_their_colours() -> None:
    """The rules of an inline SVG apply to that figure only."""
    one, other = svg(drawn()), svg(drawn("timeline"))
    names = [text[9 : text.index('"', 9)] for text in (one, other)]

    assert names[0] != names[1]
    for name, text in zip(names, (one, other), strict=True):
        rules = text[text.index("@media") : text.index("</style>", text.index("@media"))]
        assert all(f"#{name}" in rule for rule in rules.splitlines()[1:-1])
