"""What a dashboard draws of a picture: its charts, marks, tiles and what is wrong, in a browser.

The pictures are those of a server, with what a test wants to see put in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from notebook_serve import Server
from notebook_serve.dashboard import static_dashboard
from notebook_serve.records import OUTCOMES

from ..helpers.browser import Visit, a_browser, visiting  # noqa: F401 (fixtures)
from .test_browser_page import READABLE, ask, chart, echo, lowest_contrast

Make = Callable[..., Server]
#: opens a dashboard whose picture has these fields
Show = Callable[..., Page]

#: the least contrast of a mark that carries meaning (WCAG 2.1, level AA)
VISIBLE = 3.0
CHARTS = ("rates", "waiting", "times", "sizes", "reasons", "timeline")
CHANGES = [
    {"ago": 40.0, "policy": "NoBatching()", "reason": "set"},
    {"ago": 15.0, "policy": "Window(max_batch_size=16, max_wait=0.005)", "reason": "set"},
    {"ago": 5.0, "policy": "Greedy(max_batch_size=8)", "reason": "fault"},
]
FAILING = {
    "type": "RuntimeError",
    "message": "the <b>tensors</b> do not match",
    "ago": 3.2,
    "times": 12,
    "next": "The next request is tried as usual.",
}


def waited(arrived: float, started: float | None, finished: float | None) -> dict[str, Any]:
    """A request of the time line."""
    return {
        "id": int(-1000 * arrived),
        "arrived": arrived,
        "started": started,
        "finished": finished,
        "outcome": "unfinished" if finished is None else "ok",
        "batch": None if started is None else 1,
        "size": 1,
        "reason": "full",
    }


@pytest.fixture(name="show")
def showing(make: Make, visit: Visit) -> Show:
    """Opens the page of a server that has answered once, with other things in its pictures."""

    def show(*, context: dict[str, Any] | None = None, **fields: Any) -> Page:
        server = make(echo)
        ask(server)
        picture = {**httpx.get(server.url + "/live").raise_for_status().json(), **fields}

        def answer(route: Route) -> None:
            route.fulfill(json=picture)

        page = visit(server.url, lambda page: page.route("**/live", answer), **(context or {}))
        expect(page.locator("canvas").first).to_be_visible()
        return page

    return show


def light(colour: str) -> float:
    """The relative luminance of ``#rrggbb`` or ``rgb(r, g, b)``."""
    if colour.startswith("#"):
        parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    else:
        parts = [int(part) for part in colour.strip("rgba()").split(",")[:3]]
    shares = [part / 255 for part in parts]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, from 1 to 21."""
    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


# -- colours ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_mark_stands_out(show: Show, scheme: str) -> None:
    """Lines, bars, squares and lines of changes, on the ground of the page and of JupyterLab."""
    outcomes = dict.fromkeys(OUTCOMES, 3)
    page = show(changes=CHANGES, outcomes=outcomes, context={"color_scheme": scheme})
    colours = page.evaluate(
        """(names) => {
          const chartOf = (name) => Chart.getChart(document.querySelector(`[data-chart=${name}]`));
          const marks = names.flatMap((name) => chartOf(name).data.datasets.flatMap(
            ({ borderColor, backgroundColor, fill }) =>
              [borderColor, fill ? [] : backgroundColor]));
          const squares = [...document.querySelectorAll(".ns-square")].map(
            (node) => getComputedStyle(node).color);
          const known = chartOf("rates").colours;
          const states = [known.green, known.orange, known.lost, known.waits];
          return [[...marks, ...squares, ...states].flat().filter(Boolean), known];
        }""",
        CHARTS,
    )
    marks, known = colours
    others = {"light": ["#ffffff"], "dark": ["#111111", "#212121"]}[scheme]

    assert len(set(marks)) >= 8
    for ground in (known["ground"], *others):
        for mark in marks:
            assert contrast(mark, ground) >= VISIBLE, (mark, ground)
        for name in ("text", "muted", "lost"):  # of labels and axes
            assert contrast(known[name], ground) >= READABLE, (name, ground)


def test_every_mark_of_the_static_dashboard_stands_out() -> None:
    """An image knows no theme: one colour has to do for light and dark."""
    static = static_dashboard
    for colour in {
        static.BLUE,
        static.GREEN,
        static.LOST,
        static.ORANGE,
        static.GREY,
        *static.BATCHES,
    }:
        for ground in ("#ffffff", "#0f1419", "#111111", "#212121"):
            assert contrast(colour, ground) >= VISIBLE, (colour, ground)


def test_every_outcome_has_a_sign_and_a_colour_of_its_own(show: Show) -> None:
    """How requests were lost can be told apart, also without colours."""
    page = show(outcomes=dict.fromkeys(OUTCOMES, 3))
    squares = page.locator(".ns-outcomes .ns-square")
    signs = squares.all_text_contents()
    colours = squares.evaluate_all("nodes => nodes.map((node) => getComputedStyle(node).color)")

    assert len(set(signs)) == len(set(colours)) == len(signs) == len(OUTCOMES)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_wrong_can_be_read(show: Show, scheme: str) -> None:
    """The banner, the errors and the warnings, in light and in dark."""
    page = show(
        failing=FAILING,
        errors=[{**FAILING, "request": "r1"}],
        warnings=["forwards are slow"],
        context={"color_scheme": scheme},
    )
    page.get_by_text("newest errors").click()
    found, text = lowest_contrast(page)

    assert found >= READABLE, text


# -- axes ---------------------------------------------------------------------------------------


def test_every_axis_of_values_has_a_title(show: Show) -> None:
    """With a unit where it has one; the others are names."""
    page = show()
    titles = page.evaluate(
        """(names) => Object.fromEntries(names.map((name) => {
          const { scales } = Chart.getChart(document.querySelector(`[data-chart=${name}]`));
          return [name, [scales.x, scales.y].map(({ options: { title } }) =>
            (title.display ? title.text : ""))];
        }))""",
        CHARTS,
    )

    assert titles == {
        "rates": ["time (seconds before now)", "requests/s"],
        "waiting": ["time (seconds before now)", "requests"],
        "times": ["", "time (ms)"],
        "sizes": ["requests in a batch", "batches"],
        "reasons": ["batches", ""],
        "timeline": ["time (seconds before now)", "request"],
    }


def test_sizes_are_as_far_apart_as_they_are(show: Show) -> None:
    """From 1 to 2 is a sixty-second part of the way from 2 to 64."""
    page = show(batch_sizes={"1": 5, "2": 1, "64": 3})
    one, two, last = page.evaluate(
        f"{chart('sizes')}.getDatasetMeta(0).data.map(({{ x, width }}) => [x, width])"
    )

    assert last[0] - two[0] == pytest.approx(62 * (two[0] - one[0]), rel=1e-6)
    assert all(3 <= width <= 34 for _, width in (one, two, last))


def labels(page: Page, name: str) -> list[str]:
    """The labels of a chart's x axis, from left to right."""
    found: list[str] = page.evaluate(f"{chart(name)}.scales.x.ticks.map(({{ label }}) => label)")
    return found


def test_axes_of_time_end_in_now(show: Show) -> None:
    """Those of the last minute, and the time line while a request is in it."""
    page = show(timeline=[waited(-2.0, -1.5, -1.0), waited(-0.5, -0.25, None)])
    for name in ("rates", "waiting"):
        assert labels(page, name) == ["−60 s", "−45 s", "−30 s", "−15 s", "now"]

    assert labels(page, "timeline")[-1] == "now"
    assert page.evaluate(f"{chart('timeline')}.scales.x.max") == 0
    counted = page.evaluate(f"{chart('rates')}.data.datasets[1].data.map(({{ x }}) => x)")
    assert counted == list(range(-59, 1))


def test_a_time_line_of_long_ago_begins_with_the_first_arrival(show: Show) -> None:
    """Requests of milliseconds, a minute ago, would be one dot on an axis up to now."""
    page = show(timeline=[waited(-40.0, -39.998, -39.995)])
    title = page.evaluate(f"{chart('timeline')}.scales.x.options.title.text")
    (run,) = page.evaluate(f"{chart('timeline')}.data.datasets[1].data")

    assert title == "time (ms since the first arrival); last answer 40 s ago"
    assert run == pytest.approx([2, 5])
    assert "now" not in labels(page, "timeline")


# -- changes of the policy ----------------------------------------------------------------------


def test_changes_of_the_policy_are_marked(show: Show) -> None:
    """Where each happened, in every chart over time, with a line and what took effect."""
    page = show(changes=CHANGES, timeline=[waited(-20.0, -1.5, None)])
    for name in ("rates", "waiting", "timeline"):
        marks = page.evaluate(f"{chart(name)}.marks")
        assert [mark["x"] for mark in marks] == [-40, -15, -5]
        assert [mark["label"] for mark in marks] == [
            "NoBatching()",
            "Window(16, 0.005)",
            "fault → Greedy(8)",
        ]
        said = page.locator(f"[data-chart={name}]").get_attribute("aria-label") or ""
        assert "policy set to Window(16, 0.005) 15 s ago" in said
    dark = page.evaluate(
        f"""() => {{
          const chart = {chart("waiting")};
          const {{ top, height }} = chart.chartArea;
          const ratio = chart.currentDevicePixelRatio;
          const copy = document.createElement("canvas");
          Object.assign(copy, {{ width: chart.canvas.width, height: chart.canvas.height }});
          const paint = copy.getContext("2d", {{ willReadFrequently: true }});
          paint.drawImage(chart.canvas, 0, 0);
          const count = (second) => {{
            const x = Math.round(chart.scales.x.getPixelForValue(second) * ratio) - 1;
            const area = [x, top * ratio, 2, height * ratio].map(Math.round);
            const {{ data }} = paint.getImageData(...area);
            let dark = 0;
            for (let at = 0; at < data.length; at += 4) dark += data[at] < 120 && data[at + 3] > 60;
            return dark;
          }};
          return [-40, -15, -50].map(count);
        }}"""
    )
    assert min(dark[:2]) > 30  # dashes from top to bottom
    assert dark[2] < 10


def test_labels_do_not_hide_each_other(show: Show) -> None:
    """Of many changes within a second only the newest are named, the others are lines."""
    many = [
        {"ago": 30.0 - 0.01 * n, "policy": f"Greedy(max_batch_size={n})", "reason": "set"}
        for n in range(40)
    ]
    page = show(
        changes=many,
        context={"viewport": {"width": 600, "height": 800}},
    )
    drawn = page.evaluate(
        f"""() => {{
          const chart = {chart("waiting")};
          const texts = [];
          const write = chart.ctx.fillText;
          chart.ctx.fillText = (text, ...rest) => texts.push([text, ...rest]);
          chart.draw();
          chart.ctx.fillText = write;
          return texts.filter(([text]) => text.startsWith("Greedy"));
        }}"""
    )

    assert [text for text, *_ in drawn] == ["Greedy(39)", "Greedy(38)", "Greedy(37)"]
    assert len({y for _, _, y in drawn}) == 3


# -- tiles, and what is wrong -------------------------------------------------------------------


def test_a_figure_says_what_it_covers(show: Show) -> None:
    """Its name, in small the time that it is of, and its value; one without a time has none."""
    page = show(tiles=[["arrivals", "31.2/s", "last 10 s"], ["waiting", "4"]])
    tiles = page.locator(".ns-tile")

    expect(tiles).to_have_text(["arrivalslast 10 s31.2/s", "waiting4"])
    expect(tiles.first.locator("small")).to_have_text("last 10 s")


def test_why_requests_fail_is_told_first(show: Show) -> None:
    """What failed, how often, when, and what happens next; as text, and read out once."""
    page = show(state="failing", failing=FAILING)
    banner = page.locator(".ns-failing")
    expect(banner).to_have_text(
        "Requests fail: RuntimeError: the <b>tensors</b> do not match"
        "12 times, last 3 s ago. The next request is tried as usual."
    )
    expect(page.locator("main").get_by_role("alert")).to_have_text(
        "Requests fail: RuntimeError: the <b>tensors</b> do not match"
    )
    expect(page.locator(".ns-state")).to_have_text("failing")
    square = page.locator("header .ns-square").evaluate("node => getComputedStyle(node).color")
    assert square == "rgb(194, 65, 12)"
    expect(page.get_by_role("button", name="Pause")).to_be_enabled()


@pytest.mark.parametrize("state", ["stopping", "stopped", "failed", "dead"])
def test_what_has_ended_cannot_be_steered(show: Show, state: str) -> None:
    """The buttons say so, also while an option is edited."""
    page = show(state=state)
    for name in ("Pause", "Apply"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    page.get_by_label("max_batch_size").fill("12")

    expect(page.get_by_role("button", name="Apply")).to_be_disabled()
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()


def test_the_newest_errors_unfold(show: Show) -> None:
    """Closed at first; by keyboard too; each with how often, when and in which request."""
    errors = [
        {"type": "ValueError", "message": "<i>new", "ago": 0.2, "times": 3, "request": "r-9"},
        {"type": "TypeError", "message": "old", "ago": 300.0, "times": 1, "request": ""},
    ]
    page = show(errors=errors, warnings=["first <b>warning", "second"])
    rows = page.locator(".ns-errors li")
    expect(rows.first).to_be_hidden()
    page.get_by_text("newest errors (2)").press("Enter")

    expect(rows).to_have_text(
        ["ValueError: <i>new3 times, just now · request r-9", "TypeError: oldonce, 5 min ago"]
    )
    warnings = page.get_by_role("list", name="warnings").get_by_role("listitem")
    expect(warnings).to_have_text(["first <b>warning", "second"])


def test_without_troubles_nothing_is_told(show: Show) -> None:
    """A server of before, whose picture has none of these fields, is drawn as well."""
    page = show()
    for name in ("failing", "warnings", "errors"):
        expect(page.locator(f".ns-{name}")).to_be_hidden()


@pytest.mark.parametrize("width", [360, 600, 1280])
def test_nothing_is_cut_off_on_the_right(show: Show, width: int) -> None:
    """In a narrow cell or window as in a broad one."""
    page = show(
        failing={**FAILING, "message": "x" * 300},
        changes=CHANGES,
        context={"viewport": {"width": width, "height": 800}},
    )

    assert page.evaluate("document.documentElement.scrollWidth") <= width
