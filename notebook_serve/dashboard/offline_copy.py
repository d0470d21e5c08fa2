"""Static dashboard: HTML that a notebook without a running kernel shows in place of the widget.

A widget needs its kernel. The offline copy is saved in the notebook's file and hidden while the
widget works. It stays readable on code hosts, which remove styles and scripts.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from ..display import Markup, Table, render

#: size of one chart in pixels
WIDTH, HEIGHT = 320, 90
#: colours with a contrast of at least 3 on light and dark backgrounds: an image has no theme
BLUE, GREEN, LOST, ORANGE, GREY = "#0072b2", "#008f69", "#d55e00", "#b36b00", "#80868b"
#: colours of batches, in turn
BATCHES = (BLUE, ORANGE, GREEN, "#b5538c")


class OfflineCopy:
    """HTML of one snapshot, with its time `at` as text.

    `snapshot` is that of `EngineSnapshots.take`, `widget` the id of the widget that hides this
    dashboard, and `text` its form in a terminal.
    """

    def __init__(self, snapshot: dict[str, Any], at: str, widget: str, text: str) -> None:
        self.snapshot = snapshot
        self.at = at
        self.widget = widget
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        snapshot = self.snapshot
        names, values, *_ = zip(*(tile[:2] for tile in snapshot["tiles"]), strict=True)
        scopes = [tile[2] if len(tile) > 2 else "" for tile in snapshot["tiles"]]
        rows = [values, scopes] if any(scopes) else [values]
        return render(
            "dashboard.html",
            widget=self.widget,
            name=snapshot["name"],
            state=snapshot["state"],
            policy=snapshot["policy"]["repr"],
            at=self.at,
            problems=_render_problems(snapshot),
            tiles=Table("", names, rows).markup(),
            charts=_render_charts(snapshot),
        )


def _render_problems(snapshot: dict[str, Any]) -> Markup:
    """Return a line for each error, then one for each warning."""
    failing = snapshot.get("failing")
    errors = [f"Requests fail: {failing['type']}: {failing['message']}"] if failing else []
    errors += [snapshot["error"]] if snapshot["error"] else []
    lines = [render("problem.html", kind="error", text=text) for text in errors]
    warnings = snapshot.get("warnings", [])
    lines += [render("problem.html", kind="warning", text=text) for text in warnings]
    return Markup("".join(lines))


def _render_charts(snapshot: dict[str, Any]) -> Markup:
    """Return the charts, two in a row, each below its caption."""
    history, sizes = snapshot["history"], snapshot["batch_sizes"]
    changes = [change["ago"] for change in snapshot.get("changes", [])]
    rates = [history[name] for name in ("lost", "answered", "arrived")]
    largest = max(map(int, sizes), default=0)
    span = f"last {snapshot['span']} s"
    captions = (
        f"requests/s in the {span}: arrivals blue, answers green, lost red; "
        f"maximum {max(map(max, rates))}",
        f"requests waiting in the {span}; maximum {max(history['waiting'])}",
        f"batches by size in the last minute; largest size {largest}",
        f"newest {len(snapshot['timeline'])} requests: waiting grey, running coloured by batch",
    )
    charts = (
        _draw_lines(rates, (LOST, GREEN, BLUE), changes),
        _draw_lines([history["waiting"]], (ORANGE,), changes),
        _draw_bars({int(size): count for size, count in sizes.items()}),
        _draw_timeline(snapshot["timeline"]),
    )
    cells = [_render_figure(*pair) for pair in zip(captions, charts, strict=True)]
    return Markup("".join(f"<tr>{a}{b}</tr>" for a, b in zip(cells[::2], cells[1::2], strict=True)))


def _render_figure(caption: str, chart: str) -> Markup:
    # An image, because code hosts remove inline SVG; without text, because no single colour
    # suits light and dark themes.
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}"><path d="M0 {HEIGHT - 0.5}H{WIDTH}" stroke="{GREY}"/>'
        f"{chart}</svg>"
    )
    source = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    return render("figure.html", caption=caption, source=source, width=WIDTH, height=HEIGHT)


# -- parts of an image: only numbers and colours, no text of a client that needs escaping --------


def _draw_lines(
    columns: Sequence[Sequence[int]], colours: Iterable[str], changes: list[float]
) -> str:
    """Return a line for each column on one scale, and a mark for each change of the policy."""
    most = max(max(column) for column in columns) or 1
    step = WIDTH / len(columns[0])
    parts = [_draw_mark(WIDTH - ago * step) for ago in changes]
    for column, colour in zip(columns, colours, strict=True):
        heights = (HEIGHT - 2 - (HEIGHT - 6) * value / most for value in column)
        points = " ".join(f"{step * (n + 1):.1f},{y:.1f}" for n, y in enumerate(heights))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    return "".join(parts)


def _draw_mark(x: float) -> str:
    return f'<path d="M{x:.1f} 0V{HEIGHT}" stroke="{GREY}" stroke-dasharray="4 3"/>'


def _draw_bars(counts: dict[int, int]) -> str:
    """Return a bar for each batch size, on a linear axis."""
    most, step = max(counts.values(), default=1), WIDTH / (max(counts, default=1) + 1)
    width = min(max(0.8 * step, 3), 34)
    return "".join(
        _draw_rect(size * step - width / 2, HEIGHT * (1 - count / most), width, HEIGHT, GREEN)
        for size, count in counts.items()
    )


def _draw_timeline(requests: Sequence[dict[str, Any]]) -> str:
    """Return two bars for each request: its queue time and its inference time."""
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
            parts.append(_draw_rect(x, n * row, width, min(0.8 * row, 8), fill))
    return "".join(parts)


def _draw_rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{fill}"/>'
