from __future__ import annotations

import math
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from notebook_serve.display import Markup, Table, cell, duration, render


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
