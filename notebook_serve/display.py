"""How things look in a cell and in a terminal: a table as text and as HTML, and HTML templates.

Templates are files beside this one; whatever is put into them is escaped here, once.
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

#: of a long table as many rows are shown, half of them its first and half its last
MOST_ROWS = 20
#: characters of a cell that are shown
MOST_TEXT = 1000
#: where something lies in memory, as Python says it of what has no repr of its own
ADDRESS = re.compile(r" (?:object )?at 0x[0-9a-fA-F]+")
#: a number, with or without a unit
QUANTITY = re.compile(r"–|≈?-?\d[\d.,]*(e[+-]\d+)?( ?(%|/s|µs|ms|s)| min \d+ s)?\*?")


class Table:
    """Rows under column names: reads well printed, and as HTML in a cell.

    `left_out` is how many rows there are besides those given, in the middle of them; `notes` are
    lines below it.
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
        """A row for each of `items`; of more than `most` only the first and the last are shown."""
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
        """As HTML."""
        numeric = [self._is_numeric(n) for n in range(len(self.columns))]
        rows = [_row("td", row, numeric) for row in self.rows]
        if self.gap:
            rows.insert(len(rows) - len(rows) // 2, self._across(self.gap))
        rows += map(self._across, self.notes)
        head = f"<thead>{_row('th', self.columns, numeric)}</thead>" if any(self.columns) else ""
        return render("table.html", title=self.title, head=Markup(head), body=Markup("".join(rows)))

    def _across(self, text: str) -> str:
        return f'<tr><td colspan="{len(self.columns)}">{html.escape(text)}</td></tr>'

    def _is_numeric(self, column: int) -> bool:
        """Return True if a column has a name, and numbers only where it is not empty."""
        cells = [row[column] for row in self.rows if row[column]] if self.columns[column] else []
        return bool(cells) and all(map(QUANTITY.fullmatch, cells))

    def _repr_html_(self) -> str:
        return self.markup()

    def bundle(self) -> dict[str, str]:
        """What a cell shows, as text and as HTML."""
        return {"text/plain": str(self), "text/html": self.markup()}


def _row(tag: str, cells: Iterable[str], numeric: Iterable[bool]) -> str:
    # An attribute, not a style: a page that hosts code drops styles.
    sides = (' align="right"' if right else "" for right in numeric)
    pairs = zip(cells, sides, strict=True)
    inner = "".join(f"<{tag}{side}>{_inline(text)}</{tag}>" for text, side in pairs)
    return f"<tr>{inner}</tr>"


def _inline(text: str) -> str:
    return f"<b>{html.escape(text)}</b>" if isinstance(text, Strong) else html.escape(text)


@dataclass(frozen=True)
class Card:
    """A server at one moment: what it is about, its figures, and its settings to be unfolded."""

    name: str
    #: ``new, loading, ready, failing, paused, stopping, stopped, failed`` or ``dead``
    state: str
    #: where it answers; empty where it does not
    url: str
    figures: Table
    settings: Table
    #: when it was made, in local time: a notebook is read long after
    at: str = ""
    #: sentences about what is broken, and about what slows the server down
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" · {self.url}" if self.url else ""
        _, is_so, hint = STATES[self.state]
        head = f"{self.name} {is_so}{where}{hint}{self._as_of()}"
        notes = map(cell, (*self.errors, *self.warnings))
        return "\n".join([head, *notes, str(self.figures)]) + f"\n\nsettings\n{self.settings}"

    def _as_of(self) -> str:
        return f" · as of {self.at}" if self.at else ""

    def markup(self) -> Markup:
        """As HTML."""
        colour, is_so, hint = STATES[self.state]
        link = render("link.html", url=self.url) if self.url else ""
        return render(
            "server.html",
            colour=colour,
            name=self.name,
            is_so=is_so,
            where=link,
            hint=hint + self._as_of(),
            notes=Markup(_notes(self.errors, BAD) + _notes(self.warnings, BUSY)),
            figures=self.figures.markup(),
            settings=self.settings.markup(),
        )

    def bundle(self) -> dict[str, str]:
        """What a cell shows, as text and as HTML."""
        return {"text/plain": str(self), "text/html": self.markup()}


def _notes(sentences: Iterable[str], colour: str) -> Markup:
    notes = (render("note.html", colour=colour, sentence=cell(one)) for one in sentences)
    return Markup("".join(notes))


GOOD, BUSY = "var(--jp-success-color1, #43a047)", "var(--jp-warn-color1, #f9a825)"
BAD, OFF = "var(--jp-error-color1, #e53935)", "var(--jp-ui-font-color3, #9e9e9e)"
#: how a state is shown: its colour, in words, and what can be done about it
STATES = {
    "new": (OFF, "is new", " · start() starts it"),
    "loading": (BUSY, "is loading", ""),
    "ready": (GOOD, "is ready", ""),
    "failing": (BAD, "is failing", " · errors() lists what failed"),
    "paused": (BUSY, "is paused", " · resume() lets it go on"),
    "stopping": (BUSY, "is stopping", ""),
    "stopped": (OFF, "is stopped", " · start() starts it again"),
    "failed": (BAD, "has failed", " · start() tries again"),
    "dead": (BAD, "is dead", " · start() makes a new worker"),
}


def described(value: str, *lines: str) -> dict[str, str]:
    """What a cell shows of a small value, as text and as HTML: how it is written, and `lines`."""
    rest = Markup("".join(f"<br>{html.escape(line)}" for line in lines))
    markup = render("value.html", value=value, rest=rest)
    return {"text/plain": "\n".join([value, *lines]), "text/html": markup}


class Markup(str):
    """Text that is HTML already."""


class Strong(str):
    """The text of a cell that stands out: bold in HTML, and as it is in text."""


def render(template: str, /, **values: object) -> Markup:
    """The file `template` with `values` put in, escaped unless they are `Markup`."""
    safe = {
        key: value if isinstance(value, Markup) else html.escape(str(value))
        for key, value in values.items()
    }
    return Markup(_template(template).substitute(safe))


@lru_cache
def _template(name: str) -> Template:
    return Template((resources.files(__package__) / "templates" / name).read_text("utf-8"))


def cell(value: Any) -> str:
    """A value as a table shows it: a dash for what is not there, three digits for a float.

    Text is on one line, and cut where it is long.
    """
    if isinstance(value, Strong):
        return value
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}"
    text = " ".join(without_addresses(str(value)).splitlines())
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "…"


def without_addresses(text: str) -> str:
    """A repr without what it says of memory: ``<Mine object at 0x7f>`` becomes ``<Mine>``."""
    return ADDRESS.sub("", text)


def safe_repr(value: object) -> str:
    """Return the repr without addresses, or the name of the type where the repr fails."""
    try:
        return without_addresses(repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def percent(share: float, digits: int = 0) -> str:
    """A share from 0 to 1 as a person reads it: ``12%``."""
    return "–" if math.isnan(share) else f"{share:.{digits}%}"


def per_second(rate: float) -> str:
    """A rate as a person reads it: ``0.25/s``, ``16.7/s``, ``1250/s``."""
    if math.isnan(rate):
        return "–"
    return f"{rate:.3g}/s" if rate < 100 else f"{rate:.0f}/s"


def roughly(value: float, show: Callable[[float], str]) -> str:
    """A value of which one digit is known: ``≈40 ms`` for 37.2 milliseconds."""
    if not value or not math.isfinite(value):
        return show(value)
    rounded = round(value, -math.floor(math.log10(abs(value))))
    # Of "40.0 ms" the zero says more than is known.
    return "≈" + re.sub(r"\.0+(?!\d)", "", show(rounded))


def duration(seconds: float) -> str:
    """Seconds as a person reads them: ``850 µs``, ``12.3 ms``, ``4.50 s``, ``3 min 5 s``."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 0:
        return "-" + duration(-seconds)
    # Rounded before the unit is chosen: there is no such time as "1 min 60 s".
    if round(seconds * 1e6) < 1000:
        return f"{seconds * 1e6:.0f} µs"
    if round(seconds * 1e3, 1) < 1000:
        return f"{seconds * 1e3:.1f} ms"
    if round(seconds, 2) < 100:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
