"""The table of a comparison: policies below each other, loads side by side, the best marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..display import Strong, Table, cell, duration, format_rough, percent
from ..simulation.report import Report

#: of more loads the table shows so many, evenly picked
MOST_LOADS = 10
#: a figure that is this near to the best, as a share, is as good
BETTER = 0.01
#: a latency is the best only where no more requests than this share above the least were lost
FEW = 0.01

#: an offered rate, and what became of it
Run = tuple[float, Report]


@dataclass(frozen=True, slots=True)
class Section:
    """A figure that all policies are compared by."""

    title: str
    value: Callable[[Report], float]
    show: Callable[[float], str]
    #: ``max`` where more is better, ``min`` where less is; None if neither
    best: Callable[[Iterable[float]], float] | None = None
    #: it says nothing of requests that were lost
    of_answers: bool = False


def _lost(report: Report) -> float:
    return report.shares["rejected"] + report.shares["expired"]


IN_TIME = "answers in time, per second"
SECTIONS = (
    Section(IN_TIME, lambda report: report.goodput, cell, max),
    Section("answers, per second", lambda report: report.throughput, cell, max),
    Section("latency, median", lambda report: report.latency.p50, duration, min, True),
    Section("latency, p99", lambda report: report.latency.p99, duration, min, True),
    Section("lost: rejected or expired", _lost, percent, min),
    Section("mean batch size", lambda report: report.mean_batch_size, cell),
    Section("padding", lambda report: report.padding, percent),
    Section("worker busy", lambda report: report.utilisation, percent),
)


#: what a sign in the table means
SIGNS = {
    "*": "best at that load, or within 1% of it",
    "≈": "known to one digit, because the cost model does not fit",
}


def pivot(runs: Sequence[Run], warnings: Iterable[str] = ()) -> Table:
    """A row for each policy under the name of each figure, a column for each load."""
    rates = sorted({rate for rate, _ in runs})
    shown = rates[:: math.ceil(len(rates) / MOST_LOADS)] if rates else []
    reports = {(rate, run.policy, run.source): run for rate, run in runs}
    names = list(dict.fromkeys((run.policy, run.source) for _, run in runs))
    rows: list[list[str]] = []
    for section in SECTIONS:
        if _says_something(section, [run for _, run in runs]):
            columns = [
                _column(section, [reports.get((rate, *name)) for name in names]) for rate in shown
            ]
            rows.append([Strong(section.title), *[""] * len(shown)])
            rows += map(list, zip(map(_indented, names), *columns, strict=True))
    text = "".join(map("".join, rows))
    faults = list(dict.fromkeys(run.fault for _, run in runs if run.fault))
    title = "; ".join([*(f"policy failed: {fault}" for fault in faults), f"{len(runs)} runs"])
    if len(shown) < len(rates):
        title += f", {len(shown)} of {len(rates)} loads shown"
    notes = [f"{sign} {meaning}" for sign, meaning in SIGNS.items() if sign in text]
    notes += [f"Note: {warning}" for warning in warnings if warning not in faults]
    heads = ["offered load, per second", *(f"{rate:.3g}" for rate in shown)]
    return Table(title, heads, rows, notes=notes)


def _says_something(section: Section, runs: Sequence[Report]) -> bool:
    """Return True unless a figure is not known, or the same by its nature, in all runs."""
    if section.title == IN_TIME:
        return any(run.goodput < run.throughput for run in runs)
    values = [section.value(run) for run in runs]
    return any(value for value in values if not math.isnan(value))


def _indented(name: tuple[str, str]) -> str:
    policy, source = name
    return f"  {policy}" if source == "simulated" else f"  {policy}, {source}"


def _column(section: Section, runs: Sequence[Report | None]) -> list[str]:
    """A figure of each policy at one load, with a star at the best of each source."""
    best = {
        place
        for source in ("simulated", "measured", "recorded")
        for place in _best(section, {n: r for n, r in enumerate(runs) if r and r.source == source})
    }
    return [
        "" if run is None else _shown(section, run, place in best) for place, run in enumerate(runs)
    ]


def _best(section: Section, runs: Mapping[int, Report]) -> set[int]:
    """The places of the best, unless all are as good, or it is not known."""
    if section.best is None or any(run.is_rough for run in runs.values()):
        return set()
    least = min(map(_lost, runs.values()), default=0.0)
    values = {
        place: section.value(run)
        for place, run in runs.items()
        if not (section.of_answers and _lost(run) > least + FEW)
    }
    known = [value for value in values.values() if not math.isnan(value)]
    if not known:
        return set()
    best = section.best(known)
    found = {n for n, value in values.items() if math.isclose(value, best, rel_tol=BETTER)}
    return found if len(found) < len(runs) else set()


def _shown(section: Section, run: Report, is_best: bool) -> str:
    value = section.value(run)
    text = format_rough(value, section.show) if run.is_rough else section.show(value)
    return Strong(f"{text}*") if is_best else text
