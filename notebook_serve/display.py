"""How things look in a cell and in a terminal: a table as text and as HTML, and HTML templates.

Templates are files beside this one; whatever is put into them is escaped here, once.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import resources
from string import Template
from typing import Any


class Table:
    """Rows under column names: reads well printed, and as HTML in a cell."""

    def __init__(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        self.title = title
        self.columns = [str(column) for column in columns]
        self.rows = [[cell(value) for value in row] for row in rows]

    def __str__(self) -> str:
        lines = [self.columns, *self.rows] if any(self.columns) else self.rows
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join([self.title, *text] if self.title else text)

    __repr__ = __str__

    def markup(self) -> Markup:
        """As HTML."""
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = ("".join(f"<td>{html.escape(value)}</td>" for value in row) for row in self.rows)
        text = render(
            "table.html",
            title=self.title,
            head=Markup(head if any(self.columns) else ""),
            body=Markup("".join(f"<tr>{row}</tr>" for row in body)),
        )
        return Markup(text)

    def _repr_html_(self) -> str:
        return self.markup()


class Markup(str):
    """Text that is HTML already."""


def render(template: str, /, **values: object) -> str:
    """The file `template` with `values` put in, escaped unless they are `Markup`."""
    safe = {
        key: value if isinstance(value, Markup) else html.escape(str(value))
        for key, value in values.items()
    }
    return _template(template).substitute(safe)


@lru_cache
def _template(name: str) -> Template:
    return Template((resources.files(__package__) / "templates" / name).read_text("utf-8"))


def cell(value: Any) -> str:
    """A value as a table shows it: a dash for what is not there, three digits for a float."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


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
