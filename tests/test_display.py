from __future__ import annotations

import contextlib
import inspect
import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from html.parser import HTMLParser
from typing import Any, get_args

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter

import notebook_serve
from notebook_serve import (
    Adaptive,
    CoDel,
    CostAware,
    CostModel,
    Decision,
    Greedy,
    Job,
    JsonLines,
    LoaderFailed,
    NoBatching,
    Queue,
    Scheduler,
    ServeError,
    capacity,
    compare,
    errors,
    parse_policy,
    plan,
    serve,
    servers,
    simulate,
)
from notebook_serve.display import (
    BAD,
    BUSY,
    MOST_ROWS,
    MOST_TEXT,
    STATES,
    Card,
    Markup,
    Table,
    cell,
    duration,
    render,
)
from notebook_serve.engine.status import State
from notebook_serve.queueing.jobs import Batch
from notebook_serve.queueing.policy_parser import BUILT_IN
from notebook_serve.queueing.record_log import RequestLog
from notebook_serve.testing import Faulty
from notebook_serve.traffic import (
    Bursty,
    ClosedLoop,
    Constant,
    Cycle,
    Empirical,
    Fixed,
    LogNormal,
    Poisson,
    Ramp,
    Trace,
    Uniform,
)

from .helpers.blocking_model import eventually


class Reader(HTMLParser):
    """What a browser would show of a table: its texts by the element that they are in."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.inside = ""
        self.texts: dict[str, list[str]] = {"caption": [], "th": [], "td": []}
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        """An element begins."""
        self.tags.append(tag)
        self.inside = tag
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        """An element ends."""
        self.inside = ""

    def handle_data(self, data: str) -> None:
        """Text of the element that is open."""
        if self.inside in self.texts:
            self.texts[self.inside][-1] += data


# -- tables -------------------------------------------------------------------------------


def test_a_table_prints_in_columns() -> None:
    """Cells are put under their column's name, each column as wide as its widest cell."""
    table = Table("Requests", ("id", "seconds"), [(1, 0.25), (1000, None), ("x", 1e-9)])

    expected = "Requests\nid    seconds\n1     0.25\n1000  –\nx     1e-09"

    assert str(table) == expected
    assert repr(table) == expected


def test_columns_without_names_have_no_head() -> None:
    """A table of names and values is printed without an empty first line."""
    table = Table("", ("", ""), [("state", "ready"), ("model", "gate")])

    assert str(table) == "state  ready\nmodel  gate"


@pytest.mark.parametrize(
    ("title", "expected"), [("Nothing", "Nothing\nid  seconds"), ("", "id  seconds")]
)
def test_a_table_without_rows_has_its_head(title: str, expected: str) -> None:
    """Where there is nothing to show, the columns' names are still there."""
    assert str(Table(title, ("id", "seconds"), [])) == expected


def test_a_table_without_anything_is_its_title() -> None:
    """Neither names nor rows is an empty table, and no error."""
    assert str(Table("Nothing", ("", ""), [])) == "Nothing"


def test_a_table_reads_its_rows_once() -> None:
    """Rows may come from a generator and be shown any number of times."""
    table = Table("", ("n",), ((n,) for n in range(2)))

    assert str(table) == str(table) == "n\n0\n1"
    assert Reader(table.markup()).texts["td"] == ["0", "1"]


def test_a_table_has_the_same_in_html() -> None:
    """Title, names and cells of the text are those of the HTML."""
    read = Reader(Table("Requests", ("id", "seconds"), [(1, 0.25), (2, None)])._repr_html_())

    assert read.texts == {
        "caption": ["Requests"],
        "th": ["id", "seconds"],
        "td": ["1", "0.25", "2", "–"],
    }
    assert read.tags.count("tr") == 3


def test_columns_without_names_have_no_head_in_html() -> None:
    """No row of empty headings stands above names and values."""
    assert Reader(Table("", ("", ""), [("state", "ready")]).markup()).texts["th"] == []


def test_whatever_is_shown_is_escaped() -> None:
    """Markup in a title, a name or a cell is read as text: nothing of it becomes an element."""
    evil = "<img src=x onerror=\"alert('&')\">$title"
    read = Reader(Table(evil, (evil,), [(evil,)]).markup())

    assert read.texts == {"caption": [evil], "th": [evil], "td": [evil]}
    assert "img" not in read.tags


# -- templates ----------------------------------------------------------------------------


def test_values_are_escaped_once() -> None:
    """A plain value is escaped, what is HTML already is not, and neither is read as a template."""
    text = render("table.html", title="a < b & $head", head=Markup("<b>&amp;</b>"), body=7)

    assert "a &lt; b &amp; $head" in text
    assert "<b>&amp;</b>" in text
    assert "<tbody>7</tbody>" in text


def test_a_value_that_is_missing_raises() -> None:
    """A template is never shown with a hole in it."""
    with pytest.raises(KeyError, match="head"):
        render("table.html", title="", body="")


# -- cells and durations ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
        (-math.inf, "–"),
        (np.float64("nan"), "–"),
        (0.0, "0"),
        (0.123456, "0.123"),
        (12.3456, "12.3"),
        (1.0, "1"),
        (3, "3"),
        (123456789, "123456789"),
        (True, "True"),
        ("as it is", "as it is"),
        ("", ""),
    ],
)
def test_a_cell(value: Any, expected: str) -> None:
    """Three digits of a float, a dash for what is not there, and anything else as it is."""
    assert cell(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, "0 µs"),
        (8.5e-7, "1 µs"),
        (850e-6, "850 µs"),
        (0.001, "1.0 ms"),
        (0.0123, "12.3 ms"),
        (0.9, "900.0 ms"),
        (1.0, "1.00 s"),
        (4.5, "4.50 s"),
        (99.99, "99.99 s"),
        (100.0, "1 min 40 s"),
        (185.2, "3 min 5 s"),
        (3600.0, "60 min 0 s"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_a_duration(seconds: float, expected: str) -> None:
    """Seconds are given in the unit that a person would choose."""
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(119.7, "2 min 0 s"), (3599.6, "60 min 0 s"), (0.99996, "1.00 s"), (0.0009996, "1.0 ms")],
)
def test_a_duration_is_rounded_before_its_unit_is_chosen(seconds: float, expected: str) -> None:
    """There is no such time as ``1 min 60 s``, nor ``1000.0 ms``."""
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-2.0, "-2.00 s"), (-0.5, "-500.0 ms"), (-185.2, "-3 min 5 s")]
)
def test_a_time_gone_by_has_the_same_unit(seconds: float, expected: str) -> None:
    """A request that is overdue by two seconds is not overdue by 2000000 µs."""
    assert duration(seconds) == expected


# -- long tables, long texts ----------------------------------------------------------------


def test_a_long_table_is_cut_in_the_middle() -> None:
    """Its first and last rows are shown, and how many more there are, in text and in HTML."""
    table = Table.of("Numbers", ("n", "square"), range(1000), lambda n: (n, n * n))
    lines, read = str(table).splitlines(), Reader(table.markup())

    assert len(lines) == MOST_ROWS + 3
    assert lines[2 + MOST_ROWS // 2] == f"… {1000 - MOST_ROWS} more …"
    assert lines[-1].split() == ["999", "998001"]
    assert " ".join(read.texts["td"]) == " ".join(" ".join(lines[2:]).split())


def test_a_table_that_fits_is_shown_whole() -> None:
    """Nothing is left out for the sake of a line that says so."""
    lines = str(Table.of("", ("n",), range(MOST_ROWS), lambda n: (n,))).splitlines()

    assert lines == ["n", *map(str, range(MOST_ROWS))]


def test_numbers_stand_on_the_right() -> None:
    """A column of numbers does, with units or without; one that has a word in it does not."""
    rows = [(1, "1.5 ms", "3%", "a"), (1000, None, "12%", "7")]
    markup = Table("", ("id", "took", "padding", "group"), rows).markup()

    assert markup.count('<th align="right">') == 3
    assert '<td align="right">1.5 ms</td><td align="right">3%</td><td>a</td>' in markup
    assert "<td>7</td>" in markup


def test_a_text_of_many_lines_or_many_letters_keeps_the_table() -> None:
    """An error of a library may have both."""
    assert cell("one\ntwo") == "one two"
    assert cell("x" * 10_000) == "x" * MOST_TEXT + "…"


# -- the card -------------------------------------------------------------------------------


def test_every_state_is_told(make: Any) -> None:
    """In words and by a colour; none is missing."""
    assert set(STATES) == {*get_args(State), "failing", "paused"}
    for state, (colour, is_so, hint) in STATES.items():
        card = Card("demo", state, "", Table("", ("", ""), []), Table("", ("", ""), []))

        assert state in is_so
        assert f"demo {is_so}{hint}" in str(card)
        assert colour in card.markup()
        assert "href" not in card.markup()


def test_a_card_leads_to_the_dashboard_while_there_is_one(make: Any) -> None:
    """A server that has stopped, or never started, has no link."""
    server = make(lambda inputs: inputs, start=False)
    assert server._repr_mimebundle_()["text/plain"].startswith("test 0 is new · start() starts it")
    server.start()
    server.pause()
    bundle = server._repr_mimebundle_()
    assert f"is paused · {server.url} · resume()" in bundle["text/plain"]
    assert f'<a href="{server.url}/" target="_blank" rel="noopener">' in bundle["text/html"]
    server.stop()
    bundle = server._repr_mimebundle_()
    assert bundle["text/plain"].startswith("test 0 is stopped · start()")
    assert "http" not in bundle["text/plain"] + bundle["text/html"]


def test_a_card_keeps_the_token_to_itself(make: Any) -> None:
    """A notebook is saved with what its cells show."""
    server = make(lambda inputs: inputs, token="s3cret")
    shown = repr(server) + "".join(server._repr_mimebundle_().values())

    assert "s3cret" not in shown
    assert "required; in a browser open" in shown


def test_a_card_says_when_it_was_made(make: Any) -> None:
    """A notebook is opened again long after: local time and date, to the second."""
    server = make(lambda inputs: inputs)
    before = f"{datetime.now():%H:%M:%S (%Y-%m-%d)}"  # noqa: DTZ005
    shown = server._repr_mimebundle_()["text/plain"].splitlines()[0]
    after = f"{datetime.now():%H:%M:%S (%Y-%m-%d)}"  # noqa: DTZ005

    assert before <= shown.split(" · as of ")[1] <= after or before > after  # past midnight


def test_a_card_of_a_failing_server_says_why(make: Any) -> None:
    """In red: the error, how often, and what comes next; of several models, which one."""

    def broken(inputs: list[Any]) -> list[Any]:
        raise KeyError("<b>")

    server = make(broken)
    for _ in range(2):
        with contextlib.suppress(ServeError):
            server.predict("x")
    head, error = server._repr_mimebundle_()["text/plain"].splitlines()[:2]
    assert "is failing" in head
    assert error.startswith("KeyError: '<b>' (2 requests in a row failed, last ")
    assert error.endswith("(2 of 10 failures in a row so far).")
    markup = server._repr_mimebundle_()["text/html"]
    assert f"border-left: 4px solid {BAD}" in markup
    assert "KeyError: &#x27;&lt;b&gt;&#x27;" in markup
    server.add("other", lambda inputs: inputs).predict("x")
    head, error = server._repr_mimebundle_()["text/plain"].splitlines()[:2]
    assert error.startswith("test 0 · KeyError")


def test_a_card_has_its_warnings(make: Any) -> None:
    """Below the errors, each on a line."""
    card = Card(
        "demo", "ready", "", Table("", ("", ""), []), Table("", ("", ""), []),
        errors=("it <broke>",), warnings=("it is slow",),
    )  # fmt: skip

    assert str(card).splitlines()[1:3] == ["it <broke>", "it is slow"]
    assert f"border-left: 4px solid {BUSY}" in card.markup()
    assert "it &lt;broke&gt;" in card.markup()


def test_the_figures_of_a_card_name_their_span(make: Any) -> None:
    """The last seconds, or since the start; and the queue its peak and its limit."""
    server = make(lambda inputs: inputs, max_queue_size=7)
    server.predict(["a", "b"])
    text = server._repr_mimebundle_()["text/plain"].split("\n\nsettings")[0]
    rows = [re.split(" {2,}", line) for line in text.splitlines()[1:]]
    found = {row[0]: row[1:] for row in rows}

    assert found["queue"] == ["now", "0 waiting · limit 7"]
    assert found["queue peak"] == ["since the start", "2"]
    assert found["requests"] == ["since the start", "ok: 2"]
    assert found["throughput"][0] == "last 10 s"
    assert found["throughput while active"][1].endswith("with requests")


# -- everything that can end a cell -----------------------------------------------------------


class Nameless:
    """A policy without a repr of its own, as a person writes it in a cell."""

    def decide(self, waiting: Sequence[Job], now: float) -> Decision:
        """Take the oldest."""
        return Decision((waiting[0],), reason="mine")


def everything() -> Iterator[Any]:
    """An object of each public class, and of each kind that a method returns."""
    with serve(lambda inputs: inputs, port=0, name="<b>x", policy=CoDel(Nameless())) as server:
        server.predict(["<i>", "b"] * 30, timeout=30.0)
        yield from (server, servers(), server.stats(), server.stats().latency, server.model)
        yield from (server.errors(), server.records()[3:5], server.batches()[:1], server.queue())
        yield server.limits
        yield from server.stats().workers
        yield from (server.policy, server.records(), server.batches(), server.fit_cost())
        yield from (server.records()[0], server.batches()[0], server.policy_changes()[0])
        server.pause()
        server._submit(["<script>"] * 1000, {}, None)
        eventually(lambda: len(server.queue()) == 1000, "all are prepared")
        yield server.queue()
        server.resume()
        server.add("other", list, policy=Nameless()).predict(["<i>"] * 3)
        yield from (server, server.models, server["other"], server.stats())
    yield server
    yield from laboratory()
    yield from failures()


def laboratory() -> Iterator[Any]:
    """What simulations take and give."""
    cost = CostModel(fixed=0.005, per_item=0.001, per_token=0.0002)
    long = Trace(n / 100 for n in range(10_000))
    some = (Constant(5.0), Poisson(5.0), Bursty(5.0, 50.0), Ramp(1.0, 9.0), Trace([1.0]), long)
    sizes = (Fixed(3), Uniform(1, 9), LogNormal(20, 0.8), Empirical([3]), Cycle([3]))
    yield from (cost, cost.noise, ClosedLoop(3), *some, *sizes)
    yield from (Empirical(range(1, 10_000)), Cycle(range(1, 10_000)))
    report = simulate(Nameless(), long, cost, lengths=LogNormal(20, 0.8))
    yield from (report, report.summary(), report.records, report.batches, report.records[:3])
    yield compare([Nameless(), Greedy(8)], cost=cost, rates=[20, 50], duration=20.0)
    yield plan(NoBatching(), cost, 50.0, 0.5, requests=500)
    yield plan(Nameless(), cost, 50.0, 0.001, requests=500)
    rough = CostModel(fixed=0.005, error=0.69, batches=9, largest=2)
    yield from (capacity(Greedy(8), rough, 0.5, requests=500), plan(Greedy(8), rough, 9.0, 0.5))
    yield from (simulate(Greedy(8), long, rough), compare([Greedy(8)], cost=rough, rates=[20]))
    for learning in (CostAware(), Adaptive(0.2)):
        yield learning
        for batch in simulate(Greedy(8), long, cost, lengths=LogNormal(20, 0.8)).batches:
            learning.observe(batch)
        assert learning.cost is not None
        yield learning
    yield from (kind() for kind in BUILT_IN.values())
    job = Job(1, 0.5, group="<b>")
    yield from (job, Decision((job,)), Batch(1, (job,), "full", 3), Queue((), 1.0))
    yield from (RequestLog.of([]), parse_policy("CoDel(Window(8))"))
    yield from (Scheduler(Nameless()), Faulty(list, fail_on="poison"), JsonLines())


def failures() -> Iterator[Any]:
    """Servers that failed, and every exception."""

    def loader() -> Any:
        raise OSError("no <script>\nfor " + "this " * 2000)

    def broken(inputs: list[Any]) -> list[Any]:
        raise KeyError("<b>no\n" + "that " * 2000)

    with serve(broken, port=0, name="<b>broken") as server:
        server.add("other", broken)
        for endpoint in server.models.values():
            with contextlib.suppress(ServeError):
                endpoint.predict(["<script>"] * 3)
        yield from (server, server.stats(), server.errors(), server.errors()[0])
        yield from (server["other"].stats(), server["other"].errors(), server.stats().failing)
    with serve(loader=loader, port=0, name="failing") as failing:
        with contextlib.suppress(LoaderFailed):
            failing.wait_ready()
        yield from (failing, failing.stats())
    yield serve(lambda inputs: inputs, start=False, policy=Nameless())
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, ServeError):
            yield kind("no <script>")


class Page(HTMLParser):
    """The words of a page, without those of its style; fails if an element is not closed."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.elements: set[str] = set()
        self.feed(markup)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        """An element begins."""
        self.elements.add(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """An element ends: that which was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Text."""
        if "style" not in self.open:
            self.words += data.split()


#: what the displays are made of; an input, a name or an error adds nothing to it
ELEMENTS = {
    *("div", "span", "b", "a", "code", "br", "style", "details", "summary"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
}
#: of this there are no objects
NOT_SHOWN = {"Policy"}


def test_everything_reads_well() -> None:
    """No address in memory, nothing endless, HTML that is sound and says what the text says."""
    in_a_cell: Any = DisplayFormatter()
    seen, with_html = set(), set()
    for value in everything():
        shown, _ = in_a_cell.format(value)
        name = type(value).__name__
        seen.add(name)
        for text in (repr(value), str(value), *shown.values()):
            # The repr of a value that holds a person's own object has that one's.
            assert " at 0x" not in text or "Nameless object at 0x" in repr(value), (name, text)
        assert not any(" at 0x" in text for text in shown.values()), (name, shown)
        if not isinstance(value, list):  # which a notebook cuts by itself
            assert len(shown["text/plain"]) < 5_000, (name, len(shown["text/plain"]))
            assert len(repr(value)) < 5_000, (name, len(repr(value)))
        if "text/html" in shown:
            with_html.add(name)
            page = Page(shown["text/html"])
            assert page.elements <= ELEMENTS, name
            assert [word for word in page.words if word != "■"] == shown["text/plain"].split()

    classes = {name for name in notebook_serve.__all__ if _is_class(name)}
    assert classes - seen == NOT_SHOWN
    assert with_html >= {"Server", "Stats", "Queue", "Report", "Comparison", "Table"}
    assert with_html >= {
        "CostModel",
        "RequestLog",
        "BatchLog",
        "Requests",
        "Batches",
        "Errors",
        *BUILT_IN,
    }


def _is_class(name: str) -> bool:
    return inspect.isclass(getattr(notebook_serve, name))
