"""A dashboard that stands still: what a notebook shows once its kernel is gone.

A widget lives as long as its kernel. So a picture of it is shown beside it, hidden while the widget
lives, and kept in the notebook's file. Its parts survive on pages that drop styles and scripts.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from ..display import Markup, Table, render

#: pixels of one chart
WIDTH, HEIGHT = 320, 90
#: colours with a contrast of at least 3 on light and on dark ground: an image follows no theme
BLUE, GREEN, LOST, ORANGE, GREY = "#0072b2", "#008f69", "#d55e00", "#b36b00", "#80868b"
#: the colours of batches, in turn
BATCHES = (BLUE, ORANGE, GREEN, "#b5538c")


class DashboardPicture:
    """A picture of a server at one moment, as `Live.picture` has it; `at` is that moment, as text.

    `widget` is the id of the live dashboard that hides this one; `text` its form for a terminal.
    """

    def __init__(self, picture: dict[str, Any], at: str, widget: str, text: str) -> None:
        self.picture = picture
        self.at = at
        self.widget = widget
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        picture = self.picture
        names, values, *_ = zip(*(tile[:2] for tile in picture["tiles"]), strict=True)
        scopes = [tile[2] if len(tile) > 2 else "" for tile in picture["tiles"]]
        rows = [values, scopes] if any(scopes) else [values]
        return render(
            "dashboard.html",
            widget=self.widget,
            name=picture["name"],
            state=picture["state"],
            policy=picture["policy"]["repr"],
            at=self.at,
            troubles=_troubles(picture),
            tiles=Table("", names, rows).markup(),
            charts=_charts(picture),
        )


def _troubles(picture: dict[str, Any]) -> Markup:
    """Return a line for each thing that is wrong, errors before warnings."""
    failing = picture.get("failing")
    said = [f"Requests fail: {failing['type']}: {failing['message']}"] if failing else []
    said += [picture["error"]] if picture["error"] else []
    lines = [render("trouble.html", kind="error", text=text) for text in said]
    warnings = picture.get("warnings", [])
    lines += [render("trouble.html", kind="warning", text=text) for text in warnings]
    return Markup("".join(lines))


def _charts(picture: dict[str, Any]) -> Markup:
    """Return the charts, two in a row, each under what it shows."""
    history, sizes = picture["history"], picture["batch_sizes"]
    changes = [change["ago"] for change in picture.get("changes", [])]
    rates = [history[name] for name in ("lost", "answered", "arrived")]
    biggest = max(map(int, sizes), default=0)
    said = (
        f"requests/s in the last {picture['span']} s: arrivals blue, answers green, lost red; "
        f"at most {max(map(max, rates))}",
        f"requests waiting in the last {picture['span']} s; at most {max(history['waiting'])}",
        f"batches by size in the last minute; the largest of {biggest}",
        f"the newest {len(picture['timeline'])} requests: grey waits, coloured by batch runs",
    )
    drawn = (
        _lines(rates, (LOST, GREEN, BLUE), changes),
        _lines([history["waiting"]], (ORANGE,), changes),
        _bars({int(size): count for size, count in sizes.items()}),
        _timeline(picture["timeline"]),
    )
    pairs = [_figure(text, body) for text, body in zip(said, drawn, strict=True)]
    return Markup("".join(f"<tr>{a}{b}</tr>" for a, b in zip(pairs[::2], pairs[1::2], strict=True)))


def _figure(said: str, body: str) -> Markup:
    # An image, not inline: code hosts keep it. It holds no text, which would need two colours.
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}"><path d="M0 {HEIGHT - 0.5}H{WIDTH}" stroke="{GREY}"/>'
        f"{body}</svg>"
    )
    source = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    return render("figure.html", said=said, source=source, width=WIDTH, height=HEIGHT)


# -- parts of an image: numbers and colours of our own, nothing that a client wrote ----------------


def _lines(columns: Sequence[Sequence[int]], colours: Iterable[str], changes: list[float]) -> str:
    """Return a line for each column, of one scale, and a mark for each change of the policy."""
    most = max(max(column) for column in columns) or 1
    step = WIDTH / len(columns[0])
    parts = [_mark(WIDTH - ago * step) for ago in changes]
    for column, colour in zip(columns, colours, strict=True):
        heights = (HEIGHT - 2 - (HEIGHT - 6) * value / most for value in column)
        points = " ".join(f"{step * (n + 1):.1f},{y:.1f}" for n, y in enumerate(heights))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    return "".join(parts)


def _mark(x: float) -> str:
    return f'<path d="M{x:.1f} 0V{HEIGHT}" stroke="{GREY}" stroke-dasharray="4 3"/>'


def _bars(counts: dict[int, int]) -> str:
    """Return a bar for each size, as far to the right as it is large."""
    most, step = max(counts.values(), default=1), WIDTH / (max(counts, default=1) + 1)
    width = min(max(0.8 * step, 3), 34)
    return "".join(
        _rect(size * step - width / 2, HEIGHT * (1 - count / most), width, HEIGHT, GREEN)
        for size, count in counts.items()
    )


def _timeline(requests: Sequence[dict[str, Any]]) -> str:
    """Return two bars for each request: its wait and its run."""
    if not requests:
        return ""
    first = min(request["arrived"] for request in requests)
    last = max(request["finished"] or 0.0 for request in requests)
    scale, row = WIDTH / max(last - first, 1e-6), HEIGHT / len(requests)
    parts = []
    for n, request in enumerate(requests):
        arrived, end = request["arrived"], request["finished"] or 0.0
        started = end if request["started"] is None else request["started"]
        colour = BATCHES[(request["batch"] or 0) % len(BATCHES)]
        for begin, stop, fill in ((arrived, started, GREY), (started, end, colour)):
            x, width = scale * (begin - first), scale * (stop - begin)
            parts.append(_rect(x, n * row, width, min(0.8 * row, 8), fill))
    return "".join(parts)


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{fill}"/>'
