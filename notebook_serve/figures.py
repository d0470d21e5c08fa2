"""What a report looks like drawn: the latency of each request, and the time line of each."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from .display import per_second
from .extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .jobs import RequestRecord
    from .report import Report

#: colours that can be told apart with any kind of sight (M. Okabe and K. Ito, *Color Universal
#: Design*); one more of theirs is kept for what was not answered
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#CC79A7")
LOST = "#D55E00"
WAITS = "#C8C8C8"
WARMUP = "#EEEEEE"
#: more points than these take long to draw and show no more
MOST_POINTS = 5000
#: bars that touch, and a thin line between them
BARS: dict[str, Any] = {"height": 1.0, "edgecolor": "white", "linewidth": 0.5}
#: for more batches than these there is no room to say why each was released
MOST_REASONS = 40


# -- latency ------------------------------------------------------------------------------


def latencies(report: Report, ax: Axes | None = None) -> Axes:
    """Draw the latency of each request against its arrival, coloured by its batch's size."""
    ax = _axes(4.8) if ax is None else ax
    log = report.records
    answered = [n for n, outcome in enumerate(log.outcome) if outcome == "ok"]
    lost = [n for n, outcome in enumerate(log.outcome) if outcome != "ok"]
    longest = max((log.finished[n] - log.arrived[n] for n in answered), default=0.0)
    unit, scale = ("s", 1.0) if longest >= 1 else ("ms", 1e3)
    ax.set_ylim(0, 1.25 * longest * scale or 1)  # with room for the legend
    if report.start:
        ax.axvspan(0, report.start, color=WARMUP, zorder=0, label="warm-up")
    if answered:
        _points(ax, report, answered, scale)
    _levels(ax, report, longest, scale, unit)
    if lost:
        times = [log.arrived[n] for n in lost[:: _step(lost)]]
        label = _lost(report, lost)
        ax.plot(times, [0] * len(times), "x", color=LOST, clip_on=False, label=label)
    ax.margins(x=0.01)
    ax.set_xlabel("arrival (s since the start of the traffic)")
    ax.set_ylabel(f"latency ({unit})")
    return _finish(ax, report)


def _points(ax: Axes, report: Report, answered: Sequence[int], scale: float) -> None:
    log, step = report.records, _step(answered)
    shown = answered[::step]
    sizes = [log.batch_size[n] for n in shown]
    times = [log.arrived[n] for n in shown]
    heights = [(log.finished[n] - log.arrived[n]) * scale for n in shown]
    label = "answered" if step == 1 else f"answered (1 in {step} of {len(answered):,} shown)"
    if min(sizes) == max(sizes):
        label += f", batch size {sizes[0]}" if sizes[0] else ""
        ax.scatter(times, heights, s=9, color=PALETTE[0], label=label)
        return
    points = ax.scatter(times, heights, s=9, c=sizes, cmap="viridis_r", label=label)
    whole = require("matplotlib.ticker", "notebook").MaxNLocator(integer=True)
    ax.figure.colorbar(points, ax=ax, label="batch size", ticks=whole)


def _levels(ax: Axes, report: Report, longest: float, scale: float, unit: str) -> None:
    """Lines at the percentiles, and at the deadline where it is near."""
    latency, span = report.latency, [report.start, report.duration]
    levels = [("p50", latency.p50, "black", "-"), ("p99", latency.p99, "black", "--")]
    if report.deadline < 1.2 * longest:
        levels.append(("deadline", report.deadline, LOST, ":"))
    for name, seconds, colour, style in levels:
        if not math.isnan(seconds):
            label = f"{name} {seconds * scale:.3g} {unit}"
            ax.plot(span, [seconds * scale] * 2, color=colour, linestyle=style, label=label)


# -- time line ----------------------------------------------------------------------------


def timeline(report: Report, ax: Axes | None, limit: int, start: float) -> Axes:
    """Draw the first `limit` requests that arrived from `start` on, each as a bar."""
    log = report.records
    numbers = (n for n, arrived in enumerate(log.arrived) if arrived >= start)
    shown = {n: log[n] for n in islice(numbers, limit)}
    ax = _axes(2 + 0.08 * min(len(shown), 200)) if ax is None else ax
    if shown:
        left = [record.arrived for record in shown.values()]
        waits = [record.queue_time for record in shown.values()]
        ax.barh(list(shown), waits, left=left, color=WAITS, label="waits", **BARS)
    ran = {n: record for n, record in shown.items() if record.started is not None}
    if ran:
        _runs(ax, report, ran)
    lost = {n: record.finished for n, record in shown.items() if record.outcome != "ok"}
    if lost:
        ax.plot(list(lost.values()), list(lost), "x", color=LOST, label=_lost(report, lost))
    ax.margins(y=0.01)
    ax.invert_yaxis()
    ax.set_xlabel("time (s since the start of the traffic)")
    ax.set_ylabel("request, in the order of arrival")
    return _finish(ax, report)


def _runs(ax: Axes, report: Report, ran: Mapping[int, RequestRecord]) -> None:
    runs = [record.inference_time for record in ran.values()]
    left = [record.started or 0.0 for record in ran.values()]
    batches = _first_of_each_batch(ran)
    colours = dict(zip(batches, cycle(PALETTE), strict=False))
    shades = [colours[record.batch_id] for record in ran.values()]
    label = "runs" if None in batches else "runs, each batch in a colour"
    if len(batches) <= MOST_REASONS:
        told = [batch for batch in report.batches if batch.id in batches]
        label += ": its size, why released" if told else ""
        for batch in told:
            n = batches[batch.id]
            ax.text(ran[n].finished, n, f" {batch.size}, {batch.reason}", size=7, va="center")
    ax.barh(list(ran), runs, left=left, color=shades, label=label, **BARS)


def _first_of_each_batch(ran: Mapping[int, RequestRecord]) -> dict[int | None, int]:
    """The number of the first request of each batch, in the order in which batches started."""
    first: dict[int | None, int] = {}
    for n in sorted(ran, key=lambda n: (ran[n].started or 0.0, n)):
        first.setdefault(ran[n].batch_id, n)
    return first


# -- both ---------------------------------------------------------------------------------


def _axes(height: float) -> Axes:
    pyplot = require("matplotlib.pyplot", "notebook")
    ax: Axes = pyplot.subplots(figsize=(9, height), layout="constrained")[1]
    return ax


def _step(numbers: Sequence[int]) -> int:
    return math.ceil(len(numbers) / MOST_POINTS)


def _lost(report: Report, numbers: Iterable[int]) -> str:
    counts = Counter(report.records.outcome[n] for n in numbers)
    return ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())


def _finish(ax: Axes, report: Report) -> Axes:
    about = f"{report.source}, {per_second(report.offered)} offered"
    policy = textwrap.fill(report.policy, 90)
    ax.set_title(f"{policy}\n{about}".strip(), loc="left", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best", ncols=3, fontsize="small")
    return ax


# -- policies side by side ------------------------------------------------------------------

#: what a panel shows against the offered load: the column, its label, and its scale
PANELS = (
    ("p50", "latency, median (ms)", 1e3),
    ("p99", "latency, p99 (ms)", 1e3),
    ("throughput", "answers (per second)", 1.0),
    ("goodput", "answers in time (per second)", 1.0),
    ("batch_size", "mean batch size", 1.0),
    ("padding", "padding (share of the computed)", 1.0),
)
MARKERS = "osD^vP"


def comparison(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw what became of each policy at each load: a line each, measured ones as crosses."""
    pyplot = require("matplotlib.pyplot", "notebook")
    figure, axes = pyplot.subplots(3, 2, figsize=(10, 10), sharex=True, layout="constrained")
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    for ax, (column, label, scale) in zip(axes.flat, PANELS, strict=True):
        for place, policy in enumerate(policies):
            colour = PALETTE[place % len(PALETTE)]
            for source in ("simulated", "measured"):
                told = [row for row in rows if (row["policy"], row["source"]) == (policy, source)]
                if not told:
                    continue
                x = [row["rate"] for row in told]
                y = [row[column] * scale for row in told]
                if source == "simulated":
                    marker = MARKERS[place % len(MARKERS)]
                    ax.plot(x, y, color=colour, marker=marker, markersize=4, label=policy)
                else:
                    name = f"{policy}, measured"
                    ax.plot(x, y, "x", color=colour, markersize=9, markeredgewidth=2, label=name)
        ax.set_ylabel(label)
        if column in ("p50", "p99") and ax.lines:
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
    for ax in axes[-1]:
        ax.set_xlabel("offered load (requests per second)")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8)
    drawn: Figure = figure
    return drawn
