"""Charts, marks, tiles and errors of the dashboard in a browser.

A test replaces fields in the snapshot of a server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from notebook_serve import Server
from notebook_serve.dashboard import offline_copy
from notebook_serve.records import OUTCOMES

from ..helpers.browser import Visit, a_browser, visiting  # noqa: F401 (fixtures)
from .test_browser_page import READABLE, ask, chart, echo, lowest_contrast

Make = Callable[..., Server]
#: opens a dashboard with these fields in its snapshot
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


def make_request(arrived: float, started: float | None, finished: float | None) -> dict[str, Any]:
    """Return a request of the timeline."""
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
    """Return a function that opens the page of a server with fields of its snapshot replaced."""

    def show(*, context: dict[str, Any] | None = None, **fields: Any) -> Page:
        server = make(echo)
        ask(server)
        snapshot = {**httpx.get(server.url + "/live").raise_for_status().json(), **fields}

        def answer(route: Route) -> None:
            route.fulfill(json=snapshot)

        page = visit(server.url, lambda page: page.route("**/live", answer), **(context or {}))
        expect(page.locator("canvas").first).to_be_visible()
        return page

    return show


def light(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb`` or ``rgb(r, g, b)``."""
    if colour.startswith("#"):
        parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    else:
        parts = [int(part) for part in colour.strip("rgba()").split(",")[:3]]
    shares = [part / 255 for part in parts]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


# -- colours ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_mark_has_contrast(show: Show, scheme: str) -> None:
    """Lines, bars and squares have, on the backgrounds of the page and of JupyterLab."""
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


def test_every_mark_of_the_static_dashboard_has_contrast() -> None:
    """An image has no theme: each colour is used on light and dark backgrounds."""
    static = offline_copy
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


def test_every_outcome_has_a_distinct_sign_and_colour(show: Show) -> None:
    """Outcomes differ without colours too."""
    page = show(outcomes=dict.fromkeys(OUTCOMES, 3))
    squares = page.locator(".ns-outcomes .ns-square")
    signs = squares.all_text_contents()
    colours = squares.evaluate_all("nodes => nodes.map((node) => getComputedStyle(node).color)")

    assert len(set(signs)) == len(set(colours)) == len(signs) == len(OUTCOMES)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_errors_and_warnings_have_contrast(show: Show, scheme: str) -> None:
    """They do in light and dark."""
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
    """The title has the unit; axes of names have none."""
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


def test_batch_sizes_are_on_a_linear_axis(show: Show) -> None:
    """The distance from 2 to 64 is 62 times that from 1 to 2."""
    page = show(batch_sizes={"1": 5, "2": 1, "64": 3})
    one, two, last = page.evaluate(
        f"{chart('sizes')}.getDatasetMeta(0).data.map(({{ x, width }}) => [x, width])"
    )

    assert last[0] - two[0] == pytest.approx(62 * (two[0] - one[0]), rel=1e-6)
    assert all(3 <= width <= 34 for _, width in (one, two, last))


def labels(page: Page, name: str) -> list[str]:
    """Return the labels of a chart's x axis, from left to right."""
    found: list[str] = page.evaluate(f"{chart(name)}.scales.x.ticks.map(({{ label }}) => label)")
    return found


def test_time_axes_end_now(show: Show) -> None:
    """Those of the last minute do, and the timeline while a request runs."""
    page = show(timeline=[make_request(-2.0, -1.5, -1.0), make_request(-0.5, -0.25, None)])
    for name in ("rates", "waiting"):
        assert labels(page, name) == ["−60 s", "−45 s", "−30 s", "−15 s", "now"]

    assert labels(page, "timeline")[-1] == "now"
    assert page.evaluate(f"{chart('timeline')}.scales.x.max") == 0
    counted = page.evaluate(f"{chart('rates')}.data.datasets[1].data.map(({{ x }}) => x)")
    assert counted == list(range(-59, 1))


def test_an_old_timeline_begins_with_the_first_arrival(show: Show) -> None:
    """On an axis up to now, requests of milliseconds would be one dot."""
    page = show(timeline=[make_request(-40.0, -39.998, -39.995)])
    title = page.evaluate(f"{chart('timeline')}.scales.x.options.title.text")
    (run,) = page.evaluate(f"{chart('timeline')}.data.datasets[1].data")

    assert title == "time (ms since the first arrival); last answer 40 s ago"
    assert run == pytest.approx([2, 5])
    assert "now" not in labels(page, "timeline")


# -- changes of the policy ----------------------------------------------------------------------


def test_changes_of_the_policy_are_marked(show: Show) -> None:
    """Every chart over time has a line and the new policy at each change."""
    page = show(changes=CHANGES, timeline=[make_request(-20.0, -1.5, None)])
    for name in ("rates", "waiting", "timeline"):
        marks = page.evaluate(f"{chart(name)}.marks")
        assert [mark["x"] for mark in marks] == [-40, -15, -5]
        assert [mark["label"] for mark in marks] == [
            "NoBatching()",
            "Window(16, 0.005)",
            "fault → Greedy(8)",
        ]
        label = page.locator(f"[data-chart={name}]").get_attribute("aria-label") or ""
        assert "policy set to Window(16, 0.005) 15 s ago" in label
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
    """Of many changes within a second, only the newest ones have a label."""
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


# -- tiles, errors and warnings -----------------------------------------------------------------


def test_a_tile_has_name_span_and_value(show: Show) -> None:
    """The span is in small letters; it may be missing."""
    page = show(tiles=[["arrivals", "31.2/s", "last 10 s"], ["waiting", "4"]])
    tiles = page.locator(".ns-tile")

    expect(tiles).to_have_text(["arrivalslast 10 s31.2/s", "waiting4"])
    expect(tiles.first.locator("small")).to_have_text("last 10 s")


def test_the_banner_of_a_failing_model(show: Show) -> None:
    """It has the escaped error, count, age and next step; only the error is an alert."""
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
def test_an_ended_server_has_no_controls(show: Show, state: str) -> None:
    """The buttons are disabled, even while an option is edited."""
    page = show(state=state)
    for name in ("Pause", "Apply"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    page.get_by_label("max_batch_size").fill("12")

    expect(page.get_by_role("button", name="Apply")).to_be_disabled()
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()


def test_the_newest_errors_unfold(show: Show) -> None:
    """The list is closed at first; each error has count, age and request."""
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


def test_without_errors_there_is_no_list(show: Show) -> None:
    """Empty fields are hidden."""
    page = show()
    for name in ("failing", "warnings", "errors"):
        expect(page.locator(f".ns-{name}")).to_be_hidden()


@pytest.mark.parametrize("width", [360, 600, 1280])
def test_nothing_is_cut_off_on_the_right(show: Show, width: int) -> None:
    """The page fits a narrow and a wide window."""
    page = show(
        failing={**FAILING, "message": "x" * 300},
        changes=CHANGES,
        context={"viewport": {"width": width, "height": 800}},
    )

    assert page.evaluate("document.documentElement.scrollWidth") <= width
