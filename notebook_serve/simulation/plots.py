"""Plots of reports: latencies, time lines, and policies side by side.

Every mark has a contrast of at least 3 on white and on dark pages. No information is in colour
alone: lines differ in markers and dashes, and batches have labels.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Protocol

from ..display import format_rough, per_second
from ..extras import require
from ..queueing.policy_history import policies_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..queueing.record_log import RequestLog
    from ..queueing.stats import Distribution
    from ..records import BatchRecord, PolicyChange, RequestRecord

#: colours that remain distinct in colour blindness, after M. Okabe and K. Ito, *Color Universal
#: Design*, darkened to contrast with white; `LOST` is for requests that were not answered
PALETTE = ("#2F68C0", "#BF8300", "#00945F", "#3F9BD1", "#C766A9")
LOST = "#D4483B"
WAITS = "#858585"
#: from small to large batches: equal lightness, from blue to yellow
SIZES = ("#6A5ACD", "#C4527F", "#BF8300")
#: the band of the warm-up, nearly transparent
BAND: dict[str, Any] = {"color": WAITS, "alpha": 0.18, "linewidth": 0, "zorder": 0}
#: swapped with white on dark pages
INK = "black"
#: inches; JupyterLab does not shrink an SVG to the width of a cell
WIDTH = 8.4
#: more points than this are slow to draw and show no more
MOST_POINTS = 5000
#: more marks than this are drawn as pixels, to keep the SVG small
MOST_SHAPES = 400
#: the most policy changes that get a label, and the characters of a label
MOST_NAMED, NAME = 8, 45
#: bars that touch, with a thin line between them
BARS: dict[str, Any] = {"height": 1.0, "edgecolor": "white", "linewidth": 0.5}
#: the most batches that get a label; more have no room
MOST_REASONS = 40


class Plottable(Protocol):
    """The attributes of a `Report` that its plots read."""

    @property
    def records(self) -> RequestLog:
        """The requests, in the order of arrival."""

    @property
    def batches(self) -> Sequence[BatchRecord]:
        """The batches, in the order in which they started."""

    @property
    def start(self) -> float:
        """Seconds of the warm-up."""

    @property
    def duration(self) -> float:
        """Seconds during which requests were offered."""

    @property
    def deadline(self) -> float:
        """Seconds within which an answer is good."""

    @property
    def latency(self) -> Distribution:
        """Seconds from arrival to answer."""

    @property
    def is_rough(self) -> bool:
        """True if the cost model fits badly."""

    @property
    def policy(self) -> str:
        """The policy's ``repr``."""

    @property
    def changes(self) -> Sequence[PolicyChange]:
        """The policies that took effect during the run."""

    @property
    def offered(self) -> float:
        """Requests per second."""

    @property
    def source(self) -> str:
        """``simulated``, ``measured`` or ``recorded``."""

    @property
    def notes(self) -> Sequence[str]:
        """Warnings, in whole sentences."""


# -- latency ------------------------------------------------------------------------------


def latencies(report: Plottable, ax: Axes | None = None) -> Axes:
    """Draw the latency of each request against its arrival, coloured by its batch's size."""
    ax = _axes(4.8) if ax is None else ax
    log = report.records
    answered = [n for n, outcome in enumerate(log.outcome) if outcome == "ok"]
    lost = [n for n, outcome in enumerate(log.outcome) if outcome != "ok"]
    longest = max((log.finished[n] - log.arrived[n] for n in answered), default=0.0)
    unit, scale = ("s", 1.0) if longest >= 1 else ("ms", 1e3)
    ax.set_ylim(0, 1.25 * longest * scale or 1)  # leaves room for the legend
    if report.start:
        ax.axvspan(0, report.start, label="warm-up", **BAND)
    if answered:
        _draw_points(ax, report, answered, scale)
    _draw_levels(ax, report, longest, scale, unit)
    if lost:
        times = [log.arrived[n] for n in lost[:: _step(lost)]]
        label = _label_lost(report, lost)
        ax.plot(times, [0] * len(times), "x", color=LOST, clip_on=False, label=label)
    ax.margins(x=0.01)
    ax.set_ylabel(f"latency ({unit})")
    return _finish(ax, report, "arrival (s since the start of the traffic)", names_at=0.84)


def _draw_points(ax: Axes, report: Plottable, answered: Sequence[int], scale: float) -> None:
    log, step = report.records, _step(answered)
    shown = answered[::step]
    sizes = [log.batch_size[n] for n in shown]
    times = [log.arrived[n] for n in shown]
    heights = [(log.finished[n] - log.arrived[n]) * scale for n in shown]
    look: dict[str, Any] = {"s": 12, "linewidths": 0, "rasterized": len(shown) > MOST_SHAPES}
    label = "answered" if step == 1 else f"answered (1 in {step} of {len(answered):,} shown)"
    if min(sizes) == max(sizes):
        label += f", batch size {sizes[0]}" if sizes[0] else ""
        ax.scatter(times, heights, color=PALETTE[0], label=label, **look)
        return
    scale_of = require("matplotlib.colors", "notebook").LinearSegmentedColormap.from_list
    colours = scale_of("sizes", SIZES)
    points = ax.scatter(times, heights, c=sizes, cmap=colours, label=label, **look)
    whole = require("matplotlib.ticker", "notebook").MaxNLocator(integer=True)
    ax.figure.colorbar(points, ax=ax, label="batch size (requests)", ticks=whole)


def _draw_levels(ax: Axes, report: Plottable, longest: float, scale: float, unit: str) -> None:
    """Draw lines at the percentiles, and at the deadline if it is near."""
    latency, span = report.latency, [report.start, report.duration]
    levels = [("p50", latency.p50, INK, "-"), ("p99", latency.p99, INK, "--")]
    if report.deadline < 1.2 * longest:
        levels.append(("deadline", report.deadline, LOST, ":"))
    for name, seconds, colour, style in levels:
        if not math.isnan(seconds):
            known = not report.is_rough or name == "deadline"
            value = _three_digits(seconds * scale)
            if not known:
                value = format_rough(seconds * scale, _three_digits)
            label = f"{name} {value} {unit}"
            ax.plot(span, [seconds * scale] * 2, color=colour, linestyle=style, label=label)


def _three_digits(value: float) -> str:
    """Return a number with three digits, or all of its integer part."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


# -- time line ----------------------------------------------------------------------------


def timeline(report: Plottable, ax: Axes | None, limit: int, start: float) -> Axes:
    """Draw the first `limit` requests that arrived at `start` or later, each as a bar."""
    log = report.records
    numbers = (n for n, arrived in enumerate(log.arrived) if arrived >= start)
    shown = {n: log[n] for n in islice(numbers, limit)}
    ax = _axes(2 + 0.08 * min(len(shown), 200)) if ax is None else ax
    many = len(shown) > MOST_SHAPES
    look = {**BARS, "rasterized": many, "linewidth": 0 if many else BARS["linewidth"]}
    if shown:
        left = [record.arrived for record in shown.values()]
        waits = [record.queue_time for record in shown.values()]
        ax.barh(list(shown), waits, left=left, color=WAITS, label="waits", **look)
    ran = {n: record for n, record in shown.items() if record.started is not None}
    if ran:
        _draw_runs(ax, report, ran, look)
    lost = {n: record.finished for n, record in shown.items() if record.outcome != "ok"}
    if lost:
        ax.plot(list(lost.values()), list(lost), "x", color=LOST, label=_label_lost(report, lost))
    ax.margins(y=0.01)
    ax.invert_yaxis()
    part = f": {len(shown):,} of {len(log):,}" if len(shown) < len(log) else ""
    ax.set_ylabel(f"request, in the order of arrival{part}")
    return _finish(ax, report, "time (s since the start of the traffic)")


def _draw_runs(
    ax: Axes, report: Plottable, ran: Mapping[int, RequestRecord], look: Mapping[str, Any]
) -> None:
    """Draw the time in which each request ran, in the colour of its batch."""
    runs = [record.inference_time for record in ran.values()]
    left = [record.started or 0.0 for record in ran.values()]
    batches = _first_of_each_batch(ran)
    colours = dict(zip(batches, cycle(PALETTE), strict=False))
    shades = [colours[record.batch_id] for record in ran.values()]
    label = "runs" if None in batches else "runs, one colour per batch"
    if len(batches) <= MOST_REASONS:
        known = [batch for batch in report.batches if batch.id in batches]
        label += ": size, reason of release" if known else ""
        for batch in known:
            n = batches[batch.id]
            ax.text(ran[n].finished, n, f" {batch.size}, {batch.reason}", size=7, va="center")
    ax.barh(list(ran), runs, left=left, color=shades, label=label, **look)


def _first_of_each_batch(ran: Mapping[int, RequestRecord]) -> dict[int | None, int]:
    """Return the first request of each batch, in the order in which batches started."""
    first: dict[int | None, int] = {}
    for n in sorted(ran, key=lambda n: (ran[n].started or 0.0, n)):
        first.setdefault(ran[n].batch_id, n)
    return first


# -- both ---------------------------------------------------------------------------------


def _axes(height: float) -> Axes:
    ax: Axes = _subplots(1, 1, WIDTH, height)[1]
    return ax


def _subplots(rows: int, columns: int, width: float, height: float, **options: Any) -> Any:
    require("matplotlib.pyplot", "notebook")
    from .themed_figures import subplots

    return subplots(rows, columns, width, height, **options)


def _step(numbers: Sequence[int]) -> int:
    return math.ceil(len(numbers) / MOST_POINTS)


def _label_lost(report: Plottable, numbers: Iterable[int]) -> str:
    counts = Counter(report.records.outcome[n] for n in numbers)
    return ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())


def _finish(ax: Axes, report: Plottable, along: str, names_at: float = 1.0) -> Axes:
    """Add the title, legend, notes and policy changes, labelled at `names_at` of the height."""
    _mark_changes(ax, report.changes, names_at)
    policies = policies_in_words(report.policy, report.changes) if report.policy else ""
    about = f"{report.source}, {per_second(report.offered)} offered"
    ax.set_title(f"{textwrap.fill(policies, 85)}\n{about}".strip(), loc="left", fontsize="medium")
    ax.set_xlabel("\n".join([along, *_wrap_notes(report.notes)]))
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best", ncols=3, fontsize="small")
    return ax


def _mark_changes(ax: Axes, changes: Sequence[PolicyChange], names_at: float) -> None:
    """Draw a vertical line for each policy change within the plot, with the policy's name.

    The replacement of a policy that failed has the colour of failures.
    """
    low, high = ax.get_xlim()
    shown = [change for change in changes if low <= change.at <= high]
    for change in shown:
        colour = LOST if change.reason == "fault" else INK
        label = "" if change is not shown[0] else "policy changes"
        ax.axvline(change.at, color=colour, linestyle="-.", linewidth=1.2, label=label or None)
    for change in shown if len(shown) <= MOST_NAMED else ():
        ax.annotate(
            textwrap.shorten(change.policy, NAME, placeholder="…"),
            (change.at, names_at),
            xycoords=ax.get_xaxis_transform(),
            xytext=(2, -2),
            textcoords="offset points",
            rotation=90,
            va="top",
            size=7,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        )
    ax.set_xlim(low, high)


def _wrap_notes(notes: Iterable[str]) -> list[str]:
    """Return notes as lines to print below a plot."""
    return [line for note in notes for line in textwrap.wrap(f"Note: {note}", 110)]


# -- policies side by side ------------------------------------------------------------------

#: the panels of a comparison: the column, its label, and its scale
PANELS = (
    ("p50", "latency, median (ms)", 1e3),
    ("p99", "latency, p99 (ms)", 1e3),
    ("throughput", "answers (per second)", 1.0),
    ("goodput", "answers in time (per second)", 1.0),
    ("batch_size", "mean batch size", 1.0),
    ("padding", "padding (share of tokens)", 1.0),
)
MARKERS = "osD^vP"
DASHES = ("-", "--", "-.", ":")


def comparison(rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> Figure:
    """Draw the results of each policy at each load, as a line; measured results as crosses."""
    figure, axes = _subplots(3, 2, WIDTH, 9, sharex=True)
    for ax, (column, label, scale) in zip(axes.flat, PANELS, strict=True):
        _draw_panel(ax, rows, column, scale)
        ax.set_ylabel(label)
        if column in ("p50", "p99") and ax.lines:
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("offered load (requests per second)")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8)
    if notes:
        figure.supxlabel("\n".join(_wrap_notes(notes)), fontsize="medium")
    drawn: Figure = figure
    return drawn


def _draw_panel(ax: Axes, rows: Sequence[Mapping[str, Any]], column: str, scale: float) -> None:
    """Draw a line for each policy, and crosses of its colour for measured results."""
    for place, policy in enumerate(dict.fromkeys(row["policy"] for row in rows)):
        for source in ("simulated", "measured"):
            found = [row for row in rows if (row["policy"], row["source"]) == (policy, source)]
            if found:
                x, y = ([row[name] for row in found] for name in ("rate", column))
                label = policy if source == "simulated" else f"{policy}, measured"
                ax.plot(x, [value * scale for value in y], label=label, **_style(place, source))


def _style(place: int, source: str) -> dict[str, Any]:
    """Return the style of a policy's points: its colour, marker and dashes."""
    colour = PALETTE[place % len(PALETTE)]
    if source == "measured":
        crosses = {"marker": "x", "markersize": 9, "markeredgewidth": 2, "linestyle": "none"}
        return {"color": colour, **crosses}
    marker, dashes = MARKERS[place % len(MARKERS)], DASHES[place % len(DASHES)]
    return {"color": colour, "marker": marker, "markersize": 5, "linestyle": dashes}
