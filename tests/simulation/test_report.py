from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast, overload

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from notebook_serve.display import per_second, roughly
from notebook_serve.errors import OptionError
from notebook_serve.queueing.cost_model import MOST_ERROR
from notebook_serve.queueing.record_log import RequestLog
from notebook_serve.queueing.stats import Distribution
from notebook_serve.records import OUTCOMES, BatchRecord, Outcome, PolicyChange, RequestRecord
from notebook_serve.simulation.plots import LOST, MOST_POINTS, MOST_REASONS, PALETTE
from notebook_serve.simulation.report import NEEDED, SECTIONS, STUDENT, Report

mpl.use("Agg")


@pytest.fixture(autouse=True)
def no_figure_left() -> Iterator[None]:
    """Close the figures of a test."""
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


def request(
    number: int,
    arrived: float,
    started: float | None,
    finished: float,
    outcome: Outcome = "ok",
    batch: int | None = None,
    size: int = 0,
) -> RequestRecord:
    """Return a request with only the attributes that matter here."""
    return RequestRecord(number, arrived, started, finished, outcome, batch, size)


#: ten seconds of traffic, the first two of them warm-up: batches of 1, 2, 1 and 2 requests
REQUESTS = [
    request(0, 0.0, 0.0, 1.0, "ok", 0, 1),
    request(1, 1.5, 2.0, 3.0, "ok", 1, 2),
    request(2, 2.0, 2.0, 3.0, "ok", 1, 2),
    request(3, 4.0, None, 4.0, "rejected"),
    request(4, 5.0, 6.0, 9.0, "ok", 2, 1),
    request(5, 7.0, None, 8.0, "expired"),
    request(6, 8.5, 9.0, 12.0, "ok", 3, 2),
    request(7, 9.0, 9.0, 12.0, "failed", 3, 2),
]
BATCHES = [
    BatchRecord(0, "idle", (4,), 0.0, 1.0),
    BatchRecord(1, "full", (4, 8), 2.0, 1.0),
    BatchRecord(2, "idle", (10,), 6.0, 3.0),
    BatchRecord(3, "full", (2, 6), 9.0, 3.0),
]


def run(**changes: Any) -> Report:
    """Return the run above as a report."""
    report = Report(RequestLog.of(REQUESTS), BATCHES, 10.0, "Greedy(2)", deadline=1.5, warmup=0.2)
    return replace(report, **changes)


def empty(duration: float = 10.0) -> Report:
    """Return an empty report."""
    return Report(RequestLog(), (), duration)


# -- figures after the warm-up ------------------------------------------------------------


def test_times_are_of_answers_that_arrived_after_the_warm_up() -> None:
    """Requests 2, 4 and 6: not those before the warm-up, nor those that were not answered."""
    report = run()

    assert (report.latency.p50, report.queue_time.p50, report.inference_time.p50) == (3.5, 0.5, 3.0)
    assert report.latency.mean == pytest.approx(8.5 / 3)
    assert report.queue_time.mean == pytest.approx(1.5 / 3)
    assert report.inference_time.mean == pytest.approx(7 / 3)


def test_rates_are_of_what_happened_between_warm_up_and_end() -> None:
    """Request 1 arrived before but was answered within; request 6 was answered after the end."""
    report = run()

    assert (report.start, report.span) == (2.0, 8.0)
    assert report.offered == 6 / 8
    assert report.throughput == 3 / 8
    assert report.goodput == 2 / 8


@pytest.mark.parametrize(
    ("deadline", "good"), [(0.9, 0), (1.0, 1), (1.5, 2), (3.9, 2), (4.0, 3), (math.inf, 3)]
)
def test_an_answer_at_its_deadline_is_good(deadline: float, good: int) -> None:
    """The latencies of the answers are 1.5, 1 and 4 seconds."""
    assert run(deadline=deadline).goodput == good / 8


def test_outcomes_count_all_and_shares_those_after_the_warm_up() -> None:
    """All eight requests, and the six that arrived after the warm-up."""
    report = run()
    none = dict.fromkeys(OUTCOMES, 0)

    assert report.outcomes == {**none, "ok": 5, "rejected": 1, "expired": 1, "failed": 1}
    assert list(report.outcomes) == list(OUTCOMES)
    assert report.shares == {
        **none,
        "ok": 3 / 6,
        "rejected": 1 / 6,
        "expired": 1 / 6,
        "failed": 1 / 6,
    }


def test_batches_count_if_they_started_between_warm_up_and_end() -> None:
    """Batches 1 to 3: five requests; 30 tokens of 16 + 10 + 12 that were computed."""
    report = run(batches=[*BATCHES, BatchRecord(4, "drain", (1, 99), 12.0, 1.0)])

    assert report.mean_batch_size == pytest.approx(5 / 3)
    assert report.padding == pytest.approx(1 - 30 / 38)


def test_utilisation_is_clipped_to_the_span() -> None:
    """Of batch 3 one second is within the run: 1 + 3 + 1 of 8, or of two workers' 16."""
    early = BatchRecord(9, "full", (1,), 1.5, 1.0)  # half a second of it in the warm-up

    assert run().utilisation == 5 / 8
    assert run(replicas=2).utilisation == 5 / 16
    assert run(batches=[BATCHES[0], early]).utilisation == 0.5 / 8


def test_mean_waiting_is_the_time_average_of_the_queue() -> None:
    """Request 4 waits a second, as does 5, which never runs; 6 half a second; 1 in the warm-up."""
    assert run().mean_waiting == 2.5 / 8


def test_without_warm_up_everything_counts() -> None:
    """The warm-up may be 0."""
    report = run(warmup=0.0)

    assert report.offered == 8 / 10
    assert report.throughput == 4 / 10
    assert report.mean_batch_size == 6 / 4
    assert report.mean_waiting == 3 / 10
    assert report.latency.mean == pytest.approx((1 + 1.5 + 1 + 4 + 3.5) / 5)
    assert report.queue_time.mean == pytest.approx((0 + 0.5 + 0 + 1 + 0.5) / 5)
    assert report.inference_time.mean == pytest.approx((1 + 1 + 1 + 3 + 3) / 5)


def test_evenly_spaced_arrivals_have_their_rate() -> None:
    """The end does not count, or the last of them would make one too many."""
    at = [n / 4 for n in range(41)]
    report = Report(RequestLog.of(request(n, t, t, t) for n, t in enumerate(at)), (), 10.0)

    assert report.offered == report.throughput == 4.0


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.booleans()), max_size=30),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.25, 0.5]),
)
def test_mean_waiting_is_what_counting_at_each_moment_gives(
    waits: list[tuple[int, int, bool]], quarters: int, warmup: float
) -> None:
    """The area under the number waiting, looked at in the middle of each interval of time."""
    duration = 4 * quarters
    records = [
        request(n, float(at), float(at + wait) if runs else None, float(at + wait), "cancelled")
        for n, (at, wait, runs) in enumerate(sorted(waits))
    ]
    report = Report(RequestLog.of(records), (), float(duration), warmup=warmup)
    moments = [n + 0.5 for n in range(int(warmup * duration), duration)]
    counted = sum(at < moment < at + wait for moment in moments for at, wait, _ in waits)

    assert report.mean_waiting == pytest.approx(counted / len(moments))


def test_littles_law_holds() -> None:
    """L = λW: where all of the traffic is seen, those waiting are arrivals times their wait."""
    seed = random.randrange(10**6)
    print("seed", seed)  # noqa: T201
    draw = random.Random(seed)
    at, free, records = 0.0, 0.0, []
    for n in range(500):
        at += draw.expovariate(10.0)
        started = max(at, free)
        free = started + draw.expovariate(12.0)
        records.append(request(n, at, started, free))
    report = Report(RequestLog.of(records), (), free + 1, warmup=0.0)

    assert report.mean_waiting == pytest.approx(report.offered * report.queue_time.mean)


# -- what is not known --------------------------------------------------------------------


def test_an_empty_report_says_nothing_and_never_raises() -> None:
    """Nothing was offered: rates are zero, and what would be a mean of nothing is no number."""
    report = empty()
    unknown = (report.mean_batch_size, report.padding, report.utilisation, report.latency.p50)

    assert (report.offered, report.throughput, report.goodput) == (0.0, 0.0, 0.0)
    assert all(map(math.isnan, unknown))
    assert all(map(math.isnan, report.shares.values()))
    assert report.mean_waiting == 0
    assert "nan" not in repr(report)
    assert "nan" not in report._repr_html_()
    assert len(report.to_frame()) == 0


def test_a_report_of_no_time_has_no_rates() -> None:
    """All requests at one moment: their times are known, and nothing per second is."""
    report = run(duration=0.0)
    rates = (report.offered, report.throughput, report.goodput, report.utilisation)

    assert all(map(math.isnan, (*rates, report.mean_waiting)))
    assert report.latency.mean == pytest.approx((1 + 1.5 + 1 + 4 + 3.5) / 5)
    assert all(math.isnan(end) for pair in report.intervals().values() for end in pair)
    assert "nan" not in repr(report)


def test_without_batches_their_size_is_that_of_the_answers() -> None:
    """Four requests in batches of 2 and one alone make three batches, as seen over HTTP."""
    report = run(batches=())

    assert report.mean_batch_size == pytest.approx(5 / 3)
    assert math.isnan(report.padding)
    assert math.isnan(report.utilisation)


def test_answers_without_a_start_have_no_queue_time() -> None:
    """A server that does not say how long a request waited: nothing is made up."""
    known, unknown = request(0, 1.0, 2.0, 4.0), request(1, 1.0, None, 9.0)
    report = Report(RequestLog.of([known, unknown]), (), 5.0)
    frame = report.to_frame()

    assert (report.queue_time.mean, report.inference_time.mean) == (1.0, 2.0)
    assert report.latency.mean == 5.5
    assert math.isnan(report.mean_waiting)
    assert list(frame["queue_time"].isna()) == list(frame["inference_time"].isna()) == [False, True]


# -- what a report is made of -------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"duration": -1.0},
        {"duration": math.nan},
        {"duration": math.inf},
        {"warmup": 1.0},
        {"warmup": -0.1},
        {"replicas": 0},
    ],
)
def test_wrong_options_are_rejected(wrong: dict[str, Any]) -> None:
    """In the line that made the report, not when its figures are asked for."""
    with pytest.raises(OptionError, match=next(iter(wrong))):
        run(**wrong)


def test_any_iterable_of_records_will_do() -> None:
    """Records become columns, and batches from an iterator can be looked at twice."""
    report = Report(cast(Any, iter(REQUESTS)), cast(Any, iter(BATCHES)), 10.0)

    assert isinstance(report.records, RequestLog)
    assert list(report.records) == REQUESTS
    assert list(report.batches) == list(report.batches) == BATCHES


def test_a_sequence_that_makes_batches_on_demand_is_kept() -> None:
    """A simulator need not hold a million batches as objects."""

    class Lazy(Sequence[BatchRecord]):
        def __len__(self) -> int:
            return len(BATCHES)

        @overload
        def __getitem__(self, index: int) -> BatchRecord: ...
        @overload
        def __getitem__(self, index: slice) -> list[BatchRecord]: ...
        def __getitem__(self, index: int | slice) -> BatchRecord | list[BatchRecord]:
            return BATCHES[index]

    lazy = Lazy()
    report = run(batches=lazy)

    assert report.batches is lazy
    assert report.utilisation == 5 / 8


# -- how sure -----------------------------------------------------------------------------


def steady(latencies: Sequence[float], each: int) -> Report:
    """In each of ten sections of a second, `each` answers of one latency."""
    times = [
        (k + n / (2 * each), latency) for k, latency in enumerate(latencies) for n in range(each)
    ]
    records = [request(n, at, at, at + latency) for n, (at, latency) in enumerate(times)]
    return Report(RequestLog.of(records), (), 10.0, warmup=0.0)


def test_an_interval_comes_from_how_much_stretches_differ() -> None:
    """Half 0.1 and half 0.3 seconds: they differ by 0.1 from the mean, divided by 3 for ten."""
    sure = steady([0.1, 0.3] * 5, each=20).intervals()
    mean, p95 = 2.262 * 0.1 / 3, 2.262 * math.sqrt(0.2**2 / 2) / 3

    assert list(sure["latency_mean"]) == pytest.approx([0.2 - mean, 0.2 + mean])
    assert list(sure["latency_p95"]) == pytest.approx([0.3 - p95, 0.3 + p95])
    assert sure["throughput"] == (20.0, 20.0)
    assert list(sure) == ["throughput", *(f"latency_{name}" for name in NEEDED)]


@pytest.mark.parametrize(
    ("each", "known"), [(9, ()), (10, ("mean", "p50")), (20, ("mean", "p50", "p95")), (100, NEEDED)]
)
def test_too_few_answers_have_no_interval(each: int, known: Iterable[str]) -> None:
    """Ten in every section, and for a percentile some that lie beyond it."""
    sure = steady([0.1] * 10, each).intervals()

    assert {name for name in NEEDED if not math.isnan(sure[f"latency_{name}"][1])} == set(known)
    assert math.isnan(sure["throughput"][0]) == (each < 10)


def test_one_stretch_with_too_few_answers_is_enough_to_know_nothing() -> None:
    """A run that stood still for a tenth of its time has no interval."""
    report = steady([0.1] * 10, each=20)
    cut = [record for record in report.records if not 3 <= record.arrived < 3.3]
    sure = replace(report, records=RequestLog.of(cut)).intervals()

    assert math.isnan(sure["throughput"][0])
    assert math.isnan(sure["latency_mean"][1])


def test_no_time_is_below_zero() -> None:
    """An interval wider than its figure begins at 0."""
    low, high = steady([0.0] * 9 + [0.4], each=10).intervals()["latency_p50"]

    assert low == 0 < high


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of many runs of independent requests, 95% have the true mean and the true rate inside."""
    seed = random.randrange(10**6)
    print("seed", seed)  # noqa: T201
    draw = random.Random(seed)
    inside = {"latency_mean": 0, "throughput": 0}
    for _ in range(400):
        at = [draw.random() * 10 for _ in range(round(draw.gauss(400, 20)))]
        records = [request(n, t, t, t + draw.expovariate(100.0)) for n, t in enumerate(sorted(at))]
        sure = Report(RequestLog.of(records), (), 10.0).intervals()
        for name, truth in (("latency_mean", 0.01), ("throughput", 40.0)):
            inside[name] += sure[name][0] <= truth <= sure[name][1]

    assert 0.90 < inside["latency_mean"] / 400 < 0.99
    assert 0.90 < inside["throughput"] / 400 < 0.99


def test_the_table_of_student_is_right() -> None:
    """Against the distribution itself: for odd degrees of freedom a finite sum, here for 9."""
    for level, t in STUDENT.items():
        angle = math.atan(t / math.sqrt(SECTIONS - 1))
        powers = (1, 2 / 3, 8 / 15, 16 / 35)
        total = sum(w * math.cos(angle) ** (2 * k + 1) for k, w in enumerate(powers))
        inside = 2 / math.pi * (angle + math.sin(angle) * total)

        assert inside == pytest.approx(level, abs=1e-4)


def test_an_unknown_level_is_rejected() -> None:
    """Figures with enough answers have intervals; a higher level has a wider one."""
    report = steady([0.1, 0.3] * 5, each=10)
    ends = [report.intervals(level)["latency_mean"][1] for level in STUDENT]

    assert ends == sorted(set(ends))
    with pytest.raises(OptionError, match=r"0\.8, 0\.9, 0\.95, 0\.98, 0\.99, got 0\.5"):
        report.intervals(0.5)


# -- text ---------------------------------------------------------------------------------


def test_the_summary_has_the_figures() -> None:
    """Each figure has a line, in readable units; a run this short has no intervals."""
    late = Distribution(0.001, 0.002, 0.003, 0.004, 0.001)
    report = run(replicas=2, lateness=late, notes=("It was late.", "It was slow."))
    lines = [line.split("  ", 1) for line in repr(report).splitlines()]

    assert [(name, value.strip()) for name, value in lines] == [
        ("policy", "Greedy(2)"),
        ("source", "measured, 2 replicas"),
        ("duration", "10.00 s, warm-up 2.00 s"),
        ("requests", "ok 5, rejected 1, failed 1, expired 1"),
        ("after warm-up", "ok 50.0%, rejected 16.7%, failed 16.7%, expired 16.7%"),
        ("offered", "0.75/s"),
        ("throughput", "0.375/s ±?"),
        ("goodput", "0.25/s within 1.50 s"),
        ("latency", "mean 2.83 s ±?, p50 3.50 s ±?, p95 3.95 s ±?, p99 3.99 s ±?"),
        ("queue_time", "p50 500.0 ms, p95 950.0 ms, p99 990.0 ms"),
        ("inference_time", "p50 3.00 s, p95 3.00 s, p99 3.00 s"),
        ("mean waiting", "0.312"),
        ("mean batch size", "1.67"),
        ("padding", "21.1%"),
        ("worker busy", "31.2%"),
        ("generator delay", "p50 1.0 ms, p95 3.0 ms, p99 4.0 ms"),
        ("±", "half of the 95% confidence interval, if above 5%; ? if there are too few answers"),
        ("note", "It was late."),
        ("note", "It was slow."),
    ]
    assert str(report.summary()) == repr(report)


def test_what_is_sure_is_shown_without_an_interval() -> None:
    """A half-width of 38% is shown, and one below 5% is not; then no line explains it."""
    unsure, sure = repr(steady([0.1, 0.3] * 5, each=100)), repr(steady([0.1] * 10, each=100))

    assert "mean 200.0 ms ±38%" in unsure
    assert "throughput       100/s\n" in unsure
    assert "±" not in sure
    assert "100/s without a deadline" in sure


def test_the_html_form_has_the_same_escaped() -> None:
    """The HTML is a table of the figures, and notes are escaped."""
    html = run(notes=("a <b>bold</b> note",))._repr_html_()

    assert "<td>throughput</td><td>0.375/s ±?</td>" in html
    assert "a &lt;b&gt;bold&lt;/b&gt; note" in html


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.0, "0/s"), (0.254, "0.254/s"), (16.66, "16.7/s"), (1250.4, "1250/s"), (math.nan, "–")],
)
def test_a_rate_in_words(rate: float, expected: str) -> None:
    """Numbers have three digits, or their integer part."""
    assert per_second(rate) == expected


# -- several policies, and bad fits ---------------------------------------------------------

CHANGES = (PolicyChange(4.0, "NoBatching()"), PolicyChange(8.5, "Greedy(8)", "fault"))


def test_a_run_under_several_policies_names_each() -> None:
    """The policy's row has the changes with their times, in text and in HTML."""
    report = run(changes=CHANGES)
    expected = (
        "Greedy(2) until 4.00 s, then NoBatching() until 8.50 s, "
        "then Greedy(8) (the previous policy failed)"
    )

    assert repr(report).splitlines()[0] == f"policy           {expected}"
    assert f"<td>{expected}</td>" in report._repr_html_()


def test_each_request_has_the_policy_that_served_it() -> None:
    """The policy is the one in effect when the request left the queue."""
    frame = run(changes=CHANGES).to_frame()

    assert list(frame["policy"]) == [
        *["Greedy(2)"] * 3,
        *["NoBatching()"] * 3,
        *["Greedy(8)"] * 2,
    ]
    assert set(run().to_frame()["policy"]) == {"Greedy(2)"}
    assert len(replace(empty(), changes=CHANGES).to_frame()) == 0


def test_a_file_from_before_has_one_policy() -> None:
    """A report that was saved without changes and error can still be read."""
    values = json.loads(run().to_json())
    del values["changes"], values["error"]
    report = Report.from_json(json.dumps(values))

    assert report.changes == ()
    assert not report.is_rough
    assert repr(report) == repr(run())


def test_figures_of_a_bad_fit_have_one_digit() -> None:
    """The offered load is exact; figures that depend on the fit have one digit and no interval."""
    rough, sharp = run(error=MOST_ERROR * 1.01), run(error=MOST_ERROR)
    lines = dict(line.split("  ", 1) for line in repr(rough).splitlines())
    values = {name: value.strip() for name, value in lines.items()}

    assert values["offered"] == "0.75/s"
    assert values["throughput"] == "≈0.4/s"
    assert values["goodput"] == "≈0.2/s within 1.50 s"
    assert values["latency"] == "mean ≈3 s, p50 ≈4 s, p95 ≈4 s, p99 ≈4 s"
    assert values["queue_time"] == "p50 ≈500 ms, p95 ≈900 ms, p99 ≈1 s"
    assert values["padding"] == "≈20%"
    assert values["≈"] == "known to one digit, because the cost model does not fit"
    assert "±" not in repr(rough)
    assert repr(sharp) == repr(run())


def test_a_rough_report_stays_one_in_a_file(tmp_path: Path) -> None:
    """Error and notes are saved."""
    report = run(error=0.69, notes=("The cost model does not fit.",))
    report.save(tmp_path / "run.json")
    back = Report.load(tmp_path / "run.json")

    assert back.is_rough
    assert repr(back) == repr(report)
    assert "The cost model does not fit." in back._repr_html_()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0/s"), (37.2, "≈40/s"), (0.96, "≈1/s"), (9.6, "≈10/s"), (1234.0, "≈1000/s")],
)
def test_one_digit_of_a_number(value: float, expected: str) -> None:
    """Known figures have one digit and the sign; unknown figures have neither."""
    assert roughly(value, per_second) == expected
    assert roughly(math.nan, per_second) == "–"


# -- for other tools ----------------------------------------------------------------------


def test_the_frame_has_a_row_for_each_request() -> None:
    """A frame has all columns and the three durations; unknown values are missing."""
    frame = run().to_frame()

    assert list(frame.columns) == [
        *RequestLog.columns(),
        "queue_time",
        "inference_time",
        "latency",
        "policy",
    ]
    for name in ("queue_time", "inference_time", "latency"):
        assert list(frame[name]) == [getattr(record, name) for record in REQUESTS]
    assert list(frame["batch_id"].isna()) == [record.batch_id is None for record in REQUESTS]
    assert frame.groupby("outcome")["latency"].mean()["expired"] == 1.0


def test_the_frame_of_nothing_has_the_types_of_any() -> None:
    """An empty frame can be summed too."""
    none, some = empty().to_frame(), run().to_frame()
    numbers = ["arrived", "started", "finished", "batch_id", "queue_time", "latency"]

    assert list(none.columns) == list(some.columns)
    assert list(none.dtypes[numbers]) == list(some.dtypes[numbers])


finite = st.floats(allow_nan=False, allow_infinity=False)
anything = st.floats()
requests = st.builds(
    RequestRecord,
    st.integers(),
    finite,
    st.none() | finite,
    anything,
    st.sampled_from(OUTCOMES),
    st.none() | st.integers(),
    st.integers(0, 100),
    st.integers(0),
    st.text(max_size=3),
    st.text(max_size=3),
)
batches = st.builds(
    BatchRecord,
    st.integers(),
    st.text(max_size=5),
    st.lists(st.integers(0), max_size=3).map(tuple),
    finite,
    finite,
    st.integers(0),
    st.integers(0),
)
reports = st.builds(
    Report,
    st.lists(requests, max_size=4),
    st.lists(batches, max_size=4),
    st.floats(0, 1e9),
    st.text(max_size=5),
    st.sampled_from(["simulated", "measured", "recorded"]),
    anything,
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 9),
    st.none() | st.builds(Distribution, *[anything] * 5),
    st.lists(st.text(max_size=5), max_size=2).map(tuple),
    st.lists(
        st.builds(PolicyChange, finite, st.text(max_size=5), st.sampled_from(["set", "fault"])),
        max_size=3,
    ).map(tuple),
    anything,
)


@given(reports)
def test_json_gives_the_same_report_back(report: Report) -> None:
    """Every field is exact, including not-a-number and infinity."""
    text = report.to_json()
    back = Report.from_json(text)

    json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    assert list(map(repr, back.records)) == list(map(repr, report.records))
    assert list(back.batches) == list(report.batches)
    for name in [item.name for item in fields(Report)][2:]:
        assert repr(getattr(back, name)) == repr(getattr(report, name))


def test_json_is_by_columns_and_plain() -> None:
    """Other tools can read it: null for not-a-number, "inf" for infinity."""
    values = json.loads(run(deadline=math.inf, lateness=Distribution(p50=0.5)).to_json())

    assert values["format"] == 1
    assert values["records"]["arrived"] == [record.arrived for record in REQUESTS]
    assert values["batches"]["lengths"] == [[4], [4, 8], [10], [2, 6]]
    assert values["deadline"] == "inf"
    assert values["lateness"] == {"p50": 0.5, "p90": None, "p95": None, "p99": None, "mean": None}


def test_a_file_holds_a_report(tmp_path: Path) -> None:
    """A saved report has the same figures, whatever its texts."""
    report = run(notes=("half a pair \ud800, and – dashes",))
    report.save(tmp_path / "run.json")
    back = Report.load(str(tmp_path / "run.json"))

    assert repr(back) == repr(report)
    assert back.notes == report.notes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1",
        "null",
        "{}",
        '{"format": 1}',
        '{"format": 2}',
        run().to_json().replace('"padding"', "").replace('"lengths"', '"sizes"'),
        run().to_json().replace('"duration": 10.0', '"duration": -1'),
        run().to_json().replace('"policy"', '"politics"'),
    ],
)
def test_text_that_is_not_a_report_is_rejected(text: str) -> None:
    """Any other text raises a typed error."""
    with pytest.raises(OptionError, match="report"):
        Report.from_json(text)


# -- plots --------------------------------------------------------------------------------


def drawn(ax: Axes) -> Axes:
    """Return `ax` after its figure was drawn."""
    cast(Any, ax.figure).canvas.draw()
    return ax


def labels(ax: Axes) -> list[str]:
    """Return the texts of the legend."""
    legend = ax.get_legend()
    return [text.get_text() for text in legend.get_texts()] if legend else []


def points(ax: Axes) -> list[tuple[float, float]]:
    """Return the points of the first scatter."""
    return [(x, y) for x, y in cast(Any, ax.collections[0].get_offsets())]


def test_the_plot_has_a_point_for_each_answer() -> None:
    """Each point is an arrival and a latency, coloured by batch size, including the warm-up."""
    ax = drawn(run().plot())
    answered = [record for record in REQUESTS if record.outcome == "ok"]

    assert points(ax) == [(record.arrived, record.latency) for record in answered]
    assert list(cast(Any, ax.collections[0].get_array())) == [1, 2, 2, 1, 2]
    assert [other.get_ylabel() for other in ax.figure.axes] == [
        "latency (s)",
        "batch size (requests)",
    ]
    assert "(s since the start" in ax.get_xlabel()


def test_the_plot_has_lines_and_marks_what_was_not_answered() -> None:
    """Lines are percentiles after the warm-up, and a near deadline; crosses are on the axis."""
    ax = drawn(run().plot())
    lines = {str(line.get_label()): line for line in ax.lines}
    cross = lines["1 rejected, 1 expired, 1 failed"]

    assert labels(ax) == ["warm-up", "answered", *lines]
    assert list(lines)[:3] == ["p50 3.5 s", "p99 3.99 s", "deadline 1.5 s"]
    assert list(cast(Any, lines["p50 3.5 s"].get_data())[0]) == [2.0, 10.0]
    assert list(cast(Any, lines["p50 3.5 s"].get_data())[1]) == [3.5, 3.5]
    assert list(cast(Any, cross.get_data())[0]) == [4.0, 7.0, 9.0]
    assert cross.get_color() == LOST
    assert ax.get_title(loc="left") == "Greedy(2)\nmeasured, 0.75/s offered"


def test_a_deadline_far_above_the_answers_is_not_drawn() -> None:
    """The axis fits the longest latency, 4 seconds."""
    assert "deadline 4.5 s" in labels(run(deadline=4.5).plot())
    assert not any("deadline" in label for label in labels(run(deadline=30.0).plot()))


def test_the_plot_of_one_batch_size_needs_no_scale_of_colours() -> None:
    """Equal sizes are in the legend; latencies below a second are in milliseconds."""
    ax = drawn(steady([0.1] * 10, each=2).plot())

    assert len(ax.figure.axes) == 1
    assert ax.get_ylabel() == "latency (ms)"
    assert "p50 100 ms" in labels(ax)
    assert [y for _, y in points(ax)] == pytest.approx([100.0] * 20)


def test_the_plot_of_many_shows_some_and_says_so() -> None:
    """Many points are sampled evenly; the lines cover all requests."""
    count = 3 * MOST_POINTS + 1
    records = [request(n, n / 100, n / 100, n / 100 + 0.5 + n % 2) for n in range(count)]
    lost = [request(n, n / 100, None, n / 100, "rejected") for n in range(count, 2 * count)]
    report = Report(RequestLog.of([*records, *lost]), (), 2 * count / 100, warmup=0.0)
    ax = drawn(report.plot())

    assert MOST_POINTS / 2 < len(points(ax)) <= MOST_POINTS
    assert len(cast(Any, ax.lines[-1].get_xdata())) <= MOST_POINTS
    assert labels(ax) == [
        f"answered (1 in 4 of {count:,} shown)",
        "p50 0.5 s",
        "p99 1.5 s",
        f"{count:,} rejected",
    ]


def bars(ax: Axes, label: str) -> dict[int, tuple[float, float, str]]:
    """Return start, width and colour of the bars with this label, by row."""
    [found] = [box for box in ax.containers if str(box.get_label()).startswith(label)]
    return {
        round(bar.get_y() + bar.get_height() / 2): (
            bar.get_x(),
            bar.get_width(),
            to_hex(bar.get_facecolor()),
        )
        for bar in cast(Any, found)
    }


def test_the_timeline_has_a_bar_for_each_wait_and_each_run() -> None:
    """Requests after the warm-up have rows from the top, at their times."""
    ax = drawn(run().timeline())
    waits, runs = bars(ax, "waits"), bars(ax, "runs")

    assert {n: bar[:2] for n, bar in waits.items()} == {
        n: (REQUESTS[n].arrived, REQUESTS[n].queue_time) for n in range(2, 8)
    }
    assert {n: bar[:2] for n, bar in runs.items()} == {
        n: (REQUESTS[n].started, REQUESTS[n].inference_time) for n in (2, 4, 6, 7)
    }
    assert ax.yaxis_inverted()
    assert "(s since the start" in ax.get_xlabel()


def test_the_timeline_colours_batches() -> None:
    """Each batch has a colour, and a label with its size and reason."""
    ax = drawn(run().timeline())
    colours = {n: colour for n, (_, _, colour) in bars(ax, "runs").items()}

    assert colours == {n: PALETTE[k].lower() for n, k in ((2, 0), (4, 1), (6, 2), (7, 2))}
    assert [text.get_text().strip() for text in ax.texts] == ["2, full", "1, idle", "2, full"]
    assert set(labels(ax)) == {
        "waits",
        "runs, one colour per batch: size, reason of release",
        "1 rejected, 1 expired, 1 failed",
    }


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"limit": 2}, [2, 3]),
        ({"start": 0.0, "limit": 3}, [0, 1, 2]),
        ({"start": 7.0}, [5, 6, 7]),
        ({"start": 0.1}, list(range(1, 8))),
    ],
)
def test_the_timeline_can_begin_and_end_elsewhere(options: dict[str, Any], rows: list[int]) -> None:
    """Another start, or fewer requests."""
    assert list(bars(drawn(run().timeline(**options)), "waits")) == rows


def test_the_timeline_of_unknown_batches_has_one_colour() -> None:
    """A load test over HTTP does not know the batches."""
    records = [replace(record, batch_id=None) for record in REQUESTS]
    ax = drawn(run(records=RequestLog.of(records), batches=()).timeline())

    assert {colour for _, _, colour in bars(ax, "runs").values()} == {PALETTE[0].lower()}
    assert "runs" in labels(ax)
    assert not ax.texts


def test_the_timeline_of_many_batches_has_no_words() -> None:
    """Many labels would overlap, so they are left out."""
    many = range(MOST_REASONS + 1)
    records = [request(n, n, n, n + 1.0, "ok", n, 1) for n in many]
    ran = [BatchRecord(n, "idle", (1,), n, 1.0) for n in many]
    ax = drawn(Report(RequestLog.of(records), ran, 100.0, warmup=0.0).timeline())

    assert not ax.texts
    assert "runs, one colour per batch" in labels(ax)


@pytest.mark.parametrize("report", [empty(), empty(0.0), run(duration=0.0)])
def test_a_report_of_nothing_can_be_drawn(report: Report) -> None:
    """An empty report has axes with labels, and no warning."""
    assert drawn(report.plot()).get_ylabel().startswith("latency")
    assert drawn(report.timeline()).get_xlabel().startswith("time")


@pytest.mark.parametrize("method", ["plot", "timeline"])
def test_a_figure_is_drawn_where_it_is_asked_for(method: str) -> None:
    """The plot uses given axes, also of a figure outside pyplot."""
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    ax = Figure().subplots()

    assert getattr(run(), method)(ax) is ax
    assert ax.get_title(loc="left").startswith("Greedy(2)")
    assert not plt.get_fignums()


# -- what is installed --------------------------------------------------------------------


def test_a_report_needs_nothing_that_is_optional() -> None:
    """Importing a report loads neither matplotlib, pandas nor numpy."""
    code = "import sys, notebook_serve.simulation.report; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert not set(done.stdout.split()) & {"matplotlib", "pandas", "numpy"}


ABSENT = """
import sys
from notebook_serve.simulation.report import Report

class Absent:
    def find_spec(self, name, *_):
        if name in ("matplotlib", "pandas"):
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Absent())
report = Report((), (), 1.0)
for method in (report.plot, report.timeline, report.to_frame):
    try:
        method()
    except ImportError as error:
        print(error)
"""


def test_what_is_missing_is_named() -> None:
    """The error says which extra to install."""
    done = subprocess.run(
        [sys.executable, "-c", ABSENT], capture_output=True, text=True, check=True, timeout=60
    )
    command = "is not installed: pip install 'notebook-serve[notebook]'"

    assert done.stdout.splitlines() == [
        f"matplotlib {command}",
        f"matplotlib {command}",
        f"pandas {command}",
    ]
