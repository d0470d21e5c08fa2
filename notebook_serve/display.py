"""Display in a cell and in a terminal: tables, cards and formatted numbers, as text and HTML.

`render` fills a template of the folder ``templates`` and escapes every value once.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from string import Template
from typing import Any, TypeVar

T = TypeVar("T")

#: most rows of a displayed table, half from its start and half from its end
MOST_ROWS = 20
#: most characters of a displayed cell
MOST_TEXT = 1000
#: memory address in Python's default repr
ADDRESS = re.compile(r" (?:object )?at 0x[0-9a-fA-F]+")
#: number with or without a unit
QUANTITY = re.compile(r"–|≈?-?\d[\d.,]*(e[+-]\d+)?( ?(%|/s|µs|ms|s)| min \d+ s)?\*?")


class Table:
    """Rows under column names, as text in a terminal and HTML in a cell.

    `left_out` is the number of rows omitted in the middle; `notes` are lines below the table.
    """

    def __init__(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        left_out: int = 0,
        notes: Sequence[str] = (),
    ) -> None:
        self.title = title
        self.notes = list(notes)
        self.columns = [str(column) for column in columns]
        self.rows = [[cell(value) for value in row] for row in rows]
        self.gap = f"… {left_out} more …" if left_out else ""

    @classmethod
    def of(
        cls,
        title: str,
        columns: Sequence[str],
        items: Sequence[T],
        row: Callable[[T], Sequence[Any]],
        most: int = MOST_ROWS,
    ) -> Table:
        """Return a table with a row for each item; of more than `most`, the first and last ones."""
        left_out = max(0, len(items) - most)
        ends = [*items[: most // 2], *items[-(most // 2) :]] if left_out else items
        return cls(title, columns, map(row, ends), left_out)

    def __str__(self) -> str:
        lines = [self.columns, *self.rows] if any(self.columns) else self.rows
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        if self.gap:
            text.insert(len(text) - len(self.rows) // 2, self.gap)
        return "\n".join([*([self.title] if self.title else []), *text, *self.notes])

    __repr__ = __str__

    def markup(self) -> Markup:
        """Return the table as HTML."""
        numeric = [self._is_numeric(n) for n in range(len(self.columns))]
        rows = [_render_row("td", row, numeric) for row in self.rows]
        if self.gap:
            rows.insert(len(rows) - len(rows) // 2, self._render_line(self.gap))
        rows += map(self._render_line, self.notes)
        head = _render_row("th", self.columns, numeric)
        return render(
            "table.html",
            title=self.title,
            head=Markup(f"<thead>{head}</thead>" if any(self.columns) else ""),
            body=Markup("".join(rows)),
        )

    def _render_line(self, text: str) -> str:
        return f'<tr><td colspan="{len(self.columns)}">{html.escape(text)}</td></tr>'

    def _is_numeric(self, column: int) -> bool:
        """Return True for a named column with only numbers in its non-empty cells."""
        cells = [row[column] for row in self.rows if row[column]] if self.columns[column] else []
        return bool(cells) and all(map(QUANTITY.fullmatch, cells))

    def _repr_html_(self) -> str:
        return self.markup()

    def bundle(self) -> dict[str, str]:
        """Return the MIME bundle of a cell: text and HTML."""
        return {"text/plain": str(self), "text/html": self.markup()}


def _render_row(tag: str, cells: Iterable[str], numeric: Iterable[bool]) -> str:
    # An attribute, not a style: code hosts remove styles.
    sides = (' align="right"' if right else "" for right in numeric)
    pairs = zip(cells, sides, strict=True)
    inner = "".join(f"<{tag}{side}>{_render_cell(text)}</{tag}>" for text, side in pairs)
    return f"<tr>{inner}</tr>"


def _render_cell(text: str) -> str:
    return f"<b>{html.escape(text)}</b>" if isinstance(text, Strong) else html.escape(text)


@dataclass(frozen=True)
class Card:
    """Card of a server: its state, figures, errors, warnings and settings at one moment."""

    name: str
    #: ``new, loading, ready, failing, paused, stopping, stopped, failed`` or ``dead``
    state: str
    #: address of the dashboard; empty if the server does not listen
    url: str
    figures: Table
    settings: Table
    #: local time of the card, because a saved notebook is read later
    at: str = ""
    #: sentences about failures, and about causes of slowness
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        link = f" · {self.url}" if self.url else ""
        _, phrase, hint = STATES[self.state]
        head = f"{self.name} {phrase}{link}{hint}{self._format_time()}"
        notes = map(cell, (*self.errors, *self.warnings))
        return "\n".join([head, *notes, str(self.figures)]) + f"\n\nsettings\n{self.settings}"

    def _format_time(self) -> str:
        return f" · as of {self.at}" if self.at else ""

    def markup(self) -> Markup:
        """Return the card as HTML."""
        colour, phrase, hint = STATES[self.state]
        link = render("link.html", url=self.url) if self.url else ""
        return render(
            "server.html",
            colour=colour,
            name=self.name,
            phrase=phrase,
            link=link,
            hint=hint + self._format_time(),
            notes=Markup(_render_notes(self.errors, BAD) + _render_notes(self.warnings, BUSY)),
            figures=self.figures.markup(),
            settings=self.settings.markup(),
        )

    def bundle(self) -> dict[str, str]:
        """Return the MIME bundle of a cell: text and HTML."""
        return {"text/plain": str(self), "text/html": self.markup()}


def _render_notes(sentences: Iterable[str], colour: str) -> Markup:
    notes = (render("note.html", colour=colour, sentence=cell(one)) for one in sentences)
    return Markup("".join(notes))


GOOD, BUSY = "var(--jp-success-color1, #43a047)", "var(--jp-warn-color1, #f9a825)"
BAD, OFF = "var(--jp-error-color1, #e53935)", "var(--jp-ui-font-color3, #9e9e9e)"
#: colour, phrase and hint of each state
STATES = {
    "new": (OFF, "is new", " · start() starts it"),
    "loading": (BUSY, "is loading", ""),
    "ready": (GOOD, "is ready", ""),
    "failing": (BAD, "is failing", " · errors() lists the failures"),
    "paused": (BUSY, "is paused", " · resume() continues"),
    "stopping": (BUSY, "is stopping", ""),
    "stopped": (OFF, "is stopped", " · start() starts it again"),
    "failed": (BAD, "has failed", " · start() tries again"),
    "dead": (BAD, "is dead", " · start() starts a new worker"),
}


def make_bundle(value: str, *lines: str) -> dict[str, str]:
    """Return the MIME bundle of a small value: its repr `value` and further lines."""
    rest = Markup("".join(f"<br>{html.escape(line)}" for line in lines))
    markup = render("value.html", value=value, rest=rest)
    return {"text/plain": "\n".join([value, *lines]), "text/html": markup}


class Markup(str):
    """Text that is already HTML."""


class Strong(str):
    """Text of an emphasised cell: bold in HTML, unchanged in text."""


def render(template: str, /, **values: object) -> Markup:
    """Return the file `template` with `values` filled in, escaped unless they are `Markup`."""
    safe = {
        key: value if isinstance(value, Markup) else html.escape(str(value))
        for key, value in values.items()
    }
    return Markup(_load_template(template).substitute(safe))


@lru_cache
def _load_template(name: str) -> Template:
    return Template((resources.files(__package__) / "templates" / name).read_text("utf-8"))


def cell(value: Any) -> str:
    """Format a table cell: a dash for None and not-a-number, three digits for a float.

    Text is put on one line and cut at `MOST_TEXT` characters.
    """
    if isinstance(value, Strong):
        return value
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}"
    text = " ".join(strip_addresses(str(value)).splitlines())
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "…"


def strip_addresses(text: str) -> str:
    """Remove memory addresses from a repr: ``<Mine object at 0x7f>`` becomes ``<Mine>``."""
    return ADDRESS.sub("", text)


def safe_repr(value: object) -> str:
    """Return the repr without memory addresses, or the type's name if the repr raises."""
    try:
        return strip_addresses(repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def percent(share: float, digits: int = 0) -> str:
    """Format a share from 0 to 1: ``12%``."""
    return "–" if math.isnan(share) else f"{share:.{digits}%}"


def per_second(rate: float) -> str:
    """Format a rate: ``0.25/s``, ``16.7/s``, ``1250/s``."""
    if math.isnan(rate):
        return "–"
    return f"{rate:.3g}/s" if rate < 100 else f"{rate:.0f}/s"


def format_rough(value: float, show: Callable[[float], str]) -> str:
    """Format a value rounded to one digit: ``≈40 ms`` for 37.2 milliseconds."""
    if not value or not math.isfinite(value):
        return show(value)
    rounded = round(value, -math.floor(math.log10(abs(value))))
    # "40.0 ms" would claim a precision that the value does not have.
    return "≈" + re.sub(r"\.0+(?!\d)", "", show(rounded))


def duration(seconds: float) -> str:
    """Format seconds: ``850 µs``, ``12.3 ms``, ``4.50 s``, ``3 min 5 s``."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 0:
        return "-" + duration(-seconds)
    # Round before choosing the unit, to avoid "1 min 60 s".
    if round(seconds * 1e6) < 1000:
        return f"{seconds * 1e6:.0f} µs"
    if round(seconds * 1e3, 1) < 1000:
        return f"{seconds * 1e3:.1f} ms"
    if round(seconds, 2) < 100:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
