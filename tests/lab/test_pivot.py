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
    """Ten seconds in which requests took so long, and some were rejected."""
    fates: list[tuple[Outcome, float]] = [("ok", seconds) for seconds in latencies]
    fates += [("rejected", 0.0)] * lost
    records = [
        RequestRecord(n, n / 100, n / 100, n / 100 + seconds, outcome)
        for n, (outcome, seconds) in enumerate(fates)
    ]
    log = RequestLog.of(records)
    return Report(log, (), 10.0, policy, source=source, warmup=0.0, **options)


def cells(runs: Sequence[tuple[float, Report]], section: str) -> dict[str, list[str]]:
    """The cells under a heading, by the name of their row."""
    rows = pivot(runs).rows
    first = [row[0] for row in rows].index(section) + 1
    found = {}
    for name, *values in rows[first:]:
        if not name.startswith("  "):
            break
        found[name.strip()] = values
    return found


def test_policies_are_rows_and_loads_are_columns() -> None:
    """Whatever the order of the runs; a run that is missing is an empty cell."""
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
    """With those that are as good; none if all are, or nothing is known."""
    runs = [
        (5.0, run(name, [] if math.isnan(seconds) else [seconds]))
        for name, seconds in zip("ABC", latencies, strict=True)
    ]
    found = cells(runs, "latency, median") if any(s > 0 for s in latencies) else {}

    assert [cell.endswith("*") for (cell,) in found.values()] == marked[: len(found)]


def test_more_answers_are_better_and_fewer_lost() -> None:
    """Each figure has its own best."""
    runs = [(5.0, run("A", [0.1] * 9)), (5.0, run("B", [0.1] * 5, lost=5))]

    assert cells(runs, "answers, per second") == {"A": ["0.9*"], "B": ["0.5"]}
    assert cells(runs, "lost: rejected or expired") == {"A": ["0%*"], "B": ["50%"]}


def test_who_loses_requests_has_not_the_best_latency() -> None:
    """Those that were answered were few, and so they were fast."""
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


def test_measured_runs_are_compared_with_measured_ones() -> None:
    """What was simulated stands beside it, with a best of its own."""
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


def test_nothing_is_the_best_by_a_law_that_does_not_fit() -> None:
    """And nothing has two digits; the table says what the sign means."""
    runs = [(5.0, run(name, [s], error=0.5)) for name, s in (("A", 0.123), ("B", 0.234))]
    table = str(pivot(runs, ["Doubtful."]))

    assert cells(runs, "latency, p99") == {"A": ["≈100 ms"], "B": ["≈200 ms"]}
    assert "*" not in table
    assert table.splitlines()[-2:] == [
        "≈ known to one digit, because the cost model does not fit",
        "Note: Doubtful.",
    ]


def test_figures_that_say_nothing_are_left_out() -> None:
    """No padding, nothing lost, and all answers in time."""
    headings = [row[0] for row in pivot([(5.0, run("A"))]).rows if row[0][0] != " "]

    assert headings == ["answers, per second", "latency, median", "latency, p99"]


def test_answers_in_time_are_shown_where_some_were_late() -> None:
    """Beside all answers."""
    runs = [(5.0, run("A", [0.1, 0.1, 0.9], deadline=0.5)), (5.0, run("B", deadline=0.5))]

    assert cells(runs, "answers in time, per second") == {"A": ["0.2*"], "B": ["0.1"]}
    assert cells(runs, "answers, per second") == {"A": ["0.3*"], "B": ["0.1"]}


def test_of_many_loads_some_are_shown() -> None:
    """Evenly picked, and the title says so."""
    table = pivot([(float(n), run("A")) for n in range(1, 3 * MOST_LOADS + 1)])

    assert table.columns[1:] == [str(n) for n in range(1, 3 * MOST_LOADS + 1, 3)]
    assert table.title == f"{3 * MOST_LOADS} runs, {MOST_LOADS} of {3 * MOST_LOADS} loads shown"


def test_the_best_is_bold_in_html_and_says_the_same() -> None:
    """Numbers stand on the right, under headings that have none."""
    runs = [(5.0, run("A", [0.1])), (5.0, run("<b>", [0.2]))]
    markup = pivot(runs, ["a < b"]).markup()

    assert '<td align="right"><b>100.0 ms*</b></td>' in markup
    assert "<td><b>latency, p99</b></td>" in markup
    assert '<td colspan="2">Note: a &lt; b</td>' in markup
    assert "  &lt;b&gt;" in markup


def test_the_table_of_nothing_has_its_head() -> None:
    """A comparison that was made by hand, without runs."""
    assert str(pivot([])) == "0 runs\noffered load, per second"
