"""Table of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from notebook_serve.lab.pivot import MOST_LOADS, pivot
from notebook_serve.queueing.record_log import RequestLog
from notebook_serve.records import Outcome, RequestRecord
from notebook_serve.simulation.report import Report


def run(
    policy: str,
    latencies: Sequence[float] = (0.1,),
    lost: int = 0,
    source: str = "simulated",
    **options: Any,
) -> Report:
    """Return a report of ten seconds with these latencies and a number of rejections."""
    fates: list[tuple[Outcome, float]] = [("ok", seconds) for seconds in latencies]
    fates += [("rejected", 0.0)] * lost
    records = [
        RequestRecord(n, n / 100, n / 100, n / 100 + seconds, outcome)
        for n, (outcome, seconds) in enumerate(fates)
    ]
    log = RequestLog.of(records)
    return Report(log, (), 10.0, policy, source=source, warmup=0.0, **options)


def cells(runs: Sequence[tuple[float, Report]], section: str) -> dict[str, list[str]]:
    """Return the cells of a section by the name of their row."""
    rows = pivot(runs).rows
    first = [row[0] for row in rows].index(section) + 1
    found = {}
    for name, *values in rows[first:]:
        if not name.startswith("  "):
            break
        found[name.strip()] = values
    return found


def test_policies_are_rows_and_loads_are_columns() -> None:
    """The order of the runs does not matter; a missing run is an empty cell."""
    runs = [(20.0, run("B", [0.2])), (5.0, run("B", [0.3])), (5.0, run("A", [0.4]))]
    table = pivot(runs)

    assert table.columns == ["offered load, per second", "5", "20"]
    assert cells(runs, "latency, median") == {
        "B": ["300.0 ms*", "200.0 ms"],
        "A": ["400.0 ms", ""],
    }


@pytest.mark.parametrize(
    ("latencies", "marked"),
    [
        ([0.1, 0.2, 0.3], [True, False, False]),
        ([0.3, 0.1, 0.1004], [False, True, True]),
        ([0.1, 0.1, 0.1], [False, False, False]),
        ([0.1, 0.1005, 0.1], [False, False, False]),
        ([0.1, math.nan, 0.2], [True, False, False]),
        ([math.nan] * 3, [False] * 3),
    ],
)
def test_the_best_of_a_load_has_a_star(latencies: list[float], marked: list[bool]) -> None:
    """So have equally good ones; none has if all are equal or unknown."""
    runs = [
        (5.0, run(name, [] if math.isnan(seconds) else [seconds]))
        for name, seconds in zip("ABC", latencies, strict=True)
    ]
    found = cells(runs, "latency, median") if any(s > 0 for s in latencies) else {}

    assert [cell.endswith("*") for (cell,) in found.values()] == marked[: len(found)]


def test_more_answers_are_better_and_fewer_lost() -> None:
    """The best is the maximum or the minimum, by figure."""
    runs = [(5.0, run("A", [0.1] * 9)), (5.0, run("B", [0.1] * 5, lost=5))]

    assert cells(runs, "answers, per second") == {"A": ["0.9*"], "B": ["0.5"]}
    assert cells(runs, "lost: rejected or expired") == {"A": ["0%*"], "B": ["50%"]}


def test_a_policy_that_loses_requests_has_no_best_latency() -> None:
    """It is fast only because it answered few requests."""
    runs = [
        (5.0, run("sheds", [0.01] * 5, lost=5)),
        (5.0, run("keeps", [0.1] * 10)),
        (5.0, run("slow", [0.2] * 10)),
    ]

    assert cells(runs, "latency, p99") == {
        "sheds": ["10.0 ms"],
        "keeps": ["100.0 ms*"],
        "slow": ["200.0 ms"],
    }


def test_measured_and_simulated_runs_have_a_best_each() -> None:
    """They are not compared with each other."""
    runs = [
        (5.0, run(name, [seconds], source=source))
        for name, source, seconds in [
            ("A", "measured", 0.3),
            ("A", "simulated", 0.1),
            ("B", "measured", 0.4),
            ("B", "simulated", 0.2),
        ]
    ]

    assert cells(runs, "latency, p99") == {
        "A, measured": ["300.0 ms*"],
        "A": ["100.0 ms*"],
        "B, measured": ["400.0 ms"],
        "B": ["200.0 ms"],
    }


def test_there_is_no_best_without_a_fitting_cost_model() -> None:
    """Figures have one digit; a note explains the sign."""
    runs = [(5.0, run(name, [s], error=0.5)) for name, s in (("A", 0.123), ("B", 0.234))]
    table = str(pivot(runs, ["Doubtful."]))

    assert cells(runs, "latency, p99") == {"A": ["≈100 ms"], "B": ["≈200 ms"]}
    assert "*" not in table
    assert table.splitlines()[-2:] == [
        "≈ known to one digit, because the cost model does not fit",
        "Note: Doubtful.",
    ]


def test_uninformative_figures_are_left_out() -> None:
    """Here there is no padding, no loss and no late answer."""
    headings = [row[0] for row in pivot([(5.0, run("A"))]).rows if row[0][0] != " "]

    assert headings == ["answers, per second", "latency, median", "latency, p99"]


def test_answers_in_time_are_shown_if_some_were_late() -> None:
    """They are beside the rate of all answers."""
    runs = [(5.0, run("A", [0.1, 0.1, 0.9], deadline=0.5)), (5.0, run("B", deadline=0.5))]

    assert cells(runs, "answers in time, per second") == {"A": ["0.2*"], "B": ["0.1"]}
    assert cells(runs, "answers, per second") == {"A": ["0.3*"], "B": ["0.1"]}


def test_many_loads_are_thinned_out() -> None:
    """Evenly spaced ones are shown, and the title says how many."""
    table = pivot([(float(n), run("A")) for n in range(1, 3 * MOST_LOADS + 1)])

    assert table.columns[1:] == [str(n) for n in range(1, 3 * MOST_LOADS + 1, 3)]
    assert table.title == f"{3 * MOST_LOADS} runs, {MOST_LOADS} of {3 * MOST_LOADS} loads shown"


def test_html_of_the_table() -> None:
    """The best is bold, numbers are right-aligned, and texts are escaped."""
    runs = [(5.0, run("A", [0.1])), (5.0, run("<b>", [0.2]))]
    markup = pivot(runs, ["a < b"]).markup()

    assert '<td align="right"><b>100.0 ms*</b></td>' in markup
    assert "<td><b>latency, p99</b></td>" in markup
    assert '<td colspan="2">Note: a &lt; b</td>' in markup
    assert "  &lt;b&gt;" in markup


def test_a_table_without_runs() -> None:
    """It has its head."""
    assert str(pivot([])) == "0 runs\noffered load, per second"
