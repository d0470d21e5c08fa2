"""Table of a comparison: a row for each policy, a column for each load, the best marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..display import Strong, Table, cell, duration, format_rough, percent
from ..simulation.report import Report

#: most loads in the table; of more, evenly spaced ones are shown
MOST_LOADS = 10
#: relative difference to the best figure within which another one counts as best too
TOLERANCE = 0.01
#: a latency counts as best only if its policy lost at most this share more than the fewest lost
LOSS_TOLERANCE = 0.01

#: offered rate and its report
Run = tuple[float, Report]


@dataclass(frozen=True, slots=True)
class Section:
    """A figure by which all policies are compared."""

    title: str
    value: Callable[[Report], float]
    show: Callable[[float], str]
    #: ``max`` if more is better, ``min`` if less is better; None if neither is
    best: Callable[[Iterable[float]], float] | None = None
    #: True for a figure that ignores lost requests
    of_answers: bool = False


def _lost_share(report: Report) -> float:
    return report.shares["rejected"] + report.shares["expired"]


IN_TIME = "answers in time, per second"
SECTIONS = (
    Section(IN_TIME, lambda report: report.goodput, cell, max),
    Section("answers, per second", lambda report: report.throughput, cell, max),
    Section("latency, median", lambda report: report.latency.p50, duration, min, True),
    Section("latency, p99", lambda report: report.latency.p99, duration, min, True),
    Section("lost: rejected or expired", _lost_share, percent, min),
    Section("mean batch size", lambda report: report.mean_batch_size, cell),
    Section("padding", lambda report: report.padding, percent),
    Section("worker busy", lambda report: report.utilisation, percent),
)


#: signs in the table and their meanings
SIGNS = {
    "*": "best at that load, or within 1% of it",
    "≈": "known to one digit, because the cost model does not fit",
}


def pivot(runs: Sequence[Run], warnings: Iterable[str] = ()) -> Table:
    """Return a table with a section for each figure, a row for each policy and load columns.

    `warnings` are notes below it.
    """
    rates = sorted({rate for rate, _ in runs})
    shown = rates[:: math.ceil(len(rates) / MOST_LOADS)] if rates else []
    reports = {(rate, run.policy, run.source): run for rate, run in runs}
    names = list(dict.fromkeys((run.policy, run.source) for _, run in runs))
    rows: list[list[str]] = []
    for section in SECTIONS:
        if _is_informative(section, [run for _, run in runs]):
            columns = [
                _make_column(section, [reports.get((rate, *name)) for name in names])
                for rate in shown
            ]
            rows.append([Strong(section.title), *[""] * len(shown)])
            rows += map(list, zip(map(_format_name, names), *columns, strict=True))
    text = "".join(map("".join, rows))
    faults = list(dict.fromkeys(run.fault for _, run in runs if run.fault))
    title = "; ".join([*(f"policy failed: {fault}" for fault in faults), f"{len(runs)} runs"])
    if len(shown) < len(rates):
        title += f", {len(shown)} of {len(rates)} loads shown"
    notes = [f"{sign} {meaning}" for sign, meaning in SIGNS.items() if sign in text]
    notes += [f"Note: {warning}" for warning in warnings if warning not in faults]
    heads = ["offered load, per second", *(f"{rate:.3g}" for rate in shown)]
    return Table(title, heads, rows, notes=notes)


def _is_informative(section: Section, runs: Sequence[Report]) -> bool:
    """Return False for a figure that is unknown, zero, or equal to another one in all runs."""
    if section.title == IN_TIME:
        return any(run.goodput < run.throughput for run in runs)
    values = [section.value(run) for run in runs]
    return any(value for value in values if not math.isnan(value))


def _format_name(name: tuple[str, str]) -> str:
    policy, source = name
    return f"  {policy}" if source == "simulated" else f"  {policy}, {source}"


def _make_column(section: Section, runs: Sequence[Report | None]) -> list[str]:
    """Return a figure of each policy at one load, with a star at the best ones of each source."""
    best = {
        place
        for source in ("simulated", "measured", "recorded")
        for place in _find_best(
            section, {n: r for n, r in enumerate(runs) if r and r.source == source}
        )
    }
    return [
        "" if run is None else _format(section, run, place in best)
        for place, run in enumerate(runs)
    ]


def _find_best(section: Section, runs: Mapping[int, Report]) -> set[int]:
    """Return the places of the best runs; none if all are equally good or it is unknown."""
    if section.best is None or any(run.is_rough for run in runs.values()):
        return set()
    least = min(map(_lost_share, runs.values()), default=0.0)
    values = {
        place: section.value(run)
        for place, run in runs.items()
        if not (section.of_answers and _lost_share(run) > least + LOSS_TOLERANCE)
    }
    known = [value for value in values.values() if not math.isnan(value)]
    if not known:
        return set()
    best = section.best(known)
    found = {n for n, value in values.items() if math.isclose(value, best, rel_tol=TOLERANCE)}
    return found if len(found) < len(runs) else set()


def _format(section: Section, run: Report, is_best: bool) -> str:
    value = section.value(run)
    text = format_rough(value, section.show) if run.is_rough else section.show(value)
    return Strong(f"{text}*") if is_best else text
